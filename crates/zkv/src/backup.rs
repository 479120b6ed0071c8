//! Copies of a store.

use std::io;
use std::path::Path;

use zkv_index::Checkpoint;
use zkv_io::{Draft, OpenMode, Storage, StorageFile, temporary_path};
use zkv_record::VALUE_BYTES_MAX;

use crate::error::{Error, Result};
use crate::open::{WITHOUT_FOLDER, check_is_index, index_path, remove_abandoned};
use crate::options::{Cleaning, Durability, Options};
use crate::shared::Shared;
use crate::store::Store;
use crate::write::writer::Writer;

impl Store {
    /// Copies the store, as it is now, to `destination`, which must not exist. It appears whole or
    /// not at all; writes go on meanwhile.
    ///
    /// The copy is one of the files: it is as fast as the disk, has the same ratio, and the same damage where
    /// there is some. [`verify`](crate::verify()) reads the copy before it takes an older one's place.
    ///
    /// # Errors
    /// Of kind `AlreadyExists` where `destination` exists, `NotFound` where its folder does not. Of kind `Io` where it
    /// cannot be written, or the disk cannot read a part of the store: [`salvage`](crate::salvage()) takes what it
    /// can. As [`Store::sync`]. Only where the folder cannot be synced is the copy there, whole, until a
    /// power cut perhaps.
    pub fn backup(&self, destination: impl AsRef<Path>) -> Result<()> {
        let (shared, destination) = (self.shared(), destination.as_ref());
        check_is_free(&*shared.options.storage, destination)?;
        remove_abandoned(&*shared.options.storage, destination);
        let (view, has_index) = if shared.writer.is_some() {
            shared.mended(|| {
                let mut writer = shared.writer()?;
                shared.flush_all(&mut writer)?;
                let ready = shared.make_ready_to_copy(&mut writer);
                shared.publish_committed(&writer);
                ready?;
                // Nothing more is freed before this is taken.
                Ok((shared.view.load_full(), !writer.is_index_file_removed()))
            })?
        } else {
            (shared.view.load_full(), true)
        };
        let storage = &*shared.options.storage;
        let log = &view.committed.log;
        let copy = |file: &dyn StorageFile| match shared.writer.is_some() {
            true => log.copy_to(file),
            // Nothing can be rebased, and nobody uses a slot again.
            false => log.copy_with_freed_to(file),
        };
        let (data, ()) = Draft::write(storage, destination, &shared.path, copy)
            .map_err(Error::file(destination))?;
        let index = view.committed.checkpoint.as_ref().filter(|_| has_index);
        // A store that is read without an index file has made one that no log would accept.
        if let Some(index) = index.filter(|index| !index.watermark().is_empty())
            && let Err(error) = copy_index(storage, &shared.path, destination, index)
        {
            data.discard(storage);
            return Err(error);
        }
        // Last: from now on others may open the copy, and write to it.
        data.create(storage, destination).map_err(|error| {
            remove_index_without_data(storage, destination);
            Error::file(destination)(error)
        })
    }

    /// Copies all keys and values, of named collections, too, as the store has them now, into a new
    /// store at `destination`, which must not exist, with other options: compressed anew, without what was overwritten or
    /// deleted. It appears whole or not at all; writes go on meanwhile.
    ///
    /// # Errors
    /// As [`Options::open`] and [`Store::iter_bytes`]; of kind `AlreadyExists` where `destination` exists, `NotFound`
    /// where its folder does not.
    pub fn backup_with(&self, destination: impl AsRef<Path>, options: Options) -> Result<()> {
        let snapshot = self.snapshot();
        make_whole(&self.shared().path, destination.as_ref(), options, |copy| {
            for entry in snapshot.iter_bytes() {
                let (key, value) = entry?;
                copy.set_bytes(&key, &value)?;
            }
            let moment = snapshot.reader.moment();
            for (name, entry) in moment.committed().catalog.names() {
                let collection = copy.copy_collection(name, entry)?;
                for entry in snapshot.reader.iter(entry.id) {
                    let (key, value) = entry?;
                    collection.set(&key, &value)?;
                }
            }
            Ok(())
        })
    }
}

impl Shared {
    /// Writes what makes a copy of both files open at once, and without its index, too. On a disk without room
    /// for that, they are copied as they are, which is what a crash may leave.
    fn make_ready_to_copy(&self, writer: &mut Writer) -> Result<()> {
        let (has_cleaned, needs_freed) =
            (!writer.cleaned.is_empty(), writer.log.needs_freed_slots());
        // Whoever opens the copy without its index would miss them, and those that the checkpoint frees.
        let rebased = if needs_freed || has_cleaned { self.rebase(writer) } else { Ok(()) };
        let ready =
            rebased.and_then(|()| writer.checkpoint().map_err(|error| self.write_error(error)));
        match ready {
            Err(error) if error.is_without_room() && !writer.log.needs_freed_slots() => {
                self.log.sync(writer.log.end()).map_err(Error::data(&self.path))
            }
            done => done,
        }
    }
}

