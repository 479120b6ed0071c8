//! Files that appear whole or not at all.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::storage::{LockKind, OpenMode, Storage, StorageFile};

/// What the name of every temporary file ends in; such a file is never the only copy of anything.
pub const TEMPORARY_SUFFIX: &str = ".zkv-tmp";

/// The directory that holds `path`.
#[must_use]
pub fn parent_directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A fresh name for a temporary file beside `path`: `PATH.<16 hex digits>.zkv-tmp`.
///
/// # Errors
/// Where the system has no source of randomness.
pub fn temporary_path(storage: &dyn Storage, path: &Path) -> io::Result<PathBuf> {
    let mut random = [0; 8];
    storage.random(&mut random)?;
    let mut name = OsString::from(path);
    name.push(format!(".{:016x}{TEMPORARY_SUFFIX}", u64::from_le_bytes(random)));
    Ok(PathBuf::from(name))
}

/// Writes a file beside `path`, syncs it, and renames it over `path`, durably.
///
/// A crash before the rename leaves the old file and a temporary one; after it, the new file.
///
/// # Errors
/// Those of `write` and of the system. The old file then stands unchanged, unless only the last
/// step, the directory's sync, failed: then either may be found after a crash.
pub fn replace_atomically<T>(
    storage: &dyn Storage,
    path: &Path,
    write: impl FnOnce(&dyn StorageFile) -> io::Result<T>,
) -> io::Result<T> {
    write_then(storage, path, write, |from| storage.rename(from, path))
}

/// As [`replace_atomically`], where `path` must not exist yet.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] where it does, and as [`replace_atomically`].
pub fn create_atomically<T>(
    storage: &dyn Storage,
    path: &Path,
    write: impl FnOnce(&dyn StorageFile) -> io::Result<T>,
) -> io::Result<T> {
    write_then(storage, path, write, |from| storage.rename_new(from, path))
}

/// As [`replace_atomically`], where `path` is an empty file, whose owner and permissions stay
/// ([`Storage::replace_empty`]). Whoever does so holds the lock of that file.
///
/// # Errors
/// As [`Storage::replace_empty`] and [`replace_atomically`].
pub fn replace_empty_atomically<T>(
    storage: &dyn Storage,
    path: &Path,
    write: impl FnOnce(&dyn StorageFile) -> io::Result<T>,
) -> io::Result<T> {
    write_then(storage, path, write, |from| storage.replace_empty(from, path))
}

fn write_then<T>(
    storage: &dyn Storage,
    path: &Path,
    write: impl FnOnce(&dyn StorageFile) -> io::Result<T>,
    publish: impl FnOnce(&Path) -> io::Result<()>,
) -> io::Result<T> {
    let (draft, value) = Draft::write(storage, path, path, write)?;
    draft.publish(storage, path, publish)?;
    Ok(value)
}

/// A file that is written, and not in its place yet. One that is dropped stays beside that, under its
/// temporary name.
#[derive(Debug)]
pub struct Draft {
    temporary: PathBuf,
    /// Whoever finds it sees by the lock of this that somebody still needs it.
    file: Arc<dyn StorageFile>,
}

impl Draft {
    /// Writes a file beside `path`, and syncs it. Nobody may read it who may not read the one at `private_as`,
    /// where there is one.
    ///
    /// # Errors
    /// Those of `write` and of the system. Nothing is left then.
    pub fn write<T>(
        storage: &dyn Storage,
        path: &Path,
        private_as: &Path,
        write: impl FnOnce(&dyn StorageFile) -> io::Result<T>,
    ) -> io::Result<(Self, T)> {
        let temporary = temporary_path(storage, path)?;
        let file = storage.open(&temporary, OpenMode::CreateNew)?;
        // Where there are no locks, nobody asks.
        let _ = file.try_lock(LockKind::Exclusive);
        let draft = Self { temporary, file };
        let written = storage.keep_private(&draft.temporary, private_as);
        let written = written.and_then(|()| write(&*draft.file));
        let written = written.and_then(|value| draft.file.sync_all().map(|()| value));
        match written {
            Ok(value) => Ok((draft, value)),
            Err(error) => {
                draft.discard(storage);
                Err(error)
            }
        }
    }

    /// Renames it over `path`, durably.
    ///
    /// # Errors
    /// Those of the system, as with [`replace_atomically`].
    pub fn replace(self, storage: &dyn Storage, path: &Path) -> io::Result<()> {
        self.publish(storage, path, |from| storage.rename(from, path))
    }

    /// Gives it the name `path`, which must not exist yet, durably.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where it does, and those of the system, as with [`create_atomically`].
    pub fn create(self, storage: &dyn Storage, path: &Path) -> io::Result<()> {
        self.publish(storage, path, |from| storage.rename_new(from, path))
    }

    /// Removes it.
    pub fn discard(self, storage: &dyn Storage) {
        let Self { temporary, file } = self;
        drop(file);
        // What cannot be removed does no harm: the next open removes it.
        let _ = storage.remove(&temporary);
    }

    fn publish(
        self,
        storage: &dyn Storage,
        path: &Path,
        publish: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let Self { temporary, file } = self;
        // Windows renames no open file, and whoever opens what has its name at last finds no lock.
        drop(file);
        if let Err(error) = publish(&temporary) {
            // The first error is the one to report. What cannot be removed does no harm.
            let _ = storage.remove(&temporary);
            return Err(error);
        }
        storage.sync_dir(parent_directory(path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryStorage;

    fn contents(storage: &MemoryStorage, path: &Path) -> Vec<u8> {
        let file = storage.open(path, OpenMode::ReadOnly).unwrap();
        let mut bytes = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
        file.read_at(0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let storage = MemoryStorage::new();
        let path = Path::new("dir/a");
        replace_atomically(&storage, path, |file| file.write_at(0, b"old")).unwrap();
        let failed = replace_atomically(&storage, path, |file| {
            file.write_at(0, b"new")?;
            Err::<(), _>(io::Error::other("disk full"))
        });
        assert_eq!(failed.unwrap_err().to_string(), "disk full");
        assert_eq!(contents(&storage, path), b"old");
        assert_eq!(storage.list(Path::new("dir")).unwrap(), [path]);
    }

    #[test]
    fn creating_never_replaces() {
        let storage = MemoryStorage::new();
        let path = Path::new("a");
        create_atomically(&storage, path, |file| file.write_at(0, b"first")).unwrap();
        let again = create_atomically(&storage, path, |file| file.write_at(0, b"second"));
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(contents(&storage, path), b"first");
    }
}
