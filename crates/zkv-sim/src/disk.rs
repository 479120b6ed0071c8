//! The disk: files, names, and what was done to them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use zkv_io::{OpenMode, Storage, StorageFile, parent_directory};

use crate::event::{Event, FileId};
use crate::fault::{ArmedFault, Call, Fault, SyncFailure};
use crate::file::SimFile;
use crate::image::Image;
use crate::sectors::BadSector;

/// What the system caches in one piece, and writes to the disk in one piece.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// A disk in memory. Clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// The process that uses this handle: see [`SimDisk::kill`].
    life: u64,
}

pub(crate) struct State {
    pub(crate) files: HashMap<FileId, File>,
    names: BTreeMap<PathBuf, FileId>,
    /// Handles of earlier lives are those of a process that is gone.
    life: u64,
    events: Vec<Event>,
    is_recording: bool,
    fault: Option<ArmedFault>,
    /// What the files may take together.
    capacity_bytes: Option<u64>,
    has_failed_sync: bool,
    pub(crate) has_refused_write: bool,
    pub(crate) random: fastrand::Rng,
}

/// A file as the running system sees it.
#[derive(Default)]
pub(crate) struct File {
    pub(crate) cache: Arc<Vec<u8>>,
    /// What the last sync has made durable.
    synced: Arc<Vec<u8>>,
    /// Pages changed since the last sync.
    dirty: BTreeSet<u64>,
    /// Pages that a failed sync has marked as written, and that the disk does not have.
    lost: BTreeSet<u64>,
    /// A sync that failed and is still to be told.
    untold: Option<io::ErrorKind>,
    pub(crate) bad_sectors: Vec<BadSector>,
    pub(crate) locks: Locks,
    /// Whoever has it open, or a map of it: without a name it takes room until they are gone.
    pub(crate) holders: Arc<()>,
}

#[derive(Default)]
pub(crate) struct Locks {
    pub(crate) shared_count: usize,
    pub(crate) is_exclusive: bool,
}

impl SimDisk {
    /// An empty disk that writes down what is done to it.
    #[must_use]
    pub fn recording(seed: u64) -> Self {
        Self::recording_from(&Image::new(), seed)
    }

    /// As [`SimDisk::recording`], with the files of `image`, all durable.
    #[must_use]
    pub fn recording_from(image: &Image, seed: u64) -> Self {
        Self::with(image, seed, true)
    }

    /// A disk with the files of `image`, which writes nothing down.
    #[must_use]
    pub fn from_image(image: &Image, seed: u64) -> Self {
        Self::with(image, seed, false)
    }

    fn with(image: &Image, seed: u64, is_recording: bool) -> Self {
        let (mut files, mut names) = (HashMap::new(), BTreeMap::new());
        for (id, (path, bytes)) in (0..).map(FileId).zip(&image.files) {
            let (cache, synced) = (Arc::clone(bytes), Arc::clone(bytes));
            files.insert(id, File { cache, synced, ..File::default() });
            names.insert(path.clone(), id);
        }
        let state = State {
            files,
            names,
            life: 0,
            events: Vec::new(),
            is_recording,
            fault: None,
            capacity_bytes: None,
            has_failed_sync: false,
            has_refused_write: false,
            random: fastrand::Rng::with_seed(seed),
        };
        Self { state: Arc::new(Mutex::new(state)), life: 0 }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was done to the disk, from the `first` change on.
    #[must_use]
    pub fn events(&self, first: usize) -> Vec<Event> {
        self.state().events.get(first..).unwrap_or(&[]).to_vec()
    }

    /// How many changes were written down.
    #[must_use]
    pub fn event_count(&self) -> usize {
        self.state().events.len()
    }

    /// The files as the running system sees them: what is left when the process is killed.
    #[must_use]
    pub fn image(&self) -> Image {
        let state = self.state();
        let named = state.names.iter();
        let cached = named.map(|(path, id)| (path.clone(), Arc::clone(&state.files[id].cache)));
        Image { files: cached.collect(), ..Image::default() }
    }

    /// Ends the process that uses the disk, and returns the disk as the next one finds it. The
    /// handles of the old one do nothing any more, and its locks are free.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut state = self.state();
        state.life += 1;
        for file in state.files.values_mut() {
            file.locks = Locks::default();
        }
        Self { state: Arc::clone(&self.state), life: state.life }
    }

