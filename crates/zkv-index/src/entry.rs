//! Streams of entries: a checkpoint is the sum of its tables, and merging adds them up.

use crate::bucket::Sign;
use crate::error::IndexError;
use crate::geometry::Measure;
use crate::key::{KeyHash, Location, Prefix};
use crate::run::{Change, Run};

/// One entry of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) prefix: Prefix,
    pub(crate) location: Location,
    pub(crate) sign: Sign,
}

impl Entry {
    /// What streams are sorted by: the prefix, then the location. One number, which is compared without a branch.
    #[inline]
    pub(crate) fn order(&self) -> u128 {
        u128::from(self.prefix.get()) << u64::BITS | u128::from(self.location.get())
    }
}

/// How many entries a source yields at a time, about: a few pages, so that what it takes to ask for them does
/// not count.
pub(crate) const BATCH: usize = 256;

/// Entries sorted by prefix and location.
pub(crate) trait EntrySource {
    /// Puts the next entries behind those in `into`; none at the end.
    fn read(&mut self, into: &mut Vec<Entry>) -> Result<(), IndexError>;
}

/// A source that can be opened as often as a table needs: once to measure it, then for each attempt
/// to write it.
pub(crate) type OpenSource<'a> = dyn Fn() -> Result<Box<dyn EntrySource + 'a>, IndexError> + 'a;

/// A source, entry by entry.
pub(crate) struct Entries<'a> {
    source: Box<dyn EntrySource + 'a>,
    batch: Vec<Entry>,
    at: usize,
}

impl<'a> Entries<'a> {
    pub(crate) fn of(source: Box<dyn EntrySource + 'a>) -> Self {
        Self { source, batch: Vec::new(), at: 0 }
    }

    /// The next entry; `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, IndexError> {
        if self.at == self.batch.len() {
            self.batch.clear();
            self.at = 0;
            self.source.read(&mut self.batch)?;
        }
        let entry = self.batch.get(self.at).copied();
        self.at += usize::from(entry.is_some());
        Ok(entry)
    }
}

/// Adds up sorted sources: a put is one more of its prefix and location, a kill one less. Yields
/// what is left, so no prefix and location is both put and killed.
///
/// This reads no keys and is exact, because a kill names the very entry that it takes away.
pub(crate) struct Merged<'a> {
    heads: Vec<Head<'a>>,
    pending: Entry,
    pending_count: u64,
}

struct Head<'a> {
    next: Option<Entry>,
    /// That of `next`; `NONE`, which is greater than any, where that is none.
    order: u128,
    entries: Entries<'a>,
}

const NONE: u128 = u128::MAX;

impl<'a> Head<'a> {
    fn of(source: Box<dyn EntrySource + 'a>) -> Result<Self, IndexError> {
        let mut head = Self { next: None, order: NONE, entries: Entries::of(source) };
        head.advance()?;
        Ok(head)
    }

    #[inline]
    fn advance(&mut self) -> Result<(), IndexError> {
        self.next = self.entries.next()?;
        self.order = self.next.as_ref().map_or(NONE, Entry::order);
        Ok(())
    }
}

impl<'a> Merged<'a> {
    pub(crate) fn new(
        sources: impl IntoIterator<Item = Box<dyn EntrySource + 'a>>,
    ) -> Result<Self, IndexError> {
        let heads = sources.into_iter().map(Head::of).collect::<Result<_, _>>()?;
        let pending =
            Entry { prefix: KeyHash(0).prefix(), location: Location::MIN, sign: Sign::Put };
        Ok(Self { heads, pending, pending_count: 0 })
    }

    /// The head of the least entry, and the least order of all others.
    #[inline]
    fn least(&self) -> (usize, u128) {
        let (mut least, mut order, mut others) = (0, NONE, NONE);
        for (at, head) in self.heads.iter().enumerate() {
            let is_least = head.order < order;
            others = if is_least { order } else { others.min(head.order) };
            least = if is_least { at } else { least };
            order = order.min(head.order);
        }
        (least, others)
    }

    /// Takes all entries of the same prefix and location as `entry`, and keeps what is left of them.
    fn add_up(&mut self, entry: Entry) -> Result<(), IndexError> {
        let mut sum = entry.sign as i64;
        for head in &mut self.heads {
            while let Some(same) = head.next.filter(|_| head.order == entry.order()) {
                sum += same.sign as i64;
                head.advance()?;
            }
        }
        let sign = if sum > 0 { Sign::Put } else { Sign::Kill };
        self.pending = Entry { sign, ..entry };
        self.pending_count = sum.unsigned_abs();
        Ok(())
    }
}

impl EntrySource for Merged<'_> {
    fn read(&mut self, into: &mut Vec<Entry>) -> Result<(), IndexError> {
        let full = into.len() + BATCH;
        while into.len() < full {
            if self.pending_count > 0 {
                self.pending_count -= 1;
                into.push(self.pending);
                continue;
            }
            let (at, others) = self.least();
            let Some(head) = self.heads.get_mut(at) else { break };
            let Some(mut entry) = head.next else { break };
            // Most entries are alone with their prefix and location, and some come from one source in a row.
            loop {
                let order = head.order;
                head.advance()?;
                if order == others || order == head.order {
                    self.add_up(entry)?;
                    break;
                }
                into.push(entry);
                match head.next {
                    Some(next) if head.order <= others && into.len() < full => entry = next,
                    _ => break,
                }
            }
        }
        Ok(())
    }
}

