//! `zkv backup`.

use crate::arguments::Backup;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::store;

/// Copies a store.
pub fn run(arguments: &Backup) -> Result<(), Failure> {
    let store = store::open_to_read(&arguments.store)?;
    let progress = Progress::of_unknown("copying");
    let done = store.backup(&arguments.destination).map_err(Failure::from);
    drop(progress);
    store::close(store, done)
}
