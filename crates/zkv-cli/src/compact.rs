//! `zkv compact`.

use std::cell::RefCell;

use crate::arguments::Compact;
use crate::failure::Failure;
use crate::output::Output;
use crate::progress::Progress;
use crate::store;

/// Writes a store anew, without what is dead in it, and prints by how much it has shrunk.
pub fn run(arguments: &Compact) -> Result<(), Failure> {
    let store = store::open_to_change_with(&arguments.store, arguments.compression.options())?;
    let before = store.stats()?;
    let progress = RefCell::new(Progress::of_segments());
    let done = store.compact(|at| {
        progress.borrow().set(at.segments_done, at.segments_total);
    });
    drop(progress);
    let done = done.and_then(|()| store.stats()).map_err(Failure::from);
    let (after, done) = match done {
        Ok(after) => (Some(after), Ok(())),
        Err(failure) => (None, Err(failure)),
    };
    store::close(store, done)?;
    let Some(after) = after else { return Ok(()) };
    let bytes = |stats: &zkv::Stats| stats.data_file_bytes + stats.index_file_bytes;
    let mut output = Output::open(None, &arguments.store)?;
    let text = format!("{} bytes before, {} bytes after\n", bytes(&before), bytes(&after));
    output.write(text.as_bytes())?;
    output.finish()
}
