//! Standard output, or the file that `-o` names.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::failure::Failure;
use crate::store::is_file_of;
use crate::streams::{self, Stream};

/// A record is small and a system call is not, so this much is written at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Where results go.
pub struct Output {
    writer: BufWriter<Target>,
    file: Option<PathBuf>,
}

enum Target {
    Standard(StdoutLock<'static>),
    /// A pipe, a device, or standard error: what stands there already stays.
    Special(File),
    /// What stands beside the file until it is whole.
    Beside(NamedTempFile),
}

impl Output {
    /// Opens `path`, or standard output. A file that exists is replaced once all is written, but for the
    /// store's own, and for one that a standard stream writes to: what is written goes on there.
    pub fn open(path: Option<&Path>, store: &Path) -> Result<Self, Failure> {
        if let Some(path) = path.filter(|path| !is_dash(path)) {
            check_is_not_store(path, store)?;
        }
        let path = named_file(path);
        let target = match path {
            None => Target::Standard(io::stdout().lock()),
            Some(path) => Target::open(path)?,
        };
        let writer = BufWriter::with_capacity(BUFFER_BYTES, target);
        Ok(Self { writer, file: path.map(Path::to_owned) })
    }

    /// Writes `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.writer.write_all(bytes).map_err(|error| self.failure(error))
    }

    /// Lets `write` write, piece by piece, what would take memory as a whole.
    pub fn write_with(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<(), Failure> {
        write(&mut self.writer).map_err(|error| self.failure(error))
    }

    /// Writes what is buffered. Dropping the output would hide a full disk, and leaves no file.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|error| self.failure(error))?;
        let Self { writer, file } = self;
        match (writer.into_parts().0, file) {
            (Target::Beside(written), Some(path)) => {
                replace(written, &path).map_err(|error| Failure::file(&path, error))
            }
            _ => Ok(()),
        }
    }

    fn failure(&self, error: io::Error) -> Failure {
        match &self.file {
            Some(path) => Failure::file(path, error),
            None => Failure::standard_output(error),
        }
    }
}

impl Target {
    fn open(path: &Path) -> Result<Self, Failure> {
        let opened = match streams::stream_at(path) {
            Some(stream) => streams::opened(stream).map(Self::Special),
            None if path.is_file() && streams::is_descriptor(path) => {
                return Err(Failure::Usage(format!(
                    "{}: this leads to a file that is open already, which would be replaced: give the file's \
                     own name, or leave out -o and send the standard output there",
                    path.display()
                )));
            }
            None => {
                check_folder(path)?;
                Self::open_file(path)
            }
        };
        opened.map_err(|error| Failure::file(path, error))
    }

    fn open_file(path: &Path) -> io::Result<Self> {
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Ok(metadata) if !metadata.is_file() => File::create(path).map(Self::Special),
            Ok(metadata) => {
                let beside = beside(&fs::canonicalize(path)?)?;
                beside.as_file().set_permissions(metadata.permissions())?;
                Ok(Self::Beside(beside))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => beside(path).map(Self::Beside),
            Err(error) => Err(error),
        }
    }
}

/// Refuses a new file in a folder that does not exist, in the words in which the library refuses a new store there.
fn check_folder(path: &Path) -> Result<(), Failure> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    match folder.map(Path::try_exists) {
        Some(Ok(false)) => {
            let problem = "the folder for it does not exist: make it first";
            Err(Failure::file(path, io::Error::new(io::ErrorKind::NotFound, problem)))
        }
        _ => Ok(()),
    }
}

/// A new file in the folder of `path`, with the rights of any new file.
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    tempfile::Builder::new()
        .prefix(".zkv-")
        .suffix(".tmp")
        .make_in(folder.unwrap_or(Path::new(".")), |name| File::create_new(name))
}

/// Puts `written` in the place of `path`, or of what that leads to. It is on stable storage before what it
/// replaces goes: a power cut leaves one of them.
fn replace(written: NamedTempFile, path: &Path) -> io::Result<()> {
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    written.as_file().sync_all()?;
    written.persist(place).map(drop).map_err(|failed| failed.error)
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Standard(output) => output.write(bytes),
            Self::Special(file) => file.write(bytes),
            Self::Beside(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Standard(output) => output.flush(),
            Self::Special(file) => file.flush(),
            Self::Beside(file) => file.flush(),
        }
    }
}

/// Prints a report of which no more need be read than somebody wants: what the command has found stands,
/// whoever reads it.
pub fn print_report(text: &str, store: &Path) -> Result<(), Failure> {
    let mut output = Output::open(None, store)?;
    match output.write(text.as_bytes()).and_then(|()| output.finish()) {
        Err(Failure::OutputClosed) => Ok(()),
        printed => printed,
    }
}

/// Says something on standard error. Where nobody can hear it, the exit code still tells.
pub fn say(message: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{message}");
}

/// `text` as a terminal may show it: what is no visible character, or would turn the text around, is escaped.
pub fn escaped(text: &str) -> String {
    let is_plain = |character| matches!(character, '"' | '\'' | '\\');
    let mut escaped = String::new();
    for character in text.chars() {
        if is_plain(character) {
            escaped.push(character);
        } else {
            escaped.extend(character.escape_debug());
        }
    }
    escaped
}

/// `bytes` as a terminal may show them, on one line: it obeys control characters, and keys and values are somebody
/// else's. Tabs stay: they stand between a key and a value.
pub fn escaped_bytes(bytes: &[u8]) -> String {
    let cells = bytes.split(|byte| *byte == b'\t').map(|cell| match std::str::from_utf8(cell) {
        Ok(text) => escaped(text),
        Err(_) => cell.escape_ascii().to_string(),
    });
    cells.collect::<Vec<String>>().join("\t")
}

/// Whether results end up on a terminal, among whatever else is printed there.
pub fn is_terminal(path: Option<&Path>) -> bool {
    named_file(path).is_none() && io::stdout().is_terminal()
}

/// The file that `-o` names; none for standard output, which `-` is, too, and any name of what that writes to.
pub fn named_file(path: Option<&Path>) -> Option<&Path> {
    path.filter(|path| !is_dash(path) && streams::stream_at(path) != Some(Stream::Output))
}

fn is_dash(path: &Path) -> bool {
    path == Path::new("-")
}

/// Opening the store's own file for writing would empty it.
pub fn check_is_not_store(path: &Path, store: &Path) -> Result<(), Failure> {
    if is_file_of(store, path) {
        return Err(Failure::Usage(format!("{}: this is the store itself", path.display())));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::escaped_bytes;

    #[test]
    fn control_characters_are_escaped_and_text_is_not() {
        let cases: [(&[u8], &str); 6] = [
            ("plain\tß".as_bytes(), "plain\tß"),
            (b"a\x1b[2J", "a\\u{1b}[2J"),
            (b"a\nb", "a\\nb"),
            // Sequences may begin with one character of those behind ASCII, too, and text be turned around.
            ("a\u{9b}2J".as_bytes(), "a\\u{9b}2J"),
            ("a\u{202e}b".as_bytes(), "a\\u{202e}b"),
            (b"a\x9b2J\t\xff", "a\\x9b2J\t\\xff"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(escaped_bytes(bytes), expected);
        }
    }
}
