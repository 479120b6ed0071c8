//! The store's files: indexes of every state, read-only media, copies, leftovers, damage.

mod common;

use std::path::Path;
#[cfg(unix)]
use std::process::Command;
use std::sync::Arc;
use std::{fs, io};

use zkv::{Cleaning, Durability, ErrorKind, Options, Store};
use zkv_index::{Checkpoint, Thresholds};
use zkv_io::{MemoryStorage, OpenMode, Storage};
use zkv_sim::{Calls, Fault, Image, SimDisk, SyncFailure, WriteFailure};

use common::faulty::noise;
use common::{Page, check, fill, filled, index_path, page, place};

#[test]
fn reading_only_writes_nothing() {
    for with_index in [true, false] {
        let place = filled(500);
        if !with_index {
            fs::remove_file(index_path(&place.path)).unwrap();
        }
        let directory = place.path.parent().unwrap();
        let listing = || -> Vec<_> {
            let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
            entries.map(|entry| (entry.path(), fs::read(entry.path()).unwrap())).collect()
        };
        let before = listing();
        let store = Store::open_read_only(&place.path).unwrap();
        check(&store, 500);
        assert_eq!(store.stats().unwrap().index_file_bytes > 0, with_index);
        assert_eq!(store.set(&1u64, &1u64).unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(store.delete(&1u64).unwrap_err().kind(), ErrorKind::ReadOnly);
        assert_eq!(store.flush().unwrap_err().kind(), ErrorKind::ReadOnly);
        store.close().unwrap();
        assert_eq!(listing(), before);
    }
}

#[test]
fn an_error_says_by_itself_what_the_system_has_said() {
    let place = place();
    let error = Store::open(place.path.join("folder/store.zkv")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let not_found = fs::read_dir(&place.path).unwrap_err().to_string();
    assert!(error.to_string().contains(&not_found), "{error}");
}

#[test]
#[cfg(unix)]
fn read_only_media_can_be_read() {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    let place = filled(100);
    let directory = place.path.parent().unwrap();
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(&place.path, 0o444);
    set_mode(directory, 0o555);
    check(&Store::open_read_only(&place.path).unwrap(), 100);
    set_mode(directory, 0o755);
}

#[test]
fn any_index_file_gives_the_same_answers() {
    let place = filled(800);
    let old_index = fs::read(index_path(&place.path)).unwrap();
    let old_data = fs::read(&place.path).unwrap();
    let store = Store::open(&place.path).unwrap();
    fill(&store, 800, 1500);
    store.close().unwrap();
    let (index, data) =
        (fs::read(index_path(&place.path)).unwrap(), fs::read(&place.path).unwrap());
    let other = place.path.with_file_name("other.zkv");
    let store = Store::open(&other).unwrap();
    fill(&store, 0, 2000);
    store.close().unwrap();
    let foreign = fs::read(index_path(&other)).unwrap();
    let damaged = |at: usize| {
        let mut damaged = index.clone();
        damaged[at] ^= 4;
        damaged
    };
    let cases: Vec<(&str, Option<Vec<u8>>)> = vec![
        ("missing", None),
        ("empty", Some(Vec::new())),
        ("of an older state", Some(old_index)),
        ("of another store", Some(foreign)),
        ("cut", Some(index[..index.len() / 2].to_vec())),
        ("damaged in its header", Some(damaged(20))),
        ("damaged in its table", Some(damaged(index.len() / 2))),
        ("damaged at its end", Some(damaged(index.len() - 1))),
        ("whole", Some(index.clone())),
    ];
    for (name, bytes) in cases {
        for read_only in [false, true] {
            fs::write(&place.path, &data).unwrap();
            match &bytes {
                Some(bytes) => fs::write(index_path(&place.path), bytes).unwrap(),
                None => drop(fs::remove_file(index_path(&place.path))),
            }
            let opened = if read_only {
                Store::open_read_only(&place.path)
            } else {
                Store::open(&place.path)
            };
            let store = opened.unwrap_or_else(|error| panic!("{name}: {error}"));
            check(&store, 1500);
        }
    }
    // The other way round: the data is older than its index.
    fs::write(&place.path, &old_data).unwrap();
    fs::write(index_path(&place.path), &index).unwrap();
    check(&Store::open(&place.path).unwrap(), 800);
}

#[test]
fn indexes_of_diverged_copies_are_not_mixed_up() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    fill(&store, 0, 100);
    let copy = place.path.with_file_name("copy.zkv");
    store.backup(&copy).unwrap();
    fill(&store, 100, 200);
    store.close().unwrap();
    let store = Store::open(&copy).unwrap();
    check(&store, 100);
    for number in 100..200u64 {
        store.set(&(number + 1000), &page(number)).unwrap();
    }
    store.close().unwrap();
    fs::copy(index_path(&place.path), index_path(&copy)).unwrap();
    let store = Store::open(&copy).unwrap();
    assert_eq!(store.len(), 200);
    assert_eq!(store.get(&1150u64).unwrap(), Some(page(150)));
    assert_eq!(store.get::<_, Page>(&150u64).unwrap(), None);
}

#[test]
fn a_store_without_an_index_file_never_writes_one() {
    let place = place();
    let options = Options::new().use_index_file(false);
    let store = options.clone().open(&place.path).unwrap();
    fill(&store, 0, 500);
    store.close().unwrap();
    let store = options.open(&place.path).unwrap();
    check(&store, 500);
    assert_eq!(store.stats().unwrap().index_file_bytes, 0);
    store.close().unwrap();
    assert!(!index_path(&place.path).exists());
}

#[test]
fn a_close_behind_few_records_leaves_the_index_file_to_a_later_one() {
    let place = filled(100);
    let index = || fs::read(index_path(&place.path)).unwrap();
    let before = index();
    let mut count = 100;
    while index() == before {
        let store = Store::open(&place.path).unwrap();
        store.set(&count, &page(count)).unwrap();
        store.close().unwrap();
        count += 1;
        assert!(count <= 165, "the index file is never brought up to date");
        check(&Store::open_read_only(&place.path).unwrap(), count);
    }
    assert!(count > 101, "each close has written the index file");
}

#[test]
fn a_close_makes_an_index_file_that_is_missing() {
    let place = filled(100);
    fs::remove_file(index_path(&place.path)).unwrap();
    Store::open(&place.path).unwrap().close().unwrap();
    assert!(index_path(&place.path).exists());
}

#[test]
fn a_rebuilt_index_gives_the_same_answers() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    fill(&store, 0, 1000);
    store.rebuild_index().unwrap();
    check(&store, 1000);
    fill(&store, 1000, 1100);
    store.close().unwrap();
    check(&Store::open(&place.path).unwrap(), 1100);
}

