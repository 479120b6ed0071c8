//! Opening stores.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use zkv::{Codec, Error, IterBytes, KeysBytes, Options, RawCollection, Store, WriteBatch};

use crate::failure::Failure;
use crate::output::say;
use crate::types::{Form, Type, argument_bytes};

/// How long each opening waits for others: the command's, so the process's.
static LOCK_WAIT: OnceLock<Duration> = OnceLock::new();

/// Lets all that is opened from now on wait so long where another process has it open.
pub fn wait_for_locks(wait: Duration) {
    LOCK_WAIT.get_or_init(|| wait);
}

/// `options`, with the time that the command waits for others.
pub fn patient(options: Options) -> Options {
    options.lock_wait(LOCK_WAIT.get().copied().unwrap_or_default())
}

/// A data file of which it is worth a word that it has no index: it takes a processor a tenth of a second to make
/// that of records of a kilobyte, and half a second of records of 50 bytes, where an index file takes a few
/// milliseconds (`zkv get`, once with the index file and once without).
const UNINDEXED_BYTES_MIN: u64 = 16 << 20;

/// Opens an existing store that the command does not change. Where that takes long for want of an index file, it
/// says so: no such command writes one.
pub fn open_to_read(path: &Path) -> Result<Store, Failure> {
    let store = patient(Options::new()).open_read_only(path)?;
    if is_slow_without_index(&store, path) {
        say(format_args!(
            "zkv: {}: there is no index file, and each command that only reads the store goes through all of the \
             data file for it: `zkv rebuild-index STORE` writes it",
            path.display()
        ));
    }
    Ok(store)
}

fn is_slow_without_index(store: &Store, path: &Path) -> bool {
    // What every command asks comes first, and costs nothing.
    matches!(index_of(path).try_exists(), Ok(false))
        && path.metadata().is_ok_and(|data| UNINDEXED_BYTES_MIN <= data.len())
        && (!store.is_empty() || store.collections().iter().any(|info| 0 < info.keys))
}

/// Opens an existing store that the command changes.
pub fn open_to_change(path: &Path) -> Result<Store, Failure> {
    open_to_change_with(path, Options::new())
}

/// As [`open_to_change`], with `options`.
pub fn open_to_change_with(path: &Path, options: Options) -> Result<Store, Failure> {
    Ok(patient(options).create(false).open(path)?)
}

/// Opens a store to write to its own keys or to a collection's. The former creates it where it does not
/// exist, but for `no_create`; collections are in stores that do.
pub fn open_to_write(
    path: &Path,
    options: Options,
    collection: Option<&str>,
    no_create: bool,
) -> Result<Store, Failure> {
    if collection.is_some() && matches!(path.try_exists(), Ok(false)) {
        let problem =
            "there is no store here, so no collection: programs make them, the command does not";
        return Err(Failure::file(path, io::Error::new(io::ErrorKind::NotFound, problem)));
    }
    let creates = collection.is_none() && !no_create;
    Ok(patient(options).create(creates).open(path)?)
}

/// The keys that a command works on: a store's own, or a collection's.
pub enum Keys<'a> {
    Own(&'a Store),
    Of(RawCollection),
}

impl<'a> Keys<'a> {
    /// The keys of the collection that is named, or the store's own.
    pub fn of(store: &'a Store, collection: Option<&str>) -> Result<Self, Failure> {
        let Some(name) = collection else { return Ok(Self::Own(store)) };
        store.raw_collection(name).map(Self::Of).ok_or_else(|| {
            Failure::Usage(format!(
                "there is no collection {name}; `zkv stats` names those there are"
            ))
        })
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        match self {
            Self::Own(store) => store.get_bytes(key),
            Self::Of(collection) => collection.get(key),
        }
    }

    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        match self {
            Self::Own(store) => store.set_bytes(key, value),
            Self::Of(collection) => collection.set(key, value),
        }
    }

    /// As [`Keys::set`], once `batch` is written.
    pub fn set_within(&self, batch: &mut WriteBatch, key: &[u8], value: &[u8]) {
        match self {
            Self::Own(_) => batch.set_bytes(key, value),
            Self::Of(collection) => batch.set_bytes_in(collection, key, value),
        };
    }

    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        match self {
            Self::Own(store) => store.delete_bytes(key),
            Self::Of(collection) => collection.delete(key),
        }
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        match self {
            Self::Own(store) => store.len(),
            Self::Of(collection) => collection.len(),
        }
    }

    pub fn iter(&self) -> Result<IterBytes, Error> {
        match self {
            Self::Own(store) => Ok(store.iter_bytes()),
            Self::Of(collection) => collection.iter(),
        }
    }

    /// The keys alone, for which no long value is read.
    pub fn keys(&self) -> Result<KeysBytes, Error> {
        match self {
            Self::Own(store) => Ok(store.keys_bytes()),
            Self::Of(collection) => collection.keys(),
        }
    }
}

/// What is to be said of the collections of `store` that have keys, where a command works on the store's own.
pub fn collections_left_out(store: &Store, collection: Option<&str>) -> Option<Failure> {
    if collection.is_some() {
        return None;
    }
    let infos = store.collections();
    let keys: Vec<u64> = infos.iter().map(|info| info.keys).filter(|&keys| 0 < keys).collect();
    let (keys, collections) = (keys.iter().sum(), keys.len());
    (collections != 0).then_some(Failure::CollectionsLeftOut { keys, collections })
}

/// What of a record a type is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Key,
    Value,
}

