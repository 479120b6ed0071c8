//! What the threads of a history are to do, chosen by seed. What comes of it depends on how the
//! system schedules them.

use std::ops::RangeInclusive;

use fastrand::Rng;
use zkv::Durability;

const DURABILITIES: [Durability; 3] =
    [Durability::Buffered, Durability::Flushed, Durability::Synced];

/// The number of the first register; lists count from 0.
pub const REGISTERS: u8 = 100;

/// What one history is to be.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The store's own; commits may ask for another one.
    pub durability: Durability,
    pub list_count: u8,
    pub register_count: u8,
    /// Bits of lists and registers that are in a named collection.
    named: u32,
    /// What each value carries besides its list: a few long ones fill a buffer, and very long ones
    /// go past it.
    pub padding_bytes: usize,
    /// Whether the threads wait for each other before each action.
    pub in_step: bool,
    pub threads: Vec<Vec<Action>>,
}

/// What a thread does in one go.
#[derive(Clone, Debug)]
pub enum Action {
    /// `None`: it is dropped.
    Transaction(Vec<Wish>, Option<Durability>),
    Snapshot(Vec<Wish>),
    Update(u8),
    /// A read by itself.
    Read(Wish),
    Batch(Durability),
    Flush,
    Sync,
    RebuildIndex,
}

/// A step of a transaction, or a read of a snapshot.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    Append(u8),
    Read(u8),
    /// All keys of the default collection, or of the named one.
    Scan {
        is_named: bool,
    },
    /// As many, asked for by their names at once.
    ReadMany {
        is_named: bool,
    },
    ReadGroup,
    WriteGroup,
    /// Lets others run.
    Yield,
}

