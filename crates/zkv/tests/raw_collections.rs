//! Collections without their types, within snapshots and transactions, and single keys' bytes.

use std::sync::Arc;

use zkv::{Collection, Durability, Error, ErrorKind, Options, RawCollection, Store};
use zkv_io::{MemoryStorage, Storage};

const ONE: &[u8] = b"one";
const TWO: &[u8] = b"two";

fn new_store() -> Store {
    Options::new().storage(Arc::new(MemoryStorage::new())).open("s.zkv").unwrap()
}

/// The collection `name`, made with types that nothing here asks for.
fn made(store: &Store, name: &str) -> RawCollection {
    let _: Collection<u32, u32> = store.collection(name).unwrap();
    store.raw_collection(name).unwrap()
}

/// Holds all that a collection reads at some moment against the two values that it is to have.
macro_rules! check_has {
    ($collection:expr, $one:expr, $two:expr) => {
        match &$collection {
            collection => {
                let expected = expected($one, $two);
                for (key, value) in [ONE, TWO].into_iter().zip(&expected) {
                    assert_eq!(&collection.get(key).unwrap(), value);
                    assert_eq!(collection.contains(key).unwrap(), value.is_some());
                }
                assert_eq!(collection.get_many(&[ONE, TWO]).unwrap(), expected);
                let mut records: Vec<_> = collection.iter().map(Result::unwrap).collect();
                records.sort();
                let keys = [ONE, TWO].map(<[u8]>::to_vec);
                let there = keys.into_iter().zip(expected);
                let there: Vec<_> = there.filter_map(|(key, value)| Some((key, value?))).collect();
                assert_eq!(records, there);
                let mut keys: Vec<_> = collection.keys().map(Result::unwrap).collect();
                keys.sort();
                assert!(keys.iter().eq(there.iter().map(|(key, _)| key)));
            }
        }
    };
}

fn expected(one: Option<&[u8]>, two: Option<&[u8]>) -> [Option<Vec<u8>>; 2] {
    [one, two].map(|value| value.map(<[u8]>::to_vec))
}

#[test]
fn a_snapshot_has_the_collections_of_its_moment() {
    let store = new_store();
    for name in ["cleared", "dropped", "made anew", "written"] {
        made(&store, name).set(ONE, b"1").unwrap();
    }
    let old = store.raw_collection("made anew").unwrap();
    let snapshot = store.snapshot();
    store.raw_collection("cleared").unwrap().clear().unwrap();
    let dropped = store.raw_collection("dropped").unwrap();
    store.drop_collection("dropped").unwrap();
    store.drop_collection("made anew").unwrap();
    let anew: Collection<String, u64> = store.collection("made anew").unwrap();
    let later = made(&store, "later");
    let written = store.raw_collection("written").unwrap();
    for collection in [&store.raw_collection("made anew").unwrap(), &later, &written] {
        collection.set(ONE, b"3").unwrap();
        collection.set(TWO, b"2").unwrap();
    }
    let listed = |infos: Vec<zkv::CollectionInfo>| {
        let of = |info: zkv::CollectionInfo| (info.name, info.keys, info.value_type);
        infos.into_iter().map(of).collect::<Vec<_>>()
    };
    let expected = ["cleared", "dropped", "made anew", "written"];
    let expected = expected.map(|name| (name.to_owned(), 1, "u32".to_owned()));
    for _ in 0..2 {
        assert_eq!(listed(snapshot.collections()), expected);
        for name in ["cleared", "dropped", "made anew", "written"] {
            let then = snapshot.raw_collection(name).unwrap();
            check_has!(then, Some(b"1"), None);
            assert_eq!((then.len(), then.is_empty()), (1, false));
        }
        for handle in [&dropped, &old, &store.raw_collection("made anew").unwrap(), &written] {
            check_has!(handle.at(&snapshot).unwrap(), Some(b"1"), None);
        }
        assert!(snapshot.raw_collection("later").is_none());
        assert!(matches!(later.at(&snapshot), Err(Error::NoCollection { .. })));
        let now = store.snapshot();
        check_has!(later.at(&now).unwrap(), Some(b"3"), Some(b"2"));
        assert!(now.raw_collection("cleared").unwrap().is_empty());
        assert!(matches!(dropped.at(&now), Err(Error::NoCollection { .. })));
        let there = ["cleared", "later", "made anew", "written"];
        assert!(now.collections().iter().map(|info| &*info.name).eq(there));
        assert_eq!(listed(now.collections()), listed(store.collections()));
        store.rebuild_index().unwrap();
    }
    assert_eq!(anew.len(), 2);
}

#[test]
fn a_raw_collection_of_another_store_is_refused() {
    let (one, two) = (new_store(), new_store());
    let titles = made(&one, "titles");
    let namesake = made(&two, "titles");
    let refused = [
        titles.at(&two.snapshot()).unwrap_err(),
        two.transaction(|tx| titles.within(tx)?.set(ONE, b"1")).unwrap_err(),
    ];
    for error in refused {
        assert!(matches!(error, Error::OtherStore), "{error}");
    }
    assert!(namesake.is_empty());
}

