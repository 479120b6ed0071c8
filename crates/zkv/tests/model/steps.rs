//! What is done to a store, drawn at random.

use proptest::prelude::*;
use zkv::Durability;

use crate::{DEFAULT, PLACES};

/// A key of a collection, and its new value; none deletes it.
pub type Write = (usize, u8, Option<Value>);

#[derive(Clone, Debug)]
pub enum Step {
    Set(usize, u8, Value),
    Delete(usize, u8),
    Get(usize, u8),
    Batch(Vec<Write>, Option<Durability>),
    Transact(Vec<Write>, End),
    /// Held until the next one, or until the store is opened anew.
    Snapshot,
    Clear(usize),
    Drop(usize),
    /// Writes so many keys of a collection, the first of which is given, with so many bytes each.
    Fill(usize, u8, u8, usize),
    Clean,
    Compact,
    Flush,
    Sync,
    RebuildIndex,
    Reopen,
    /// With an index file where there was none, or without one. The file stays where it is.
    SwitchIndex,
    /// Closes, puts the index file of an earlier one of these steps in the place of the present one, and
    /// opens.
    BringBackIndex,
    /// As after a kill: nothing is flushed by hand, the handle is just gone.
    LoseIndexAndReopen,
    Backup,
    Len,
    Iterate,
}

#[derive(Clone, Debug)]
pub enum End {
    Commit,
    CommitWith(Durability),
    Drop,
}

#[derive(Clone, Debug)]
pub struct Value {
    pub byte: u8,
    pub bytes: usize,
}

impl Value {
    /// Half of it compresses.
    pub fn bytes(&self) -> Vec<u8> {
        let mut value = vec![self.byte; self.bytes];
        let mut random = fastrand::Rng::with_seed((self.bytes as u64) << 8 | u64::from(self.byte));
        random.fill(&mut value[..self.bytes / 2]);
        value
    }
}

pub fn key(number: u8) -> Vec<u8> {
    match number {
        0 => Vec::new(),
        1 => vec![7; 65_536],
        _ => format!("key {number}").into_bytes(),
    }
}

pub fn value() -> impl Strategy<Value = Value> {
    let bytes = prop_oneof![
        20 => 0usize..200,
        5 => 200usize..5000,
        1 => Just(65_536usize),
        1 => 65_537usize..300_000,
    ];
    (any::<u8>(), bytes).prop_map(|(byte, bytes)| Value { byte, bytes })
}

pub fn place() -> impl Strategy<Value = usize> {
    prop_oneof![3 => Just(DEFAULT), 2 => 1..PLACES]
}

pub fn writes() -> impl Strategy<Value = Vec<Write>> {
    prop::collection::vec((place(), 0u8..40, prop::option::weighted(0.7, value())), 0..12)
}

pub fn durability() -> impl Strategy<Value = Durability> {
    prop_oneof![Just(Durability::Buffered), Just(Durability::Flushed), Just(Durability::Synced)]
}

pub fn end() -> impl Strategy<Value = End> {
    prop_oneof![Just(End::Commit), durability().prop_map(End::CommitWith), Just(End::Drop)]
}

/// Segments fill, die and are cleaned.
pub fn cleaning_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (place(), 0u8..40, 5u8..40, 15_000usize..25_000)
            .prop_map(|(place, key, count, bytes)| Step::Fill(place, key, count, bytes)),
        6 => Just(Step::Clean),
        2 => Just(Step::Compact),
        2 => Just(Step::SwitchIndex),
        2 => Just(Step::BringBackIndex),
        20 => step(),
    ]
}

pub fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (place(), 0u8..40, value()).prop_map(|(place, key, value)| Step::Set(place, key, value)),
        8 => (place(), 0u8..40).prop_map(|(place, key)| Step::Delete(place, key)),
        8 => (place(), 0u8..40).prop_map(|(place, key)| Step::Get(place, key)),
        3 => (writes(), prop::option::of(durability()))
            .prop_map(|(writes, durability)| Step::Batch(writes, durability)),
        3 => (writes(), end()).prop_map(|(writes, end)| Step::Transact(writes, end)),
        2 => Just(Step::Snapshot),
        1 => (1..PLACES).prop_map(Step::Clear),
        1 => (1..PLACES).prop_map(Step::Drop),
        2 => Just(Step::Flush),
        1 => Just(Step::Sync),
        1 => Just(Step::RebuildIndex),
        2 => Just(Step::Reopen),
        1 => Just(Step::LoseIndexAndReopen),
        1 => Just(Step::Backup),
        3 => Just(Step::Len),
        2 => Just(Step::Iterate),
    ]
}