    /// Makes calls fail from now on, as `fault` says; `None` ends it.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.state().fault = fault.map(ArmedFault::new);
    }

    /// Does what another program does on this disk, without the fault, which counts none of its calls.
    pub fn spared<T>(&self, work: impl FnOnce() -> T) -> T {
        let fault = self.state().fault.take();
        let done = work();
        self.state().fault = fault;
        done
    }

    /// From now on the files may take so many bytes together. Who makes one longer beyond that is told
    /// that the disk is full; what is within a file's length can be written. `None` ends it.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state().capacity_bytes = bytes;
    }

    /// What the files take together, those that were removed and are still open among them.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// How many calls of the fault's kind were made since it was set.
    #[must_use]
    pub fn counted_calls(&self) -> u64 {
        self.state().fault.as_ref().map_or(0, ArmedFault::counted)
    }

    /// Whether a sync of a file has failed, told or not.
    #[must_use]
    pub fn has_failed_sync(&self) -> bool {
        self.state().has_failed_sync
    }

    /// Begins a call.
    pub(crate) fn call(&self, call: Call) -> io::Result<MutexGuard<'_, State>> {
        let (state, struck) = self.call_struck(call)?;
        match struck {
            None => Ok(state),
            Some(fault) => Err(fault.error.into()),
        }
    }

    /// As [`SimDisk::call`], for calls that leave something behind when they fail.
    pub(crate) fn call_struck(
        &self,
        call: Call,
    ) -> io::Result<(MutexGuard<'_, State>, Option<Fault>)> {
        let mut state = self.state();
        if state.life != self.life {
            return Err(io::Error::other("this process was killed"));
        }
        let struck = state.fault.as_mut().and_then(|fault| fault.strikes(call).cloned());
        Ok((state, struck))
    }

    /// Gives back a lock, unless its process is gone.
    pub(crate) fn release(&self, release: impl FnOnce(&mut State)) {
        let mut state = self.state();
        if state.life == self.life {
            release(&mut state);
        }
    }
}

impl State {
    fn record(&mut self, event: Event) {
        if self.is_recording {
            self.events.push(event);
        }
    }