/// What is done with a key or a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Of a type that the command does not know, what is stored is as good as it gets.
    Read,
    /// What the programs that use a collection could not read, or would take for something else, is refused.
    Write,
}

/// How keys or values are stored that are given as `given`: what a collection's programs read. Where nothing is
/// given, they are of the collection's own type, and bytes where there is none that the command knows.
pub fn form_of(
    store: &Store,
    collection: Option<&str>,
    part: Part,
    given: Option<Type>,
    access: Access,
) -> Result<Form, Failure> {
    let own = Form::own(given.unwrap_or(Type::Bytes));
    if collection.is_none() {
        return Ok(own);
    }
    let what = match part {
        Part::Key => "key",
        Part::Value => "value",
    };
    match known_form(store, collection, part) {
        Some(form) => match given.filter(|given| *given != form.given_as()) {
            None => Ok(form),
            Some(given) => {
                let (wanted, given) = (form.given_as().name(), given.name());
                Err(Failure::Usage(format!(
                    "the collection has no {what}s of the type {given}: give --{what}-type {wanted}"
                )))
            }
        },
        None if access == Access::Read => Ok(own),
        None => Err(Failure::Usage(format!(
            "the command cannot encode the type of the collection's {what}s: only `zkv import` of an export \
             with `--format pairs` can write it"
        ))),
    }
}

/// How keys or values are stored, as far as the store tells: its own as they are, a collection's by its types.
/// `None` where a program alone can tell.
pub fn known_form(store: &Store, collection: Option<&str>, part: Part) -> Option<Form> {
    let Some(name) = collection else { return Some(Form::Bytes) };
    let info = store.collections().into_iter().find(|info| info.name == name)?;
    match (part, info.codec) {
        (Part::Key, _) => Form::of_collection(&info.key_type),
        (Part::Value, Some(Codec::Json)) => Some(Form::Json),
        (Part::Value, Some(Codec::Postcard)) => Form::of_collection(&info.value_type),
        (Part::Value, _) => None,
    }
}

/// The stored form of a key that the user gives.
pub fn encode_key(key: &OsStr, form: Form) -> Result<Cow<'_, [u8]>, Failure> {
    let encoded = form.encode(argument_bytes(key));
    encoded.map_err(|problem| Failure::Usage(format!("the key: {problem}")))
}

/// Closes `store` whether the work on it succeeded or not: what was done before a failure stands.
/// The first failure is the one to report.
pub fn close<T>(store: Store, done: Result<T, Failure>) -> Result<T, Failure> {
    let closed = close_stored(store);
    let value = done?;
    closed?;
    Ok(value)
}

/// Closes `store`. Where all is stored but the index file, that is said, and is no failure: the next opening
/// makes up for it.
pub fn close_stored(store: Store) -> Result<(), Failure> {
    let handle = store.clone();
    match store.close() {
        Err(error @ Error::Index { .. }) if is_stored(&handle) => {
            say(format_args!(
                "zkv: nothing that is stored is lost, but the index file lacks some of it until next time: {error}"
            ));
            Ok(())
        }
        closed => Ok(closed?),
    }
}

/// Whether nothing waits to be written: a store is closed only behind that.
fn is_stored(store: &Store) -> bool {
    matches!(store.sync(), Ok(()) | Err(Error::Closed))
}

/// Whether `path` is the data file of the store at `store`, or an index file beside it, under whatever
/// name: a link of either kind leads to the same bytes.
pub fn is_file_of(store: &Path, path: &Path) -> bool {
    let Some(id) = file_id(path) else { return false };
    let is_it = |own: &Path| file_id(own).is_some_and(|own| own == id);
    // Where the store's name is a symbolic link, its index lies beside that.
    is_it(store)
        || is_it(&index_of(store))
        || store.canonicalize().is_ok_and(|data| is_it(&index_of(&data)))
        || is_index_of_other_name(store, path)
}

/// Whether `path` is the index file beside another name of the store at `store`, by which it was opened once.
fn is_index_of_other_name(store: &Path, path: &Path) -> bool {
    let is_index = path.extension().is_some_and(|extension| extension == "idx");
    let data = if is_index { file_id(&path.with_extension("")) } else { None };
    data.is_some() && data == file_id(store)
}

/// Whether `path` is one of the names that the files of a new store at `store` will have.
pub fn would_be_file_of(store: &Path, path: &Path) -> bool {
    let place = |path: &Path| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).canonicalize().ok()?;
        Some(folder.join(path.file_name()?))
    };
    let Some(path) = place(path) else { return false };
    [store.to_owned(), index_of(store)].iter().any(|own| place(own).is_some_and(|own| own == path))
}

/// The name of the index file of the store at `data`.
pub fn index_of(data: &Path) -> PathBuf {
    let mut index = data.as_os_str().to_owned();
    index.push(".idx");
    PathBuf::from(index)
}

/// What all names of one file have in common.
#[cfg(unix)]
fn file_id(path: &Path) -> Option<(u64, u64)> {
    number_of_file(path)
}

/// What all names of one file have in common, but for hard links.
#[cfg(not(unix))]
fn file_id(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}

/// What tells the file at `path` from any other one that has its name later, as long as it is open.
#[cfg(unix)]
pub fn number_of_file(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    path.metadata().ok().map(|file| (file.dev(), file.ino()))
}

/// Nothing, where the system tells no more of a file than its names.
#[cfg(not(unix))]
pub fn number_of_file(_: &Path) -> Option<(u64, u64)> {
    None
}
