//! Bringing what is left of a damaged store into a new one.

mod collect;
mod report;

use std::io;
use std::path::Path;

use zkv_index::{Checkpoint, IndexError};
use zkv_io::{OpenMode, Storage, is_lost};
use zkv_log::{Salvage, SalvageIndex, Salvaged};

use crate::backup::{check_is_free, make_whole};
use crate::error::{Error, Result};
use crate::metadata::catalog::Catalog;
use crate::metadata::sections::{self, CATALOG_SECTION, LOG_SECTION, section_of};
use crate::open::{index_path, when_unlocked};
use crate::options::Options;
use crate::store::Store;
use collect::Collector;
pub use report::{LostRange, SalvageReport};

/// What [`salvage`] tells as it goes.
#[derive(Debug)]
#[non_exhaustive]
pub enum SalvageEvent<'a> {
    /// How much is done. The whole is an estimate.
    #[non_exhaustive]
    Progress {
        /// Bytes gone through; each is, twice.
        done_bytes: u64,
        /// What that will be in the end.
        total_bytes: u64,
    },
    /// A key was brought to which something newer may have happened: see
    /// [`SalvageReport::possibly_superseded`].
    #[non_exhaustive]
    PossiblySuperseded {
        /// The key's bytes.
        key: &'a [u8],
    },
    /// A key was not brought, since a piece of its value is lost, or another key has that value.
    #[non_exhaustive]
    IncompleteValue {
        /// The key's bytes.
        key: &'a [u8],
    },
}

