//! What a store yields while some of its sectors cannot be read, or could not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zkv::{ErrorKind, Store};

use super::super::model::{self, DEFAULT, Model};
use super::super::session::Trouble;
use super::super::workload::Place;

pub type Key = (Place, Vec<u8>);

/// What is known of keys beyond what a store holds.
#[derive(Clone, Default)]
pub struct Known {
    /// Every value that a key was given.
    pub had: BTreeMap<Key, BTreeSet<Arc<Vec<u8>>>>,
    /// Keys that were written while an older place of theirs could not be read.
    ///
    /// Known flaws of the index: "A record whose place could not be read when its key was deleted [...] is
    /// there again", and "A place that could not be read when its key was overwritten stays in the index".
    pub stale: BTreeSet<Key>,
    /// Values that a power cut has taken.
    pub taken: BTreeMap<Key, BTreeSet<Arc<Vec<u8>>>>,
    /// Something was cleaned since: what a stale place leads to is then moved as the newest of its key.
    pub has_moved_stale: bool,
}

/// How strictly a store is held against what it should hold.
#[derive(Clone, Copy)]
pub struct Strictness {
    /// Something cannot be read now.
    pub may_fail: bool,
    /// An iteration yields all that a get does, and tells of the rest: not where that may be cached, since it
    /// was read before the sector went bad. Known flaw: "Where the system gives a part of a page, of which a
    /// sector cannot be read, an iteration passes over what starts in that page".
    pub iterates_all: bool,
    /// Counts are right, too.
    pub counts: bool,
}

/// What a store has yielded.
pub struct Seen {
    pub got: BTreeMap<Key, Result<Option<Vec<u8>>, String>>,
    iterated: BTreeMap<Key, Vec<u8>>,
    /// Collections of which an iteration has told of something lost.
    failed: BTreeMap<Place, String>,
    types: BTreeMap<Place, String>,
    lens: BTreeMap<Place, u64>,
}

/// Whether an error is one that a sector may cause.
pub fn is_of_disk(error: &zkv::Error) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::Corrupt)
}

/// The error's text, where a bad sector may cause it.
pub fn told(trouble: Trouble) -> Result<String, String> {
    match trouble {
        Trouble::Refused(error) if is_of_disk(&error) => Ok(error.to_string()),
        other => Err(other.to_string()),
    }
}

impl Known {
    /// Notes what a store holds by now.
    pub fn note(&mut self, model: &Model) {
        for (key, value) in &model.entries {
            self.had.entry(key.clone()).or_default().insert(Arc::clone(value));
        }
    }

    /// Notes what `model` holds and a power cut has taken.
    pub fn note_taken(&mut self, model: &Model) {
        for (key, value) in &model.entries {
            self.taken.entry(key.clone()).or_default().insert(Arc::clone(value));
        }
    }

    pub fn had(&self, key: &Key, value: &[u8]) -> bool {
        has(&self.had, key, value)
    }

    pub fn was_taken(&self, key: &Key, value: &[u8]) -> bool {
        has(&self.taken, key, value)
    }

    /// Whether a store that should hold what `model` does may have this value of the key.
    fn allows(&self, key: &Key, value: &[u8], model: &Model) -> bool {
        match model.entries.get(key) {
            Some(newest) => newest.as_slice() == value,
            None => self.stale.contains(key) && self.had(key, value),
        }
    }
}

impl Seen {
    pub fn of(store: &Store, known: &Known) -> Result<Self, String> {
        let types = model::types(store).map_err(|trouble| trouble.to_string())?;
        let held = Model { types, ..Model::default() };
        let mut seen = Self {
            got: BTreeMap::new(),
            iterated: BTreeMap::new(),
            failed: BTreeMap::new(),
            lens: BTreeMap::from([(DEFAULT, store.len())]),
            types: BTreeMap::new(),
        };
        let mut collections = BTreeMap::new();
        for place in held.types.keys() {
            let opened = held.open(store, *place);
            let collection = opened.map_err(|trouble| format!("collection {place}: {trouble}"))?;
            seen.lens.insert(*place, collection.len());
            collections.insert(*place, collection);
        }
        for key in known.had.keys() {
            let got = match collections.get(&key.0) {
                Some(collection) => collection.get(&key.1),
                None if key.0 == DEFAULT => store.get_bytes(&key.1),
                None => Ok(None),
            };
            let got = match got {
                Ok(value) => Ok(value),
                Err(error) => Err(told(error.into())?),
            };
            seen.got.insert(key.clone(), got);
        }
        seen.iterate(DEFAULT, store.iter_bytes())?;
        for (place, collection) in &collections {
            match collection.iter() {
                Ok(entries) => seen.iterate(*place, entries)?,
                Err(error) => {
                    seen.failed.insert(*place, told(error.into())?);
                }
            }
        }
        seen.types = held.types;
        Ok(seen)
    }

