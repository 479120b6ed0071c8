//! A store that is opened by a relative path, in a process that goes elsewhere. Alone in its file: the
//! current folder is the process's.

use std::path::Path;
use std::{env, fs};

use zkv::Store;

#[test]
fn a_store_stays_where_it_was_opened() {
    let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    env::set_current_dir(home.path()).unwrap();
    let store = Store::open("s.zkv").unwrap();
    env::set_current_dir(elsewhere.path()).unwrap();
    for number in 0..1000u64 {
        store.set(&number, &number).unwrap();
    }
    store.rebuild_index().unwrap();
    store.compact(|_| ()).unwrap();
    store.backup("copy.zkv").unwrap();
    store.close().unwrap();
    let names = |folder: &Path| {
        let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    };
    assert_eq!(names(home.path()), ["s.zkv", "s.zkv.idx"]);
    assert_eq!(names(elsewhere.path())[0], "copy.zkv", "a backup goes where the process is");
    let store = Store::open_read_only(home.path().join("s.zkv")).unwrap();
    assert_eq!(store.len(), 1000);
    // Windows removes no folder that a process is in.
    env::set_current_dir(env::temp_dir()).unwrap();
}
