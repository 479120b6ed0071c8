//! How files of the file system get other names.

use std::fs::{self, OpenOptions, TryLockError};
use std::io;
use std::path::Path;

use super::FileStorage;
use crate::atomic::temporary_path;

/// Renames `from` to `to`, in the place of whatever is there.
pub(super) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    #[cfg(unix)]
    keep_private(from, to)?;
    match fs::rename(from, to) {
        Err(refused) if cfg!(windows) && refused.kind() == io::ErrorKind::PermissionDenied => {
            replace_open(from, to).map_err(|_| refused)
        }
        done => done,
    }
}

/// Renames `from` to `to`, a name that nothing has.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    // A hard link fails where the name is taken, on every system; a rename would replace.
    match fs::hard_link(from, to) {
        Ok(()) => {
            // It has its new name, whatever becomes of the old one, which is a temporary file's.
            let _ = fs::remove_file(from);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(error),
        // A file system without hard links (FAT).
        Err(_) => rename_claimed(from, to),
    }
}

/// As [`rename_new`]: creating the name claims it. A crash behind that leaves an empty file.
fn rename_claimed(from: &Path, to: &Path) -> io::Result<()> {
    let claim = OpenOptions::new().write(true).create_new(true).open(to)?;
    // Whoever finds an empty file may make something of it, and has its lock while that takes its place. Where
    // there are no locks, nobody does.
    if matches!(claim.try_lock(), Err(TryLockError::WouldBlock)) {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    rename(from, to).inspect_err(|_| {
        let _ = fs::remove_file(to);
    })
}

/// Renames `from` to `to`, in the place of an empty file.
pub(super) fn replace_empty(from: &Path, to: &Path) -> io::Result<()> {
    let replaced = fs::symlink_metadata(to)?;
    if !replaced.is_file() {
        // The link would be replaced, and what it leads to stay empty.
        let problem =
            "it is a link to an empty file: remove one of the two, or use that file's own name";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, problem));
    }
    #[cfg(unix)]
    keep_owner_and_mode(from, &replaced)?;
    rename(from, to)
}

/// Gives `from` the owner and the permissions that `replaced` has, as far as the process may: nobody but the
/// superuser can give a file away. Where its group is another one, [`rename`] keeps it private.
#[cfg(unix)]
fn keep_owner_and_mode(from: &Path, replaced: &fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, chown};
    let own = fs::metadata(from)?;
    let (user, group) = (Some(replaced.uid()), Some(replaced.gid()));
    if (own.uid(), own.gid()) != (replaced.uid(), replaced.gid())
        && chown(from, user, group).is_err()
        && chown(from, None, group).is_err()
    {
        return Ok(());
    }
    fs::set_permissions(from, replaced.permissions())
}

/// Renames `from` to `to`, a file that somebody has open: on FAT and on network shares, Windows replaces none,
/// but changes its name. A crash between the two leaves none of the name `to`.
pub(super) fn replace_open(from: &Path, to: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(to)?.is_file() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let aside = temporary_path(&FileStorage, to)?;
    fs::rename(to, &aside)?;
    fs::rename(from, to).inspect_err(|_| {
        let _ = fs::rename(&aside, to);
    })?;
    // It goes when nobody has it open any more.
    let _ = fs::remove_file(aside);
    Ok(())
}

/// Takes those permissions from `from` that `to` does not have: what others may not read is not laid open by
/// the file that takes its place.
#[cfg(unix)]
pub(super) fn keep_private(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    let Ok(replaced) = fs::metadata(to) else { return Ok(()) };
    let metadata = fs::metadata(from)?;
    let mode = metadata.permissions().mode();
    let kept = mode & mode_allowed(replaced.permissions().mode(), replaced.gid() == metadata.gid());
    if kept == mode { Ok(()) } else { fs::set_permissions(from, fs::Permissions::from_mode(kept)) }
}

/// What a file may allow where another one has `mode`. Who is in its group, and not in the other one's, is one of
/// "others" to that.
#[cfg(unix)]
fn mode_allowed(mode: u32, is_same_group: bool) -> u32 {
    // A file that its owner cannot write is no reason to make one that cannot be written, either.
    const OWNER: u32 = 0o700;
    let group = if is_same_group { mode } else { (mode & 0o007) << 3 } & 0o070;
    mode & !0o070 | group | OWNER
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_claimed_once_where_there_are_no_hard_links() {
        let folder = tempfile::tempdir().unwrap();
        let [first, second, to] = ["first", "second", "to"].map(|name| folder.path().join(name));
        for path in [&first, &second] {
            fs::write(path, path.file_name().unwrap().as_encoded_bytes()).unwrap();
        }
        rename_claimed(&first, &to).unwrap();
        let refused = rename_claimed(&second, &to).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&to).unwrap(), b"first");
        assert!(!first.exists() && second.exists());
    }

    #[cfg(unix)]
    #[test]
    fn another_group_may_do_what_all_may() {
        let allowed = [0o640, 0o644, 0o600, 0o400]
            .map(|mode| [true, false].map(|is_same_group| mode_allowed(mode, is_same_group)));
        assert_eq!(allowed, [[0o740, 0o700], [0o744, 0o744], [0o700, 0o700], [0o700, 0o700]],);
    }
}