#[test]
fn a_transaction_sees_its_own_writes_to_a_raw_collection_and_others_once_it_commits() {
    let store = new_store();
    let pages = made(&store, "pages");
    pages.set(ONE, b"1").unwrap();
    store.set_bytes(TWO, b"the store's own").unwrap();
    let tx = store.begin().unwrap();
    let mut within = pages.within(&tx).unwrap();
    check_has!(within, Some(b"1"), None);
    within.set(TWO, b"2").unwrap();
    assert!(within.delete(ONE).unwrap() && !within.delete(ONE).unwrap());
    check_has!(within, None, Some(b"2"));
    assert_eq!((pages.get(ONE).unwrap().as_deref(), pages.len()), (Some(&b"1"[..]), 1));
    tx.commit().unwrap();
    check_has!(pages.at(&store.snapshot()).unwrap(), None, Some(b"2"));
    assert_eq!(store.get_bytes(TWO).unwrap().as_deref(), Some(&b"the store's own"[..]));
}

#[test]
fn a_transaction_conflicts_with_what_happens_to_its_raw_collection() {
    type Step = fn(&Store, &RawCollection);
    let others: [(&str, Step, bool); 6] = [
        ("sets the key", |_, pages| pages.set(ONE, b"2").unwrap(), true),
        ("sets another key", |_, pages| pages.set(TWO, b"2").unwrap(), false),
        ("sets the key of the store's own", |store, _| store.set_bytes(ONE, b"2").unwrap(), false),
        ("clears it", |_, pages| pages.clear().unwrap(), true),
        ("drops it", |store, _| assert!(store.drop_collection("pages").unwrap()), true),
        (
            "drops it and makes it anew",
            |store, _| {
                assert!(store.drop_collection("pages").unwrap());
                made(store, "pages").set(ONE, b"1").unwrap();
            },
            true,
        ),
    ];
    for (what, other, is_conflict) in others {
        let store = new_store();
        let pages = made(&store, "pages");
        pages.set(ONE, b"1").unwrap();
        let tx = store.begin().unwrap();
        let mut within = pages.within(&tx).unwrap();
        let read = within.get(ONE).unwrap().unwrap();
        within.set(b"copy", &read).unwrap();
        other(&store, &pages);
        let committed = tx.commit();
        assert_eq!(matches!(committed, Err(Error::Conflict)), is_conflict, "{what}: {committed:?}");
        assert_eq!(committed.is_ok(), !is_conflict, "{what}: {committed:?}");
        let now = store.raw_collection("pages");
        let has_copy = now.is_some_and(|now| now.contains(b"copy").unwrap());
        assert_eq!(has_copy, !is_conflict, "{what}");
    }
}

#[test]
fn a_transaction_that_began_before_its_raw_collection_begins_anew() {
    let store = new_store();
    let mut early = store.begin().unwrap();
    let pages = made(&store, "pages");
    assert!(matches!(pages.within(&early), Err(Error::NoCollection { .. })));
    early.set_bytes(b"there are no pages", b"").unwrap();
    assert!(matches!(early.commit(), Err(Error::Conflict)));
    let mut attempts = 0;
    store
        .transaction(|tx| {
            attempts += 1;
            made(&store, "later").within(tx)?.set(ONE, b"1")
        })
        .unwrap();
    assert_eq!((attempts, store.raw_collection("later").unwrap().len()), (2, 1));
    store.drop_collection("pages").unwrap();
    let again = made(&store, "pages");
    let tx = store.begin().unwrap();
    assert_eq!(pages.within(&tx).unwrap_err().kind(), ErrorKind::NotFound);
    assert!(again.within(&tx).unwrap().get(ONE).unwrap().is_none());
}

/// What a store and a collection do alike to one key's bytes.
macro_rules! check_one_key {
    ($get:expr, $remove:expr, $compare:expr, $update:expr) => {
        let (get, remove, compare, update) = ($get, $remove, $compare, $update);
        let change = |old: Option<Vec<u8>>| old.map(|old| [&old[..], b"+"].concat());
        assert_eq!(update(ONE, &change).unwrap(), None);
        assert!(!compare(ONE, Some(b"1"), Some(b"2")).unwrap());
        assert!(compare(ONE, None, Some(b"1")).unwrap());
        assert!(!compare(ONE, None, Some(b"2")).unwrap());
        assert_eq!(update(ONE, &change).unwrap().as_deref(), Some(&b"1+"[..]));
        assert_eq!(get(ONE).unwrap().as_deref(), Some(&b"1+"[..]));
        assert_eq!(remove(ONE).unwrap().as_deref(), Some(&b"1+"[..]));
        assert_eq!((get(ONE).unwrap(), remove(ONE).unwrap()), (None, None));
        assert!(compare(ONE, None, Some(b"1")).unwrap());
        assert!(compare(ONE, Some(b"1"), None).unwrap());
        assert_eq!(get(ONE).unwrap(), None);
    };
}