    fn iterate(
        &mut self,
        place: Place,
        entries: impl Iterator<Item = zkv::Result<(Vec<u8>, Vec<u8>)>>,
    ) -> Result<(), String> {
        for (number, entry) in entries.enumerate() {
            // Far more than any store here has blocks.
            if number > 100_000 {
                return Err("an iteration without an end".to_owned());
            }
            match entry {
                Ok((key, value)) => {
                    if self.iterated.insert((place, key), value).is_some() {
                        return Err("the iteration yields a key twice".to_owned());
                    }
                }
                Err(error) => {
                    self.failed.insert(place, told(error.into())?);
                }
            }
        }
        Ok(())
    }

    /// Holds it against `model`: what is yielded is so, and what is not cannot be read.
    pub fn check(&self, model: &Model, known: &Known, strict: Strictness) -> Result<(), String> {
        if self.types != model.types {
            return Err(format!("collections are {:?}, not {:?}", self.types, model.types));
        }
        for (key, got) in &self.got {
            let is_right = match got {
                // Known flaw: a lookup of a stale key may fail once something else stands at its old place.
                Err(_) => strict.may_fail || known.stale.contains(key),
                Ok(Some(value)) => known.allows(key, value, model),
                Ok(None) => !model.entries.contains_key(key),
            };
            if !is_right {
                return Err(format!("a get of {} is {}", name(key), told_of(got)));
            }
        }
        for (key, value) in &self.iterated {
            if !known.allows(key, value, model) {
                let is_old = known.had(key, value);
                return Err(format!(
                    "the iteration yields {}, an older value: {is_old}",
                    name(key)
                ));
            }
        }
        for key in model.entries.keys().filter(|key| !self.iterated.contains_key(key)) {
            let got = self.got.get(key);
            let may_be_passed = !strict.iterates_all && self.failed.contains_key(&key.0);
            let is_told = strict.may_fail && self.failed.contains_key(&key.0);
            if got.is_some_and(Result::is_ok) && !may_be_passed {
                return Err(format!(
                    "the iteration lacks {}, which a get has; {:?}",
                    name(key),
                    self.failed
                ));
            }
            if !is_told && !known.stale.contains(key) {
                return Err(format!("the iteration lacks {} without a word", name(key)));
            }
        }
        let may_fail = strict.may_fail || !known.stale.is_empty();
        if let (Some((place, error)), false) = (self.failed.first_key_value(), may_fail) {
            return Err(format!("the iteration of collection {place} on a good disk: {error}"));
        }
        let wrong = self.lens.iter().find(|(place, len)| model.len_of(**place) != **len);
        match wrong.filter(|_| strict.counts) {
            Some((place, len)) => {
                let keys = model.len_of(*place);
                Err(format!("len of collection {place} is {len}, with {keys} keys"))
            }
            None => Ok(()),
        }
    }
}

fn has(values: &BTreeMap<Key, BTreeSet<Arc<Vec<u8>>>>, key: &Key, value: &[u8]) -> bool {
    values.get(key).is_some_and(|values| values.iter().any(|had| had.as_slice() == value))
}

pub fn name((place, key): &Key) -> String {
    format!("{:?} of collection {place}", String::from_utf8_lossy(key))
}

fn told_of(got: &Result<Option<Vec<u8>>, String>) -> String {
    match got {
        Ok(None) => "nothing".to_owned(),
        Ok(Some(value)) => format!("another value, of {} bytes", value.len()),
        Err(error) => format!("an error on a good disk: {error}"),
    }
}
