//! Stores that are made of empty files.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{fs, io, thread};

use zkv::{Durability, ErrorKind, Options, Store, verify};
use zkv_io::{MemoryStorage, OpenMode, Storage, StorageFile};
use zkv_sim::{Calls, Fault, Image, PowerCut, SimDisk, SyncFailure, WriteFailure};

use common::{Place, check, fill, filled, index_path, place};

const PATH: &str = "store.zkv";

fn empty_place() -> Place {
    let place = place();
    fs::write(&place.path, b"").unwrap();
    place
}

fn contents(store: &Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    store.iter_bytes().map(Result::unwrap).collect()
}

#[test]
fn an_empty_file_becomes_a_store() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let store = Store::open(file.path()).unwrap();
    fill(&store, 0, 100);
    store.close().unwrap();
    check(&Store::open_read_only(file.path()).unwrap(), 100);
    let mut index = file.path().as_os_str().to_owned();
    index.push(".idx");
    fs::remove_file(index).unwrap();
    // It has the name that the temporary file goes by when it is dropped.
    let path = file.path().to_owned();
    drop(file);
    assert!(!path.exists());
}

#[test]
fn an_empty_file_stays_as_it_is_where_no_store_may_be_made() {
    let place = empty_place();
    let ways = [
        ("create(false)", Options::new().create(false).open(&place.path)),
        ("read-only", Options::new().open_read_only(&place.path)),
    ];
    for (way, opened) in ways {
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{way}");
        assert!(error.to_string().contains("the data file is empty: "), "{way}: {error}");
        assert!(!error.to_string().contains("salvage"), "{way}: {error}");
    }
    assert!(verify(&place.path, Options::new(), |_| {}).is_err());
    assert_eq!(fs::read_dir(place.path.parent().unwrap()).unwrap().count(), 1);
    assert_eq!(fs::metadata(&place.path).unwrap().len(), 0);
}

#[test]
fn an_empty_data_file_beside_its_index_is_a_store_that_was_lost() {
    let place = filled(100);
    let index = fs::read(index_path(&place.path)).unwrap();
    fs::write(&place.path, b"").unwrap();
    let ways = [
        Store::open(&place.path),
        Options::new().use_index_file(false).open(&place.path),
        Options::new().create(false).open(&place.path),
        Store::open_read_only(&place.path),
    ];
    let verified = verify(&place.path, Options::new(), |_| {}).map(|_| ());
    for opened in ways.map(|opened| opened.map(|_| ())).into_iter().chain([verified]) {
        let error = opened.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("its index file"), "{error}");
    }
    assert_eq!(fs::metadata(&place.path).unwrap().len(), 0);
    assert_eq!(fs::read(index_path(&place.path)).unwrap(), index);
    // What the error says.
    fs::remove_file(index_path(&place.path)).unwrap();
    assert!(Store::open(&place.path).unwrap().is_empty());
}

#[cfg(unix)]
#[test]
fn a_store_has_the_permissions_of_the_empty_file_that_it_is_made_of() {
    use std::os::unix::fs::PermissionsExt;
    for mode in [0o600, 0o640, 0o666] {
        let place = empty_place();
        fs::set_permissions(&place.path, fs::Permissions::from_mode(mode)).unwrap();
        Store::open(&place.path).unwrap().close().unwrap();
        let found = fs::metadata(&place.path).unwrap();
        assert!(0 < found.len());
        assert_eq!(found.permissions().mode() & 0o777, mode, "{mode:o}");
    }
}

#[cfg(unix)]
#[test]
fn a_link_to_an_empty_file_stays_a_link() {
    let place = place();
    let link = place.path.with_file_name("link");
    fs::write(&place.path, b"").unwrap();
    std::os::unix::fs::symlink(&place.path, &link).unwrap();
    let error = Store::open(&link).unwrap_err();
    assert!(error.to_string().contains("it is a link"), "{error}");
    assert!(link.is_symlink() && fs::read(&place.path).unwrap().is_empty());
    assert_eq!(fs::read_dir(place.path.parent().unwrap()).unwrap().count(), 2);
}

#[test]
fn many_that_make_a_store_of_one_empty_file_have_one_store() {
    const THREADS: u64 = 4;
    for round in 0..40 {
        let place = empty_place();
        thread::scope(|scope| {
            for number in 0..THREADS {
                let path = &place.path;
                scope.spawn(move || {
                    let options = Options::new().lock_wait(Duration::from_secs(60));
                    let store = options.open(path).unwrap();
                    store.set(&number, &number).unwrap();
                    store.close().unwrap();
                });
            }
        });
        let store = Store::open(&place.path).unwrap();
        assert_eq!(store.len(), THREADS, "round {round}");
    }
}

/// A storage on which somebody else makes a store of the empty file, between an opening of the file and all that
/// whoever opens it does next.
#[derive(Debug)]
struct Overtaken {
    storage: Arc<dyn Storage>,
    openings: AtomicU32,
    overtaken_at: u32,
}

