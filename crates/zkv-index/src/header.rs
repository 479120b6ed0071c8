//! The header of a checkpoint: all that describes it, in 512 bytes.

use zkv_io::crc32c;

use crate::bucket::BUCKET_BYTES;
use crate::error::IndexError;
use crate::geometry::{BUCKETS_MAX, DISPLACEMENT_MAX, Geometry};
use crate::key::{HASH_BITS, Location};
use crate::layout::{
    FORMAT_VERSION, Field, HEADER, HEADER_BYTES, SECTION, SECTION_BYTES_MAX, SECTIONS_MAX, TABLE,
    TABLES_MAX, WATERMARK_BYTES_MAX,
};
use crate::table::Table;

/// What an index file starts with, and each header in it.
pub(crate) const MAGIC: [u8; 8] = *b"zkvindex";
/// The bits of `required_features` that this build knows: none has been given a meaning yet.
const FEATURES_KNOWN: u64 = 0;

const AT_MAGIC: Field = Field::of(HEADER, "magic");
const AT_VERSION: Field = Field::of(HEADER, "version");
const AT_CHECK: Field = Field::of(HEADER, "check");
const AT_STORE_ID: Field = Field::of(HEADER, "store_id");
const AT_FEATURES: Field = Field::of(HEADER, "required_features");
const AT_OFFSET: Field = Field::of(HEADER, "offset");
const AT_NUMBER: Field = Field::of(HEADER, "number");
const AT_KEY_COUNT: Field = Field::of(HEADER, "key_count");
const AT_BODY_END: Field = Field::of(HEADER, "body_end");
const AT_SECTIONS_OFFSET: Field = Field::of(HEADER, "sections_offset");
const AT_TABLE_COUNT: Field = Field::of(HEADER, "table_count");
const AT_SECTION_COUNT: Field = Field::of(HEADER, "section_count");
const AT_WATERMARK_BYTES: Field = Field::of(HEADER, "watermark_bytes");
const AT_WATERMARK: Field = Field::of(HEADER, "watermark");
const AT_TABLES: Field = Field::of(HEADER, "tables");
const AT_SECTIONS: Field = Field::of(HEADER, "sections");

/// The format's version. Magic, version and check keep their places and meaning in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FormatVersion(pub(crate) u32);

impl FormatVersion {
    pub(crate) const CURRENT: Self = Self(FORMAT_VERSION);

    fn check_readable(self) -> Result<(), IndexError> {
        if self == Self::CURRENT {
            return Ok(());
        }
        Err(IndexError::UnsupportedVersion { found: self.0, supported: Self::CURRENT.0 })
    }
}

/// Opaque bytes that belong to a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) kind: u32,
    pub(crate) check: u32,
    pub(crate) length: u64,
}

/// What a header says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) store_id: [u8; 16],
    /// Where this header starts.
    pub(crate) offset: u64,
    /// One more than the header's before it; in a file's first header, than the last one's of the
    /// file that it replaced.
    pub(crate) number: u64,
    pub(crate) key_count: u64,
    /// Where the next header would start.
    pub(crate) body_end: u64,
    pub(crate) sections_offset: u64,
    pub(crate) watermark: Vec<u8>,
    /// The base, then the appended tables, the oldest first.
    pub(crate) tables: Vec<Table>,
    /// One behind the other from `sections_offset` on.
    pub(crate) sections: Vec<Section>,
}

