//! The records of a benchmark in memory, their orders, and keys to ask for.

use zkv_measure::input::{FileInput, Input};
use zkv_measure::random::Random;

use crate::Failure;

/// All records, in memory.
#[derive(Default)]
pub struct Records {
    file: FileInput,
    shuffled: Vec<usize>,
    /// The bytes of all keys and values.
    pub raw_bytes: u64,
}

/// Keys one behind another, so that finding out what to ask for next costs next to nothing.
#[derive(Default)]
pub struct Keys {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// Records one behind another, in the order in which they are handed out.
pub struct Staged {
    /// Key and value of each, by turns.
    parts: Keys,
}

impl Records {
    pub fn new(input: Input, seed: u64) -> Result<Self, Failure> {
        let file = input.in_memory()?;
        if file.count() == 0 {
            return Err("there are no records".into());
        }
        let mut shuffled: Vec<usize> = (0..file.count()).collect();
        let mut random = Random::new(seed);
        for left in (1..shuffled.len()).rev() {
            shuffled.swap(left, below(&mut random, left + 1));
        }
        let lengths = (0..file.count()).map(|number| {
            let (key, value) = file.record(number);
            (key.len() + value.len()) as u64
        });
        let raw_bytes = lengths.sum();
        Ok(Self { file, shuffled, raw_bytes })
    }

    pub fn count(&self) -> usize {
        self.file.count()
    }

    /// Key and value of the record that stands at `place` in the random order.
    pub fn at(&self, place: usize) -> (&[u8], &[u8]) {
        self.file.record(self.shuffled[place])
    }

    /// All records in the random order.
    pub fn in_random_order(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.shuffled.iter().map(|number| self.file.record(*number))
    }

    /// All records in the order of their keys.
    pub fn in_key_order(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut order = self.shuffled.clone();
        order.sort_unstable_by_key(|number| self.file.record(*number).0);
        order.into_iter().map(|number| self.file.record(number))
    }

    /// Some record.
    pub fn draw(&self, random: &mut Random) -> (&[u8], &[u8]) {
        self.at(below(random, self.count()))
    }
}

impl Keys {
    /// Those that `draw` gives, `count` times, and the bytes of their values.
    pub fn draw<'a>(count: usize, mut draw: impl FnMut() -> (&'a [u8], &'a [u8])) -> (Self, u64) {
        let (mut keys, mut value_bytes) = (Self::default(), 0);
        for _ in 0..count {
            let (key, value) = draw();
            keys.push(&[key]);
            value_bytes += value.len() as u64;
        }
        (keys, value_bytes)
    }

    /// Adds the key that `parts` make together.
    pub fn push(&mut self, parts: &[&[u8]]) {
        parts.iter().for_each(|part| self.bytes.extend_from_slice(part));
        self.ends.push(self.bytes.len());
    }

    /// What they take, roughly: what was reserved and never touched takes nothing.
    pub fn memory_bytes(&self) -> u64 {
        (self.bytes.len() + self.ends.len() * size_of::<usize>()) as u64
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts.zip(&self.ends).map(|(start, end)| &self.bytes[start..*end])
    }
}

impl Staged {
    pub fn new<'a>(records: impl Iterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let mut parts = Keys::default();
        for (key, value) in records {
            parts.push(&[key]);
            parts.push(&[value]);
        }
        Self { parts }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut parts = self.parts.iter();
        std::iter::from_fn(move || Some((parts.next()?, parts.next()?)))
    }
}

/// A number below `limit`.
pub fn below(random: &mut Random, limit: usize) -> usize {
    usize::try_from(random.below(limit as u64)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use zkv_measure::generate::{Generator, Kind};

    use super::*;

    #[test]
    fn both_orders_hold_every_record_once() {
        let generator = Generator::new(Kind::Small, 1);
        let records = Records::new(Input::Generated { generator, count: 1000 }, 1).unwrap();
        let shuffled: Vec<_> = records.in_random_order().collect();
        let mut sorted: Vec<_> = records.in_key_order().collect();
        assert!(sorted.is_sorted() && !shuffled.is_sorted());
        assert!(Staged::new(shuffled.iter().copied()).iter().eq(shuffled.iter().copied()));
        sorted.dedup();
        assert_eq!(sorted.len(), 1000);
        let mut again = shuffled;
        again.sort_unstable();
        assert_eq!(again, sorted);
    }

    #[test]
    fn keys_come_as_they_were_pushed() {
        let mut keys = Keys::default();
        keys.push(&[b"a", b"bc"]);
        keys.push(&[b""]);
        keys.push(&[b"d"]);
        assert_eq!(keys.iter().collect::<Vec<_>>(), [&b"abc"[..], b"", b"d"]);
    }
}
