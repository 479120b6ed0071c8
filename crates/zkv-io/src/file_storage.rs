//! The real file system: the only place that uses `std::fs`.

mod names;
mod opening;

use std::fs::{self, File, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

use crate::extents::{Extents, Maps};
use crate::memory_watch::{MemoryWatch, memory_is_scarce};
use crate::storage::{FileMap, LockKind, OpenMode, Storage, StorageFile};
use opening::open;

/// The file system of the operating system.
#[derive(Clone, Copy, Debug, Default)]
pub struct FileStorage;

impl Storage for FileStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = open(path, mode)?;
        let bytes = length_of(&file)?;
        Ok(Arc::new(RealFile(Arc::new(Inner::new(file, bytes)))))
    }

    fn absolute(&self, path: &Path) -> PathBuf {
        std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        names::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        names::rename_new(from, to)
    }

    fn replace_empty(&self, from: &Path, to: &Path) -> io::Result<()> {
        names::replace_empty(from, to)
    }

    #[cfg(unix)]
    fn keep_private(&self, path: &Path, of: &Path) -> io::Result<()> {
        names::keep_private(path, of)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        fs::read_dir(directory)?.map(|entry| Ok(entry?.path())).collect()
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        // Windows neither opens directories as files nor needs this: it journals names.
        if cfg!(unix) { File::open(directory)?.sync_all() } else { Ok(()) }
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        getrandom::fill(into).map_err(io::Error::other)
    }
}

#[derive(Debug)]
struct Inner {
    file: File,
    /// A lower bound of the file's length: what this process has found or written. Maps are read
    /// only below it.
    bytes_known: AtomicU64,
    maps: Maps,
    /// The process that has locked it, or 0.
    locked_by: AtomicU32,
}

/// Not from its metadata: behind whoever asks for those, from Linux 6.13 on, the next write notes a time of its own
/// (multigrain timestamps), and the sync behind that took 140 us instead of 102. Nobody goes by the place that is
/// sought here.
fn length_of(mut file: &File) -> io::Result<u64> {
    file.seek(SeekFrom::End(0))
}

/// A process that is being started has a copy of each open file for a moment, and of its lock, which
/// would outlive this.
impl Drop for Inner {
    fn drop(&mut self) {
        // The child of a fork must not give up the lock that its parent has.
        if *self.locked_by.get_mut() == std::process::id() {
            // Closing it does the same, a moment later.
            let _ = self.file.unlock();
        }
    }
}

#[derive(Debug)]
struct RealFile(Arc<Inner>);

impl StorageFile for RealFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        write_all_at(&self.0.file, offset, bytes)?;
        self.0.bytes_known.fetch_max(offset + bytes.len() as u64, Ordering::Release);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        length_of(&self.0.file)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        // Before the cut, so that no reader starts behind it.
        self.0.bytes_known.fetch_min(bytes, Ordering::SeqCst);
        if bytes < self.len()? {
            self.0.maps.while_unmapped(|| self.0.file.set_len(bytes))?;
        } else {
            self.0.file.set_len(bytes)?;
        }
        self.0.bytes_known.fetch_max(bytes, Ordering::Release);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.file.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.file.sync_all()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        let locked = match kind {
            LockKind::Shared => self.0.file.try_lock_shared(),
            LockKind::Exclusive => self.0.file.try_lock(),
        };
        match locked {
            Ok(()) => {
                self.0.locked_by.store(std::process::id(), Ordering::Relaxed);
                Ok(true)
            }
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn map(&self) -> io::Result<Arc<dyn FileMap>> {
        Ok(Arc::new(RealMap::new(&self.0)))
    }
}

impl Inner {
    fn new(file: File, bytes: u64) -> Self {
        let (bytes_known, locked_by) = (AtomicU64::new(bytes), AtomicU32::new(0));
        Self { file, bytes_known, maps: Maps::none(), locked_by }
    }

