//! What may have which name: the store, its index file, and what is still being made.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use zkv::{Cleaning, ErrorKind, Options, Store, verify};
use zkv_io::{FileStorage, MemoryStorage, Storage, TEMPORARY_SUFFIX};
use zkv_sim::{Act, Watched};

use common::faulty::{FaultyStorage, INDEX, PATH, noise, read_file, write_file};
use common::{check, filled, index_path, place};

#[test]
fn an_error_says_what_is_missing_for_a_new_store() {
    let place = place();
    let check = |path: &Path, what| {
        let error = Store::open(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains(what), "{error}");
    };
    check(&place.path.join("folder/store.zkv"), "the folder for it does not exist");
    #[cfg(unix)]
    {
        let link = place.path.with_file_name("link.zkv");
        std::os::unix::fs::symlink("nothing/store.zkv", &link).unwrap();
        check(&link, "it is a link");
    }
}

#[test]
fn no_index_takes_the_place_of_another_store() {
    let place = filled(300);
    let other = index_path(&place.path);
    fs::remove_file(&other).unwrap();
    Store::open(&other).unwrap().set(&1u64, &2u64).unwrap();
    let bytes = fs::read(&other).unwrap();
    let error = Store::open(&place.path).unwrap_err();
    assert!(error.to_string().contains("another store"), "{error}");
    let copy = place.path.with_extension("copy.zkv");
    fs::copy(&other, index_path(&copy)).unwrap();
    assert!(Store::open(&copy).is_err());
    assert!(!copy.exists());
    assert!(Store::open_read_only(&place.path).unwrap().backup(&copy).is_err());
    assert!(!copy.exists());
    assert_eq!(fs::read(&other).unwrap(), bytes);
    assert_eq!(Store::open(&other).unwrap().get::<_, u64>(&1u64).unwrap(), Some(2));
}

#[test]
fn a_file_that_is_no_index_is_refused_and_stays_as_it_is() {
    let place = filled(300);
    let (index, copy) = (index_path(&place.path), place.path.with_extension("copy.zkv"));
    let whole = fs::read(&index).unwrap();
    for bytes in [b"precious\n".to_vec(), b"z!".to_vec(), noise(1, 5000)] {
        fs::write(&index, &bytes).unwrap();
        let error = Store::open(&place.path).unwrap_err().to_string();
        assert!(error.contains("no index file") && error.contains("store.zkv.idx"), "{error}");
        let report = verify(&place.path, Options::new(), |_| {}).unwrap();
        assert!(report.findings[0].what.contains("no index file"), "{report:?}");
        let store = Store::open_read_only(&place.path).unwrap();
        check(&store, 300);
        assert_eq!(fs::read(&index).unwrap(), bytes);

        fs::write(index_path(&copy), &bytes).unwrap();
        assert!(Store::open(&copy).is_err());
        assert!(store.backup(&copy).is_err());
        assert!(store.backup_with(&copy, Options::new()).is_err());
        assert!(zkv::salvage(&place.path, &copy, Options::new(), |_| {}).is_err());
        assert!(!copy.exists());
        assert_eq!(fs::read(index_path(&copy)).unwrap(), bytes);
    }
    // What damage leaves of an index is made anew.
    let (mut zeros, mut flipped) = (whole.clone(), whole.clone());
    zeros[..512].fill(0);
    flipped[3] ^= 1;
    for bytes in [&zeros[..], &zeros[..300], &flipped, &whole[..5], &[]] {
        fs::write(&index, bytes).unwrap();
        check(&Store::open(&place.path).unwrap(), 300);
        assert!(verify(&place.path, Options::new(), |_| {}).unwrap().is_sound());
    }
}

#[cfg(unix)]
#[test]
fn a_pipe_that_has_the_name_of_the_index_is_refused_and_stays() {
    use std::os::unix::fs::FileTypeExt;
    let (place, new) = (filled(300), place());
    for path in [&place.path, &new.path] {
        let _ = fs::remove_file(index_path(path));
        let made = std::process::Command::new("mkfifo").arg(index_path(path)).status().unwrap();
        assert!(made.success());
        let error = Store::open(path).unwrap_err().to_string();
        assert!(error.contains("no index file") && error.contains("store.zkv.idx"), "{error}");
        assert!(fs::metadata(index_path(path)).unwrap().file_type().is_fifo());
    }
    assert!(!new.path.exists());
    check(&Store::open_read_only(&place.path).unwrap(), 300);
    check(&Options::new().use_index_file(false).open(&place.path).unwrap(), 300);
}