/// Sorts entries that are sorted by prefix only.
pub(crate) struct Grouped<I: Iterator> {
    entries: I,
    /// The first one of the next prefix.
    next: Option<Entry>,
}

impl<I: Iterator<Item = Result<Entry, IndexError>>> Grouped<I> {
    pub(crate) fn new(entries: I) -> Self {
        Self { entries, next: None }
    }
}

impl<I: Iterator<Item = Result<Entry, IndexError>>> EntrySource for Grouped<I> {
    fn read(&mut self, into: &mut Vec<Entry>) -> Result<(), IndexError> {
        let full = into.len() + BATCH;
        // The entries of one prefix, whose first one is in `next`.
        while into.len() < full {
            let Some(first) =
                self.next.take().map(Ok).or_else(|| self.entries.next()).transpose()?
            else {
                break;
            };
            let start = into.len();
            into.push(first);
            for entry in self.entries.by_ref() {
                let entry = entry?;
                if entry.prefix != first.prefix {
                    self.next = Some(entry);
                    break;
                }
                into.push(entry);
            }
            into[start..].sort_unstable_by_key(Entry::order);
        }
        Ok(())
    }
}

/// The entries that a run adds to what lies beneath it.
pub(crate) fn entries_of(run: &Run) -> Box<dyn EntrySource + '_> {
    Box::new(Changes(run.changes()))
}

/// Those that nobody has read yet.
struct Changes<'a>(&'a [Change]);

impl EntrySource for Changes<'_> {
    fn read(&mut self, into: &mut Vec<Entry>) -> Result<(), IndexError> {
        let full = into.len() + BATCH;
        while into.len() < full
            && let Some(first) = self.0.first()
        {
            let (start, prefix) = (into.len(), first.hash.prefix());
            while let Some((change, rest)) = self.0.split_first()
                && change.hash.prefix() == prefix
            {
                // What stays where it was is no change.
                if change.old != change.new {
                    let entry = |location, sign| Entry { prefix, location, sign };
                    into.extend(change.old.map(|old| entry(old, Sign::Kill)));
                    into.extend(change.new.map(|new| entry(new, Sign::Put)));
                }
                self.0 = rest;
            }
            into[start..].sort_unstable_by_key(Entry::order);
        }
        Ok(())
    }
}

/// Reads a source to its end.
///
/// # Errors
/// [`IndexError::Mismatch`] where `for_base` and a kill is left: it took away what is not there.
pub(crate) fn measure(open: &OpenSource<'_>, for_base: bool) -> Result<Measure, IndexError> {
    let mut source = open()?;
    let mut measure = Measure { entry_count: 0, location_max: 0, has_kills: !for_base };
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        source.read(&mut batch)?;
        if batch.is_empty() {
            return Ok(measure);
        }
        for entry in batch.drain(..) {
            if for_base && entry.sign == Sign::Kill {
                return Err(IndexError::Mismatch);
            }
            measure.entry_count += 1;
            measure.location_max = measure.location_max.max(entry.location.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As few at a time as a source may yield.
    struct Listed(std::vec::IntoIter<Entry>);

    impl EntrySource for Listed {
        fn read(&mut self, into: &mut Vec<Entry>) -> Result<(), IndexError> {
            into.extend(self.0.next());
            Ok(())
        }
    }

    fn entry((prefix, location, sign): (u64, u64, Sign)) -> Entry {
        let location = Location::new(location).unwrap();
        Entry { prefix: Prefix::new(prefix).unwrap(), location, sign }
    }

    fn drain<'a>(source: impl EntrySource + 'a) -> Vec<Entry> {
        let mut entries = Entries::of(Box::new(source));
        std::iter::from_fn(|| entries.next().unwrap()).collect()
    }

    #[test]
    fn merging_adds_up() {
        use Sign::{Kill, Put};
        let lists: [&[_]; 3] = [
            &[(1, 5, Put), (1, 5, Put), (2, 9, Put), (7, 1, Put)],
            &[(1, 5, Kill), (2, 9, Kill), (2, 9, Kill), (3, 3, Kill)],
            // The last two are of two keys of one prefix: one has come where the other was.
            &[(1, 6, Put), (2, 8, Put), (3, 3, Put), (4, 4, Kill), (4, 4, Put)],
        ];
        let source = |list: &&[_]| -> Box<dyn EntrySource> {
            Box::new(Listed(list.iter().copied().map(entry).collect::<Vec<_>>().into_iter()))
        };
        let merged = Merged::new(lists.iter().map(source)).unwrap();
        let left = [(1, 5, Put), (1, 6, Put), (2, 8, Put), (2, 9, Kill), (7, 1, Put)];
        assert_eq!(drain(merged), left.map(entry));
    }

    #[test]
    fn entries_of_one_prefix_are_sorted_by_location() {
        use Sign::Put;
        let entries =
            [(1, 5, Put), (1, 3, Put), (1, 4, Put), (2, 1, Put), (3, 2, Put), (3, 1, Put)];
        let grouped = Grouped::new(entries.into_iter().map(entry).map(Ok));
        let sorted = [(1, 3, Put), (1, 4, Put), (1, 5, Put), (2, 1, Put), (3, 1, Put), (3, 2, Put)];
        assert_eq!(drain(grouped), sorted.map(entry));
    }
}
