//! How a file of the file system is opened.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;

use crate::storage::OpenMode;

/// Opens a file as `mode` says.
pub(super) fn open(path: &Path, mode: OpenMode) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true);
    match mode {
        OpenMode::ReadOnly => check_is_file(path)?,
        OpenMode::ReadWrite => {
            check_is_file(path)?;
            options.write(true);
        }
        OpenMode::CreateNew => {
            options.write(true).create_new(true);
        }
        OpenMode::CreatePrivate => {
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        }
    }
    let file = options.open(path)?;
    if cfg!(unix) && mode == OpenMode::CreatePrivate {
        // Without a name it goes with the process, however that ends. With one it does no harm.
        let _ = fs::remove_file(path);
    }
    Ok(file)
}

/// To open a pipe that has a name waits until somebody opens its other end.
fn check_is_file(path: &Path) -> io::Result<()> {
    let kind = fs::metadata(path)?.file_type();
    match kind.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false if kind.is_file() => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file")),
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for mode in [OpenMode::ReadOnly, OpenMode::ReadWrite] {
            let kind_of = |path: &Path| open(path, mode).unwrap_err().kind();
            assert_eq!(kind_of(&pipe), io::ErrorKind::InvalidInput);
            assert_eq!(kind_of(Path::new("/dev/null")), io::ErrorKind::InvalidInput);
            assert_eq!(kind_of(folder.path()), io::ErrorKind::IsADirectory);
            assert_eq!(kind_of(&folder.path().join("a")), io::ErrorKind::NotFound);
        }
        std::os::unix::fs::symlink("pipe", folder.path().join("link")).unwrap();
        assert!(open(&folder.path().join("link"), OpenMode::ReadOnly).is_err());
    }
}