#[test]
fn leftover_temporary_files_are_removed_and_others_stay() {
    let place = place();
    Store::open(&place.path).unwrap().close().unwrap();
    let name = |ending: &str| PathBuf::from(format!("{}{ending}", place.path.display()));
    let stale = [name(".0123456789abcdef.zkv-tmp"), name(".idx.0123456789abcdef.zkv-tmp")];
    let others = [name(".bak"), name(".notes.zkv-tmp"), place.path.with_file_name("x.zkv-tmp")];
    for file in stale.iter().chain(&others) {
        fs::write(file, b"x").unwrap();
    }
    Store::open_read_only(&place.path).unwrap();
    assert!(stale.iter().all(|file| file.exists()), "reading removes nothing");
    Store::open(&place.path).unwrap();
    assert!(stale.iter().all(|file| !file.exists()));
    assert!(others.iter().all(|file| file.exists()));
}

/// Each takes the room of a whole copy.
#[test]
fn a_copy_removes_what_others_have_left_of_it_that_were_killed() {
    let place = filled(300);
    let copy = place.path.with_extension("copy");
    let name = |ending: &str| PathBuf::from(format!("{}{ending}", copy.display()));
    let stale = [
        name(".0123456789abcdef.zkv-tmp"),
        name(".0123456789abcdef.zkv-tmp.idx"),
        name(".0123456789abcdef.zkv-tmp.idx.0123456789abcdef.zkv-tmp"),
        name(".idx.0123456789abcdef.zkv-tmp"),
        name(".1123456789abcdef.zkv-tmp.idx"),
    ];
    let others = [name(".bak"), name(".notes.zkv-tmp")];
    let written = [name(".2123456789abcdef.zkv-tmp"), name(".2123456789abcdef.zkv-tmp.idx")];
    // Whoever makes it has not come to locking it yet, and whoever was killed there leaves nothing that takes room.
    let begun = name(".3123456789abcdef.zkv-tmp");
    let store = Store::open_read_only(&place.path).unwrap();
    let ways: [&dyn Fn(); 3] = [
        &|| store.backup(&copy).unwrap(),
        &|| store.backup_with(&copy, Options::new()).unwrap(),
        &|| {
            zkv::salvage(&place.path, &copy, Options::new(), |_| {}).unwrap();
        },
    ];
    for make in ways {
        for file in stale.iter().chain(&others).chain(&written) {
            fs::write(file, b"x").unwrap();
        }
        fs::write(&begun, b"").unwrap();
        let maker = fs::File::options().write(true).open(&written[0]).unwrap();
        maker.lock().unwrap();
        make();
        assert!(stale.iter().all(|file| !file.exists()));
        assert!(others.iter().chain(&written).chain([&begun]).all(|file| file.exists()));
        check(&Store::open_read_only(&copy).unwrap(), 300);
        fs::remove_file(&copy).unwrap();
        let _ = fs::remove_file(name(".idx"));
    }
}

/// Its data is written by then, and does not have its name yet.
#[test]
fn a_copy_of_which_the_index_is_being_written_is_not_taken_for_one_that_was_left() {
    let memory = MemoryStorage::new();
    let store = Options::new().storage(Arc::new(memory.clone())).open(PATH).unwrap();
    store.set(&1u64, &2u64).unwrap();
    store.rebuild_index().unwrap();
    store.close().unwrap();
    let full = FaultyStorage::new(&memory, |act, _| match act {
        Act::Write => Err(std::io::ErrorKind::StorageFull.into()),
        _ => Ok(()),
    });
    let has_begun = AtomicBool::new(false);
    let disk = FaultyStorage::new(&memory, move |act, path| {
        let is_index = path.to_str().unwrap().starts_with("dir/copy.zkv.idx.");
        if act == Act::Write && is_index && !has_begun.swap(true, Ordering::SeqCst) {
            let other = full.options().open_read_only(PATH).unwrap();
            assert_eq!(other.backup("dir/copy.zkv").unwrap_err().kind(), ErrorKind::StorageFull);
        }
        Ok(())
    });
    let store = disk.options().open_read_only(PATH).unwrap();
    store.backup("dir/copy.zkv").unwrap();
    let copy = Options::new().storage(Arc::new(memory)).open("dir/copy.zkv").unwrap();
    assert_eq!(copy.get(&1u64).unwrap(), Some(2u64));
}

