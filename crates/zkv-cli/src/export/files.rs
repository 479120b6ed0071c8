//! Each record as a file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::damage::DamagedPlaces;
use crate::export::{Forms, left_out, plain};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::store::Keys;

/// Why a record has no file of its own.
const NO_FILE: &str = "the key is no relative path of its own; use --format pairs";

/// Writes the record of each of `keys` as a file below `folder`; what is left out is returned.
pub fn export(
    keys: &Keys<'_>,
    folder: &Path,
    forms: Forms,
    damaged: &mut DamagedPlaces,
    progress: &mut Progress,
) -> Result<Option<Failure>, Failure> {
    make_empty(folder).map_err(|error| Failure::file(folder, error))?;
    let mut left_out_count = 0;
    for entry in keys.iter()? {
        let Some((key, value)) = damaged.pass(entry, progress)? else { continue };
        let plain = plain(&key, &value, forms);
        let file = plain.and_then(|(key, value)| Some((path_of(&key)?, value)));
        let is_written = match file {
            Some((path, value)) => write(&folder.join(path), &value),
            None => Ok(false),
        };
        // The folder's name only: the file's is a key.
        let is_written = is_written.map_err(|error| Failure::file(folder, error))?;
        left_out_count += u64::from(!is_written);
        progress.add_record();
    }
    Ok(left_out(left_out_count, NO_FILE))
}

/// In a new or empty folder there are no links that lead out of it, and no files to replace.
fn make_empty(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    match fs::read_dir(folder)?.next() {
        None => Ok(()),
        Some(_) => Err(io::Error::other("the folder is not empty")),
    }
}

/// Writes a new file, and the folders above it; `false` where the name is taken: by a record with
/// the key `a`, where this one has `a/b`, or by one whose key differs in case only, on some systems.
fn write(path: &Path, value: &[u8]) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    let created = fs::create_dir_all(parent).and_then(|()| File::create_new(path));
    match created {
        Ok(mut file) => file.write_all(value).map(|()| true),
        Err(error) if is_about_name(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_about_name(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::InvalidFilename
            | io::ErrorKind::InvalidInput
    )
}

/// The path that a key names; `None` where it would lead elsewhere, or name nothing.
fn path_of(key: &[u8]) -> Option<PathBuf> {
    let mut path = PathBuf::new();
    for name in key.split(|&byte| byte == b'/') {
        path.push(file_name(name)?);
    }
    Some(path)
}

fn file_name(name: &[u8]) -> Option<&Path> {
    let is_special = matches!(name, b"" | b"." | b"..") || name.contains(&0);
    if is_special {
        return None;
    }
    path_of_name(name)
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere not every name is one")]
fn path_of_name(name: &[u8]) -> Option<&Path> {
    use std::os::unix::ffi::OsStrExt;
    Some(Path::new(std::ffi::OsStr::from_bytes(name)))
}

/// Windows gives a meaning to separators, drives, streams, devices, and ends of names.
#[cfg(not(unix))]
fn path_of_name(name: &[u8]) -> Option<&Path> {
    const DEVICES: [&str; 6] = ["CON", "PRN", "AUX", "NUL", "COM", "LPT"];
    let text = std::str::from_utf8(name).ok()?;
    let stem = text.split('.').next().unwrap_or(text).to_ascii_uppercase();
    let is_device = DEVICES.iter().any(|device| {
        stem.strip_prefix(device).is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
    });
    let has_sign = text.contains(['\\', ':', '*', '?', '"', '<', '>', '|']);
    let is_plain = !is_device && !has_sign && !text.ends_with(['.', ' ']);
    is_plain.then(|| Path::new(text))
}

#[cfg(test)]
mod tests {
    use super::path_of;

    #[test]
    fn keys_that_lead_elsewhere_or_nowhere_have_no_path() {
        for key in ["", "/", "/etc/passwd", "..", "a/../b", "a//b", "a/", "./a", "a\0b", "../a"] {
            assert_eq!(path_of(key.as_bytes()), None, "{key:?}");
        }
        for key in ["a", "a/b.txt", "...", "a/..b", ".hidden"] {
            // A Windows name does not end in a dot.
            if cfg!(unix) || !key.ends_with('.') {
                assert!(path_of(key.as_bytes()).is_some(), "{key:?}");
            }
        }
    }
}
