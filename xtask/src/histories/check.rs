//! Whether a history could have been seen if its transactions had run one after another, each at some
//! moment within its effect: strict serializability, in the manner of Elle (Kingsbury and Alvaro, VLDB
//! 2020).
//!
//! Lists that are only appended to show the order of their writes to whoever reads them. What a
//! transaction has read that was undone is checked, too: it has seen the store as it was when it began.

mod external;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use super::graph::{Cycle, Graph, Kind};
use super::history::{Element, History, Outcome, Step, Transaction};
use external::External;

/// What is wrong with a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    pub name: Name,
    /// Which transactions, and what they have seen.
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// An operation has failed with an error that nobody expects.
    Failed,
    /// A transaction does not see its own writes, or sees a key change.
    Internal,
    /// A number that nobody has written.
    Garbage,
    /// A read of what was undone.
    G1a,
    /// A read of what was not a transaction's last write to a key.
    G1b,
    /// Registers that are always written together have different values.
    Fractured,
    /// A list has a number twice.
    Duplicate,
    /// A list that does not start as another one does.
    Incompatible,
    /// A committed append is not in the last list.
    Lost,
    /// A circle, and whether it is one only with the order in time.
    Cycle(Cycle, bool),
}

/// What `history` shows; empty where it is serializable. Each check needs what those before it have
/// found to be so.
pub fn check(history: &History) -> Vec<Anomaly> {
    let mut checker = Checker::new(history);
    for check in [Checker::check_reads, Checker::check_order] {
        if checker.anomalies.is_empty() {
            check(&mut checker);
        }
    }
    checker.anomalies
}

struct Checker<'a> {
    transactions: &'a [Transaction],
    writers: HashMap<Element, Writer>,
    /// What each transaction has read of others.
    external: Vec<External>,
    /// The longest list of each key that anybody has read.
    last: BTreeMap<u8, Vec<Element>>,
    anomalies: Vec<Anomaly>,
}

#[derive(Clone, Copy)]
struct Writer {
    transaction: usize,
    /// The list; `None` for the group.
    key: Option<u8>,
    /// Whether the transaction wrote there again.
    is_last: bool,
}

impl<'a> Checker<'a> {
    fn new(history: &'a History) -> Self {
        let mut checker = Self {
            transactions: &history.transactions,
            writers: HashMap::new(),
            external: Vec::new(),
            last: BTreeMap::new(),
            anomalies: Vec::new(),
        };
        for (number, transaction) in history.transactions.iter().enumerate() {
            if let Outcome::Failed(error) = &transaction.outcome {
                checker.note(Name::Failed, format!("#{number}: {error}"));
            }
            checker.note_writes(number, transaction);
            let external = External::of(transaction).unwrap_or_else(|(name, detail)| {
                checker.note(name, format!("#{number}: {detail}"));
                External::default()
            });
            for (key, list) in &external.lists {
                let last = checker.last.entry(*key).or_default();
                if list.len() > last.len() {
                    last.clone_from(list);
                }
            }
            checker.external.push(external);
        }
        checker
    }

    fn note(&mut self, name: Name, detail: String) {
        self.anomalies.push(Anomaly { name, detail });
    }

    fn note_writes(&mut self, number: usize, transaction: &Transaction) {
        let mut written: Vec<Option<u8>> = Vec::new();
        for step in transaction.steps.iter().rev() {
            let (key, element) = match step {
                Step::Append { key, element } => (Some(*key), *element),
                Step::WriteGroup(element) => (None, *element),
                Step::Read { .. } | Step::ReadGroup(_) => continue,
            };
            let is_last = !written.contains(&key);
            written.push(key);
            self.writers.insert(element, Writer { transaction: number, key, is_last });
        }
    }

    fn is_committed(&self, number: usize) -> bool {
        self.transactions[number].outcome == Outcome::Committed
    }

    fn check_reads(&mut self) {
        for number in 0..self.external.len() {
            let External { lists, group } = self.external[number].clone();
            for (key, list) in &lists {
                list.iter().for_each(|element| self.check_element(number, Some(*key), *element));
                if let Some(newest) = list.last() {
                    self.check_is_last(number, *newest);
                }
                let last = self.last.get(key).cloned().unwrap_or_default();
                if !last.starts_with(list) {
                    let detail = format!("#{number} read k{key} as {list:?}, which is {last:?}");
                    self.note(Name::Incompatible, detail);
                }
            }
            if let Some(Some(element)) = group {
                self.check_element(number, None, element);
                self.check_is_last(number, element);
            }
        }
        self.check_last_lists();
    }

    fn check_element(&mut self, reader: usize, key: Option<u8>, element: Element) {
        match self.writers.get(&element).copied() {
            Some(writer) if writer.key == key => {
                if !self.is_committed(writer.transaction) {
                    let detail = format!("#{reader} read {element} of #{}", writer.transaction);
                    self.note(Name::G1a, detail);
                }
            }
            _ => self.note(Name::Garbage, format!("#{reader} read {element}")),
        }
    }