/// Puts the copy's index where it belongs, before there is a copy: whoever opens that takes what is still written
/// beside it for what a crash has left, and removes it.
fn copy_index(
    storage: &dyn Storage,
    source: &Path,
    destination: &Path,
    index: &Checkpoint,
) -> Result<()> {
    // Its index must not be replaced.
    check_is_free(storage, destination)?;
    let path = index_path(destination);
    let copy = |file: &dyn StorageFile| index.copy_to(file).map_err(io::Error::other);
    let written = Draft::write(storage, &path, source, copy);
    written.and_then(|(draft, ())| draft.replace(storage, &path)).map_err(|error| {
        // The first error is the one to report.
        let _ = storage.remove(&path);
        Error::file(&path)(error)
    })
}

/// Makes a new store of what `fill` takes from the one at `source`. It appears at `destination`, which must not
/// exist, whole or not at all.
pub(crate) fn make_whole<T>(
    source: &Path,
    destination: &Path,
    options: Options,
    fill: impl FnOnce(&Store) -> Result<T>,
) -> Result<T> {
    let storage = std::sync::Arc::clone(&options.storage);
    check_is_free(&*storage, destination)?;
    remove_abandoned(&*storage, destination);
    let temporary = temporary_path(&*storage, destination).map_err(Error::file(destination))?;
    let made = fill_new(source, &temporary, options, fill);
    let published = made.and_then(|value| {
        publish(&*storage, &temporary, destination)?;
        Ok(value)
    });
    if published.is_err() {
        // The first error is the one to report.
        let _ = storage.remove(&temporary);
        let _ = storage.remove(&index_path(&temporary));
    }
    // Nobody knows of the temporary file, and it is gone.
    published.map_err(|error| error.told_of(destination, &temporary))
}

fn fill_new<T>(
    source: &Path,
    path: &Path,
    options: Options,
    fill: impl FnOnce(&Store) -> Result<T>,
) -> Result<T> {
    let storage = std::sync::Arc::clone(&options.storage);
    // What is not whole yet need not be durable, and was a value before, whatever the limit is now.
    let options = options.create(true).durability(Durability::Buffered);
    let options = options.max_value_bytes(VALUE_BYTES_MAX);
    // Collections get their names last: until then, cleaning would take their records for dropped ones.
    let store = options.cleaning(Cleaning::Off).open(path)?;
    storage.keep_private(path, source).map_err(Error::file(path))?;
    let value = fill(&store)?;
    store.close()?;
    // It knows what collections are called.
    match storage.keep_private(&index_path(path), source) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file(path)(error)),
        _ => Ok(value),
    }
}

/// What is made appears under a name that nothing has, and its index replaces no file but an index.
pub(crate) fn check_is_free(storage: &dyn Storage, path: &Path) -> Result<()> {
    let remedy = match storage.open(path, OpenMode::ReadOnly) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = storage.list(zkv_io::parent_directory(path));
            if folder.is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
                let missing = io::Error::new(io::ErrorKind::NotFound, WITHOUT_FOLDER);
                return Err(Error::file(path)(missing));
            }
            return check_is_index(storage, &index_path(path), None);
        }
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            "it is a folder: give the name of a file, in it or elsewhere"
        }
        // What cannot be opened is there if its folder has it: a pipe, or what nobody may read. Else no file can have
        // this name, as one that is too long.
        Err(error) if !is_listed(storage, path) => return Err(Error::file(path)(error)),
        _ => "it exists already: give a name that nothing has",
    };
    Err(Error::file(path)(io::Error::new(io::ErrorKind::AlreadyExists, remedy)))
}

fn is_listed(storage: &dyn Storage, path: &Path) -> bool {
    let listed = storage.list(zkv_io::parent_directory(path)).unwrap_or_default();
    listed.iter().any(|file| file.file_name() == path.file_name())
}

/// An index without its data is nobody's. Whoever calls this has an error already, the one to report.
fn remove_index_without_data(storage: &dyn Storage, path: &Path) {
    if is_missing(storage, path) {
        let _ = storage.remove(&index_path(path));
    }
}

/// Whether nothing has this name; what cannot be opened may be somebody else's.
fn is_missing(storage: &dyn Storage, path: &Path) -> bool {
    let opened = storage.open(path, OpenMode::ReadOnly);
    opened.is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}

