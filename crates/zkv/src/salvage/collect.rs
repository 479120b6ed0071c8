//! The newest record of each key, as the log is read from its end.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use zkv_index::KeyHash;
use zkv_log::{BlockAddress, Salvage, Salvaged, SalvagedBlock};
use zkv_record::{Codec, Head, Kind, Record};

use crate::error::{Error, Result};
use crate::metadata::catalog::{CATALOG, Catalog, DEFAULT, Entry, FIRST_NAMED};
use crate::store::Store;
use crate::write::modify::Target;

use super::{SalvageEvent, SalvageReport};

/// Puts the newest record of each key into the new store.
///
/// Records come from the newest to the oldest, so that the first one of a key is the one that
/// counts, and whatever is lost before it is newer.
pub(super) struct Collector<'a> {
    source: &'a Path,
    store: &'a Store,
    pub listen: &'a mut dyn FnMut(SalvageEvent<'_>),
    pub report: SalvageReport,
    /// Keys of which a record was met.
    seen: HashSet<KeyHash>,
    /// The newest record of each piece; `None` where it is a mark.
    pieces: HashMap<KeyHash, Option<BlockAddress>>,
    /// Values in pieces: a piece may come before its head or behind it.
    heads: Vec<HeadPlace>,
    /// What the newest records of the catalog say.
    catalog: Catalog,
    /// The same as the index file has it, which may be older.
    known: Catalog,
    /// What was brought of each named collection, by its number: its name may come behind it.
    brought: BTreeMap<u32, Brought>,
    commit: CommitState,
    /// Whether anything newer than what comes now is lost, or may be.
    is_newer_lost: bool,
}

/// A head that is the newest record of its key.
struct HeadPlace {
    collection: u32,
    address: BlockAddress,
    ordinal: usize,
    is_newer_lost: bool,
}

/// Keys and bytes.
#[derive(Clone, Copy, Default)]
struct Brought {
    keys: u64,
    bytes: u64,
    possibly_superseded: u64,
}

/// The commit to which the records belong that come now.
#[derive(Default)]
struct CommitState {
    keys: u64,
    has_lost: bool,
    /// Whether anything of it was met, and be it its end.
    is_there: bool,
}