#[test]
fn a_backup_is_a_store_of_its_own() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    fill(&store, 0, 1000);
    for number in 0..500u64 {
        store.set(&number, &page(number + 1)).unwrap();
        store.set(&number, &page(number)).unwrap();
    }
    let exact = place.path.with_file_name("exact.zkv");
    let anew = place.path.with_file_name("anew.zkv");
    store.backup(&exact).unwrap();
    store.backup_with(&anew, Options::new().compression_level(9).slot_bytes(1 << 20)).unwrap();
    store.set(&5000u64, &page(1)).unwrap();
    for copy in [&exact, &anew] {
        check(&Store::open_read_only(copy).unwrap(), 1000);
        let again = store.backup(copy).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists, "{again}");
        assert_eq!(
            store.backup_with(copy, Options::new()).unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        check(&Store::open_read_only(copy).unwrap(), 1000);
    }
    let files = fs::read_dir(place.path.parent().unwrap()).unwrap().count();
    assert_eq!(files, 6, "nothing is left behind");
}

#[test]
#[cfg(unix)]
fn a_copy_under_a_name_that_cannot_be_opened_is_refused_and_removes_nothing() {
    let (place, folder) = (filled(10), tempfile::tempdir().unwrap());
    let copy = folder.path().join("copy.zkv");
    assert!(Command::new("mkfifo").arg(&copy).status().unwrap().success());
    fs::write(index_path(&copy), "the index of whoever has that name").unwrap();
    let store = Store::open(&place.path).unwrap();
    let check = |refused: zkv::Result<()>| {
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(fs::read(index_path(&copy)).unwrap(), b"the index of whoever has that name");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    };
    check(store.backup(&copy));
    check(store.backup_with(&copy, Options::new()));
    check(zkv::salvage(&place.path, &copy, Options::new(), |_| ()).map(drop));
}

