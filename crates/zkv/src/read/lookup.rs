//! Looking keys up, and what was found.

use zkv_io::memory_is_scarce;
use zkv_record::{Head, Kind, Record, RecordError};

use crate::error::Result;
use crate::read::cache::{CheckpointId, Place};
use crate::read::view::{Committed, KeyRef, LookupError, Moment};
use crate::shared::Shared;

/// Where memory is scarce, the cache may take this share of the data file: the page cache, which it takes
/// that from, has the same values compressed. It stays so: with more memory, it would be scarce again.
const CACHE_SHARE_WHERE_SCARCE: u64 = 64;

/// What a lookup came upon.
pub(crate) enum Found {
    Value(Vec<u8>),
    /// A value in pieces, and where they are.
    Head(Result<Head, RecordError>, Committed),
    Nothing,
}

impl Found {
    pub(crate) fn of(record: &Record<'_>, committed: &Committed) -> Self {
        match record.kind {
            Kind::Put => Self::Value(record.value.to_vec()),
            Kind::Head => Self::Head(Head::decode(record.value), committed.clone()),
            Kind::Delete | Kind::Piece => Self::Nothing,
        }
    }
}

impl Shared {
    /// The value of `key`; to be called within [`Shared::mended`].
    #[inline]
    pub(crate) fn get(&self, key: KeyRef<'_>) -> Result<Option<Vec<u8>>> {
        let view = self.view.load();
        let committed = &view.committed;
        let found = match view
            .find_buffered(key, view.active.seen(), |record| Found::of(record, committed))
        {
            Some(found) => Ok(Some(found)),
            None => self.find_logged(committed, key),
        };
        drop(view);
        self.value_of(key, found)
    }

    /// As [`Shared::get`], at `moment`.
    pub(crate) fn get_at(&self, moment: &Moment, key: KeyRef<'_>) -> Result<Option<Vec<u8>>> {
        let committed = moment.committed();
        let found = match moment.find_buffered(key, |record| Found::of(record, committed)) {
            Some(found) => Ok(Some(found)),
            None => self.find_logged(committed, key),
        };
        self.value_of(key, found)
    }

    /// What the log holds of `key`, from the cache where that has its value.
    #[inline]
    pub(crate) fn find_logged(
        &self,
        committed: &Committed,
        key: KeyRef<'_>,
    ) -> Result<Option<Found>, LookupError> {
        let take = |record: &Record<'_>| Found::of(record, committed);
        if self.cache.is_off() {
            return committed.find(key, take);
        }
        let led_by = committed.led_by(key.hash);
        if let Some(value) = led_by.and_then(|by| self.cache.get_led(key.hash, by)) {
            return Ok(Some(Found::Value(value)));
        }
        committed.find_by(key.hash, |location| {
            let cell = committed.log.cell_id(location);
            let place = cell.map(|cell| Place::new(key.hash, cell));
            let led_by = led_by.filter(|_| committed.has_led_all_to(location));
            if let Some((place, value)) =
                place.and_then(|place| Some((place, self.cache.get(&place)?)))
            {
                if let Some(by) = led_by {
                    self.cache.relabel(&place, by);
                }
                return Ok(Some(Found::Value(value)));
            }
            let found = committed.read(key, location, take)?;
            if let (Some(place), Some(Found::Value(value))) = (place, &found) {
                self.keep(committed, &place, led_by, value);
            }
            Ok(found)
        })
    }

    /// Keeps a copy of the value that was read at `place`.
    pub(crate) fn keep(
        &self,
        committed: &Committed,
        place: &Place,
        led_by: Option<CheckpointId>,
        value: &[u8],
    ) {
        if memory_is_scarce() {
            let bytes = committed.log.slots_bytes() / CACHE_SHARE_WHERE_SCARCE;
            self.cache.shrink_to(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        self.cache.put(place, led_by, value);
    }

    #[inline]
    pub(crate) fn value_of(
        &self,
        key: KeyRef<'_>,
        found: Result<Option<Found>, LookupError>,
    ) -> Result<Option<Vec<u8>>> {
        match found.map_err(|error| self.lookup_error(error))? {
            Some(Found::Value(value)) => Ok(Some(value)),
            // Only now, since the lookup's decoder is free again: pieces need one, too.
            Some(Found::Head(head, committed)) => {
                self.read_pieces(&committed, key.collection, &head?).map(Some)
            }
            Some(Found::Nothing) | None => Ok(None),
        }
    }

    /// Whether `key` has a value; to be called within [`Shared::mended`].
    pub(crate) fn contains(&self, key: KeyRef<'_>) -> Result<bool> {
        let found = self.view.load().find(key, is_value);
        Ok(found.map_err(|error| self.lookup_error(error))?.unwrap_or(false))
    }

    /// As [`Shared::contains`], at `moment`.
    pub(crate) fn contains_at(&self, moment: &Moment, key: KeyRef<'_>) -> Result<bool> {
        let found = moment.find(key, is_value);
        Ok(found.map_err(|error| self.lookup_error(error))?.unwrap_or(false))
    }
}

fn is_value(record: &Record<'_>) -> bool {
    record.kind != Kind::Delete
}
