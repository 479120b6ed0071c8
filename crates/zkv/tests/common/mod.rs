//! A store in a folder of its own, and what is put into it.

#![allow(dead_code, reason = "each test file uses a part of it")]

pub mod bad_sectors;
pub mod faulty;
pub mod sample;

use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use zkv::{Error, Store};

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
pub struct Page {
    pub title: String,
    pub links: Vec<String>,
    pub visits: Option<u64>,
}

pub fn page(number: u64) -> Page {
    Page {
        title: format!("Page {number}"),
        links: (0..number % 5).map(|link| format!("https://example.org/{link}")).collect(),
        visits: number.is_multiple_of(2).then_some(number),
    }
}

pub struct Place {
    _directory: tempfile::TempDir,
    pub path: PathBuf,
}

pub fn place() -> Place {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.zkv");
    Place { _directory: directory, path }
}

pub fn index_path(path: &Path) -> PathBuf {
    path.with_extension("zkv.idx")
}

/// Fills a store with keys `from..to`, each with its own value.
pub fn fill(store: &Store, from: u64, to: u64) {
    for number in from..to {
        store.set(&number, &page(number)).unwrap();
    }
}

/// A store that `fill` has put `count` keys into, closed.
pub fn filled(count: u64) -> Place {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    fill(&store, 0, count);
    store.close().unwrap();
    place
}

/// Holds the whole store against what `fill` has put into it.
pub fn check(store: &Store, count: u64) {
    assert_eq!(store.len(), count);
    for number in 0..count {
        assert_eq!(store.get(&number).unwrap(), Some(page(number)), "key {number}");
    }
    assert_eq!(store.get::<_, Page>(&count).unwrap(), None);
    assert_eq!(store.iter_bytes().map(Result::unwrap).count() as u64, count);
}

/// Does `work` on the store, and fails where that takes a minute, instead of never ending.
pub fn in_time(store: &Store, work: impl FnOnce(&Store) -> Result<(), Error> + Send + 'static) {
    let (done, is_done) = channel();
    let of_thread = store.clone();
    std::thread::spawn(move || {
        let worked = work(&of_thread);
        // It holds the store open.
        drop(of_thread);
        done.send(worked).unwrap();
    });
    is_done.recv_timeout(Duration::from_secs(60)).expect("it hangs").unwrap();
}
