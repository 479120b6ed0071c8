//! What a store holds, collection by collection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zkv::{Collection, CollectionOptions, Store};

use super::session::Trouble;
use super::workload::{Operation, Place, Workload};

/// The collection without a name.
pub const DEFAULT: Place = 0;

/// Named collections hold bytes, as the default one does; what they call them tells them apart.
pub type Named = Collection<Vec<u8>, Vec<u8>>;

/// What a store holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    pub entries: BTreeMap<(Place, Vec<u8>), Arc<Vec<u8>>>,
    /// The named collections that exist, with what their values' type is called.
    pub types: BTreeMap<Place, String>,
}

impl Model {
    pub fn set(&mut self, place: Place, key: Vec<u8>, value: Vec<u8>) {
        self.entries.insert((place, key), Arc::new(value));
    }

    pub fn get(&self, place: Place, key: &[u8]) -> Option<&Arc<Vec<u8>>> {
        self.entries.get(&(place, key.to_vec()))
    }

    pub fn len_of(&self, place: Place) -> u64 {
        self.entries.keys().filter(|(of, _)| *of == place).count() as u64
    }

    /// What the operation `number` makes of this, commit by commit: a collection that is missing is
    /// made in a commit of its own. Nothing, where it is none that changes anything.
    pub fn after(&self, workload: &Workload, number: usize, operation: Operation) -> Vec<Self> {
        let mut states = Vec::new();
        let mut next = self.clone();
        for place in operation.places() {
            if place != DEFAULT && !next.types.contains_key(&place) {
                next.types.insert(place, type_of(number));
                states.push(next.clone());
            }
        }
        match operation {
            Operation::Clear(place) | Operation::Drop(place) => {
                if !next.types.contains_key(&place) {
                    return states;
                }
                next.entries.retain(|(of, _), _| *of != place);
                if let Operation::Drop(_) = operation {
                    next.types.remove(&place);
                }
            }
            _ => {
                let writes = operation.writes(workload, number);
                if writes.is_empty() {
                    return states;
                }
                for (place, key, value) in writes {
                    match value {
                        Some(value) => next.set(place, key, value),
                        None => drop(next.entries.remove(&(place, key))),
                    }
                }
            }
        }
        states.push(next);
        states
    }

    /// All that `store` holds, by iteration. Its counts must agree.
    pub fn of(store: &Store) -> Result<Self, Trouble> {
        let mut found = Self { types: types(store)?, ..Self::default() };
        for entry in store.iter_bytes() {
            found.take(DEFAULT, entry)?;
        }
        let mut lens = vec![(DEFAULT, store.len())];
        for place in found.types.keys().copied().collect::<Vec<_>>() {
            let collection = found.open(store, place)?;
            for entry in collection.iter()? {
                found.take(place, entry)?;
            }
            lens.push((place, collection.len()));
        }
        for (place, len) in lens {
            found.check_len(place, len)?;
        }
        Ok(found)
    }

    pub fn take(
        &mut self,
        place: Place,
        entry: zkv::Result<(Vec<u8>, Vec<u8>)>,
    ) -> Result<(), Trouble> {
        let (key, value) = entry?;
        match self.entries.insert((place, key), Arc::new(value)) {
            Some(_) => Err(Trouble::Wrong("the iteration yields a key twice".to_owned())),
            None => Ok(()),
        }
    }

    pub fn check_len(&self, place: Place, len: u64) -> Result<(), Trouble> {
        let expected = self.len_of(place);
        if len == expected {
            return Ok(());
        }
        Err(Trouble::Wrong(format!("len of collection {place} is {len}, with {expected} keys")))
    }

    /// What `store` holds of the keys of `models`, by gets alone: it writes nothing.
    pub fn read<'a>(
        store: &Store,
        models: impl Iterator<Item = &'a Self>,
    ) -> Result<Self, Trouble> {
        let mut found = Self { types: types(store)?, ..Self::default() };
        let mut collections = BTreeMap::new();
        for place in found.types.keys() {
            collections.insert(*place, found.open(store, *place)?);
        }
        let keys: BTreeSet<_> = models.flat_map(|model| model.entries.keys()).collect();
        for (place, key) in keys {
            let value = match collections.get(place) {
                Some(collection) => collection.get(key)?,
                None if *place == DEFAULT => store.get_bytes(key)?,
                None => None,
            };
            if let Some(value) = value {
                found.set(*place, key.clone(), value);
            }
        }
        Ok(found)
    }

    /// Opens a collection that exists.
    pub fn open(&self, store: &Store, place: Place) -> Result<Named, Trouble> {
        let found = self.types.get(&place);
        let found = found.ok_or_else(|| Trouble::Wrong(format!("no collection {place}")))?;
        Ok(open(store, place, found)?)
    }
}

/// Opens or makes a collection.
pub fn open(store: &Store, place: Place, value_type: &str) -> zkv::Result<Named> {
    // Types with names need not be looked at.
    let options = CollectionOptions::new().key_type("bytes").value_type(value_type);
    store.collection_with(&name(place), &options)
}

/// What a collection's values are called that the operation `number` makes: never the same twice.
pub fn type_of(number: usize) -> String {
    format!("made by {number}")
}

pub fn name(place: Place) -> String {
    format!("c{place}")
}

/// The collections that `store` names.
pub fn types(store: &Store) -> Result<BTreeMap<Place, String>, Trouble> {
    let mut types = BTreeMap::new();
    for info in store.collections() {
        let place = info.name.strip_prefix('c').and_then(|number| number.parse().ok());
        let place = place.ok_or_else(|| Trouble::Wrong("a name that nobody gave".to_owned()))?;
        types.insert(place, info.value_type);
    }
    Ok(types)
}