/// What stands where a header may be.
pub(crate) enum Parsed {
    Header(Box<Header>),
    /// Nothing that was ever completed there.
    Absent,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        AT_MAGIC.put(&mut bytes, &MAGIC);
        AT_VERSION.put(&mut bytes, &FormatVersion::CURRENT.0.to_le_bytes());
        AT_STORE_ID.put(&mut bytes, &self.store_id);
        AT_FEATURES.put(&mut bytes, &FEATURES_KNOWN.to_le_bytes());
        AT_OFFSET.put(&mut bytes, &self.offset.to_le_bytes());
        AT_NUMBER.put(&mut bytes, &self.number.to_le_bytes());
        AT_KEY_COUNT.put(&mut bytes, &self.key_count.to_le_bytes());
        AT_BODY_END.put(&mut bytes, &self.body_end.to_le_bytes());
        AT_SECTIONS_OFFSET.put(&mut bytes, &self.sections_offset.to_le_bytes());
        AT_TABLE_COUNT.put(&mut bytes, &[count_byte(self.tables.len())]);
        AT_SECTION_COUNT.put(&mut bytes, &[count_byte(self.sections.len())]);
        AT_WATERMARK_BYTES.put(&mut bytes, &[count_byte(self.watermark.len())]);
        bytes[AT_WATERMARK.offset..][..self.watermark.len()].copy_from_slice(&self.watermark);
        let (tables, _) = bytes[AT_TABLES.offset..].as_chunks_mut();
        for (record, table) in tables.iter_mut().zip(&self.tables) {
            encode_table(record, table);
        }
        let (sections, _) = bytes[AT_SECTIONS.offset..].as_chunks_mut();
        for (record, section) in sections.iter_mut().zip(&self.sections) {
            encode_section(record, section);
        }
        let check = crc32c(0, &bytes);
        AT_CHECK.put(&mut bytes, &check.to_le_bytes());
        bytes
    }

    /// Reads the header at `offset` of a file of `file_bytes`.
    ///
    /// # Errors
    /// Where it is whole, but of another version or store, or says what cannot be.
    pub(crate) fn parse(
        bytes: &[u8; HEADER_BYTES],
        offset: u64,
        file_bytes: u64,
        store_id: [u8; 16],
    ) -> Result<Parsed, IndexError> {
        let mut unchecked = *bytes;
        AT_CHECK.put(&mut unchecked, &[0; 4]);
        let check = u32::from_le_bytes(AT_CHECK.array(bytes));
        if AT_MAGIC.slice(bytes) != MAGIC || crc32c(0, &unchecked) != check {
            return Ok(Parsed::Absent);
        }
        FormatVersion(u32::from_le_bytes(AT_VERSION.array(bytes))).check_readable()?;
        let found = u64::from_le_bytes(AT_FEATURES.array(bytes));
        if found & !FEATURES_KNOWN != 0 {
            return Err(IndexError::UnsupportedFeatures { found, supported: FEATURES_KNOWN });
        }
        let found = AT_STORE_ID.array(bytes);
        if found != store_id {
            return Err(IndexError::Foreign { expected: store_id, found });
        }
        let header =
            Self::decode(bytes).ok_or(IndexError::corrupt(offset, "a count is too large"))?;
        header.check_extents(offset, file_bytes)?;
        Ok(Parsed::Header(Box::new(header)))
    }

    fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let number = |field: Field| u64::from_le_bytes(field.array(bytes));
        let count = |field: Field| usize::from(bytes[field.offset]);
        let (table_count, section_count) = (count(AT_TABLE_COUNT), count(AT_SECTION_COUNT));
        if !(1..=TABLES_MAX).contains(&table_count) || section_count > SECTIONS_MAX {
            return None;
        }
        let (tables, _) = AT_TABLES.slice(bytes).as_chunks();
        let (sections, _) = AT_SECTIONS.slice(bytes).as_chunks();
        Some(Self {
            store_id: AT_STORE_ID.array(bytes),
            offset: number(AT_OFFSET),
            number: number(AT_NUMBER),
            key_count: number(AT_KEY_COUNT),
            body_end: number(AT_BODY_END),
            sections_offset: number(AT_SECTIONS_OFFSET),
            watermark: AT_WATERMARK.slice(bytes).get(..count(AT_WATERMARK_BYTES))?.to_vec(),
            tables: tables.iter().take(table_count).map(decode_table).collect::<Option<_>>()?,
            sections: sections.iter().take(section_count).map(decode_section).collect(),
        })
    }

    /// Holds all extents against each other and the file's length, so that nothing is allocated or
    /// read by a length that cannot be.
    fn check_extents(&self, offset: u64, file_bytes: u64) -> Result<(), IndexError> {
        let corrupt = |what| Err(IndexError::corrupt(offset, what));
        let body = offset + HEADER_BYTES as u64;
        if self.offset != offset {
            return corrupt("a header lies where it was not written");
        }
        if self.body_end < body || !self.body_end.is_multiple_of(BUCKET_BYTES as u64) {
            return corrupt("a header's body ends where none can");
        }
        if self.body_end > file_bytes {
            return corrupt("the file ends within a checkpoint");
        }
        for (index, table) in self.tables.iter().enumerate() {
            let end = table.bucket_offset(table.buckets_total());
            if table.bucket_offset(0) < HEADER_BYTES as u64 || end > self.body_end {
                return corrupt("a table lies outside the file");
            }
            if self.tables[..index].iter().any(|other| other.overlaps(table)) {
                return corrupt("two tables overlap");
            }
            if index == 0 && table.geometry.has_kills {
                return corrupt("a base table has kills");
            }
        }
        if self.sections.iter().any(|section| section.length > SECTION_BYTES_MAX) {
            return corrupt("a section is longer than any can be");
        }
        let sections = self
            .sections
            .iter()
            .try_fold(self.sections_offset, |end, section| end.checked_add(section.length));
        match sections {
            Some(end) if body <= self.sections_offset && end <= self.body_end => Ok(()),
            _ => corrupt("a section lies outside its checkpoint"),
        }
    }

    /// The sections with their offsets.
    pub(crate) fn sections(&self) -> impl Iterator<Item = (u64, &Section)> {
        self.sections.iter().scan(self.sections_offset, |next, section| {
            let offset = *next;
            *next += section.length;
            Some((offset, section))
        })
    }
}

