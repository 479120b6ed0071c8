//! `zkv import`.

mod acknowledge;
mod files;
mod lines;
mod source;
mod tsv_jsonl;

use std::fs;
use std::path::Path;
use std::time::Instant;

use zkv::{ErrorKind, KEY_BYTES_MAX, Options, Store, WriteBatch};

use crate::arguments::{Import, Types};
use crate::failure::{Failure, records, store_problem};
use crate::output::say;
use crate::progress::Progress;
use crate::store::{self, Access, Keys, Part};
use crate::types::Form;
use acknowledge::Acknowledgements;
use source::Source;

/// A ratio over less says more about the buffers than about the data.
const RATIO_BYTES_MIN: u64 = 4 << 20;

/// Imports every source, in order.
pub fn run(arguments: &Import) -> Result<(), Failure> {
    // Wrong usage is found before a store is created.
    let sources = source::check(arguments)?;
    let start = Instant::now();
    let collection = arguments.types.collection.as_deref();
    // Asked before the opening, which makes one, also of an empty file.
    let was_there = arguments.store.exists();
    let is_new = arguments.store.metadata().map_or(!was_there, |file| file.len() == 0);
    let (path, no_create) = (&arguments.store, arguments.no_create);
    let store = store::open_to_write(path, options(arguments), collection, no_create)?;
    let made = if was_there { None } else { store::number_of_file(path) };
    if arguments.slot_bytes.is_some() && !is_new {
        say(format_args!(
            "zkv: --slot-bytes is for new stores: this one keeps the length that its segments have"
        ));
    }
    let keys = Keys::of(&store, collection)?;
    let forms = forms(&store, arguments, &sources)?;
    let total = if Progress::is_shown() { source::total_bytes(&sources) } else { None };
    let mut sink = Sink {
        store: &store,
        keys,
        forms: (Form::Bytes, Form::Bytes),
        acknowledgements: Acknowledgements::new(arguments),
        progress: Progress::of_bytes(total),
        record_count: 0,
        bytes: 0,
        skipped_lines: 0,
        batch: arguments.atomic.then(WriteBatch::new),
    };
    let imported = sources.iter().try_for_each(|source| {
        // Pairs hold what is stored.
        sink.forms = if source.has_pairs() { (Form::Bytes, Form::Bytes) } else { forms };
        import(source, arguments, &mut sink)
    });
    let imported = imported.and_then(|()| sink.write_batch());
    // What came before a bad line is as safe as the rest.
    let acknowledged = sink.acknowledgements.finish(&store, sink.record_count);
    let (record_count, bytes, skipped) = (sink.record_count, sink.bytes, sink.skipped_lines);
    // The bar goes before anything is said.
    drop(sink);
    let is_for_nothing = !was_there && imported.is_err() && has_nothing(&store);
    let is_removed = is_for_nothing && remove(&arguments.store, made);
    let closed = if is_for_nothing {
        // There is nothing to close, and closing it would replace the index file of whoever has the name.
        std::mem::forget(store);
        Ok(())
    } else {
        store::close_stored(store)
    };
    if closed.is_err() && !arguments.atomic {
        say(format_args!("read {}; what of them could be written stands", records(record_count)));
    } else if is_removed {
        let path = arguments.store.display();
        say(format_args!("nothing was imported: {path}, which was made for it, is removed"));
    } else if closed.is_ok() && (imported.is_ok() || !arguments.atomic) {
        // Also where a later line failed: what came before it stands.
        let seconds = start.elapsed().as_secs_f64();
        let skipped = match skipped {
            0 => String::new(),
            1 => "; 1 line was skipped".to_owned(),
            _ => format!("; {skipped} lines were skipped"),
        };
        let imported = records(record_count);
        say(format_args!("imported {imported} of {bytes} bytes in {seconds:.1} s{skipped}"));
    }
    imported?;
    acknowledged?;
    closed
}

fn has_nothing(store: &Store) -> bool {
    store.is_empty() && store.collections().is_empty()
}

