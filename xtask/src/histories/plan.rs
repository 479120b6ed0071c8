//! What the threads of a history are to do, chosen by seed. What comes of it depends on how the
//! system schedules them.

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
    Get(u8),
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
    ReadGroup,
    WriteGroup,
    /// Lets others run.
    Yield,
}

impl Plan {
    pub fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let durability = DURABILITIES[random.usize(..3)];
        let mut plan = Self {
            durability,
            list_count: random.u8(3..=6),
            register_count: [2, 3, 5, 20][random.usize(..4)],
            named: if random.bool() { random.u32(..) | 1 } else { 0 },
            padding_bytes: [0, 0, 0, 0, 0, 0, 300, 300, 20_000, 70_000][random.usize(..10)],
            in_step: random.bool(),
            threads: Vec::new(),
        };
        // Most commits are as the store is, or as they like: both kinds meet in many histories.
        let is_mixed = random.u8(..3) > 0;
        let action_count = random.usize(3..=7);
        let thread_count = random.usize(2..=4);
        for _ in 0..thread_count {
            let actions = (0..action_count).map(|_| plan.action(&mut random, is_mixed));
            let actions = actions.collect();
            plan.threads.push(actions);
        }
        plan
    }

    pub fn has_collection(&self) -> bool {
        self.named != 0
    }

    /// Whether a list or a register is in the named collection.
    pub fn is_named(&self, key: u8) -> bool {
        let bit = if key < REGISTERS { key } else { 8 + key - REGISTERS };
        self.named >> bit & 1 == 1
    }

    pub fn lists(&self) -> impl Iterator<Item = u8> {
        0..self.list_count
    }

    pub fn registers(&self) -> impl Iterator<Item = u8> {
        REGISTERS..REGISTERS + self.register_count
    }

    fn action(&self, random: &mut Rng, is_mixed: bool) -> Action {
        let durability = if is_mixed { DURABILITIES[random.usize(..3)] } else { self.durability };
        let key = random.u8(..self.list_count);
        match random.u8(..100) {
            0..55 => {
                let end = (random.u8(..20) > 0).then_some(durability);
                Action::Transaction(self.wishes(random, true), end)
            }
            55..67 => Action::Snapshot(self.wishes(random, false)),
            67..77 => Action::Update(key),
            77..81 => Action::Get(key),
            81..95 => Action::Batch(durability),
            95..97 => Action::Flush,
            97..99 => Action::Sync,
            _ => Action::RebuildIndex,
        }
    }

    fn wishes(&self, random: &mut Rng, may_write: bool) -> Vec<Wish> {
        let may_write = may_write && random.u8(..6) > 0;
        let mut wishes = Vec::new();
        for _ in 0..random.u8(1..=4) {
            wishes.extend((0..random.u8(..3)).map(|_| Wish::Yield));
            let key = random.u8(..self.list_count);
            wishes.push(match random.u8(..20) {
                0..9 if may_write => Wish::Append(key),
                9 if may_write => Wish::WriteGroup,
                10..13 => Wish::ReadGroup,
                13..16 => Wish::Scan { is_named: self.has_collection() && random.bool() },
                _ => Wish::Read(key),
            });
        }
        wishes.push(Wish::Yield);
        wishes
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
            "Get",
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