/// Whether a file may be an index, whole or damaged, of which this is the first header, or what there is of it: nothing,
/// the magic, or, where that is damaged, zeros alone, as a sector that was lost reads, or the store's id.
pub(crate) fn may_start_index(start: &[u8], store_id: Option<[u8; 16]>) -> bool {
    let magic = &start[..start.len().min(MAGIC.len())];
    let has_id = |id| start.len() == HEADER_BYTES && AT_STORE_ID.slice(start) == id;
    MAGIC.starts_with(magic)
        || start.iter().all(|byte| *byte == 0)
        || store_id.as_ref().is_some_and(|id| has_id(id.as_slice()))
}

const TABLE_BYTES: usize = AT_TABLES.bytes / TABLES_MAX;
const SECTION_BYTES: usize = AT_SECTIONS.bytes / SECTIONS_MAX;
const _: () = assert!(WATERMARK_BYTES_MAX <= u8::MAX as usize);

/// A count whose limit the caller has checked.
fn count_byte(count: usize) -> u8 {
    u8::try_from(count).expect("tables, sections and watermark are limited")
}

const T_FIRST_BUCKET: Field = Field::of(TABLE, "first_bucket");
const T_BUCKET_COUNT: Field = Field::of(TABLE, "bucket_count");
const T_ENTRY_COUNT: Field = Field::of(TABLE, "entry_count");
const T_SPILL_COUNT: Field = Field::of(TABLE, "spill_count");
const T_DISPLACEMENT_MAX: Field = Field::of(TABLE, "displacement_max");
const T_PREFIX_BITS: Field = Field::of(TABLE, "prefix_bits");
const T_LOCATION_BITS: Field = Field::of(TABLE, "location_bits");
const T_KILL_BITS: Field = Field::of(TABLE, "kill_bits");
const T_SALT: Field = Field::of(TABLE, "salt");
const T_CHECK: Field = Field::of(TABLE, "check");

fn encode_table(record: &mut [u8; TABLE_BYTES], table: &Table) {
    T_FIRST_BUCKET.put(record, &table.first_bucket.to_le_bytes());
    T_BUCKET_COUNT.put(record, &table.geometry.bucket_count.to_le_bytes());
    T_ENTRY_COUNT.put(record, &table.entry_count.to_le_bytes());
    T_SPILL_COUNT.put(record, &table.spill_count.to_le_bytes());
    T_DISPLACEMENT_MAX.put(record, &table.displacement_max.to_le_bytes());
    T_PREFIX_BITS.put(record, &[table.geometry.prefix_bits]);
    T_LOCATION_BITS.put(record, &[table.geometry.location_bits]);
    T_KILL_BITS.put(record, &[u8::from(table.geometry.has_kills)]);
    T_SALT.put(record, &table.salt.to_le_bytes());
    T_CHECK.put(record, &table.check.to_le_bytes());
}

/// `None` where no table can be like that.
fn decode_table(record: &[u8; TABLE_BYTES]) -> Option<Table> {
    let [kill_bits] = T_KILL_BITS.array(record);
    let [prefix_bits] = T_PREFIX_BITS.array(record);
    let [location_bits] = T_LOCATION_BITS.array(record);
    let bucket_count = u32::from_le_bytes(T_BUCKET_COUNT.array(record));
    if u32::from(prefix_bits) > HASH_BITS
        || !(1..=Location::BITS_MAX).contains(&u32::from(location_bits))
        || !(1..=BUCKETS_MAX).contains(&bucket_count)
        || kill_bits > 1
    {
        return None;
    }
    let geometry = Geometry { bucket_count, prefix_bits, location_bits, has_kills: kill_bits == 1 };
    let table = Table {
        first_bucket: u32::from_le_bytes(T_FIRST_BUCKET.array(record)),
        geometry,
        spill_count: u16::from_le_bytes(T_SPILL_COUNT.array(record)),
        displacement_max: u16::from_le_bytes(T_DISPLACEMENT_MAX.array(record)),
        entry_count: u64::from_le_bytes(T_ENTRY_COUNT.array(record)),
        salt: u32::from_le_bytes(T_SALT.array(record)),
        check: u32::from_le_bytes(T_CHECK.array(record)),
    };
    let limit = geometry.displacement_limit()?;
    let capacity = u64::from(table.buckets_total()) * u64::from(geometry.slots());
    let can_be = table.spill_count <= DISPLACEMENT_MAX
        && u32::from(table.displacement_max) <= limit
        && table.entry_count <= capacity;
    can_be.then_some(table)
}

fn encode_section(record: &mut [u8; SECTION_BYTES], section: &Section) {
    Field::of(SECTION, "kind").put(record, &section.kind.to_le_bytes());
    Field::of(SECTION, "check").put(record, &section.check.to_le_bytes());
    Field::of(SECTION, "length").put(record, &section.length.to_le_bytes());
}

fn decode_section(record: &[u8; SECTION_BYTES]) -> Section {
    Section {
        kind: u32::from_le_bytes(Field::of(SECTION, "kind").array(record)),
        check: u32::from_le_bytes(Field::of(SECTION, "check").array(record)),
        length: u64::from_le_bytes(Field::of(SECTION, "length").array(record)),
    }
}