/// Removes the data file at `path` where that is still the file with the number `made`: another process may have
/// moved it, and made a store of its own there. Its lock is still held, so that nobody else can have written to it.
fn remove(path: &Path, made: Option<(u64, u64)>) -> bool {
    let is_made = made.is_some() && store::number_of_file(path) == made && !path.is_symlink();
    is_made && fs::remove_file(path).is_ok()
}

fn options(arguments: &Import) -> Options {
    let options = arguments.compression.options().durability(arguments.durability.into());
    match arguments.slot_bytes {
        Some(bytes) => options.slot_bytes(bytes),
        None => options,
    }
}

/// How the keys and values of all sources but those of pairs are stored.
fn forms(store: &Store, arguments: &Import, sources: &[Source]) -> Result<(Form, Form), Failure> {
    if sources.iter().all(Source::has_pairs) {
        return Ok((Form::Bytes, Form::Bytes));
    }
    let Types { collection, key_type, value_type } = &arguments.types;
    let form =
        |part, given| store::form_of(store, collection.as_deref(), part, given, Access::Write);
    Ok((form(Part::Key, *key_type)?, form(Part::Value, *value_type)?))
}

fn import(source: &Source, arguments: &Import, sink: &mut Sink<'_>) -> Result<(), Failure> {
    match source {
        Source::Folder(folder) => files::import_folder(folder, &arguments.store, sink),
        Source::File(file) => files::import_file(file, &arguments.store, sink),
        Source::Lines { input, split } => {
            tsv_jsonl::import(input, split, arguments.skip_lines, sink)
        }
    }
}

/// Where records go.
struct Sink<'a> {
    store: &'a Store,
    keys: Keys<'a>,
    /// How keys and values are stored.
    forms: (Form, Form),
    acknowledgements: Acknowledgements,
    progress: Progress,
    record_count: u64,
    bytes: u64,
    skipped_lines: u64,
    /// What is written at the end, all of it or nothing.
    batch: Option<WriteBatch>,
}

impl Sink<'_> {
    fn write_batch(&mut self) -> Result<(), Failure> {
        match self.batch.take() {
            Some(batch) => Ok(self.store.write(batch)?),
            None => Ok(()),
        }
    }

    /// Counts a line of `input_bytes` that is no record.
    fn skip_line(&mut self, input_bytes: usize) {
        self.skipped_lines += 1;
        let store = self.store;
        self.progress.add(input_bytes as u64, || ratio(store));
    }

    /// Stores a record that took `input_bytes` of the input. `refused` makes a failure of what the
    /// record itself is to blame for.
    fn put(
        &mut self,
        key: &[u8],
        value: &[u8],
        input_bytes: usize,
        refused: impl FnOnce(String) -> Failure,
    ) -> Result<(), Failure> {
        let key = match self.forms.0.encode(key) {
            Ok(key) => key,
            Err(problem) => return Err(refused(format!("the key: {problem}"))),
        };
        let value = match self.forms.1.encode(value) {
            Ok(value) => value,
            Err(problem) => return Err(refused(format!("the value: {problem}"))),
        };
        match &mut self.batch {
            // By the time that the batch is written nobody knows which record it was.
            Some(_) if key.len() > KEY_BYTES_MAX => {
                let problem =
                    format!("a key of {} bytes is over the limit of {KEY_BYTES_MAX}", key.len());
                return Err(refused(problem));
            }
            Some(batch) => {
                self.keys.set_within(batch, &key, &value);
                if batch.failure().is_some() {
                    // It reports that, and writes nothing.
                    return self.write_batch();
                }
            }
            None => self.keys.set(&key, &value).map_err(|error| match error.kind() {
                ErrorKind::Limit => refused(store_problem(&error)),
                _ => Failure::Store(error),
            })?,
        }
        self.record_count += 1;
        self.bytes += (key.len() + value.len()) as u64;
        let store = self.store;
        self.acknowledgements.after_record(store, self.record_count)?;
        self.progress.add(input_bytes as u64, || ratio(store));
        Ok(())
    }
}

/// How well the store compresses; `None` while most of it still waits in memory.
fn ratio(store: &Store) -> Option<f64> {
    let stats = store.stats().ok()?;
    (RATIO_BYTES_MIN <= stats.data_file_bytes).then(|| stats.ratio())
}
