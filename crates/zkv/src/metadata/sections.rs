//! What the store keeps in its index file beside the index.

use zkv_index::{Checkpoint, CheckpointMeta, IndexError};
use zkv_io::is_lost;

use crate::metadata::catalog::Catalog;
use crate::metadata::counts::{self, KeyCounts};
use crate::metadata::live::{self, LiveTable};

/// The section that holds the log's own.
pub(crate) const LOG_SECTION: u32 = 1;
/// The section that holds the catalog.
pub(crate) const CATALOG_SECTION: u32 = 5;

/// What the sections of any store may take together, and for each byte of its data file besides. Their rows
/// are of records in the log, 12 to 28 bytes for one, and compression seldom makes less than a byte of one.
/// A forged index file is not read any further, however long it says that its sections are.
const SECTIONS_BYTES_LEAST: u64 = 64 << 20;
const SECTIONS_BYTES_A_DATA_BYTE: u64 = 1024;

/// Whether the index file's sections may be those of a data file of so many bytes.
pub(crate) fn may_be_of(checkpoint: &Checkpoint, data_bytes: u64) -> bool {
    let besides = data_bytes.saturating_mul(SECTIONS_BYTES_A_DATA_BYTE);
    checkpoint.sections_bytes() <= SECTIONS_BYTES_LEAST.saturating_add(besides)
}

/// The store's tables, as an index file keeps them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    pub live: LiveTable,
    pub counts: KeyCounts,
    pub catalog: Catalog,
}

impl Tables {
    /// `None` where one is missing, or damaged.
    ///
    /// # Errors
    /// As [`section_of`].
    pub(crate) fn read(checkpoint: &Checkpoint) -> Result<Option<Self>, IndexError> {
        let section = |kind| section_of(checkpoint, kind);
        let (segments, live) = (section(live::SEGMENTS_SECTION)?, section(live::LIVE_SECTION)?);
        let (counts, catalog) = (section(counts::SECTION)?, section(CATALOG_SECTION)?);
        let decoded = || {
            Some(Self {
                live: LiveTable::decode(&segments?, &live?).ok()?,
                counts: KeyCounts::decode(&counts?).ok()?,
                catalog: Catalog::decode(&catalog?)?,
            })
        };
        Ok(decoded())
    }
}

/// The section of this `kind`; `None` where it is missing, or damaged.
///
/// # Errors
/// [`IndexError::Io`] where reading it failed, and it may be there all the same.
pub(crate) fn section_of(
    checkpoint: &Checkpoint,
    kind: u32,
) -> Result<Option<Vec<u8>>, IndexError> {
    match checkpoint.section(kind) {
        Err(IndexError::Io(error)) if !is_lost(&error) => Err(IndexError::Io(error)),
        found => Ok(found.ok().flatten()),
    }
}

/// All sections of an index file, encoded.
pub(crate) struct Sections {
    store_id: [u8; 16],
    key_count: u64,
    log: Vec<u8>,
    segments: Vec<u8>,
    live: Vec<u8>,
    counts: Vec<u8>,
    catalog: Vec<u8>,
}

impl Sections {
    pub(crate) fn new(
        store_id: [u8; 16],
        log: Vec<u8>,
        live: &LiveTable,
        counts: &KeyCounts,
        catalog: &Catalog,
    ) -> Self {
        let (segments, live) = live.encode();
        let key_count = counts.total();
        let (counts, catalog) = (counts.encode(), catalog.encode());
        Self { store_id, key_count, log, segments, live, counts, catalog }
    }

    /// Lets `write` write an index file with these sections.
    pub(crate) fn write_with<T>(&self, write: impl FnOnce(&CheckpointMeta<'_>) -> T) -> T {
        let sections = [
            (LOG_SECTION, &self.log[..]),
            (live::SEGMENTS_SECTION, &self.segments[..]),
            (live::LIVE_SECTION, &self.live[..]),
            (counts::SECTION, &self.counts[..]),
            (CATALOG_SECTION, &self.catalog[..]),
        ];
        write(&CheckpointMeta {
            store_id: self.store_id,
            // What the header repeats of the log's section, for who looks at it.
            watermark: self.log.get(..24).unwrap_or(&self.log),
            sections: &sections,
            key_count: self.key_count,
        })
    }
}
