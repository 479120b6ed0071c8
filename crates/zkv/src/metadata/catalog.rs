//! Which collections there are: their names, and the numbers that stand in their records.
//!
//! The catalog is records like any others, under a collection number of its own. What clears or
//! drops a collection writes one of them: records whose collection the catalog does not name are
//! dead, and numbers are never used again.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use zkv_record::{Kind, Record, RecordError, SHAPE_BYTES_MAX};

use crate::keys::Keys;
use crate::metadata::counts::KeyCounts;
use crate::metadata::live::LiveTable;
use crate::write::write_set::Write;

/// The collection of a store's own keys.
pub(crate) const DEFAULT: u32 = 0;
/// The catalog's own.
pub(crate) const CATALOG: u32 = 1;
/// Named collections have this number or a higher one; those between are for later versions.
pub(crate) const FIRST_NAMED: u32 = 16;
/// The longest name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// The longest name of a type, in bytes: as long as a shape.
pub(crate) const TYPE_BYTES_MAX: usize = SHAPE_BYTES_MAX;

/// What the catalog says of a collection.
///
/// Its encoding is the value of a catalog record; `docs/format/store.md` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// What stands in its records.
    pub id: u32,
    /// How its values are encoded, as a number: a later version may know more of them.
    pub codec: u8,
    /// The types of its keys and values, as the user or their shapes name them.
    pub key_type: String,
    pub value_type: String,
}

/// All collections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Catalog {
    by_name: BTreeMap<String, Entry>,
    /// How many names have each number: of a forged file, several may. Cleaning asks for each record.
    names_of: BTreeMap<u32, usize>,
    /// Above every number that was ever used.
    next_id: u32,
}

impl Default for Catalog {
    fn default() -> Self {
        Self { by_name: BTreeMap::new(), names_of: BTreeMap::new(), next_id: FIRST_NAMED }
    }
}

impl Catalog {
    pub(crate) fn get(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.by_name.iter().map(|(name, entry)| (&**name, entry))
    }

    /// The number for a new collection; `None` once four billion were used.
    pub(crate) fn next_id(&self) -> Option<u32> {
        (self.next_id < u32::MAX).then_some(self.next_id)
    }

    /// Whether records of the collection `id` count.
    pub(crate) fn is_alive(&self, id: u32) -> bool {
        id < FIRST_NAMED || self.names_of.contains_key(&id)
    }

    /// The collections whose records count.
    pub(crate) fn alive(&self) -> impl Iterator<Item = u32> + '_ {
        (0..FIRST_NAMED).chain(self.by_name.values().map(|entry| entry.id))
    }

    /// The writes that name a collection, or change what the catalog says of it; `None` drops it.
    pub(crate) fn writes(
        &self,
        keys: &Keys,
        name: &str,
        entry: Option<&Entry>,
    ) -> Result<Vec<Write<'static>>, RecordError> {
        let of = |record: Record<'_>| Write::new(keys, &Record { collection: CATALOG, ..record });
        let Some(entry) = entry else {
            return Ok(vec![of(Record::delete(name.as_bytes()))]);
        };
        let mut value = Vec::new();
        zkv_record::encode(entry, &mut value)?;
        let mut writes = vec![of(Record::put(name.as_bytes(), &value))];
        if entry.id >= self.next_id {
            // Apart from all names, so that dropping the newest collection does not forget it.
            writes.push(of(Record::put(&[], &entry.id.saturating_add(1).to_le_bytes())));
        }
        Ok(writes)
    }

    /// Learns what a record of the catalog says. One that cannot be read is passed over: it says
    /// nothing that could be used, and the records of its collection are dead.
    pub(crate) fn apply(&mut self, record: &Record<'_>) {
        if record.key.is_empty() {
            if let Ok(next_id) = record.value.try_into() {
                self.next_id = self.next_id.max(u32::from_le_bytes(next_id));
            }
            return;
        }
        let Ok(name) = std::str::from_utf8(record.key) else { return };
        if record.kind == Kind::Delete {
            let dropped = self.by_name.remove(name);
            self.forget_name_of(dropped.as_ref());
        } else if let Ok(entry) = zkv_record::decode::<Entry>(record.value) {
            // What a forged file says of its own numbers does not count.
            if entry.id >= FIRST_NAMED {
                self.insert(name.to_owned(), entry);
            }
        }
    }

    pub(crate) fn insert(&mut self, name: String, entry: Entry) {
        self.note_used(entry.id);
        *self.names_of.entry(entry.id).or_default() += 1;
        let replaced = self.by_name.insert(name, entry);
        self.forget_name_of(replaced.as_ref());
    }

    fn forget_name_of(&mut self, entry: Option<&Entry>) {
        let Some(Entry { id, .. }) = entry else { return };
        if let Some(names) = self.names_of.get_mut(id) {
            *names -= 1;
            if *names == 0 {
                self.names_of.remove(id);
            }
        }
    }

    /// Notes that a collection has, or had, the number `id`.
    pub(crate) fn note_used(&mut self, id: u32) {
        self.next_id = self.next_id.max(id.saturating_add(1));
    }

    /// Keys and values of all its records.
    fn rows(&self) -> impl Iterator<Item = (&[u8], Vec<u8>)> {
        let named = self.by_name.iter().filter_map(|(name, entry)| {
            let mut value = Vec::new();
            zkv_record::encode(entry, &mut value).ok()?;
            Some((name.as_bytes(), value))
        });
        std::iter::once((&[][..], self.next_id.to_le_bytes().to_vec())).chain(named)
    }

    /// The writes that say all of it.
    pub(crate) fn all_writes(&self, keys: &Keys) -> Vec<Write<'static>> {
        let of = |(key, value): (&[u8], Vec<u8>)| {
            Write::new(keys, &Record { collection: CATALOG, ..Record::put(key, &value) })
        };
        self.rows().map(of).collect()
    }

    /// All of it, as its records: for the index file.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, value) in self.rows() {
            let record = Record { collection: CATALOG, ..Record::put(key, &value) };
            bytes.extend(u32::try_from(record.encoded_bytes()).unwrap_or(0).to_le_bytes());
            record.encode_into(&mut bytes);
        }
        bytes
    }

    /// `None` where the bytes are none that [`Catalog::encode`] writes.
    pub(crate) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let mut catalog = Self::default();
        while !bytes.is_empty() {
            let (length, rest) = bytes.split_first_chunk()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (record, rest) = rest.split_at_checked(length)?;
            catalog.apply(&Record::decode(record).ok()?);
            bytes = rest;
        }
        Some(catalog)
    }
}

