//! Opening stores.

use std::path::Path;

use zkv::{Options, Store};

use crate::failure::Failure;

/// Opens an existing store that the command does not change.
pub fn open_to_read(path: &Path) -> Result<Store, Failure> {
    Ok(Store::open_read_only(path)?)
}

/// Opens an existing store that the command changes.
pub fn open_to_change(path: &Path) -> Result<Store, Failure> {
    Ok(Options::new().create(false).open(path)?)
}

/// Opens a store, or creates it.
pub fn open_or_create(path: &Path, options: Options) -> Result<Store, Failure> {
    Ok(options.create(true).open(path)?)
}

/// Closes `store` whether the work on it succeeded or not: what was done before a failure stands.
/// The first failure is the one to report.
pub fn close<T>(store: Store, done: Result<T, Failure>) -> Result<T, Failure> {
    let closed = store.close();
    let value = done?;
    closed?;
    Ok(value)
}

/// Whether `path` is the data file of the store at `store`, or the index file beside it.
pub fn is_file_of(store: &Path, path: &Path) -> bool {
    let (Ok(data), Ok(path)) = (store.canonicalize(), path.canonicalize()) else {
        return false;
    };
    let mut index = data.clone().into_os_string();
    index.push(".idx");
    path == data || path.as_os_str() == index
}