#[test]
fn the_bytes_of_one_key_are_read_and_written_in_one_step() {
    for durability in [Durability::Buffered, Durability::Flushed, Durability::Synced] {
        let options = Options::new().storage(Arc::new(MemoryStorage::new()));
        let store = options.durability(durability).open("s.zkv").unwrap();
        let pages = made(&store, "pages");
        type Change<'a> = &'a dyn Fn(Option<Vec<u8>>) -> Option<Vec<u8>>;
        check_one_key!(
            |key| store.get_bytes(key),
            |key| store.remove_bytes(key),
            |key, expected, new| store.compare_and_set_bytes(key, expected, new),
            |key, change: Change<'_>| store.update_bytes(key, change)
        );
        check_one_key!(
            |key| pages.get(key),
            |key| pages.remove(key),
            |key, expected, new| pages.compare_and_set(key, expected, new),
            |key, change: Change<'_>| pages.update(key, change)
        );
        pages.set(ONE, b"1").unwrap();
        let failed = pages.try_update(ONE, |_| Err(Error::Closed));
        assert!(matches!(failed, Err(Error::Closed)));
        let failed = store.try_update_bytes(ONE, |_| Err(Error::Closed));
        assert!(matches!(failed, Err(Error::Closed)));
        assert_eq!(pages.get(ONE).unwrap().as_deref(), Some(&b"1"[..]));
        store.drop_collection("pages").unwrap();
        assert_eq!(pages.remove(ONE).unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[test]
fn a_transaction_removes_and_returns_what_it_sees() {
    let store = new_store();
    let typed: Collection<u8, u32> = store.collection("pages").unwrap();
    let pages = store.raw_collection("pages").unwrap();
    store.set("key", &5u32).unwrap();
    store.set_bytes(ONE, b"1").unwrap();
    typed.set(&1, &7).unwrap();
    pages.set(&[2], b"no number: \xff\xff\xff\xff\xff\xff").unwrap();
    let mut tx = store.begin().unwrap();
    assert_eq!(tx.remove::<_, String>("key").unwrap_err().kind(), ErrorKind::Encoding);
    assert_eq!(tx.remove::<_, u32>("key").unwrap(), Some(5));
    assert_eq!(tx.remove::<_, u32>("key").unwrap(), None);
    tx.set_bytes(ONE, b"its own").unwrap();
    assert_eq!(tx.remove_bytes(ONE).unwrap().as_deref(), Some(&b"its own"[..]));
    let mut within = typed.within(&tx).unwrap();
    assert_eq!((within.remove(&1).unwrap(), within.remove(&1).unwrap()), (Some(7), None));
    assert_eq!(within.remove(&2).unwrap_err().kind(), ErrorKind::Encoding);
    let mut within = pages.within(&tx).unwrap();
    assert!(within.remove(&[2]).unwrap().is_some_and(|value| value.starts_with(b"no number")));
    assert_eq!((store.len(), typed.len()), (2, 2));
    tx.commit().unwrap();
    assert_eq!((store.len(), typed.len()), (0, 0));
    // What it has removed, it has read.
    typed.set(&1, &7).unwrap();
    let tx = store.begin().unwrap();
    assert_eq!(typed.within(&tx).unwrap().remove(&1).unwrap(), Some(7));
    typed.set(&1, &8).unwrap();
    assert!(matches!(tx.commit(), Err(Error::Conflict)));
    assert_eq!(typed.get(&1).unwrap(), Some(8));
}

#[test]
fn a_store_that_is_only_read_says_so_of_a_collection_that_it_lacks() {
    let storage = Arc::new(MemoryStorage::new());
    let options = || Options::new().storage(Arc::clone(&storage) as Arc<dyn Storage>);
    made(&options().open("s.zkv").unwrap(), "pages");
    let store = options().open_read_only("s.zkv").unwrap();
    let missing = store.collection::<u32, u32>("titles").unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let text = missing.to_string();
    assert!(text.contains("no collection titles") && text.contains("open read-only"), "{text}");
    let refused = store.raw_collection("pages").unwrap().set(ONE, b"1").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ReadOnly);
    assert!(refused.to_string().contains("`Options::open`"), "{refused}");
}

#[test]
fn what_raw_views_print_to_debug_holds_no_keys_and_no_values() {
    let store = new_store();
    let pages = made(&store, "pages");
    pages.set(b"SECRET", b"SECRET").unwrap();
    let (snapshot, tx) = (store.snapshot(), store.begin().unwrap());
    let mut within = pages.within(&tx).unwrap();
    within.set(b"SECRET", b"SECRET").unwrap();
    let printed = format!("{within:?} {:?}", pages.at(&snapshot).unwrap());
    assert!(!printed.contains("SECRET") && !printed.contains("83, 69"), "{printed}");
}