#[test]
fn a_copy_to_a_name_that_no_file_can_have_says_why_and_not_that_it_exists() {
    let place = filled(10);
    let beside = |name: &str| place.path.with_file_name(name);
    let no_folder = place.path.join("copy.zkv");
    let mut names = vec![no_folder, beside("nul\0.zkv"), beside(&"n".repeat(300))];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("loop.zkv", beside("loop.zkv")).unwrap();
        names.push(beside("loop.zkv").join("copy.zkv"));
    }
    let store = Store::open(&place.path).unwrap();
    for name in names {
        let said = fs::File::open(&name).unwrap_err();
        for error in [store.backup(&name), store.backup_with(&name, Options::new())] {
            let error = error.unwrap_err();
            assert_ne!(error.kind(), ErrorKind::AlreadyExists, "{error}");
            assert!(error.to_string().contains(&said.to_string()), "{error}, not {said}");
        }
    }
    // What cannot be opened, and is there.
    #[cfg(unix)]
    {
        let error = store.backup(beside("loop.zkv")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    }
}

#[cfg(unix)]
#[test]
fn temporary_files_of_a_store_of_another_name_stay() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let place = place();
    let named = |name: &[u8]| place.path.with_file_name(OsStr::from_bytes(name));
    let (ours, theirs) =
        (named(b"\xff.0123456789abcdef.zkv-tmp"), named(b"\xfe.0123456789abcdef.zkv-tmp"));
    for file in [&ours, &theirs] {
        fs::write(file, b"x").unwrap();
    }
    Store::open(named(b"\xff")).unwrap();
    assert!(!ours.exists() && theirs.exists());
}

#[test]
fn a_file_that_has_the_name_of_the_index_since_the_store_was_opened_stays_as_it_is() {
    let place = place();
    let index = index_path(&place.path);
    let store = Store::open(&place.path).unwrap();
    store.set(&1u64, &1u64).unwrap();
    // The first index file is made when the store is closed.
    Store::open(&index).unwrap().set(&2u64, &2u64).unwrap();
    let error = store.close().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let error = error.to_string();
    assert!(error.contains("store.zkv.idx") && error.contains("is none"), "{error}");
    let other = Store::open_read_only(&index).unwrap();
    assert_eq!(other.get::<_, u64>(&2u64).unwrap(), Some(2));
    drop(other);
    fs::rename(&index, place.path.with_file_name("words.zkv")).unwrap();
    assert_eq!(Store::open(&place.path).unwrap().get::<_, u64>(&1u64).unwrap(), Some(1));
}

#[cfg(unix)]
#[test]
fn whoever_makes_a_store_that_another_one_has_made_by_then_opens_that() {
    let (place, is_first) = (place(), AtomicBool::new(true));
    let of_other = place.path.clone();
    let watched = Watched::new(Arc::new(FileStorage), move |act, path| {
        let is_draft = path.to_string_lossy().ends_with(TEMPORARY_SUFFIX);
        if act == Act::KeepPrivate && is_draft && is_first.swap(false, Ordering::SeqCst) {
            // The other one removes what it takes for left over.
            let other = Store::open(&of_other).unwrap();
            other.set(&1u64, &1u64).unwrap();
            other.close().unwrap();
        }
        Ok(())
    });
    let store = Options::new().storage(Arc::new(watched)).open(&place.path).unwrap();
    assert_eq!(store.get::<_, u64>(&1u64).unwrap(), Some(1));
}