/// Brings everything that can be proven whole from the damaged store at `source` into a new store
/// at `destination`, which must not exist. It appears whole or not at all. `options` are those of
/// the new store; the source is in the same storage, and nothing is written to it.
///
/// The file header, headers and seals of segments, any blocks and the index may be lost, and the
/// file may be cut short. Each value that is brought was held against its checksum, and is the
/// newest of its key that can be read:
///
/// - A record counts if a whole commit stands behind it in the log, or something says that the log
///   was durable up to it. The rest is what a crash left of a commit that was never acknowledged:
///   it is counted, and not brought.
/// - A commit that has lost a part is no longer whole. What is left of it is brought, and counted.
/// - A key whose newest record is a deletion, or names pieces of which one is lost, is not brought:
///   an older value would be a wrong one.
/// - What a lost part held, nobody can know. Where one is newer than a key's newest record, the
///   value may be out of date, or the key deleted: it is brought, counted, and told to `listen`.
/// - Segments that were freed are not read, as far as a record of that is left.
///
/// A collection whose name is lost in the log has that of the index file, or else is called `recovered-` and a
/// number, with types that are called `unknown` ([`CollectionOptions`](crate::CollectionOptions) takes such
/// names): the log has each name once.
///
/// A healthy store gives exactly its contents. Memory grows by about 30 bytes a key, by somewhat more for
/// each piece of a value in pieces, of up to 1 MiB, and by half of that for a moment where it grows. A value
/// in pieces, of up to 4 GiB, is held whole as it is brought.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let (damaged, rescued) = (directory.path().join("a.zkv"), directory.path().join("b.zkv"));
/// let store = zkv::Store::open(&damaged)?;
/// store.set("key", "value")?;
/// store.close()?;
/// # let mut file = std::fs::File::options().write(true).open(&damaged)?;
/// # std::io::Write::write_all(&mut file, &[0; 100])?;
/// let report = zkv::salvage(&damaged, &rescued, zkv::Options::new(), |_| {})?;
/// assert_eq!((report.keys, report.lost_headers, report.is_complete()), (1, 1, true));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// Of kind `NotFound`, `Locked`, `UnsupportedVersion`; `Corrupt` where nothing in the file says
/// that it is a store. `AlreadyExists` where `destination` exists, `NotFound` also where its folder does not. Of
/// kind `Io` where it cannot be written, or a read of the source fails though what it was after may be there, as for
/// want of memory: whether that is lost is not known, and another salvage may tell. As [`Options::open`].
pub fn salvage(
    source: impl AsRef<Path>,
    destination: impl AsRef<Path>,
    options: Options,
    mut listen: impl FnMut(SalvageEvent<'_>),
) -> Result<SalvageReport> {
    let (source, destination) = (source.as_ref(), destination.as_ref());
    let storage = std::sync::Arc::clone(&options.storage);
    check_is_free(&*storage, destination)?;
    let mut done_bytes = 0;
    let index = read_index(&*storage, source)?;
    let mut read = |bytes, file_bytes: u64| {
        done_bytes = file_bytes.min(done_bytes + bytes);
        listen(SalvageEvent::Progress { done_bytes, total_bytes: file_bytes * 2 });
    };
    let mut salvage = when_unlocked(options.lock_wait, || {
        let index = index.as_ref().map(|(of_log, _)| of_log);
        let opened = Salvage::open(&*storage, source, index, &mut read);
        opened.map_err(Error::data(source))
    })?;
    let known = index.filter(|_| salvage.goes_by_index()).map(|(_, catalog)| catalog);
    let known = known.unwrap_or_default();
    make_whole(source, destination, options, |store| {
        collect(source, &mut salvage, store, known, &mut listen)
    })
}

/// Reads the log from its end.
fn collect(
    source: &Path,
    salvage: &mut Salvage,
    store: &Store,
    known: Catalog,
    listen: &mut dyn FnMut(SalvageEvent<'_>),
) -> Result<SalvageReport> {
    let (slot_bytes, file_bytes) = (u64::from(salvage.slot_bytes()), salvage.file_bytes());
    let (mut done_bytes, total_bytes) = (file_bytes, file_bytes * 2);
    let mut collector = Collector::new(source, store, known, listen);
    collector.report.lost_headers = u64::from(!salvage.has_file_header());
    while let Some(found) = salvage.next_older().map_err(Error::data(source))? {
        if matches!(found, Salvaged::Segment(_)) {
            done_bytes = total_bytes.min(done_bytes + slot_bytes);
            (collector.listen)(SalvageEvent::Progress { done_bytes, total_bytes });
        }
        collector.take(found)?;
    }
    collector.finish(salvage)
}

/// What the index file knows of the log, and of collections, whichever store's it is: where the data file has lost all
/// its headers, it alone tells whose that is. One whose sections are longer than those of such a data file
/// is not read any further: a forged one may say so of gigabytes that are not there.
///
/// `None` where there is none that can be read. One of which a read fails though it may be there is an error: what it
/// alone knows of would be called lost.
fn read_index(storage: &dyn Storage, source: &Path) -> Result<Option<(SalvageIndex, Catalog)>> {
    let path = index_path(source);
    let Some((store_id, checkpoint)) = open_index(storage, &path)? else { return Ok(None) };
    let data_bytes = storage.open(source, OpenMode::ReadOnly).and_then(|file| file.len());
    if !sections::may_be_of(&checkpoint, data_bytes.map_err(Error::file(source))?) {
        return Ok(None);
    }
    let section = |kind| section_of(&checkpoint, kind).map_err(Error::index(&path));
    let Some(of_log) = section(LOG_SECTION)? else { return Ok(None) };
    let catalog = section(CATALOG_SECTION)?.and_then(|section| Catalog::decode(&section));
    Ok(Some((SalvageIndex { store_id, checkpoint: of_log }, catalog.unwrap_or_default())))
}

/// The index file at `path`, and the store that it says it is of.
fn open_index(storage: &dyn Storage, path: &Path) -> Result<Option<([u8; 16], Checkpoint)>> {
    let open = |store_id| {
        let opened = Checkpoint::open(storage, path, store_id, false);
        opened.map(|checkpoint| (store_id, checkpoint))
    };
    let opened = match open([0; 16]) {
        Err(IndexError::Foreign { found, .. }) => open(found),
        opened => opened,
    };
    match opened {
        Ok(opened) => Ok(Some(opened)),
        Err(IndexError::Io(error)) if may_be_there(&error) => {
            Err(Error::index(path)(IndexError::Io(error)))
        }
        Err(_) => Ok(None),
    }
}

/// Whether a file of which the system says so may be an index that can be read another time. A folder of that name
/// is none, and one that this user may not read will not be read the next time either.
fn may_be_there(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, PermissionDenied};
    !is_lost(error) && !matches!(error.kind(), IsADirectory | PermissionDenied)
}