    fn check_is_last(&mut self, reader: usize, element: Element) {
        if let Some(writer) = self.writers.get(&element).filter(|writer| !writer.is_last) {
            let detail = format!("#{reader} read {element} of #{}", writer.transaction);
            self.note(Name::G1b, detail);
        }
    }

    fn check_last_lists(&mut self) {
        for (key, list) in self.last.clone() {
            let mut sorted = list.clone();
            sorted.sort_unstable();
            if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
                self.note(Name::Duplicate, format!("k{key} is {list:?}"));
            }
        }
        let mut lost: Vec<Element> = Vec::new();
        for (element, Writer { transaction, key, .. }) in &self.writers {
            let Some(key) = key else { continue };
            let is_there = self.last.get(key).is_some_and(|list| list.contains(element));
            if self.is_committed(*transaction) && !is_there {
                lost.push(*element);
            }
        }
        lost.sort_unstable();
        for element in lost {
            let writer = self.writers[&element].transaction;
            self.note(Name::Lost, format!("{element}, which #{writer} appended"));
        }
    }

    fn check_order(&mut self) {
        let mut graph = Graph::new(self.transactions.len());
        self.add_lists(&mut graph);
        self.add_group(&mut graph);
        self.add_time(&mut graph);
        if let Some(found) = graph.cycle() {
            let name = Name::Cycle(found.cycle, found.needs_time);
            self.note(name, found.to_string());
        }
    }

    fn writer(&self, element: Element) -> usize {
        self.writers[&element].transaction
    }

    fn add_lists(&self, graph: &mut Graph) {
        for (key, list) in &self.last {
            for pair in list.windows(2) {
                graph.add(self.writer(pair[0]), self.writer(pair[1]), Kind::Ww, Some(*key));
            }
        }
        for (reader, external) in self.external.iter().enumerate() {
            for (key, list) in &external.lists {
                if let Some(newest) = list.last() {
                    graph.add(self.writer(*newest), reader, Kind::Wr, Some(*key));
                }
                if let Some(next) = self.last[key].get(list.len()) {
                    graph.add(reader, self.writer(*next), Kind::Rw, Some(*key));
                }
            }
        }
    }

    /// The order of blind writes shows where one was done before another began, and where a
    /// transaction has read the group before it wrote it.
    fn add_group(&self, graph: &mut Graph) {
        let is_of_group = |(_, writer): &(&Element, &Writer)| {
            writer.key.is_none() && writer.is_last && self.is_committed(writer.transaction)
        };
        let writes = self.writers.iter().filter(is_of_group);
        let writes: Vec<(Element, usize)> =
            writes.map(|(element, writer)| (*element, writer.transaction)).collect();
        for (reader, external) in self.external.iter().enumerate() {
            let Some(read) = external.group else { continue };
            let writer = read.map(|element| self.writer(element));
            if let Some(writer) = writer {
                graph.add(writer, reader, Kind::Wr, None);
                if writes.iter().any(|(_, other)| *other == reader) {
                    graph.add(writer, reader, Kind::Ww, None);
                }
            }
            for (element, other) in &writes {
                let is_later = writer.is_none_or(|writer| {
                    let has_read = self.external[*other].group == Some(read);
                    Some(*element) != read && (has_read || self.is_before(writer, *other))
                });
                if is_later {
                    graph.add(reader, *other, Kind::Rw, None);
                }
            }
        }
    }

    fn add_time(&self, graph: &mut Graph) {
        for one in 0..self.transactions.len() {
            for other in 0..self.transactions.len() {
                if self.is_before(one, other) {
                    graph.add(one, other, Kind::RealTime, None);
                }
            }
        }
    }

    fn is_before(&self, one: usize, other: usize) -> bool {
        self.transactions[one].effect.1 < self.transactions[other].effect.0
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.name, self.detail)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Failed => "failed operation",
            Self::Internal => "internal inconsistency",
            Self::Garbage => "garbage read",
            Self::G1a => "G1a, aborted read",
            Self::G1b => "G1b, intermediate read",
            Self::Fractured => "fractured read",
            Self::Duplicate => "duplicate append",
            Self::Incompatible => "incompatible order",
            Self::Lost => "lost append",
            Self::Cycle(Cycle::G0, _) => "G0, write cycle",
            Self::Cycle(Cycle::G1c, _) => "G1c, circular information flow",
            Self::Cycle(Cycle::GSingle, _) => "G-single, read skew",
            Self::Cycle(Cycle::G2, _) => "G2, anti-dependency cycle",
        };
        formatter.write_str(name)?;
        let needs_time = matches!(self, Self::Cycle(_, true));
        formatter.write_str(if needs_time { ", by the order in time" } else { "" })
    }
}
