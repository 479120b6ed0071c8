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
    /// What streams are sorted by.
    pub(crate) fn order(&self) -> (Prefix, Location) {
        (self.prefix, self.location)
    }
}

/// Entries sorted by prefix and location.
pub(crate) trait EntrySource {
    /// The next entry; `None` at the end.
    fn next(&mut self) -> Result<Option<Entry>, IndexError>;
}

/// A source that can be opened as often as a table needs: once to measure it, then for each attempt
/// to write it.
pub(crate) type OpenSource<'a> = dyn Fn() -> Result<Box<dyn EntrySource + 'a>, IndexError> + 'a;

/// Adds up sorted sources: a put is one more of its prefix and location, a kill one less. Yields
/// what is left, so no prefix and location is both put and killed.
///
/// This reads no keys and is exact, because a kill names the very entry that it takes away.
pub(crate) struct Merged<'a> {
    sources: Vec<Head<'a>>,
    pending: Entry,
    pending_count: u64,
}

struct Head<'a> {
    next: Option<Entry>,
    source: Box<dyn EntrySource + 'a>,
}

impl<'a> Merged<'a> {
    pub(crate) fn new(
        sources: impl IntoIterator<Item = Box<dyn EntrySource + 'a>>,
    ) -> Result<Self, IndexError> {
        let head = |mut source: Box<dyn EntrySource + 'a>| {
            Ok::<_, IndexError>(Head { next: source.next()?, source })
        };
        let sources = sources.into_iter().map(head).collect::<Result<_, _>>()?;
        let pending =
            Entry { prefix: KeyHash(0).prefix(), location: Location::MIN, sign: Sign::Put };
        Ok(Self { sources, pending, pending_count: 0 })
    }

    /// Takes all entries of the least prefix and location, and says how many more are puts than
    /// kills.
    fn take_sum(&mut self, least: (Prefix, Location)) -> Result<i64, IndexError> {
        let mut sum = 0;
        for head in &mut self.sources {
            while let Some(entry) = head.next.filter(|entry| entry.order() == least) {
                sum += entry.sign as i64;
                head.next = head.source.next()?;
            }
        }
        Ok(sum)
    }
}

impl EntrySource for Merged<'_> {
    fn next(&mut self) -> Result<Option<Entry>, IndexError> {
        while self.pending_count == 0 {
            let heads = self.sources.iter().filter_map(|head| head.next);
            let Some(least) = heads.min_by_key(Entry::order) else { return Ok(None) };
            let sum = self.take_sum(least.order())?;
            let sign = if sum > 0 { Sign::Put } else { Sign::Kill };
            self.pending = Entry { sign, ..least };
            self.pending_count = sum.unsigned_abs();
        }
        self.pending_count -= 1;
        Ok(Some(self.pending))
    }
}

/// Sorts entries that are sorted by prefix only.
pub(crate) struct Grouped<I: Iterator> {
    entries: std::iter::Peekable<I>,
    /// The entries of one prefix, the last first.
    group: Vec<Entry>,
}

impl<I: Iterator<Item = Result<Entry, IndexError>>> Grouped<I> {
    pub(crate) fn new(entries: I) -> Self {
        Self { entries: entries.peekable(), group: Vec::new() }
    }
}

impl<I: Iterator<Item = Result<Entry, IndexError>>> EntrySource for Grouped<I> {
    fn next(&mut self) -> Result<Option<Entry>, IndexError> {
        if let Some(entry) = self.group.pop() {
            return Ok(Some(entry));
        }
        let Some(first) = self.entries.next().transpose()? else { return Ok(None) };
        let same = |next: &Result<Entry, _>| {
            next.as_ref().map_or(true, |entry: &Entry| entry.prefix == first.prefix)
        };
        while let Some(more) = self.entries.next_if(same) {
            self.group.push(more?);
        }
        if self.group.is_empty() {
            return Ok(Some(first));
        }
        self.group.push(first);
        self.group.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.order()));
        Ok(self.group.pop())
    }
}

/// The entries that a run adds to what lies beneath it.
pub(crate) fn entries_of(run: &Run) -> Box<dyn EntrySource + '_> {
    Box::new(Grouped::new(run.iter().flat_map(entries_of_change).map(Ok)))
}

fn entries_of_change(change: &Change) -> impl Iterator<Item = Entry> + use<> {
    let prefix = change.hash.prefix();
    let entry = move |sign| move |location| Entry { prefix, location, sign };
    // What stays where it was is no change.
    let (old, new) = if change.old == change.new { (None, None) } else { (change.old, change.new) };
    old.map(entry(Sign::Kill)).into_iter().chain(new.map(entry(Sign::Put)))
}

/// Reads a source to its end.
///
/// # Errors
/// [`IndexError::Mismatch`] where `for_base` and a kill is left: it took away what is not there.
pub(crate) fn measure(open: &OpenSource<'_>, for_base: bool) -> Result<Measure, IndexError> {
    let mut source = open()?;
    let mut measure = Measure { entry_count: 0, location_max: 0, has_kills: !for_base };
    while let Some(entry) = source.next()? {
        if for_base && entry.sign == Sign::Kill {
            return Err(IndexError::Mismatch);
        }
        measure.entry_count += 1;
        measure.location_max = measure.location_max.max(entry.location.get());
    }
    Ok(measure)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Listed(std::vec::IntoIter<Entry>);

    impl EntrySource for Listed {
        fn next(&mut self) -> Result<Option<Entry>, IndexError> {
            Ok(self.0.next())
        }
    }

    fn entry((prefix, location, sign): (u64, u64, Sign)) -> Entry {
        let location = Location::new(location).unwrap();
        Entry { prefix: Prefix::new(prefix).unwrap(), location, sign }
    }

    fn drain(mut source: impl EntrySource) -> Vec<Entry> {
        std::iter::from_fn(|| source.next().unwrap()).collect()
    }

    #[test]
    fn merging_adds_up() {
        use Sign::{Kill, Put};
        let lists: [&[_]; 3] = [
            &[(1, 5, Put), (1, 5, Put), (2, 9, Put), (7, 1, Put)],
            &[(1, 5, Kill), (2, 9, Kill), (2, 9, Kill), (3, 3, Kill)],
            &[(1, 6, Put), (2, 8, Put), (3, 3, Put)],
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
