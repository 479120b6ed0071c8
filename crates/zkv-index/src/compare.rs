//! Holding an index against the log that it is of.

use std::cmp::Ordering;

use crate::bucket::Sign;
use crate::checkpoint::Checkpoint;
use crate::entry::{Entries, Entry, EntrySource, Merged, entries_of};
use crate::error::IndexError;
use crate::key::Location;
use crate::rebuild::Rebuilt;
use crate::run::Run;
use crate::table::Scan;

/// What an index and its log do not agree about: what lies at this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Difference {
    /// A key that the log has there, and the index does not know there.
    Unknown(Location),
    /// A key that the index names, and the log does not have there.
    Untrue(Location),
}

impl Rebuilt {
    /// Holds what the log says against `checkpoint`, with `changes` over it, and tells `differs` of
    /// each entry that only one of them has. Those that the index need not have are none.
    ///
    /// # Errors
    /// As [`Checkpoint::verify`]; [`IndexError::Io`].
    pub fn compare(
        &self,
        checkpoint: Option<&Checkpoint>,
        changes: &Run,
        differs: &mut dyn FnMut(Difference),
    ) -> Result<(), IndexError> {
        let scans =
            checkpoint.into_iter().flat_map(|checkpoint| {
                let map = &*checkpoint.file.map;
                checkpoint.header.tables.iter().map(move |table| -> Box<dyn EntrySource + '_> {
                    Box::new(Scan::new(map, *table))
                })
            });
        let index = Merged::new(scans.chain([entries_of(changes)]))?;
        let mut index = Entries::of(Box::new(index));
        let (mut log, mut optional) = (self.entries(true)?, self.entries(false)?);
        let (mut of_index, mut of_log) = (index.next()?, log.next()?);
        let mut may_be = optional.next()?;
        loop {
            let order = match (&of_index, &of_log) {
                (Some(of_index), Some(of_log)) => compare(of_index, of_log),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => return Ok(()),
            };
            if let Some(entry) = of_index.filter(|_| order.is_lt()) {
                while may_be.is_some_and(|may_be| compare(&entry, &may_be).is_gt()) {
                    may_be = optional.next()?;
                }
                if may_be.is_none_or(|may_be| compare(&entry, &may_be).is_ne()) {
                    differs(Difference::Untrue(entry.location));
                }
            }
            if let Some(entry) = of_log.filter(|_| order.is_gt()) {
                differs(Difference::Unknown(entry.location));
            }
            if order.is_le() {
                of_index = index.next()?;
            }
            if order.is_ge() {
                of_log = log.next()?;
            }
        }
    }
}

/// A kill that takes nothing away is no entry of any log.
fn compare(of_index: &Entry, of_log: &Entry) -> Ordering {
    let order = of_index.order().cmp(&of_log.order());
    if of_index.sign == Sign::Kill { order.then(Ordering::Less) } else { order }
}