/// Forgets what is counted of the collections that the catalog does not name.
pub(crate) fn forget_dropped(catalog: &Catalog, counts: &mut KeyCounts, live: &mut LiveTable) {
    let all: BTreeSet<u32> = counts.collections().chain(live.collections()).collect();
    for dropped in all.into_iter().filter(|id| !catalog.is_alive(*id)) {
        counts.drop_collection(dropped);
        live.drop_collection(dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::write_set::Body;

    fn entry(id: u32) -> Entry {
        Entry { id, codec: 0, key_type: "u64".into(), value_type: "string".into() }
    }

    fn learn(catalog: &mut Catalog, name: &str, entry: Option<&Entry>) {
        for write in catalog.writes(&Keys::new([7; 32]), name, entry).unwrap() {
            let Body::Record(record) = write.body else { panic!("a catalog has no long values") };
            catalog.apply(&Record::decode(&record).unwrap());
        }
    }

    #[test]
    fn numbers_are_never_used_again() {
        let mut catalog = Catalog::default();
        assert_eq!(catalog.next_id(), Some(FIRST_NAMED));
        learn(&mut catalog, "a", Some(&entry(FIRST_NAMED)));
        learn(&mut catalog, "b", Some(&entry(FIRST_NAMED + 1)));
        learn(&mut catalog, "b", None);
        assert_eq!(catalog.next_id(), Some(FIRST_NAMED + 2));
        assert!(catalog.is_alive(FIRST_NAMED) && !catalog.is_alive(FIRST_NAMED + 1));
        assert!(catalog.is_alive(DEFAULT) && catalog.is_alive(CATALOG));
        // Of a forged file, two names have one number.
        let mut forged = Catalog::default();
        learn(&mut forged, "a", Some(&entry(FIRST_NAMED)));
        learn(&mut forged, "b", Some(&entry(FIRST_NAMED)));
        learn(&mut forged, "b", Some(&entry(FIRST_NAMED + 1)));
        learn(&mut forged, "b", Some(&entry(FIRST_NAMED + 1)));
        assert!(forged.is_alive(FIRST_NAMED) && forged.is_alive(FIRST_NAMED + 1));
        learn(&mut forged, "a", None);
        learn(&mut forged, "b", None);
        assert!(!forged.is_alive(FIRST_NAMED) && !forged.is_alive(FIRST_NAMED + 1));
        // Clearing gives another number.
        learn(&mut catalog, "a", Some(&entry(FIRST_NAMED + 2)));
        assert!(!catalog.is_alive(FIRST_NAMED));
        let decoded = Catalog::decode(&catalog.encode());
        assert_eq!(decoded, Some(catalog));
    }

    #[test]
    fn what_is_no_catalog_does_not_decode_and_does_no_harm() {
        let mut catalog = Catalog::default();
        learn(&mut catalog, "a", Some(&entry(FIRST_NAMED)));
        let bytes = catalog.encode();
        for end in 0..bytes.len() {
            assert_ne!(Catalog::decode(&bytes[..end]), Some(catalog.clone()), "{end}");
        }
        // A collection with a number that is the store's own, a name that is none, no value at all.
        learn(&mut catalog, "own", Some(&entry(DEFAULT)));
        for (key, value) in [(&b"\xff"[..], &b"1"[..]), (b"b", b""), (b"", b"12"), (b"", b"")] {
            catalog.apply(&Record { collection: CATALOG, ..Record::put(key, value) });
        }
        assert_eq!(catalog.names().count(), 1);
        assert_eq!(catalog.next_id(), Some(FIRST_NAMED + 1));
    }
}
