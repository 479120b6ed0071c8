//! Reading many keys at once: each block is read once, and what is read next is on its way.

use serde::Serialize;
use serde::de::DeserializeOwned;
use zkv_log::Location;

use crate::error::Result;
use crate::metadata::catalog::DEFAULT;
use crate::read::cache::Place;
use crate::read::lookup::Found;
use crate::read::view::{Committed, KeyRef, LookupError, Moment, Places};
use crate::read::wanted::Wanted;
use crate::shared::Shared;
use crate::snapshot::{Reader, Snapshot};
use crate::store::{Store, encode_key};
use crate::transaction::Transaction;

/// A value for each key, once all are found.
type Values = Vec<Option<Vec<u8>>>;

impl Store {
    /// The values of `keys`, in their order, as the store has them at one moment: `None` for each
    /// that has none.
    ///
    /// It takes less time than as many calls of [`Store::get_bytes`]: a block that holds several of
    /// the keys is decompressed once, blocks are read in the order in which they lie in the file, and
    /// the memory that is needed next is asked for early. All values are in memory at once, and about
    /// 100 bytes for each key.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// store.set_bytes(b"a", b"1")?;
    /// store.set_bytes(b"b", b"2")?;
    /// let values = store.get_many_bytes(&[&b"b"[..], b"missing", b"a"])?;
    /// assert_eq!(values, [Some(b"2".to_vec()), None, Some(b"1".to_vec())]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get_bytes`]: where one value cannot be read, there is none of the others either.
    pub fn get_many_bytes<Q: AsRef<[u8]>>(&self, keys: &[Q]) -> Result<Vec<Option<Vec<u8>>>> {
        self.shared().get_many(DEFAULT, keys)
    }

    /// As [`Store::get_many_bytes`], as postcard encodes the keys and decodes the values.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let store = zkv::Store::open(directory.path().join("pages.zkv"))?;
    /// store.set("a", &1u32)?;
    /// let values: Vec<Option<u32>> = store.get_many(&["a", "missing"])?;
    /// assert_eq!(values, [Some(1), None]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As [`Store::get`] and [`Store::get_many_bytes`].
    pub fn get_many<K: Serialize, V: DeserializeOwned>(
        &self,
        keys: &[K],
    ) -> Result<Vec<Option<V>>> {
        self.shared().postcard().decode_all(self.get_many_bytes(&encode_keys(keys)?)?)
    }
}

impl Snapshot {
    /// As [`Store::get_many_bytes`], at the snapshot's moment.
    ///
    /// # Errors
    /// As [`Store::get_many_bytes`].
    pub fn get_many_bytes<Q: AsRef<[u8]>>(&self, keys: &[Q]) -> Result<Vec<Option<Vec<u8>>>> {
        self.reader.get_many(DEFAULT, keys)
    }

    /// As [`Store::get_many`], at the snapshot's moment.
    ///
    /// # Errors
    /// As [`Store::get_many`].
    pub fn get_many<K: Serialize, V: DeserializeOwned>(
        &self,
        keys: &[K],
    ) -> Result<Vec<Option<V>>> {
        let values = self.get_many_bytes(&encode_keys(keys)?)?;
        self.reader.shared.postcard().decode_all(values)
    }
}

impl Transaction {
    /// As [`Store::get_many_bytes`], as the transaction sees the store.
    ///
    /// # Errors
    /// As [`Store::get_many_bytes`].
    pub fn get_many_bytes<Q: AsRef<[u8]>>(&self, keys: &[Q]) -> Result<Vec<Option<Vec<u8>>>> {
        self.get_many_in(DEFAULT, keys)
    }

    /// As [`Store::get_many`], as the transaction sees the store.
    ///
    /// # Errors
    /// As [`Store::get_many`].
    pub fn get_many<K: Serialize, V: DeserializeOwned>(
        &self,
        keys: &[K],
    ) -> Result<Vec<Option<V>>> {
        let values = self.get_many_bytes(&encode_keys(keys)?)?;
        self.reader().shared.postcard().decode_all(values)
    }
}

pub(crate) fn encode_keys<K: Serialize>(keys: &[K]) -> Result<Vec<Vec<u8>>> {
    keys.iter().map(encode_key).collect()
}