#[test]
#[cfg(unix)]
fn a_copy_to_a_folder_is_refused_as_such() {
    let (place, folder) = (filled(10), tempfile::tempdir().unwrap());
    let store = Store::open(&place.path).unwrap();
    let refused = store.backup(folder.path()).unwrap_err().to_string();
    assert!(refused.contains("it is a folder") && !refused.contains("remove"), "{refused}");
    store.close().unwrap();
    let refused = zkv::salvage(&place.path, folder.path(), Options::new(), |_| ()).unwrap_err();
    assert!(refused.to_string().contains("it is a folder"), "{refused}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_copy_to_a_folder_that_does_not_exist_says_so() {
    let place = filled(10);
    let folder = place.path.with_file_name("missing");
    let copy = folder.join("copy.zkv");
    let store = Store::open(&place.path).unwrap();
    let copied = [store.backup(&copy), store.backup_with(&copy, Options::new())];
    store.close().unwrap();
    let salvaged = zkv::salvage(&place.path, &copy, Options::new(), |_| ()).map(drop);
    for done in copied.into_iter().chain([salvaged]) {
        let error = done.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("the folder for it does not exist: make it"), "{error}");
    }
    assert!(!folder.exists());
}

#[test]
#[cfg(unix)]
fn a_copy_under_the_name_of_a_link_that_leads_nowhere_leaves_no_index() {
    let (place, folder) = (filled(10), tempfile::tempdir().unwrap());
    let copy = folder.path().join("copy.zkv");
    std::os::unix::fs::symlink("nothing", &copy).unwrap();
    let store = Store::open(&place.path).unwrap();
    store.backup(&copy).unwrap_err();
    store.backup_with(&copy, Options::new()).unwrap_err();
    zkv::salvage(&place.path, &copy, Options::new(), |_| ()).unwrap_err();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn nothing_is_acknowledged_behind_the_place_where_somebody_has_cut_the_file() {
    for parts in [1, 2, 3] {
        let memory = Arc::new(MemoryStorage::new());
        let options = || {
            let storage = Arc::clone(&memory) as Arc<dyn Storage>;
            Options::new().storage(storage).slot_bytes(256 << 10).cleaning(Cleaning::Off)
        };
        let store = options().open("store.zkv").unwrap();
        for number in 0..2000u64 {
            store.set(&number, &noise(number, 400)).unwrap();
        }
        store.sync().unwrap();
        let file = memory.open(Path::new("store.zkv"), OpenMode::ReadWrite).unwrap();
        file.set_len(file.len().unwrap() * parts / 4).unwrap();
        store.set_bytes(b"later", b"1").unwrap();
        for refused in [store.flush(), store.sync(), store.clone().close()] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            assert!(error.to_string().contains("cut off"), "{error}");
        }
    }
}

#[test]
#[cfg(unix)]
fn an_index_file_that_is_made_anew_is_as_private_as_the_store() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    let place = filled(3000);
    let set_mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let index = place.path.with_file_name("store.zkv.idx");
    assert!(index.exists());
    let index_mode = || fs::metadata(&index).unwrap().mode() & 0o777;
    // Of more than the umask takes away.
    set_mode(&place.path, 0o600);
    set_mode(&index, 0o644);
    Store::open(&place.path).unwrap().rebuild_index().unwrap();
    assert_eq!(index_mode(), 0o600);
    fs::remove_file(&index).unwrap();
    let store = Store::open(&place.path).unwrap();
    assert_eq!(index_mode(), 0o600);
    fs::remove_file(&index).unwrap();
    store.rebuild_index().unwrap();
    assert_eq!(index_mode(), 0o600);
    // One that was more private stays so.
    set_mode(&place.path, 0o640);
    store.rebuild_index().unwrap();
    store.close().unwrap();
    assert_eq!(index_mode(), 0o600);
}

#[test]
#[cfg(unix)]
fn copies_of_a_private_store_are_private() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    let place = filled(3000);
    fs::set_permissions(&place.path, fs::Permissions::from_mode(0o600)).unwrap();
    let copy = |name: &str| place.path.with_file_name(name);
    let store = Store::open(&place.path).unwrap();
    store.collection::<u32, u32>("secret").unwrap().set(&1, &2).unwrap();
    store.backup(copy("backup")).unwrap();
    store.backup_with(copy("with"), Options::new()).unwrap();
    store.close().unwrap();
    zkv::salvage(&place.path, copy("salvaged"), Options::new(), |_| ()).unwrap();
    for name in ["backup", "with", "salvaged"] {
        for file in [copy(name), copy(&format!("{name}.idx"))] {
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600, "{}", file.display());
        }
    }
}