/// What the threads of a history are after.
#[derive(Clone, Copy)]
enum Style {
    /// Everything that there is.
    Any,
    /// Two keys, of which each transaction reads one and writes the other, with commits that go
    /// straight to the log beside buffered ones.
    Skew,
    /// Long batches, which whoever looks or begins may meet half-way.
    Batches,
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        match random.u8(..20) {
            0..12 => Self::any(&mut random),
            12..16 => Self::skew(&mut random),
            _ => Self::batches(&mut random),
        }
    }

    fn any(random: &mut Rng) -> Self {
        let mut plan = Self {
            durability: DURABILITIES[random.usize(..3)],
            list_count: random.u8(3..=6),
            register_count: [2, 3, 5, 20][random.usize(..4)],
            named: if random.bool() { random.u32(..) | 1 } else { 0 },
            padding_bytes: [0, 0, 0, 0, 0, 0, 300, 300, 20_000, 70_000][random.usize(..10)],
            in_step: random.bool(),
            threads: Vec::new(),
        };
        let action_count = random.usize(3..=7);
        plan.add_threads(random, 2..=4, action_count, Style::Any);
        plan
    }

    fn skew(random: &mut Rng) -> Self {
        let mut plan = Self {
            durability: Durability::Buffered,
            list_count: 2,
            register_count: 2,
            named: if random.u8(..4) == 0 { 1 } else { 0 },
            padding_bytes: 0,
            in_step: random.bool(),
            threads: Vec::new(),
        };
        plan.add_threads(random, 3..=4, 8, Style::Skew);
        plan
    }

    fn batches(random: &mut Rng) -> Self {
        let mut plan = Self {
            durability: Durability::Buffered,
            list_count: 3,
            register_count: 150,
            named: 0,
            padding_bytes: 0,
            in_step: false,
            threads: Vec::new(),
        };
        plan.add_threads(random, 2..=3, 12, Style::Batches);
        plan
    }

    fn add_threads(
        &mut self,
        random: &mut Rng,
        threads: RangeInclusive<usize>,
        action_count: usize,
        style: Style,
    ) {
        // Where not all commits are as the store is, those of both kinds meet.
        let is_mixed = random.u8(..3) > 0;
        for _ in 0..random.usize(threads) {
            let actions = (0..action_count).map(|_| {
                let durability =
                    if is_mixed { DURABILITIES[random.usize(..3)] } else { self.durability };
                match style {
                    Style::Any => self.any_action(random, durability),
                    Style::Skew => skew_action(random),
                    Style::Batches => self.batch_action(random),
                }
            });
            let actions = actions.collect();
            self.threads.push(actions);
        }
    }

    pub fn has_collection(&self) -> bool {
        self.named != 0
    }

    /// Whether a list or a register is in the named collection.
    pub fn is_named(&self, key: u8) -> bool {
        self.named >> (key % 32) & 1 == 1
    }

    pub fn lists(&self) -> impl Iterator<Item = u8> {
        0..self.list_count
    }

    pub fn registers(&self) -> impl Iterator<Item = u8> {
        REGISTERS..REGISTERS + self.register_count
    }

    fn any_action(&self, random: &mut Rng, durability: Durability) -> Action {
        let key = random.u8(..self.list_count);
        match random.u8(..100) {
            0..55 => {
                let end = (random.u8(..20) > 0).then_some(durability);
                Action::Transaction(self.any_wishes(random, true), end)
            }
            55..67 => Action::Snapshot(self.any_wishes(random, false)),
            67..77 => Action::Update(key),
            77..80 => Action::Read(Wish::Read(key)),
            80 => Action::Read(Wish::Scan { is_named: self.has_collection() && random.bool() }),
            81..83 => {
                Action::Read(Wish::ReadMany { is_named: self.has_collection() && random.bool() })
            }
            83..95 => Action::Batch(durability),
            95..97 => Action::Flush,
            97..99 => Action::Sync,
            _ => Action::RebuildIndex,
        }
    }

    fn any_wishes(&self, random: &mut Rng, may_write: bool) -> Vec<Wish> {
        let may_write = may_write && random.u8(..6) > 0;
        let mut wishes = Vec::new();
        for _ in 0..random.u8(1..=4) {
            wishes.extend((0..random.u8(..3)).map(|_| Wish::Yield));
            let key = random.u8(..self.list_count);
            wishes.push(match random.u8(..20) {
                0..9 if may_write => Wish::Append(key),
                9 if may_write => Wish::WriteGroup,
                10..13 => Wish::ReadGroup,
                13..15 => Wish::Scan { is_named: self.has_collection() && random.bool() },
                15..17 => Wish::ReadMany { is_named: self.has_collection() && random.bool() },
                _ => Wish::Read(key),
            });
        }
        wishes.push(Wish::Yield);
        wishes
    }

    fn batch_action(&self, random: &mut Rng) -> Action {
        let end = Some(self.durability);
        let key = random.u8(..self.list_count);
        match random.u8(..10) {
            0..5 => Action::Batch(self.durability),
            5..7 => Action::Snapshot(vec![Wish::ReadGroup]),
            7 => Action::Read(Wish::ReadMany { is_named: false }),
            8 => Action::Transaction(vec![Wish::ReadGroup, Wish::Append(key)], end),
            _ => Action::Transaction(vec![Wish::ReadGroup, Wish::WriteGroup], end),
        }
    }
}

fn skew_action(random: &mut Rng) -> Action {
    let (read, written) = if random.bool() { (0, 1) } else { (1, 0) };
    let end = Some(DURABILITIES[random.usize(..3)]);
    let first = if random.u8(..4) == 0 { Wish::Scan { is_named: false } } else { Wish::Read(read) };
    match random.u8(..10) {
        0..5 => Action::Transaction(vec![first, Wish::Yield, Wish::Append(written)], end),
        5..7 => Action::Update(read),
        _ => Action::Snapshot(vec![Wish::Read(read), Wish::Read(written)]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan_again_and_many_give_everything() {
        let text = |seed| format!("{:?}", Plan::new(seed));
        assert_eq!(text(7), text(7));
        let all: String = (0..300).map(text).collect();
        for word in [
            "Transaction",
            "None)",
            "Synced)",
            "Buffered)",
            "Snapshot",
            "Update",
            "Read(Read",
            "Read(Scan",
            "Read(ReadMany",
            "ReadMany { is_named: true }",
            "Batch",
            "Flush,",
            "Sync,",
            "RebuildIndex",
            "Scan { is_named: true }",
            "WriteGroup",
        ] {
            assert!(all.contains(word), "{word}");
        }
    }
}
