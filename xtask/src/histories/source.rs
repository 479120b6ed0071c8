//! Where lists are read from: a transaction, a snapshot, or the store as it is.

use std::collections::BTreeMap;

use zkv::{Error, Result, Snapshot, Store, Transaction};

use super::history::Element;
use super::run::Stage;

/// A list, and what makes it longer.
pub type Value = (Vec<Element>, String);

pub trait Source {
    /// The list of a key, empty where there is none.
    fn list(&mut self, stage: &Stage<'_>, key: u8) -> Result<Vec<Element>>;

    /// Those of several keys of one collection, read together.
    fn many(&mut self, stage: &Stage<'_>, is_named: bool, keys: &[u8])
    -> Result<Vec<Vec<Element>>>;

    /// All keys of a collection.
    fn scan(&mut self, stage: &Stage<'_>, is_named: bool) -> Result<BTreeMap<u8, Vec<Element>>>;
}

impl Source for Transaction {
    fn list(&mut self, stage: &Stage<'_>, key: u8) -> Result<Vec<Element>> {
        let value = match stage.collection_of(key) {
            Some(named) => named.within(self)?.get(&key)?,
            None => self.get(&key)?,
        };
        Ok(list_of(value))
    }

    fn many(
        &mut self,
        stage: &Stage<'_>,
        is_named: bool,
        keys: &[u8],
    ) -> Result<Vec<Vec<Element>>> {
        let values = match stage.collection(is_named) {
            Some(named) => named.within(self)?.get_many(&by_reference(keys))?,
            None => self.get_many(keys)?,
        };
        Ok(lists_of(values))
    }

    fn scan(&mut self, stage: &Stage<'_>, is_named: bool) -> Result<BTreeMap<u8, Vec<Element>>> {
        match stage.collection(is_named) {
            Some(named) => collect(named.within(self)?.iter()),
            None => collect(self.iter_bytes().map(decode)),
        }
    }
}

impl Source for Snapshot {
    fn list(&mut self, stage: &Stage<'_>, key: u8) -> Result<Vec<Element>> {
        let value = match stage.collection_of(key) {
            Some(named) => named.at(self)?.get(&key)?,
            None => self.get(&key)?,
        };
        Ok(list_of(value))
    }

    fn many(
        &mut self,
        stage: &Stage<'_>,
        is_named: bool,
        keys: &[u8],
    ) -> Result<Vec<Vec<Element>>> {
        let values = match stage.collection(is_named) {
            Some(named) => named.at(self)?.get_many(&by_reference(keys))?,
            None => self.get_many(keys)?,
        };
        Ok(lists_of(values))
    }

    fn scan(&mut self, stage: &Stage<'_>, is_named: bool) -> Result<BTreeMap<u8, Vec<Element>>> {
        match stage.collection(is_named) {
            Some(named) => collect(named.at(self)?.iter()),
            None => collect(self.iter_bytes().map(decode)),
        }
    }
}

impl Source for Store {
    fn list(&mut self, stage: &Stage<'_>, key: u8) -> Result<Vec<Element>> {
        let value = match stage.collection_of(key) {
            Some(named) => named.get(&key)?,
            None => self.get(&key)?,
        };
        Ok(list_of(value))
    }

    fn many(
        &mut self,
        stage: &Stage<'_>,
        is_named: bool,
        keys: &[u8],
    ) -> Result<Vec<Vec<Element>>> {
        let values = match stage.collection(is_named) {
            Some(named) => named.get_many(&by_reference(keys))?,
            None => self.get_many(keys)?,
        };
        Ok(lists_of(values))
    }

    fn scan(&mut self, stage: &Stage<'_>, is_named: bool) -> Result<BTreeMap<u8, Vec<Element>>> {
        match stage.collection(is_named) {
            Some(named) => collect(named.iter()?),
            None => collect(self.iter_bytes().map(decode)),
        }
    }
}

fn by_reference(keys: &[u8]) -> Vec<&u8> {
    keys.iter().collect()
}

fn list_of(value: Option<Value>) -> Vec<Element> {
    value.map(|(list, _)| list).unwrap_or_default()
}

fn lists_of(values: Vec<Option<Value>>) -> Vec<Vec<Element>> {
    values.into_iter().map(list_of).collect()
}

/// What is read as bytes, as postcard has written it.
fn decode(entry: Result<(Vec<u8>, Vec<u8>)>) -> Result<(u8, Value)> {
    let (key, value) = entry?;
    let depth_max = 8;
    let key = zkv_record::decode_within(&key, depth_max).map_err(Error::from)?;
    Ok((key, zkv_record::decode_within(&value, depth_max).map_err(Error::from)?))
}

fn collect(
    entries: impl Iterator<Item = Result<(u8, Value)>>,
) -> Result<BTreeMap<u8, Vec<Element>>> {
    entries.map(|entry| entry.map(|(key, (list, _))| (key, list))).collect()
}
