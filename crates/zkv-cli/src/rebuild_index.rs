//! `zkv rebuild-index`.

use crate::arguments::RebuildIndex;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::store;

/// Writes a store's index file anew.
pub fn run(arguments: &RebuildIndex) -> Result<(), Failure> {
    let store = store::open_to_change(&arguments.store)?;
    let progress = Progress::of_unknown("rebuilding the index");
    let done = store.rebuild_index().map_err(Failure::from);
    drop(progress);
    store::close(store, done)
}