/// Names that are no UTF-8 may look alike.
#[cfg(target_os = "linux")]
#[test]
fn a_damaged_block_is_an_error_and_the_rest_stays_readable() {
    let place = filled(3000);
    let mut data = fs::read(&place.path).unwrap();
    data[4096 + 6000] ^= 1;
    fs::write(&place.path, &data).unwrap();
    let store = Store::open(&place.path).unwrap();
    let mut damaged = 0;
    for number in 0..3000u64 {
        match store.get::<_, Page>(&number) {
            Ok(found) => assert_eq!(found, Some(page(number))),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt);
                damaged += 1;
            }
        }
    }
    assert!((1..200).contains(&damaged), "{damaged}");
    let key_of_the_damaged = (0..3000u64).find(|key| store.get::<_, Page>(key).is_err()).unwrap();
    store.set(&key_of_the_damaged, &page(1)).unwrap();
    store.flush().unwrap();
    assert_eq!(store.get(&key_of_the_damaged).unwrap(), Some(page(1)));
    drop(store);
    fs::remove_file(index_path(&place.path)).unwrap();
    let error = Store::open(&place.path).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("salvage"), "{error}");
}

#[test]
fn a_copy_is_packed_and_whole_whatever_durability_and_longest_value_its_options_ask_for() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    for number in 0..500u32 {
        store.set(&number, &format!("the value of number {number}")).unwrap();
    }
    store.set_bytes(b"long", &vec![7; 2 << 20]).unwrap();
    let strict = || Options::new().durability(Durability::Synced).max_value_bytes(1 << 20);
    // Salvage wants one that nobody has open.
    let copied = place.path.with_file_name("copied.zkv");
    store.backup(&copied).unwrap();
    let mut sizes = Vec::new();
    for (number, options) in [Options::new(), strict()].into_iter().enumerate() {
        let (with, salvaged) = (format!("with-{number}.zkv"), format!("salvaged-{number}.zkv"));
        let (with, salvaged) =
            (place.path.with_file_name(with), place.path.with_file_name(salvaged));
        store.backup_with(&with, options.clone()).unwrap();
        zkv::salvage(&copied, &salvaged, options, |_| {}).unwrap();
        for copy in [with, salvaged] {
            assert_eq!(Store::open(&copy).unwrap().len(), 501);
            sizes.push(fs::metadata(&copy).unwrap().len());
        }
    }
    // One commit a record would take several times as much.
    assert_eq!(sizes[..2], sizes[2..]);
}

#[test]
fn the_index_file_is_up_to_date_behind_a_rebuild_that_failed_anywhere() {
    let options = |disk: &SimDisk| {
        let thresholds = Thresholds {
            base_bytes_least: 0,
            besides_base_eighths_max: u64::MAX,
            ..Thresholds::DEFAULT
        };
        let options = Options::new().storage(Arc::new(disk.clone())).cleaning(Cleaning::Off);
        options.index_thresholds(thresholds)
    };
    let fill = |store: &Store, first: u64| {
        (first..first + 100).for_each(|key| store.set(&key, &key).unwrap());
    };
    let disk = SimDisk::from_image(&Image::new(), 1);
    let store = options(&disk).open("a.zkv").unwrap();
    fill(&store, 0);
    store.close().unwrap();
    let (image, index) = (disk.image(), Path::new("a.zkv.idx"));
    let store_id = *image.get(index).unwrap()[16..].first_chunk().unwrap();
    let mut failed = 0;
    // The last read opens the new file by its name.
    let faults = |calls| (1..30).map(move |number| (calls, number));
    for (calls, number) in faults(Calls::Changes).chain(faults(Calls::Reads)) {
        let disk = SimDisk::from_image(&image, 1);
        let store = options(&disk).open("a.zkv").unwrap();
        let (error, write, sync) =
            (io::ErrorKind::Other, WriteFailure::Half, SyncFailure::CacheNew);
        disk.set_fault(Some(Fault { calls, number, lasts: false, error, write, sync }));
        failed += u32::from(store.rebuild_index().is_err());
        disk.set_fault(None);
        // Where the data file's sync has failed, it refuses.
        if store.sync().is_err() {
            continue;
        }
        // More than closing leaves to the next opening.
        fill(&store, 100);
        store.close().unwrap();
        let found = Checkpoint::open(&disk, index, store_id, false).unwrap();
        assert_eq!(found.key_count(), 200, "{calls:?} {number}");
    }
    assert!(failed > 10, "{failed}");
}