/// The index first: without its data it is nobody's, and the data may lack it.
fn publish(storage: &dyn Storage, from: &Path, to: &Path) -> Result<()> {
    // Its index must not be replaced, either.
    check_is_free(storage, to)?;
    let (from_index, to_index) = (index_path(from), index_path(to));
    match storage.rename(&from_index, &to_index) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(Error::file(&to_index)(error));
        }
        _ => {}
    }
    storage.rename_new(from, to).map_err(|error| {
        remove_index_without_data(storage, to);
        Error::file(to)(error)
    })?;
    storage.sync_dir(zkv_io::parent_directory(to)).map_err(Error::file(to))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use zkv_io::{MemoryStorage, Storage};
    use zkv_sim::{Act, Watched};

    use crate::error::{Error, Result};
    use crate::options::{Cleaning, Durability, Options};

    fn write_to(storage: &Arc<MemoryStorage>, path: &str) -> Result<()> {
        let options = Options::new().storage(Arc::clone(storage) as Arc<dyn Storage>);
        let store = options.create(false).durability(Durability::Synced).open(path)?;
        store.set_bytes(b"later", b"1")?;
        store.close()
    }

    #[test]
    fn whoever_opens_a_backup_as_soon_as_it_is_there_loses_nothing() {
        for number in 0.. {
            let storage = Arc::new(MemoryStorage::new());
            let (copies, calls) =
                (Arc::clone(&storage), Arc::new(std::sync::Mutex::new((0, false))));
            let seen = Arc::clone(&calls);
            let watched =
                Watched::new(Arc::clone(&storage) as Arc<dyn Storage>, move |act, path| {
                    let is_change = !matches!(act, Act::Map | Act::Read { .. });
                    if is_change && path.to_string_lossy().starts_with("copy.zkv") {
                        let mut calls = seen.lock().unwrap();
                        calls.0 += 1;
                        // Another program, that looks whether the copy is there.
                        if calls.0 == number + 1 && write_to(&copies, "copy.zkv").is_ok() {
                            calls.1 = true;
                        }
                    }
                    Ok(())
                });
            let store = Options::new().storage(Arc::new(watched)).open("store.zkv").unwrap();
            store.set_bytes(b"a", b"1").unwrap();
            let backed_up = store.backup("copy.zkv");
            let (count, is_written) = *calls.lock().unwrap();
            assert!(
                backed_up.is_ok(),
                "{backed_up:?}, behind call {number}, written: {is_written}"
            );
            if !is_written {
                write_to(&storage, "copy.zkv").unwrap();
            }
            let options = Options::new().storage(Arc::clone(&storage) as Arc<dyn Storage>);
            let copy = options.open_read_only("copy.zkv").unwrap();
            assert_eq!(copy.get_bytes(b"a").unwrap().as_deref(), Some(&b"1"[..]));
            assert_eq!(copy.get_bytes(b"later").unwrap().as_deref(), Some(&b"1"[..]));
            if number > count {
                break;
            }
        }
    }

    #[test]
    fn a_backup_beside_whoever_makes_a_store_of_its_name_leaves_that_alone() {
        let storage = Arc::new(MemoryStorage::new());
        let others = Arc::clone(&storage);
        let watched = Watched::new(Arc::clone(&storage) as Arc<dyn Storage>, move |act, path| {
            let is_index = path.to_string_lossy().starts_with("copy.zkv.idx");
            if act == Act::Sync && is_index {
                let options = Options::new().storage(Arc::clone(&others) as Arc<dyn Storage>);
                let store = options.open("copy.zkv").unwrap();
                store.set_bytes(b"own", b"2").unwrap();
                store.close().unwrap();
            }
            Ok(())
        });
        let store = Options::new().storage(Arc::new(watched)).open("store.zkv").unwrap();
        store.set_bytes(b"a", b"1").unwrap();
        assert!(matches!(store.backup("copy.zkv"), Err(Error::File { .. })));
        let options = Options::new().storage(Arc::clone(&storage) as Arc<dyn Storage>);
        let copy = options.open("copy.zkv").unwrap();
        assert_eq!(copy.get_bytes(b"own").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(copy.len(), 1);
    }

    #[test]
    fn a_backup_whose_checkpoint_frees_segments_opens_without_its_index() {
        let storage = Arc::new(MemoryStorage::new());
        let options = || Options::new().storage(Arc::clone(&storage) as Arc<dyn Storage>);
        let small = options().slot_bytes(256 << 10).cleaning(Cleaning::Off);
        let store = small.open("store.zkv").unwrap();
        for round in 0..30u64 {
            for number in 0..100u64 {
                let mut value = vec![0; 400];
                fastrand::Rng::with_seed(round << 32 | number).fill(&mut value);
                store.set_bytes(&number.to_be_bytes(), &value).unwrap();
            }
            store.flush().unwrap();
        }
        {
            // As a cleaner leaves them that has moved what lives, and waits for the next checkpoint.
            let mut writer = store.shared().writer().unwrap();
            let segments = writer.log.view().segments();
            let full = segments.iter().filter(|segment| segment.is_sealed);
            writer.cleaned.extend(full.map(|segment| segment.slot));
        }
        store.backup("copy.zkv").unwrap();
        storage.remove(Path::new("copy.zkv.idx")).unwrap();
        let copy = options().open_read_only("copy.zkv").unwrap();
        assert_eq!(copy.len(), 100);
        for number in 0..100u64 {
            let key = number.to_be_bytes();
            assert_eq!(copy.get_bytes(&key).unwrap(), store.get_bytes(&key).unwrap());
        }
    }
}
