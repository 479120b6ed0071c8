//! Reading and writing one key in one step, with closures that fail, panic, and are called again.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use zkv::{Collection, Durability, Error, ErrorKind, Options, Store};
use zkv_io::MemoryStorage;

const ALL: [Durability; 3] = [Durability::Buffered, Durability::Flushed, Durability::Synced];

fn new_store(durability: Durability) -> Store {
    let options = Options::new().storage(Arc::new(MemoryStorage::new())).durability(durability);
    options.open("s.zkv").unwrap()
}

/// What a program's own closure fails with.
#[derive(Debug)]
enum Failure {
    NotFetched(u32),
    Store(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// What a store and a collection have alike.
struct Calls<'a> {
    get: &'a dyn Fn() -> Option<u32>,
    set: &'a (dyn Fn(u32) + Sync),
    delete: &'a (dyn Fn() -> bool + Sync),
    insert: &'a dyn Fn(&mut Make<'_>) -> Result<u32, Failure>,
    update: &'a dyn Fn(&mut Change<'_>) -> Result<Option<u32>, Failure>,
}

type Make<'a> = dyn FnMut() -> Result<u32, Failure> + 'a;
type Change<'a> = dyn FnMut(Option<u32>) -> Result<Option<u32>, Failure> + 'a;

/// Runs `check` with a key of a store and with one of a collection, which have no value yet.
fn for_both(check: impl Fn(Calls<'_>)) {
    for durability in ALL {
        let store = new_store(durability);
        let named: Collection<String, u32> = store.collection("named").unwrap();
        check(Calls {
            get: &|| store.get("key").unwrap(),
            set: &|value| store.set("key", &value).unwrap(),
            delete: &|| store.delete("key").unwrap(),
            insert: &|make| store.get_or_try_insert_with("key", make),
            update: &|change| store.try_update("key", change),
        });
        check(Calls {
            get: &|| named.get("key").unwrap(),
            set: &|value| named.set("key", &value).unwrap(),
            delete: &|| named.delete("key").unwrap(),
            insert: &|make| named.get_or_try_insert_with("key", make),
            update: &|change| named.try_update("key", change),
        });
    }
}

/// Does `write` in another thread, and waits for it.
fn elsewhere(write: impl FnOnce() + Send) {
    thread::scope(|scope| scope.spawn(write).join().unwrap());
}

#[test]
fn one_key_is_read_and_written_in_one_step() {
    for durability in ALL {
        let store = new_store(durability);
        assert_eq!(store.get_or_insert_with("a", || 5u32).unwrap(), 5);
        assert_eq!(store.get_or_insert_with("a", || 6u32).unwrap(), 5);
        assert!(!store.compare_and_set("a", Some(&4u32), Some(&7)).unwrap());
        assert!(!store.compare_and_set("a", None, Some(&7u32)).unwrap());
        assert!(store.compare_and_set("a", Some(&5u32), Some(&7)).unwrap());
        assert!(store.compare_and_set("b", None, Some(&1u32)).unwrap());
        assert!(store.compare_and_set("b", Some(&1u32), None).unwrap());
        assert_eq!(store.remove::<_, u32>("b").unwrap(), None);
        assert_eq!(store.update("a", |old: Option<u32>| old.map(|old| old + 1)).unwrap(), Some(8));
        assert_eq!(store.update("b", |old: Option<u32>| old).unwrap(), None);
        let wrong = store.remove::<_, String>("a");
        assert_eq!(wrong.unwrap_err().kind(), ErrorKind::Encoding);
        assert_eq!(store.remove::<_, u32>("a").unwrap(), Some(8));
        assert!(store.is_empty());
    }
}

#[test]
fn a_closure_that_writes_to_the_key_itself_is_not_called_for_ever() {
    for durability in ALL {
        let store = new_store(durability);
        let mut calls = 0;
        let updated = store.update("key", |old: Option<u32>| {
            calls += 1;
            store.set("key", &calls).unwrap();
            old.or(Some(0))
        });
        assert!(matches!(updated, Err(Error::Conflict)), "{updated:?}");
        assert_eq!(store.get("key").unwrap(), Some(calls));
        let inserted = store.get_or_insert_with("other", || {
            store.set("other", &1).unwrap();
            2
        });
        assert_eq!((inserted.unwrap(), store.get("other").unwrap()), (1, Some(1)));
        // Nothing is written then, and nothing conflicts.
        let left = store.update("third", |old: Option<u32>| {
            store.set("third", &1u32).unwrap();
            old
        });
        assert_eq!((left.unwrap(), store.get("third").unwrap()), (None, Some(1u32)));
    }
}

#[test]
fn closures_that_may_fail_do_as_the_others_where_they_do_not() {
    for_both(|key| {
        assert_eq!((key.insert)(&mut || Ok(5)).unwrap(), 5);
        assert_eq!((key.insert)(&mut || Err(Failure::NotFetched(404))).unwrap(), 5);
        assert_eq!((key.update)(&mut |old| Ok(old.map(|old| old + 1))).unwrap(), Some(6));
        assert_eq!((key.get)(), Some(6));
        assert_eq!((key.update)(&mut |_| Ok(None)).unwrap(), None);
        assert_eq!((key.update)(&mut |old| Ok(old)).unwrap(), None);
        assert_eq!((key.get)(), None);
    });
}

#[test]
fn a_closure_that_fails_or_panics_has_written_nothing() {
    for_both(|key| {
        for value in [None, Some(7)] {
            if let Some(value) = value {
                (key.set)(value);
            } else {
                let failed = (key.insert)(&mut || Err(Failure::NotFetched(404)));
                assert!(matches!(failed, Err(Failure::NotFetched(404))), "{failed:?}");
                let panicked =
                    catch_unwind(AssertUnwindSafe(|| (key.insert)(&mut || panic!("on purpose"))));
                assert!(panicked.is_err());
            }
            let failed = (key.update)(&mut |old| {
                assert_eq!(old, value);
                Err(Failure::NotFetched(500))
            });
            assert!(matches!(failed, Err(Failure::NotFetched(500))), "{failed:?}");
            let panicked =
                catch_unwind(AssertUnwindSafe(|| (key.update)(&mut |_| panic!("on purpose"))));
            assert!(panicked.is_err());
            assert_eq!((key.get)(), value);
        }
        // Writing goes on.
        assert_eq!((key.update)(&mut |old| Ok(old.map(|old| old + 1))).unwrap(), Some(8));
    });
}

#[test]
fn an_error_of_the_library_that_a_closure_returns_is_handed_through_at_once() {
    // Of the store's own, the first is tried again, and the second has the index made anew.
    let errors: [fn() -> Error; 2] =
        [|| Error::Conflict, || Error::Disagreement { path: "other.zkv".into() }];
    for error in errors {
        let expected = error().to_string();
        for_both(|key| {
            let calls = Cell::new(0);
            let failed = || {
                calls.set(calls.get() + 1);
                Failure::Store(error())
            };
            let refused = [
                (key.insert)(&mut || Err(failed())).map(drop),
                (key.update)(&mut |_| Err(failed())).map(drop),
            ];
            for refused in refused {
                let Err(Failure::Store(refused)) = refused else { panic!("{refused:?}") };
                assert_eq!(refused.to_string(), expected);
            }
            assert_eq!((calls.get(), (key.get)()), (2, None));
        });
    }
}

#[test]
fn the_stores_own_errors_come_in_the_closures_type() {
    let store = new_store(Durability::Buffered);
    store.set("text", "no number").unwrap();
    let of_store = |result: Result<(), Failure>| match result {
        Err(Failure::Store(error)) => error.kind(),
        other => panic!("{other:?}"),
    };
    let never = || -> Result<[u8; 9], Failure> { panic!("the key has a value") };
    assert_eq!(
        of_store(store.get_or_try_insert_with("text", never).map(drop)),
        ErrorKind::Encoding
    );
    let long = vec![0u8; 70_000];
    let made = || Ok::<u32, Failure>(1);
    assert_eq!(of_store(store.get_or_try_insert_with(&long, made).map(drop)), ErrorKind::Limit);
    let same = |old: Option<u32>| Ok::<_, Failure>(old);
    assert_eq!(of_store(store.try_update(&long, same).map(drop)), ErrorKind::Limit);
    store.clone().close().unwrap();
    assert_eq!(of_store(store.try_update("text", same).map(drop)), ErrorKind::Misuse);
}

#[test]
fn a_closure_is_called_again_where_another_thread_came_first() {
    for_both(|key| {
        // The other's value is the key's, and none is lacking any more.
        let mut calls = 0;
        let found = (key.insert)(&mut || {
            calls += 1;
            elsewhere(|| (key.set)(1));
            Ok(2)
        });
        assert_eq!((found.unwrap(), calls), (1, 1));

        // What the other one has set is gone again, and the value is lacking still.
        assert!((key.delete)());
        let mut calls = 0;
        let made = (key.insert)(&mut || {
            calls += 1;
            if calls == 1 {
                elsewhere(|| {
                    (key.set)(1);
                    assert!((key.delete)());
                });
            }
            Ok(10 + calls)
        });
        assert_eq!((made.unwrap(), (key.get)()), (12, Some(12)));

        let mut calls = 0;
        let updated = (key.update)(&mut |old| {
            calls += 1;
            if calls == 1 {
                elsewhere(|| (key.set)(50));
            }
            Ok(old.map(|old| old + 1))
        });
        assert_eq!((updated.unwrap(), calls, (key.get)()), (Some(51), 2, Some(51)));

        // One that fails then has written nothing, and undone nothing.
        let mut calls = 0;
        let failed = (key.update)(&mut |_| {
            calls += 1;
            let theirs = 60 + calls;
            elsewhere(|| (key.set)(theirs));
            if calls == 1 { Ok(None) } else { Err(Failure::NotFetched(1)) }
        });
        assert!(matches!(failed, Err(Failure::NotFetched(1))), "{failed:?}");
        assert_eq!((calls, (key.get)()), (2, Some(62)));
    });
}

#[test]
fn threads_that_lack_the_same_value_all_get_one() {
    const THREADS: u32 = 4;
    for durability in ALL {
        let store = new_store(durability);
        let named: Collection<u32, u32> = store.collection("named").unwrap();
        let made = AtomicU32::new(0);
        // One in three fails, and its thread tries again.
        let fetch = || match made.fetch_add(1, Ordering::Relaxed) {
            number if number.is_multiple_of(3) => Err(Failure::NotFetched(number)),
            number => Ok(number),
        };
        for round in 0..50u32 {
            let fetched = || {
                let mut tries = (0..1_000).map(|_| named.get_or_try_insert_with(&round, fetch));
                tries.find_map(Result::ok).unwrap()
            };
            let found: Vec<u32> = thread::scope(|scope| {
                let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(fetched)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let stored = named.get(&round).unwrap().unwrap();
            assert_eq!(found, vec![stored; THREADS as usize]);
        }
        assert!(made.load(Ordering::Relaxed) >= 50);
    }
}
