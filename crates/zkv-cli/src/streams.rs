//! Paths that lead to what is open already, as `/dev/stdout` does: nothing may take the place of such a file,
//! which others write to as well.

use std::fs::File;
use std::io;
use std::path::Path;

/// A stream that results can be written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    Output,
    Error,
}

/// The stream that writes to what `path` names, under whatever name.
#[cfg(unix)]
pub fn stream_at(path: &Path) -> Option<Stream> {
    let id = |metadata: &std::fs::Metadata| {
        use std::os::unix::fs::MetadataExt;
        (metadata.dev(), metadata.ino())
    };
    let named = id(&path.metadata().ok()?);
    let is_it = |stream: &Stream| {
        let metadata = opened(*stream).and_then(|file| file.metadata());
        metadata.is_ok_and(|metadata| id(&metadata) == named)
    };
    [Stream::Output, Stream::Error].into_iter().find(is_it)
}

/// The file that `stream` writes to, at the place where that goes on.
#[cfg(unix)]
pub fn opened(stream: Stream) -> io::Result<File> {
    use std::os::fd::AsFd;
    let copied = match stream {
        Stream::Output => io::stdout().as_fd().try_clone_to_owned(),
        Stream::Error => io::stderr().as_fd().try_clone_to_owned(),
    };
    copied.map(File::from)
}

/// Whether `path` is that of something that a process has open, or a link that leads to such a path.
#[cfg(unix)]
pub fn is_descriptor(path: &Path) -> bool {
    let mut path = path.to_owned();
    // More links than the system follows, too, lead nowhere.
    for _ in 0..40 {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let Ok(folder) = folder.canonicalize() else { return false };
        let is_of_process = folder.starts_with("/proc") && folder.ends_with("fd");
        if is_of_process || folder == Path::new("/dev/fd") {
            return true;
        }
        let Ok(target) = folder.join(name).read_link() else { return false };
        path = folder.join(target);
    }
    false
}

/// No path leads to a stream.
#[cfg(not(unix))]
pub fn stream_at(_path: &Path) -> Option<Stream> {
    None
}

#[cfg(not(unix))]
pub fn opened(_stream: Stream) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(not(unix))]
pub fn is_descriptor(_path: &Path) -> bool {
    false
}
