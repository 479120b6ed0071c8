//! What errors say, and what kinds they are of.

use std::error::Error as _;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use zkv::{
    Codec, Collection, CollectionOptions, Error, ErrorKind, IndexError, LogError, MemoryStorage,
    Options, Store,
};
use zkv_sim::{Calls, Fault, Image, SimDisk, SyncFailure, WriteFailure};

/// What the system says in these tests.
const REASON: &str = "the disk is on fire";

fn reason() -> io::Error {
    io::Error::new(io::ErrorKind::StorageFull, REASON)
}

/// One of each that holds another error, and what that one says.
fn with_a_cause() -> Vec<(Error, String)> {
    let path = || PathBuf::from("pages.zkv");
    let mut errors: Vec<Error> = vec![
        Error::Data { path: path(), cause: LogError::Io { action: "read", cause: reason() } },
        Error::Index { path: path(), cause: IndexError::Io(reason()) },
        Error::File { path: path(), cause: reason() },
        Error::Batch { folder: path(), cause: reason() },
        Error::Thread(reason()),
    ];
    let cause = Box::new(Error::Index { path: path(), cause: IndexError::Io(reason()) });
    errors.push(Error::CleaningNeedsRoom { bytes: 9, cause });
    let mut errors: Vec<_> = errors.into_iter().map(|error| (error, REASON.to_owned())).collect();

    let options = Options::new().storage(Arc::new(MemoryStorage::new()));
    let store = options.open("pages.zkv").unwrap();
    let json = CollectionOptions::new().codec(Codec::Json);
    let numbers: Collection<String, f64> = store.collection_with("numbers", &json).unwrap();
    let refused = numbers.set("none", &f64::NAN).unwrap_err();
    errors.push((refused, "a number is infinite or none (NaN)".to_owned()));
    store.set("text", "text").unwrap();
    let refused = store.get::<str, bool>("text").unwrap_err();
    errors.push((refused, "Found a bool that wasn't 0 or 1".to_owned()));
    errors
}

#[test]
fn an_error_says_all_by_itself_and_a_chain_of_errors_says_nothing_twice() {
    for (error, cause) in with_a_cause() {
        let mut chain = vec![error.to_string()];
        let mut source = error.source();
        while let Some(error) = source {
            chain.push(error.to_string());
            source = error.source();
        }
        assert!(chain[0].contains(&cause), "{chain:?} lacks {cause}");
        assert_eq!(chain.concat().matches(&cause).count(), 1, "{chain:?}");
        for (place, text) in chain.iter().enumerate() {
            let others = chain[..place].iter().chain(&chain[place + 1..]);
            assert!(!others.clone().any(|other| other.contains(text.as_str())), "{chain:?}");
        }
    }
}

#[test]
fn what_the_system_refuses_is_of_the_same_kind_wherever_it_stands() {
    for (system, kind) in [
        (io::ErrorKind::StorageFull, ErrorKind::StorageFull),
        (io::ErrorKind::QuotaExceeded, ErrorKind::StorageFull),
        (io::ErrorKind::FileTooLarge, ErrorKind::StorageFull),
        (io::ErrorKind::AlreadyExists, ErrorKind::AlreadyExists),
        (io::ErrorKind::NotFound, ErrorKind::NotFound),
        (io::ErrorKind::PermissionDenied, ErrorKind::PermissionDenied),
        (io::ErrorKind::ReadOnlyFilesystem, ErrorKind::PermissionDenied),
        (io::ErrorKind::OutOfMemory, ErrorKind::Io),
    ] {
        let path = || PathBuf::from("pages.zkv");
        let cause = || io::Error::from(system);
        let errors = [
            Error::Data { path: path(), cause: LogError::Io { action: "read", cause: cause() } },
            Error::Index { path: path(), cause: IndexError::Io(cause()) },
            Error::File { path: path(), cause: cause() },
            Error::Batch { folder: path(), cause: cause() },
        ];
        for error in errors {
            assert_eq!(error.kind(), kind, "{error}");
        }
    }
}

/// It may have failed behind a checkpoint, where nobody was told.
#[test]
fn a_sync_that_failed_earlier_is_told_with_what_the_system_said() {
    let disk = SimDisk::from_image(&Image::new(), 1);
    let store = Options::new().storage(Arc::new(disk.clone())).open("pages.zkv").unwrap();
    store.set("text", "text").unwrap();
    let (error, write, sync) =
        (io::ErrorKind::TimedOut, WriteFailure::Nothing, SyncFailure::CacheNew);
    disk.set_fault(Some(Fault {
        calls: Calls::Syncs,
        number: 1,
        lasts: false,
        error,
        write,
        sync,
    }));
    let said = io::Error::from(error).to_string();
    assert!(store.sync().unwrap_err().to_string().contains(&said));
    for later in [store.sync(), store.set("text", "more"), store.close()] {
        let later = later.unwrap_err();
        assert!(matches!(later, Error::Data { cause: LogError::SyncFailed { .. }, .. }), "{later}");
        assert!(later.to_string().contains(&said), "{later}");
    }
}

#[test]
fn a_file_of_another_program_is_promised_no_salvage() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "a text\n".repeat(2000)).unwrap();
    let error = Store::open(file.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let text = error.to_string();
    assert!(text.contains("this is no zkv data file") && text.contains("only if it was"), "{text}");
}
