//! What the types promise to whoever uses them, by the names of this crate alone.

use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use zkv::{
    Collection, CollectionIter, Durability, Error, FileMap, IterBytes, KeysBytes, LockKind,
    MemoryStorage, OpenMode, Options, RawCollection, Snapshot, Storage, StorageFile, Store,
    Transaction, TransactionIter, WriteBatch,
};
use zkv_sim::{Act, Watched};

fn sent<T: Send + Unpin + 'static>() {}
fn shared<T: Sync>() {}
fn cloned<T: Clone>() {}
fn unwound<T: UnwindSafe + RefUnwindSafe>() {}

#[test]
fn handles_go_from_thread_to_thread_and_through_a_panic() {
    type Pages = Collection<String, Vec<u8>>;
    macro_rules! check {
        ($($check:ident: $($type:ty),*;)*) => { $($($check::<$type>();)*)* };
    }
    check! {
        sent: Store, Pages, RawCollection, Snapshot, Transaction, WriteBatch, Options, Error;
        sent: IterBytes, KeysBytes, TransactionIter, CollectionIter<String, Vec<u8>>;
        shared: Store, Pages, RawCollection, Snapshot, WriteBatch, Options, Error;
        cloned: Store, Pages, RawCollection, Options;
        unwound: Store, Pages, RawCollection, Snapshot, Transaction;
    }
    // Of whatever types its keys and values are.
    sent::<Collection<Box<dyn Fn()>, *const u8>>();
    shared::<Collection<Box<dyn Fn()>, *const u8>>();
}

/// Storage of somebody's own, whose files cannot be mapped.
#[derive(Debug)]
struct Own(MemoryStorage);

#[derive(Debug)]
struct OwnFile(Arc<dyn StorageFile>);

/// Reads without a map.
#[derive(Debug)]
struct Unmapped(Arc<dyn StorageFile>);

impl Storage for Own {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn StorageFile>> {
        Ok(Arc::new(OwnFile(self.0.open(path, mode)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        self.0.sync_dir(directory)
    }

    fn random(&self, into: &mut [u8]) -> io::Result<()> {
        self.0.random(into)
    }
}

impl StorageFile for OwnFile {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_at(offset, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.0.set_len(bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.0.try_lock(kind)
    }

    fn map(&self) -> io::Result<Arc<dyn FileMap>> {
        Ok(Arc::new(Unmapped(Arc::clone(&self.0))))
    }
}

impl FileMap for Unmapped {
    fn copy_out(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.0.read_at(offset, into)
    }
}

#[test]
fn a_store_lies_in_storage_of_somebodys_own() {
    let options = Options::new().storage(Arc::new(Own(MemoryStorage::new())));
    let store = options.clone().open("s.zkv").unwrap();
    store.set("a", &1u32).unwrap();
    store.close().unwrap();
    assert_eq!(options.open_read_only("s.zkv").unwrap().get("a").unwrap(), Some(1u32));
}

/// Where code of the user's panics, whatever the store calls it for.
#[test]
fn a_store_goes_on_behind_a_panic_of_its_user() {
    let store = Options::new().storage(Arc::new(MemoryStorage::new())).open("s.zkv").unwrap();
    let pages: Collection<String, u32> = store.collection("pages").unwrap();
    pages.set("a", &1).unwrap();
    store.set("a", &1u32).unwrap();
    let calls: [&(dyn Fn() + RefUnwindSafe); 6] = [
        &|| drop(store.update("a", |_: Option<u32>| panic!("on purpose"))),
        &|| drop(pages.get_or_insert_with("b", || panic!("on purpose"))),
        &|| drop(pages.update("a", |_| panic!("on purpose"))),
        &|| {
            let _ = store.transaction::<()>(|tx| {
                pages.within(tx)?.set("a", &2)?;
                panic!("on purpose")
            });
        },
        &|| drop(store.verify(|_| panic!("on purpose"))),
        &|| drop(store.compact(|_| panic!("on purpose"))),
    ];
    for (number, call) in calls.iter().enumerate() {
        assert!(catch_unwind(call).is_err(), "the call {number}");
        assert_eq!(store.get::<_, u32>("a").unwrap(), Some(1), "the call {number}");
        assert_eq!(pages.get("a").unwrap(), Some(1), "the call {number}");
        store.set(&number, &number).unwrap();
        store.sync().unwrap();
    }
    store.compact(|_| {}).unwrap();
    assert_eq!((store.len(), pages.len()), (7, 1));
    assert_eq!(store.verify(|_| {}).unwrap().findings, []);
}

/// Where the storage panics within a write, while the store's locks are held.
#[test]
fn a_write_that_panics_has_happened_or_not_and_the_store_goes_on() {
    for number in 1..=6 {
        let left = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&left);
        let memory = MemoryStorage::new();
        let storage = Watched::new(Arc::new(memory.clone()), move |act, _| {
            if matches!(act, Act::Write | Act::Sync) {
                let left = counted.load(Ordering::SeqCst);
                counted.store(left.saturating_sub(1), Ordering::SeqCst);
                assert!(left != 1, "on purpose");
            }
            Ok(())
        });
        let options = Options::new().storage(Arc::new(storage)).durability(Durability::Synced);
        let store = options.open("s.zkv").unwrap();
        store.set("a", &1u32).unwrap();
        left.store(number, Ordering::SeqCst);
        let mut panics = 0;
        for value in 2..=9u32 {
            let written = catch_unwind(|| store.set("a", &value));
            panics += u32::from(written.is_err());
            let found = store.get::<_, u32>("a").unwrap().unwrap();
            let before = value - 1;
            match written {
                Ok(written) => {
                    written.unwrap();
                    assert_eq!(found, value);
                }
                Err(_) => {
                    assert!([before, value].contains(&found), "{found}");
                    store.set("a", &value).unwrap();
                }
            }
        }
        assert_eq!(panics, 1, "call {number}");
        assert_eq!(store.verify(|_| {}).unwrap().findings, []);
        store.close().unwrap();
        let again = Options::new().storage(Arc::new(memory)).open("s.zkv").unwrap();
        assert_eq!(again.get("a").unwrap(), Some(9u32));
    }
}
