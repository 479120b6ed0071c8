//! Who depends on whom, and whether in a circle (Adya, "Weak Consistency", MIT 1999).

use std::collections::VecDeque;
use std::fmt;

/// How one transaction comes before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The other has overwritten what it wrote.
    Ww,
    /// The other has read what it wrote.
    Wr,
    /// The other has overwritten what it read.
    Rw,
    /// It was done before the other began.
    RealTime,
}

/// What a circle is called, by the edges that it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cycle {
    /// Only writes.
    G0,
    /// Writes and reads of them.
    G1c,
    /// One read of what was overwritten: read skew, lost update.
    GSingle,
    /// Several: write skew, phantoms.
    G2,
}

#[derive(Clone, Debug)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub kind: Kind,
    /// The list that it is about; `None` for the group, and for time.
    pub key: Option<u8>,
}

#[derive(Debug)]
pub struct Graph {
    edges: Vec<Edge>,
    /// Numbers of the edges that leave each transaction.
    leaving: Vec<Vec<usize>>,
}

/// A circle of edges.
#[derive(Debug)]
pub struct Found<'a> {
    pub cycle: Cycle,
    /// Whether it is one only with the order in time.
    pub needs_time: bool,
    pub edges: Vec<&'a Edge>,
}

/// What each kind of circle has: one edge of the first kind, and any of the others.
const CYCLES: [(Cycle, Kind, &[Kind]); 4] = [
    (Cycle::G0, Kind::Ww, &[Kind::Ww]),
    (Cycle::G1c, Kind::Wr, &[Kind::Ww, Kind::Wr]),
    (Cycle::GSingle, Kind::Rw, &[Kind::Ww, Kind::Wr]),
    (Cycle::G2, Kind::Rw, &[Kind::Ww, Kind::Wr, Kind::Rw]),
];

impl Graph {
    pub fn new(transaction_count: usize) -> Self {
        Self { edges: Vec::new(), leaving: vec![Vec::new(); transaction_count] }
    }

    /// Nothing comes before itself.
    pub fn add(&mut self, from: usize, to: usize, kind: Kind, key: Option<u8>) {
        if from != to {
            self.leaving[from].push(self.edges.len());
            self.edges.push(Edge { from, to, kind, key });
        }
    }

    /// The worst circle, and of those one of the shortest; the order in time counts where there is
    /// none without.
    pub fn cycle(&self) -> Option<Found<'_>> {
        if self.is_acyclic() {
            return None;
        }
        [false, true].into_iter().find_map(|needs_time| {
            CYCLES.iter().find_map(|(cycle, first, others)| {
                let may_follow =
                    |kind| others.contains(&kind) || (needs_time && kind == Kind::RealTime);
                let closed = self.edges.iter().filter(|edge| edge.kind == *first);
                let circles = closed.filter_map(|edge| {
                    let mut circle = vec![edge];
                    circle.extend(self.path(edge.to, edge.from, may_follow)?);
                    Some(circle)
                });
                let edges = circles.min_by_key(Vec::len)?;
                Some(Found { cycle: *cycle, needs_time, edges })
            })
        })
    }

    /// Takes away what nothing comes before, until nothing is left (Kahn, 1962).
    fn is_acyclic(&self) -> bool {
        let mut arriving = vec![0; self.leaving.len()];
        self.edges.iter().for_each(|edge| arriving[edge.to] += 1);
        let mut free: Vec<usize> = (0..arriving.len()).filter(|one| arriving[*one] == 0).collect();
        let mut taken = 0;
        while let Some(one) = free.pop() {
            taken += 1;
            for edge in &self.leaving[one] {
                let to = self.edges[*edge].to;
                arriving[to] -= 1;
                if arriving[to] == 0 {
                    free.push(to);
                }
            }
        }
        taken == self.leaving.len()
    }

    /// One of the shortest ways along edges that `may_follow`.
    fn path(
        &self,
        from: usize,
        to: usize,
        may_follow: impl Fn(Kind) -> bool,
    ) -> Option<Vec<&Edge>> {
        let mut reached_by: Vec<Option<&Edge>> = vec![None; self.leaving.len()];
        let mut next = VecDeque::from([from]);
        while let Some(one) = next.pop_front() {
            if one == to {
                let mut path = Vec::new();
                let mut place = to;
                while place != from {
                    let edge = reached_by[place]?;
                    path.push(edge);
                    place = edge.from;
                }
                path.reverse();
                return Some(path);
            }
            for number in &self.leaving[one] {
                let edge = &self.edges[*number];
                let is_new = edge.to != from && reached_by[edge.to].is_none();
                if is_new && may_follow(edge.kind) {
                    reached_by[edge.to] = Some(edge);
                    next.push_back(edge.to);
                }
            }
        }
        None
    }
}

impl fmt::Display for Found<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for edge in &self.edges {
            write!(formatter, "#{} {} ", edge.from, edge.kind)?;
            match edge.key {
                Some(key) => write!(formatter, "k{key} ")?,
                None if edge.kind != Kind::RealTime => write!(formatter, "group ")?,
                None => {}
            }
            formatter.write_str("-> ")?;
        }
        write!(formatter, "#{}", self.edges.first().map_or(0, |edge| edge.from))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Ww => "ww",
            Self::Wr => "wr",
            Self::Rw => "rw",
            Self::RealTime => "ended before",
        })
    }
}