impl Storage for Overtaken {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        let file = self.storage.open(path, mode)?;
        let is_it = path == Path::new(PATH)
            && self.openings.fetch_add(1, Ordering::Relaxed) + 1 == self.overtaken_at;
        if is_it {
            match Options::new().storage(Arc::clone(&self.storage)).open(PATH) {
                Ok(other) => {
                    other.set_bytes(b"a", b"1").unwrap();
                    other.close().unwrap();
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::Locked),
            }
        }
        Ok(file)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.storage.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.storage.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.storage.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.storage.list(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.storage.sync_dir(directory)
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        self.storage.random(into)
    }
}

#[test]
fn whoever_has_opened_an_empty_file_that_lost_its_name_replaces_no_store() {
    let mut overtaken = 0;
    for overtaken_at in 1..=4 {
        let storage: Arc<dyn Storage> = Arc::new(MemoryStorage::new());
        storage.open(Path::new(PATH), OpenMode::CreateNew).unwrap();
        let slower =
            Overtaken { storage: Arc::clone(&storage), openings: AtomicU32::new(0), overtaken_at };
        let store = Options::new().storage(Arc::new(slower)).open(PATH).unwrap();
        // Where the other one met the lock, it made none.
        if let Some(value) = store.get_bytes(b"a").unwrap() {
            assert_eq!(value, b"1");
            overtaken += 1;
        }
        store.close().unwrap();
        let other = Options::new().storage(storage).open(PATH).unwrap();
        assert!(other.len() <= 1);
    }
    assert_eq!(overtaken, 3);
}

fn disk_with_an_empty_file() -> (Image, SimDisk) {
    let disk = SimDisk::from_image(&Image::new(), 1);
    disk.open(Path::new(PATH), OpenMode::CreateNew).unwrap();
    let image = disk.image();
    let disk = SimDisk::recording_from(&image, 1);
    (image, disk)
}

fn on(disk: SimDisk) -> Options {
    Options::new().storage(Arc::new(disk))
}

#[test]
fn a_power_cut_while_a_store_is_made_of_an_empty_file_leaves_either() {
    let (image, disk) = disk_with_an_empty_file();
    let store = on(disk.clone()).durability(Durability::Synced).open(PATH).unwrap();
    let made = disk.event_count();
    store.set_bytes(b"a", b"1").unwrap();
    let acknowledged = disk.event_count();
    let (mut cut, mut random) = (PowerCut::from_image(&image), fastrand::Rng::with_seed(1));
    let (mut empty, mut whole) = (0, 0);
    for (number, event) in (1..).zip(disk.events(0)) {
        cut.follow(&event);
        for way in cut.cuts(false, 60, &mut random) {
            let left = cut.image(&way);
            let is_empty = left.get(Path::new(PATH)).unwrap().is_empty();
            empty += u32::from(is_empty);
            whole += u32::from(!is_empty);
            assert!(!is_empty || number < made, "event {number}: a store that was made is not");
            let found = on(SimDisk::from_image(&left, 2)).open(PATH);
            let found = found.unwrap_or_else(|error| panic!("event {number}, {way:?}: {error}"));
            if acknowledged <= number {
                assert_eq!(found.get_bytes(b"a").unwrap().unwrap(), b"1", "{number}, {way:?}");
            }
            found.set_bytes(b"b", b"2").unwrap();
            found.close().unwrap();
        }
    }
    assert!(5 < empty && 5 < whole, "{empty}, {whole}");
}

#[test]
fn a_call_that_fails_while_a_store_is_made_of_an_empty_file_leaves_either() {
    for number in 1.. {
        let (image, disk) = disk_with_an_empty_file();
        let (calls, error) = (Calls::Changes, io::ErrorKind::Other);
        let (write, sync) = (WriteFailure::Half, SyncFailure::CacheNew);
        disk.set_fault(Some(Fault { calls, number, lasts: false, error, write, sync }));
        let has_failed = on(disk.clone()).open(PATH).is_err();
        disk.set_fault(None);
        let store = on(disk.clone()).durability(Durability::Synced).open(PATH).unwrap();
        store.set_bytes(b"a", b"1").unwrap();
        let mut cut = PowerCut::from_image(&image);
        for event in disk.events(0) {
            cut.follow(&event);
        }
        for way in cut.cuts(false, 40, &mut fastrand::Rng::with_seed(1)) {
            let left = on(SimDisk::from_image(&cut.image(&way), 1)).create(false).open(PATH);
            let left = left.unwrap_or_else(|error| panic!("the call {number}, {way:?}: {error}"));
            let expected = [(b"a".to_vec(), b"1".to_vec())].into();
            assert_eq!(contents(&left), expected, "the call {number}, {way:?}");
        }
        if !has_failed {
            assert!(number > 3, "making a store takes several calls");
            break;
        }
    }
}