impl Shared {
    /// The values of `keys` as they are now.
    pub(crate) fn get_many<Q: AsRef<[u8]>>(&self, collection: u32, keys: &[Q]) -> Result<Values> {
        self.mended(|| self.get_many_at(&self.now(), collection, keys))
    }

    /// The values of `keys` at `moment`.
    pub(crate) fn get_many_at<Q: AsRef<[u8]>>(
        &self,
        moment: &Moment,
        collection: u32,
        keys: &[Q],
    ) -> Result<Values> {
        let committed = moment.committed();
        let keys: Vec<KeyRef<'_>> =
            keys.iter().map(|key| self.key(collection, key.as_ref())).collect();
        let mut values = vec![None; keys.len()];
        let mut wanted = Vec::with_capacity(keys.len());
        let numbered = keys.iter().copied().enumerate();
        for (number, key) in committed.ahead_of(numbered, |(_, key)| key.hash) {
            let buffered = moment.find_buffered(key, |record| Found::of(record, committed));
            match buffered {
                Some(found) => values[number] = self.value_of(key, Ok(Some(found)))?,
                None => match committed.places(key.hash) {
                    Ok(Places::Nowhere) => {}
                    Ok(Places::One { location, is_certain }) => {
                        wanted.push(Wanted { key, location, is_certain, number });
                    }
                    Ok(Places::Several) => {
                        values[number] = self.value_of(key, self.find_logged(committed, key))?;
                    }
                    Err(error) => return Err(self.lookup_error(error)),
                },
            }
        }
        committed.for_each_cell(wanted, |location, wanted| {
            self.get_of_cell(committed, location, wanted, &mut values)
        })?;
        Ok(values)
    }

    /// Reads what is wanted of one cell.
    fn get_of_cell(
        &self,
        committed: &Committed,
        location: Location,
        wanted: &[Wanted<'_>],
        values: &mut Values,
    ) -> Result<()> {
        let cell = if self.cache.is_off() { None } else { committed.log.cell_id(location) };
        let place_of = |one: &Wanted<'_>| cell.map(|cell| Place::new(one.key.hash, cell));
        let cached = |one| Some(Found::Value(self.cache.get(&place_of(one)?)?));
        let mut found: Vec<Option<Found>> = wanted.iter().map(cached).collect();
        let is_cached: Vec<bool> = found.iter().map(Option::is_some).collect();
        committed
            .read_cell(location, wanted, &mut found, |record| Found::of(record, committed))
            .map_err(|error| self.lookup_error(error.into()))?;
        for ((one, found), is_cached) in wanted.iter().zip(found).zip(is_cached) {
            if let (Some(place), Some(Found::Value(value)), false) =
                (place_of(one), &found, is_cached)
            {
                let is_led = !one.is_certain && committed.has_led_all_to(location);
                let led_by = is_led.then_some(committed.checkpoint_id);
                self.keep(committed, &place, led_by, value);
            }
            let found = match found {
                None if one.is_certain => Err(LookupError::Disagreement),
                found => Ok(found),
            };
            values[one.number] = self.value_of(one.key, found)?;
        }
        Ok(())
    }
}

impl Reader {
    pub(crate) fn get_many<Q: AsRef<[u8]>>(&self, collection: u32, keys: &[Q]) -> Result<Values> {
        self.mended(|moment| self.shared.get_many_at(moment, collection, keys))
    }
}

impl Transaction {
    pub(crate) fn get_many_in<Q: AsRef<[u8]>>(
        &self,
        collection: u32,
        keys: &[Q],
    ) -> Result<Values> {
        let own = keys.iter().map(|key| self.own_value_in(collection, key.as_ref()));
        let own: Vec<Option<Option<Vec<u8>>>> = own.collect();
        let others = keys.iter().zip(&own).filter(|(_, own)| own.is_none());
        let others: Vec<&Q> = others.map(|(key, _)| key).collect();
        let mut read = self.reader().get_many(collection, &others)?.into_iter();
        Ok(own.into_iter().map(|own| own.unwrap_or_else(|| read.next().flatten())).collect())
    }
}
