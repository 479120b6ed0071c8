//! Many keys at once: each block is read once, in the order of the file, and what is needed next is on its way.

use zkv_index::KeyHash;
use zkv_log::{Location, LogError};
use zkv_record::Record;

use crate::read::view::{Committed, KeyRef};

/// So many keys ahead of the one that is looked up in the index, and so many cells ahead of the one
/// that is read, cache lines are asked for: a look takes less time than a line takes to come.
const AHEAD: usize = 8;

/// A key that the index leads to one place.
pub(crate) struct Wanted<'k> {
    pub key: KeyRef<'k>,
    pub location: Location,
    /// Whether the place holds the key, whatever stands there.
    pub is_certain: bool,
    /// Its number among all keys.
    pub number: usize,
}

impl Committed {
    /// Yields `items`, and asks for what the index needs to look up the next ones by their hashes.
    pub(crate) fn ahead_of<I: Iterator + Clone>(
        &self,
        items: I,
        hash_of: impl Fn(&I::Item) -> KeyHash,
    ) -> impl Iterator<Item = I::Item> {
        let mut ahead = items.clone();
        let prefetch = move |item: I::Item| self.prefetch(hash_of(&item));
        ahead.by_ref().take(AHEAD).for_each(&prefetch);
        items.inspect(move |_| ahead.next().into_iter().for_each(&prefetch))
    }

    /// Calls `read` for each cell with what is wanted of it, in the order of the file.
    pub(crate) fn for_each_cell<E>(
        &self,
        mut wanted: Vec<Wanted<'_>>,
        mut read: impl FnMut(Location, &[Wanted<'_>]) -> Result<(), E>,
    ) -> Result<(), E> {
        // Keys of one cell in their own order, so that each record finds whoever wants it.
        wanted.sort_unstable_by(|left, right| {
            left.location.cmp(&right.location).then_with(|| left.key.key.cmp(right.key.key))
        });
        let cells = || wanted.chunk_by(|left, right| left.location == right.location);
        let mut ahead = cells().skip(AHEAD);
        for cell in cells() {
            if let Some([first, ..]) = ahead.next() {
                self.log.prefetch(first.location);
            }
            if let [Wanted { location, .. }, ..] = cell {
                read(*location, cell)?;
            }
        }
        Ok(())
    }

    /// Reads the cell at `location` once for all of `wanted`: each that is not `found` yet gets what `take` makes
    /// of its first record there, which is the newest.
    pub(crate) fn read_cell<T>(
        &self,
        location: Location,
        wanted: &[Wanted<'_>],
        found: &mut [Option<T>],
        mut take: impl FnMut(&Record<'_>) -> T,
    ) -> Result<(), LogError> {
        let mut left = found.iter().filter(|found| found.is_none()).count();
        if left == 0 {
            return Ok(());
        }
        let read = self.log.find(location, |entry| {
            let record = Record::decode(entry).ok()?;
            let first = wanted.partition_point(|one| one.key.key < record.key);
            for (one, found) in wanted.iter().zip(found.iter_mut()).skip(first) {
                if one.key.key != record.key {
                    break;
                }
                if found.is_none() && one.key.is_of(&record) {
                    *found = Some(take(&record));
                    left -= 1;
                }
            }
            (left == 0).then_some(())
        });
        read.map(|_| ())
    }
}