    fn read_exact_at(&self, mut offset: u64, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            match read_at(&self.file, offset, into) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    into = &mut into[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The file's length, once it is found to be at least `end`.
    #[inline]
    fn bytes_reaching(&self, end: u64) -> io::Result<u64> {
        let known = self.bytes_known.load(Ordering::Acquire);
        if end <= known {
            return Ok(known);
        }
        let bytes = length_of(&self.file)?;
        if bytes < end {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.bytes_known.fetch_max(bytes, Ordering::AcqRel);
        Ok(bytes)
    }
}

#[derive(Debug)]
struct RealMap {
    inner: Arc<Inner>,
    extents: Extents,
    memory: MemoryWatch,
}

impl FileMap for RealMap {
    fn prefetch(&self, offset: u64, bytes: u32) {
        self.extents.get().prefetch(offset, bytes);
    }

    fn copy_out(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(into.len() as u64).ok_or(io::ErrorKind::UnexpectedEof)?;
        let bytes = self.inner.bytes_reaching(end)?;
        let start = self.memory.is_due().then(Instant::now);
        if memory_is_scarce() {
            self.inner.read_exact_at(offset, into)?;
        } else {
            self.copy_mapped(bytes, offset, into)?;
        }
        if let Some(start) = start
            && self.memory.note(start.elapsed(), into.len(), bytes)
        {
            self.extents.get().read_around_again();
        }
        Ok(())
    }
}

impl RealMap {
    fn new(inner: &Arc<Inner>) -> Self {
        let (extents, memory) = (inner.maps.add(), MemoryWatch::default());
        Self { inner: Arc::clone(inner), extents, memory }
    }

    fn copy_mapped(&self, bytes: u64, mut offset: u64, mut into: &mut [u8]) -> io::Result<()> {
        while !into.is_empty() {
            let copied = self.extents.get().copy_out(&self.inner.file, bytes, offset, into);
            match copied {
                Some(count) => {
                    into = &mut into[count..];
                    offset += count as u64;
                }
                None => return self.inner.read_exact_at(offset, into),
            }
        }
        Ok(())
    }
}

#[cfg(unix)]
fn read_at(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, offset)
}

#[cfg(unix)]
fn write_all_at(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_at(file: &File, offset: u64, into: &mut [u8]) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, into, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match std::os::windows::fs::FileExt::seek_write(file, bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn new_file(directory: &Path, name: &str) -> Arc<dyn StorageFile> {
        FileStorage.open(&directory.join(name), OpenMode::CreateNew).unwrap()
    }

    #[test]
    fn a_map_follows_the_files_growth_across_extents() {
        let directory = tempfile::tempdir().unwrap();
        let file = new_file(directory.path(), "a");
        let map = file.map().unwrap();
        let mut two = [0; 2];
        assert_eq!(map.copy_out(0, &mut two).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        for megabyte in 1u8..6 {
            let at = (u64::from(megabyte) << 20) - 1;
            file.write_at(at, &[megabyte, megabyte]).unwrap();
            map.copy_out(at, &mut two).unwrap();
            assert_eq!(two, [megabyte, megabyte]);
        }
    }

    #[test]
    fn a_private_file_leaves_nothing_behind_where_its_process_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let file = FileStorage.open(&directory.path().join("a"), OpenMode::CreatePrivate).unwrap();
        file.write_at(0, b"1").unwrap();
        let mut byte = [0];
        file.read_at(0, &mut byte).unwrap();
        assert_eq!(byte, *b"1");
        let count = FileStorage.list(directory.path()).unwrap().len();
        assert_eq!(count, usize::from(!cfg!(unix)));
    }

    #[test]
    fn a_lock_goes_with_the_file_though_a_process_that_is_being_started_has_a_copy() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let is_free = || {
            let other = FileStorage.open(&path, OpenMode::ReadWrite).unwrap();
            other.try_lock(LockKind::Exclusive).unwrap()
        };
        let file = File::create_new(&path).unwrap();
        let _copy = file.try_clone().unwrap();
        let locked = RealFile(Arc::new(Inner::new(file, 0)));
        assert!(locked.try_lock(LockKind::Exclusive).unwrap());
        let map = locked.map().unwrap();
        drop(locked);
        assert!(!is_free(), "somebody still reads it");
        drop(map);
        assert!(is_free());
    }

    #[test]
    fn the_child_of_a_fork_leaves_its_parent_the_lock() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let file = File::create_new(&path).unwrap();
        let parents = file.try_clone().unwrap();
        let file = RealFile(Arc::new(Inner::new(file, 0)));
        assert!(file.try_lock(LockKind::Exclusive).unwrap());
        file.0.locked_by.fetch_add(1, Ordering::Relaxed);
        drop(file);
        let other = FileStorage.open(&path, OpenMode::ReadWrite).unwrap();
        assert!(!other.try_lock(LockKind::Exclusive).unwrap());
        drop(parents);
    }

    #[test]
    fn a_name_that_cannot_be_given_is_not_taken() {
        let directory = tempfile::tempdir().unwrap();
        let [from, to] = ["from", "to"].map(|name| directory.path().join(name));
        let missing = FileStorage.rename_new(&from, &to).unwrap_err();
        assert_eq!((missing.kind(), to.exists()), (io::ErrorKind::NotFound, false));
    }

    #[test]
    fn what_is_read_stays_the_same_where_memory_is_scarce() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a");
        let bytes: Vec<u8> = (0..3u32 << 20).map(|at| (at / 251).to_le_bytes()[0]).collect();
        fs::write(&path, &bytes).unwrap();
        let inner = Inner::new(File::open(&path).unwrap(), 0);
        let map = RealMap::new(&Arc::new(inner));
        let check = |offset: usize| {
            let mut copied = [0; 1000];
            map.copy_out(offset as u64, &mut copied).unwrap();
            assert_eq!(copied, bytes[offset..offset + copied.len()]);
        };
        let note = |took| {
            for _ in 0..10_000 {
                map.memory.note(took, 100, bytes.len() as u64);
            }
        };
        for is_scarce in [false, true, false] {
            note(Duration::from_millis(u64::from(is_scarce)));
            assert_eq!(map.memory.has_found_scarce(), is_scarce);
            assert!(memory_is_scarce() || !is_scarce);
            check(5000);
            check((1 << 20) - 500);
            check(2_000_000);
            assert!(map.copy_out(bytes.len() as u64 - 5, &mut [0; 6]).is_err());
        }
    }