    pub(crate) fn id(&self, path: &Path) -> io::Result<FileId> {
        self.names.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(crate) fn file(&mut self, id: FileId) -> io::Result<&mut File> {
        self.files.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used_bytes(&self) -> u64 {
        let named: HashSet<&FileId> = self.names.values().collect();
        let is_there =
            |id: &FileId, file: &File| named.contains(id) || Arc::strong_count(&file.holders) > 1;
        let there = self.files.iter().filter(|(id, file)| is_there(id, file));
        there.map(|(_, file)| file.cache.len() as u64).sum()
    }

    /// Whether there is room for a file of `len` bytes in the place of the one that is there.
    fn check_room(&self, id: FileId, len: usize) -> io::Result<()> {
        let Some(capacity) = self.capacity_bytes else { return Ok(()) };
        let before = self.files.get(&id).map_or(0, |file| file.cache.len());
        let grown = len.saturating_sub(before) as u64;
        if grown == 0 || self.used_bytes() + grown <= capacity {
            Ok(())
        } else {
            Err(io::ErrorKind::StorageFull.into())
        }
    }

    pub(crate) fn write(&mut self, id: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let too_large = || io::Error::from(io::ErrorKind::FileTooLarge);
        let start = usize::try_from(offset).map_err(|_| too_large())?;
        let end = start.checked_add(bytes.len()).ok_or_else(too_large)?;
        self.check_room(id, end)?;
        if self.file(id)?.refuses_write(offset, bytes.len()) {
            self.has_refused_write = true;
            return Err(io::Error::other("the rest of the sector cannot be read"));
        }
        let file = self.file(id)?;
        let cache = Arc::make_mut(&mut file.cache);
        if cache.len() < end {
            cache.resize(end, 0);
        }
        cache[start..end].copy_from_slice(bytes);
        let (offset, bytes) = file.touch(offset, bytes);
        self.record(Event::Write { file: id, offset, bytes });
        Ok(())
    }

    pub(crate) fn set_len(&mut self, id: FileId, bytes: u64) -> io::Result<()> {
        let len = usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        self.check_room(id, len)?;
        let file = self.file(id)?;
        Arc::make_mut(&mut file.cache).resize(len, 0);
        file.cut_bad_sectors(bytes);
        self.record(Event::SetLen { file: id, bytes });
        Ok(())
    }

    pub(crate) fn sync(&mut self, id: FileId, struck: Option<&Fault>) -> io::Result<()> {
        if let Some(kind) = self.file(id)?.untold.take() {
            self.discard(id, SyncFailure::CacheNew)?;
            return Err(kind.into());
        }
        let Some(fault) = struck else {
            let file = self.file(id)?;
            file.synced = Arc::clone(&file.cache);
            file.dirty.clear();
            self.record(Event::Synced { file: id });
            return Ok(());
        };
        self.discard(id, fault.sync)?;
        match fault.sync {
            SyncFailure::ToldLate => {
                self.file(id)?.untold = Some(fault.error);
                Ok(())
            }
            SyncFailure::CacheNew | SyncFailure::CacheReverted => Err(fault.error.into()),
        }
    }

    /// Takes the changes of a file for written, though they are not all.
    fn discard(&mut self, id: FileId, manner: SyncFailure) -> io::Result<()> {
        self.has_failed_sync = true;
        // Who reads what the disk has would see what has arrived.
        let seed = (manner != SyncFailure::CacheReverted).then(|| self.random.u64(..));
        let file = self.file(id)?;
        let dirty = std::mem::take(&mut file.dirty);
        file.lost.extend(dirty);
        if manner == SyncFailure::CacheReverted {
            let mut reverted = file.synced.as_ref().clone();
            reverted.resize(file.cache.len(), 0);
            file.cache = Arc::new(reverted);
        }
        self.record(Event::Discarded { file: id, seed });
        Ok(())
    }
}

impl File {
    /// Marks what a write changes, and returns what of the file it brings to the disk: a page that
    /// was lost comes whole.
    fn touch(&mut self, offset: u64, bytes: &[u8]) -> (u64, Arc<[u8]>) {
        let end = offset + bytes.len() as u64;
        let pages = offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES);
        self.dirty.extend(pages.clone());
        let was_lost = pages.clone().filter(|page| self.lost.remove(page)).count() > 0;
        if !was_lost {
            return (offset, bytes.into());
        }
        let len = self.cache.len() as u64;
        let (start, end) = (pages.start * PAGE_BYTES, (pages.end * PAGE_BYTES).min(len));
        let whole = usize::try_from(start).unwrap_or(0)..usize::try_from(end).unwrap_or(0);
        (start, self.cache[whole].into())
    }
}

impl Storage for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let creates = matches!(mode, OpenMode::CreateNew | OpenMode::CreatePrivate);
        let mut state = self.call(if creates { Call::Change } else { Call::Read })?;
        let id = if creates {
            if state.names.contains_key(path) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let id = FileId(state.files.len() as u64);
            state.files.insert(id, File::default());
            state.names.insert(path.to_owned(), id);
            state.record(Event::Link { path: path.to_owned(), file: id });
            id
        } else {
            state.id(path)?
        };
        let holder = Arc::clone(&state.file(id)?.holders);
        Ok(Arc::new(SimFile::new(self.clone(), id, mode != OpenMode::ReadOnly, holder)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.call(Call::Change)?;
        let file = state.id(from)?;
        state.names.remove(from);
        state.names.insert(to.to_owned(), file);
        state.record(Event::Rename { from: from.to_owned(), to: to.to_owned(), file });
        Ok(())
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.call(Call::Change)?;
        let file = state.id(from)?;
        if state.names.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // As the real one does it: a link, and then the old name goes.
        state.names.insert(to.to_owned(), file);
        state.record(Event::Link { path: to.to_owned(), file });
        state.names.remove(from);
        state.record(Event::Unlink { path: from.to_owned() });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.call(Call::Change)?;
        state.id(path)?;
        state.names.remove(path);
        state.record(Event::Unlink { path: path.to_owned() });
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.call(Call::Read)?;
        let names = state.names.keys();
        Ok(names.filter(|path| parent_directory(path) == directory).cloned().collect())
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        let mut state = self.call(Call::Change)?;
        state.record(Event::DirectorySynced { directory: directory.to_owned() });
        Ok(())
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        self.state().random.fill(into);
        Ok(())
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        let mut debug = formatter.debug_struct("SimDisk");
        debug.field("files", &state.names.keys()).field("events", &state.events.len()).finish()
    }
}