/// A store of 300 keys that is cleaned by hand, on a disk that refuses drafts of the index where there is
/// something to refuse them with.
fn store_whose_index_is_refused(
    memory: &MemoryStorage,
    refusal: Option<std::io::ErrorKind>,
) -> (Store, Arc<AtomicBool>) {
    let is_refused = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&is_refused);
    let storage = FaultyStorage::new(memory, move |act, path| {
        let is_draft = path.to_string_lossy().ends_with(TEMPORARY_SUFFIX);
        match refusal {
            Some(kind) if act == Act::Write && is_draft && switch.load(Ordering::SeqCst) => {
                Err(kind.into())
            }
            _ => Ok(()),
        }
    });
    let options = storage.options().slot_bytes(256 << 10).memory_buffer_bytes(64 << 10);
    let store = options.cleaning(Cleaning::Off).open(PATH).unwrap();
    overwrite(&store, 0);
    (store, is_refused)
}

/// 300 keys, in a good half of a slot.
fn overwrite(store: &Store, round: u64) {
    for key in 0..300u64 {
        store.set_bytes(&key.to_be_bytes(), &noise(round << 32 | key, 500)).unwrap();
    }
    store.flush().unwrap();
}

/// What stands there behind twenty rounds of writing and cleaning, each of which has freed what it cleaned.
fn check_that_space_comes_back(store: &Store) {
    for round in 1..=20 {
        overwrite(store, round);
        store.clean().unwrap();
    }
    let stats = store.stats().unwrap();
    assert!(stats.data_file_bytes <= 5 * (256 << 10), "{stats:?}");
    for key in 0..300u64 {
        let value = store.get_bytes(&key.to_be_bytes()).unwrap();
        assert_eq!(value, Some(noise(20 << 32 | key, 500)));
    }
}

#[test]
fn cleaning_leaves_a_file_that_has_the_name_of_the_index_as_it_is() {
    for refusal in [Some(std::io::ErrorKind::StorageFull), None] {
        let memory = MemoryStorage::new();
        let (store, is_refused) = store_whose_index_is_refused(&memory, refusal);
        overwrite(&store, 1);
        store.clean().unwrap();
        let _ = memory.remove(Path::new(INDEX));
        write_file(&memory, INDEX, b"precious");
        is_refused.store(true, Ordering::SeqCst);
        check_that_space_comes_back(&store);
        assert_eq!(read_file(&memory, INDEX), b"precious");
        // Whoever closes the store is told, and nothing is lost.
        let error = store.close().unwrap_err().to_string();
        assert!(error.contains("store.zkv.idx"), "{error}");
        assert_eq!(read_file(&memory, INDEX), b"precious");
        memory.remove(Path::new(INDEX)).unwrap();
        let store = common::faulty::options(&memory).open(PATH).unwrap();
        assert_eq!(store.len(), 300);
        assert!(store.verify(|_| {}).unwrap().is_sound());
    }
}

#[test]
fn space_comes_back_where_the_index_file_may_not_be_written() {
    let memory = MemoryStorage::new();
    let refusal = Some(std::io::ErrorKind::PermissionDenied);
    let (store, is_refused) = store_whose_index_is_refused(&memory, refusal);
    is_refused.store(true, Ordering::SeqCst);
    check_that_space_comes_back(&store);
    is_refused.store(false, Ordering::SeqCst);
    store.close().unwrap();
    assert_eq!(common::faulty::options(&memory).open(PATH).unwrap().len(), 300);
}

#[test]
fn what_a_file_has_taken_the_place_of_is_still_read() {
    let memory = MemoryStorage::new();
    let (store, _) = store_whose_index_is_refused(&memory, None);
    store.close().unwrap();
    let store = common::faulty::options(&memory).open(PATH).unwrap();
    // As by a program that writes its file over the index.
    let index = memory.open(Path::new(INDEX), zkv_io::OpenMode::ReadWrite).unwrap();
    let bytes = usize::try_from(index.len().unwrap()).unwrap();
    index.write_at(0, &noise(9, bytes)).unwrap();
    for key in 0..300u64 {
        assert_eq!(store.get_bytes(&key.to_be_bytes()).unwrap(), Some(noise(key, 500)));
    }
    assert_eq!(read_file(&memory, INDEX), noise(9, bytes));
}
