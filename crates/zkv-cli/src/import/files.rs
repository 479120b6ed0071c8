//! Records from files: the path is the key, the contents are the value.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Component, Path};

use walkdir::WalkDir;
use zkv::VALUE_BYTES_MAX;

use crate::failure::Failure;
use crate::import::Sink;
use crate::output::{check_is_not_store, say};
use crate::store::is_file_of;

/// A buffer that grew over this for one large file is given back.
const BUFFER_BYTES_MAX: usize = 8 << 20;

/// Imports every file below `folder`, in the order of names, which puts like beside like.
pub fn import_folder(folder: &Path, store: &Path, sink: &mut Sink<'_>) -> Result<(), Failure> {
    let mut skipped_count = 0u64;
    let mut value = Vec::new();
    for entry in WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.map_err(|error| unreadable(folder, error))?;
        if !entry.file_type().is_file() {
            // Links, pipes and devices; reading one might never end.
            skipped_count += u64::from(!entry.file_type().is_dir());
        } else if is_file_of(store, entry.path()) {
            // Importing what is being written would never end well.
            skipped_count += 1;
        } else {
            let relative = entry.path().strip_prefix(folder).unwrap_or(entry.path());
            import_one(entry.path(), &key_of(relative), &mut value, sink)?;
        }
    }
    if skipped_count > 0 {
        let what = "links, special files or files of the store";
        say(format_args!("{}: skipped {skipped_count} {what}", folder.display()));
    }
    Ok(())
}

/// Imports one file under its own name.
pub fn import_file(file: &Path, store: &Path, sink: &mut Sink<'_>) -> Result<(), Failure> {
    check_is_not_store(file, store)?;
    let name = Path::new(file.file_name().unwrap_or(file.as_os_str()));
    import_one(file, &key_of(name), &mut Vec::new(), sink)
}

fn import_one(
    path: &Path,
    key: &[u8],
    value: &mut Vec<u8>,
    sink: &mut Sink<'_>,
) -> Result<(), Failure> {
    value.clear();
    value.shrink_to(BUFFER_BYTES_MAX);
    read_into(path, value).map_err(|error| Failure::file(path, error))?;
    let refused = |problem| Failure::file(path, io::Error::other(problem));
    sink.put(key, value, value.len(), refused)
}

fn read_into(path: &Path, value: &mut Vec<u8>) -> io::Result<()> {
    let file = File::open(path)?;
    // A file that no value can hold is not read into memory first; a device does not tell how long it is.
    let is_too_long = VALUE_BYTES_MAX < file.metadata()?.len()
        || VALUE_BYTES_MAX < file.take(VALUE_BYTES_MAX + 1).read_to_end(value)? as u64;
    if is_too_long {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("the file exceeds the limit of {VALUE_BYTES_MAX} bytes"),
        ));
    }
    Ok(())
}

/// The path's components, joined by forward slashes on every system.
fn key_of(relative: &Path) -> Vec<u8> {
    let names = relative.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        _ => None,
    });
    names.map(OsStr::as_encoded_bytes).collect::<Vec<_>>().join(&b'/')
}

fn unreadable(folder: &Path, error: walkdir::Error) -> Failure {
    let path = error.path().unwrap_or(folder).to_owned();
    let error = error.into_io_error().unwrap_or_else(|| io::Error::other("a loop of links"));
    Failure::file(&path, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_forward_slashes_and_no_dots() {
        assert_eq!(key_of(Path::new("a")), b"a");
        assert_eq!(key_of(&Path::new("a").join("b.txt")), b"a/b.txt");
        assert_eq!(key_of(Path::new("./a/./b")), b"a/b");
    }
}