    #[test]
    fn reading_behind_the_end_is_an_error_after_the_file_was_cut() {
        let directory = tempfile::tempdir().unwrap();
        let file = new_file(directory.path(), "a");
        file.write_at(0, &[7; 100]).unwrap();
        let map = file.map().unwrap();
        file.set_len(10).unwrap();
        assert!(map.copy_out(5, &mut [0; 6]).is_err());
        assert!(file.read_at(5, &mut [0; 6]).is_err());
        map.copy_out(5, &mut [0; 5]).unwrap();
    }

    #[test]
    fn an_exclusive_lock_excludes_until_its_handle_is_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let first = new_file(directory.path(), "a");
        let second = FileStorage.open(&directory.path().join("a"), OpenMode::ReadOnly).unwrap();
        assert!(first.try_lock(LockKind::Exclusive).unwrap());
        assert!(!second.try_lock(LockKind::Shared).unwrap());
        drop(first);
        assert!(second.try_lock(LockKind::Shared).unwrap());
    }

    #[test]
    fn renaming_to_a_taken_name_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let (a, b) = (directory.path().join("a"), directory.path().join("b"));
        new_file(directory.path(), "a").write_at(0, b"a").unwrap();
        new_file(directory.path(), "b").write_at(0, b"b").unwrap();
        let error = FileStorage.rename_new(&a, &b).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!((fs::read(&a).unwrap(), fs::read(&b).unwrap()), (b"a".to_vec(), b"b".to_vec()));
        FileStorage.remove(&b).unwrap();
        FileStorage.rename_new(&a, &b).unwrap();
        assert!(!a.exists() && b.exists());
    }

    #[test]
    fn a_mapped_file_can_be_cut_and_grows_again() {
        const LONG: u64 = 3 << 20;
        let directory = tempfile::tempdir().unwrap();
        let file = new_file(directory.path(), "a");
        let maps = [file.map().unwrap(), file.map().unwrap()];
        for byte in 1..4 {
            file.set_len(LONG).unwrap();
            file.write_at(LONG - 1, &[byte]).unwrap();
            for map in &maps {
                let mut copied = [0; 2];
                map.copy_out(LONG - 2, &mut copied).unwrap();
                assert_eq!(copied, [0, byte]);
            }
            file.set_len(4096).unwrap();
            assert!(maps.iter().all(|map| map.copy_out(4096, &mut [0; 2]).is_err()));
        }
    }

    #[test]
    fn a_file_that_is_open_can_be_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name| directory.path().join(name);
        for replace in [|from: &Path, to: &Path| FileStorage.rename(from, to), names::replace_open]
        {
            fs::write(path("old"), b"old").unwrap();
            let old = FileStorage.open(&path("old"), OpenMode::ReadWrite).unwrap();
            fs::write(path("new"), b"new").unwrap();
            replace(&path("new"), &path("old")).unwrap();
            let mut read = [0; 3];
            old.read_at(0, &mut read).unwrap();
            assert_eq!(&read, b"old");
            drop(old);
            assert_eq!(fs::read(path("old")).unwrap(), b"new");
            assert_eq!(FileStorage.list(directory.path()).unwrap(), [path("old")]);
            replace(&path("nothing"), &path("old")).unwrap_err();
            assert_eq!(fs::read(path("old")).unwrap(), b"new");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_file_that_takes_the_place_of_a_private_one_is_private() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let [new, old] = ["new", "old"].map(|name| directory.path().join(name));
        let mode_of = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for (mode, kept) in [(0o600, 0o600), (0o640, 0o640), (0o444, 0o644), (0o666, 0o644)] {
            for (path, mode) in [(&new, 0o644), (&old, mode)] {
                fs::write(path, b"").unwrap();
                fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
            }
            FileStorage.rename(&new, &old).unwrap();
            assert_eq!(mode_of(&old), kept, "{mode:o}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn private_files_are_readable_by_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let file = open(&directory.path().join("a"), OpenMode::CreatePrivate).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}
