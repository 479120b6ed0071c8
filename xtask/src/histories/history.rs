//! What was seen to happen: the transactions of one history.

use std::fmt;

/// A number that is written once in a history, so that whoever reads it tells from whom.
pub type Element = u32;

/// The transactions of some threads over a few lists and a group of registers. The last one has read
/// everything, after all others.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub transactions: Vec<Transaction>,
}

/// A transaction, or anything else that reads or writes in one step.
#[derive(Clone, Debug)]
pub struct Transaction {
    pub thread: usize,
    /// What it was, for a person to read.
    pub kind: &'static str,
    /// When it began and ended, by a clock that all threads share.
    pub span: (u64, u64),
    /// Between these it took effect: the commit of one that wrote, the beginning of one that only
    /// read, or that was undone.
    pub effect: (u64, u64),
    pub steps: Vec<Step>,
    pub outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// An absent key reads as an empty list.
    Read {
        key: u8,
        list: Vec<Element>,
    },
    Append {
        key: u8,
        element: Element,
    },
    /// Registers that are always written together, as far as they were read.
    ReadGroup(Vec<Option<Element>>),
    WriteGroup(Element),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    Conflicted,
    /// On purpose.
    Dropped,
    /// With an error that nobody expects.
    Failed(String),
}

impl History {
    /// Whether two threads had a transaction open at the same time.
    pub fn is_concurrent(&self) -> bool {
        self.transactions.iter().enumerate().any(|(number, one)| {
            self.transactions[..number].iter().any(|other| {
                let overlap = one.span.0 < other.span.1 && other.span.0 < one.span.1;
                overlap && one.thread != other.thread
            })
        })
    }

    pub fn conflict_count(&self) -> usize {
        let conflicted = |one: &&Transaction| one.outcome == Outcome::Conflicted;
        self.transactions.iter().filter(conflicted).count()
    }
}

impl Step {
    pub fn is_write(&self) -> bool {
        matches!(self, Self::Append { .. } | Self::WriteGroup(_))
    }
}

/// One transaction a line, as they ended.
impl fmt::Display for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut all: Vec<(usize, &Transaction)> = self.transactions.iter().enumerate().collect();
        all.sort_by_key(|(_, transaction)| transaction.span.1);
        all.iter().try_for_each(|(number, one)| writeln!(formatter, "  #{number} {one}"))
    }
}

impl fmt::Display for Transaction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { thread, kind, span, effect, outcome, .. } = self;
        write!(formatter, "thread {thread} {kind} {}-{}", span.0, span.1)?;
        write!(formatter, " (effect {}-{}) {outcome}:", effect.0, effect.1)?;
        self.steps.iter().try_for_each(|step| write!(formatter, " {step}"))
    }
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { key, list } => write!(formatter, "k{key}={list:?}"),
            Self::Append { key, element } => write!(formatter, "k{key}+{element}"),
            Self::WriteGroup(element) => write!(formatter, "group:={element}"),
            Self::ReadGroup(values) => {
                formatter.write_str("group=[")?;
                for (number, value) in values.iter().enumerate() {
                    let space = if number > 0 { " " } else { "" };
                    match value {
                        Some(element) => write!(formatter, "{space}{element}")?,
                        None => write!(formatter, "{space}-")?,
                    }
                }
                formatter.write_str("]")
            }
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Committed => formatter.write_str("committed"),
            Self::Conflicted => formatter.write_str("conflicted"),
            Self::Dropped => formatter.write_str("dropped"),
            Self::Failed(error) => write!(formatter, "FAILED ({error})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(thread: usize, span: (u64, u64), outcome: Outcome) -> Transaction {
        let steps = vec![
            Step::Read { key: 2, list: vec![1] },
            Step::Append { key: 2, element: 4 },
            Step::ReadGroup(vec![None, Some(3)]),
        ];
        Transaction { thread, kind: "update", span, effect: span, steps, outcome }
    }

    #[test]
    fn a_history_is_printed_in_the_order_in_which_it_ended() {
        let failed = Outcome::Failed("full".to_owned());
        let transactions = vec![update(0, (5, 17), failed), update(1, (6, 9), Outcome::Committed)];
        let expected = "  #1 thread 1 update 6-9 (effect 6-9) committed: k2=[1] k2+4 group=[- 3]\n  \
                        #0 thread 0 update 5-17 (effect 5-17) FAILED (full): k2=[1] k2+4 group=[- 3]\n";
        assert_eq!(History { transactions }.to_string(), expected);
    }

    #[test]
    fn only_threads_that_had_transactions_open_at_once_are_side_by_side() {
        let of = |transactions: &[Transaction]| {
            History { transactions: transactions.to_vec() }.is_concurrent()
        };
        let conflicted = |thread, span| update(thread, span, Outcome::Conflicted);
        assert!(of(&[conflicted(0, (1, 5)), conflicted(1, (2, 3))]));
        assert!(!of(&[conflicted(0, (1, 2)), conflicted(1, (3, 4))]));
        assert!(!of(&[conflicted(0, (1, 5)), conflicted(0, (2, 3))]));
    }
}