impl<'a> Collector<'a> {
    pub(super) fn new(
        source: &'a Path,
        store: &'a Store,
        known: Catalog,
        listen: &'a mut dyn FnMut(SalvageEvent<'_>),
    ) -> Self {
        Self {
            source,
            store,
            listen,
            report: SalvageReport::default(),
            seen: HashSet::new(),
            pieces: HashMap::new(),
            heads: Vec::new(),
            catalog: Catalog::default(),
            known,
            brought: BTreeMap::new(),
            commit: CommitState::default(),
            is_newer_lost: false,
        }
    }

    /// Takes the next older thing.
    pub(super) fn take(&mut self, found: Salvaged<'_>) -> Result<()> {
        match found {
            Salvaged::Segment(segment) => {
                self.report.segments += 1;
                self.report.lost_headers += u64::from(!segment.has_header);
                self.report.lost_seals += u64::from(!segment.has_seal);
            }
            Salvaged::CommitEnd => self.end_commit(),
            Salvaged::Block(block) if block.is_committed => self.take_block(&block)?,
            Salvaged::Block(block) => {
                self.report.uncommitted_records += block.entries.len() as u64;
            }
            Salvaged::Lost(lost) => {
                self.report.note_lost(&lost);
                self.note_loss();
            }
            Salvaged::MissingSegments(count) => {
                self.report.missing_segments = self.report.missing_segments.saturating_add(count);
                self.note_loss();
            }
            Salvaged::Doubt => self.is_newer_lost = true,
            // What was never whole is not missed.
            Salvaged::Torn => {}
        }
        Ok(())
    }

    fn note_loss(&mut self) {
        self.is_newer_lost = true;
        self.commit.has_lost = true;
    }

    /// Ends what was met of a commit: what comes now stands before it.
    fn end_commit(&mut self) {
        let next = CommitState { is_there: true, ..CommitState::default() };
        let commit = std::mem::replace(&mut self.commit, next);
        if commit.has_lost && commit.is_there {
            self.report.incomplete_commits += 1;
            self.report.keys_of_incomplete_commits += commit.keys;
        }
    }

    fn take_block(&mut self, block: &SalvagedBlock<'_>) -> Result<()> {
        self.commit.is_there = true;
        for (ordinal, entry) in block.entries.iter().enumerate() {
            match Record::decode(entry) {
                Ok(record) => self.take_record(&record, block.address, ordinal)?,
                // Whose it is, and what it supersedes, cannot be known.
                Err(_) => {
                    self.report.unknown_entries += 1;
                    self.is_newer_lost = true;
                }
            }
        }
        Ok(())
    }

    fn take_record(
        &mut self,
        record: &Record<'_>,
        address: BlockAddress,
        ordinal: usize,
    ) -> Result<()> {
        let hash = self.store.shared().keys.hash_record(record);
        if record.kind == Kind::Piece {
            let is_mark = record.value.is_empty();
            self.pieces.entry(hash).or_insert((!is_mark).then_some(address));
            return Ok(());
        }
        if !self.seen.insert(hash) {
            return Ok(());
        }
        if record.collection == CATALOG {
            self.catalog.apply(record);
            return Ok(());
        }
        let is_known = matches!(record.collection, DEFAULT | FIRST_NAMED..);
        match record.kind {
            // No version writes such yet.
            Kind::Put | Kind::Head if !is_known || record.expires_at_ms.is_some() => {
                self.report.unknown_entries += 1;
                Ok(())
            }
            Kind::Put => {
                self.commit.keys += 1;
                self.bring(record.collection, record.key, record.value, self.is_newer_lost)
            }
            Kind::Head => {
                self.commit.keys += 1;
                let is_newer_lost = self.is_newer_lost;
                let collection = record.collection;
                self.heads.push(HeadPlace { collection, address, ordinal, is_newer_lost });
                Ok(())
            }
            Kind::Delete | Kind::Piece => Ok(()),
        }
    }

    fn bring(
        &mut self,
        collection: u32,
        key: &[u8],
        value: &[u8],
        is_newer_lost: bool,
    ) -> Result<()> {
        self.store.set_in(Target::Number(collection), key, value)?;
        let brought = self.brought.entry(collection).or_default();
        brought.keys += 1;
        brought.bytes += (key.len() + value.len()) as u64;
        if is_newer_lost {
            brought.possibly_superseded += 1;
            (self.listen)(SalvageEvent::PossiblySuperseded { key });
        }
        Ok(())
    }

    /// Whether anything that counts is lost. The tail that a crash leaves is not: nobody was told that it is
    /// there. Nor is a value of which a piece is missing, where no block is.
    fn is_anything_lost(&self) -> bool {
        let SalvageReport { missing_segments, lost_blocks, unknown_entries, .. } = self.report;
        self.is_newer_lost || [missing_segments, lost_blocks, unknown_entries] != [0; 3]
    }

    /// What the index file says of a collection, unless the log has a newer word about its name.
    fn known_name(&self, id: u32) -> Option<(String, Entry)> {
        let (name, entry) = self.known.names().find(|(_, entry)| entry.id == id)?;
        let hash = self.store.shared().key(CATALOG, name.as_bytes()).hash;
        (!self.seen.contains(&hash)).then(|| (name.to_owned(), entry.clone()))
    }

    /// Names the collections. What no name was found for was cleared or dropped, unless something is
    /// lost: then that may be the name.
    fn name_collections(&mut self, is_lost: bool) -> Result<()> {
        for (id, brought) in std::mem::take(&mut self.brought) {
            self.catalog.note_used(id);
            let is_named = self.catalog.is_alive(id);
            if !is_named && !is_lost {
                continue;
            }
            if let (false, Some((name, entry))) = (is_named, self.known_name(id)) {
                self.catalog.insert(name, entry);
            } else if !is_named {
                let unknown = || "unknown".to_owned();
                let (key_type, value_type) = (unknown(), unknown());
                let entry = Entry { id, codec: Codec::Postcard.code(), key_type, value_type };
                let mut name = format!("recovered-{id}");
                while self.catalog.get(&name).is_some() {
                    name.push('+');
                }
                self.catalog.insert(name, entry);
                self.report.recovered_collections += 1;
            }
            self.report.keys += brought.keys;
            self.report.bytes += brought.bytes;
            self.report.possibly_superseded += brought.possibly_superseded;
        }
        if self.catalog == Catalog::default() {
            return Ok(());
        }
        // In one commit: with it, the store forgets what has no name.
        let shared = self.store.shared();
        shared.commit_catalog(self.catalog.all_writes(&shared.keys), None)
    }

    /// Brings the values in pieces, now that all pieces were met.
    pub(super) fn finish(mut self, salvage: &mut Salvage) -> Result<SalvageReport> {
        self.end_commit();
        let is_lost = self.is_anything_lost();
        // Each value has one head; a forged log may name one of gigabytes in any number of them, each of
        // which would be written.
        let mut values = HashSet::new();
        for place in std::mem::take(&mut self.heads) {
            // Of a collection that was cleared or dropped, cleaning may have taken some pieces already.
            if !is_lost && !self.catalog.is_alive(place.collection) {
                continue;
            }
            let entries = salvage.read(place.address).map_err(Error::data(self.source))?;
            let record = entries
                .as_ref()
                .and_then(|entries| Record::decode(entries.get(place.ordinal)?).ok());
            // It was read before; the disk may fail now.
            let Some(record) = record else {
                self.report.incomplete_values += 1;
                continue;
            };
            let key = record.key.to_vec();
            let head = Head::decode(record.value).ok();
            let own = head.filter(|head| values.insert(head.value_id));
            let value = match own {
                Some(head) => self.gather(&head, salvage)?,
                None => None,
            };
            match value {
                Some(value) => self.bring(place.collection, &key, &value, place.is_newer_lost)?,
                None => {
                    self.report.incomplete_values += 1;
                    self.report.incomplete_value_bytes += head.map_or(0, |head| head.value_bytes);
                    (self.listen)(SalvageEvent::IncompleteValue { key: &key });
                }
            }
        }
        self.name_collections(is_lost)?;
        Ok(self.report)
    }

    /// The value that `head` names; `None` where a piece is lost, or not as long as the head says. It grows
    /// only as pieces are found.
    fn gather(&self, head: &Head, salvage: &mut Salvage) -> Result<Option<Vec<u8>>> {
        let mut value = Vec::new();
        for number in 0..head.piece_count() {
            let key = head.piece_key(number).encode();
            let address = self.pieces.get(&self.store.shared().keys.hash_piece(&key));
            let Some(address) = address.copied().flatten() else { return Ok(None) };
            let entries = salvage.read(address).map_err(Error::data(self.source))?;
            let entries = entries.unwrap_or_default();
            let mut records = entries.iter().filter_map(|entry| Record::decode(entry).ok());
            let piece = records.find(|record| record.kind == Kind::Piece && record.key == key);
            let bytes = head.piece_bytes_at(number) as usize;
            let Some(piece) = piece.filter(|piece| piece.value.len() == bytes) else {
                return Ok(None);
            };
            value.extend_from_slice(piece.value);
        }
        Ok(Some(value))
    }
}
