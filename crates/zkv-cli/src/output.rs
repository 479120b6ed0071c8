//! Standard output, or the file that `-o` names.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::store::is_file_of;

/// A record is small and a system call is not, so this much is written at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// Where results go.
pub struct Output {
    writer: BufWriter<Box<dyn Write>>,
    file: Option<PathBuf>,
}

impl Output {
    /// Opens `path`, or standard output. A file that exists is replaced, but for the store's own.
    pub fn open(path: Option<&Path>, store: &Path) -> Result<Self, Failure> {
        let writer: Box<dyn Write> = match path {
            None => Box::new(io::stdout().lock()),
            Some(path) => {
                check_is_not_store(path, store)?;
                Box::new(File::create(path).map_err(|error| Failure::file(path, error))?)
            }
        };
        let writer = BufWriter::with_capacity(BUFFER_BYTES, writer);
        Ok(Self { writer, file: path.map(Path::to_owned) })
    }

    /// Writes `bytes`.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.writer.write_all(bytes).map_err(|error| self.failure(error))
    }

    /// Writes what is buffered. Dropping the output would hide a full disk.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.writer.flush().map_err(|error| self.failure(error))
    }

    fn failure(&self, error: io::Error) -> Failure {
        match &self.file {
            Some(path) => Failure::file(path, error),
            None if error.kind() == io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            None => Failure::File { name: "standard output".to_owned(), error },
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

/// Whether results end up on a terminal, among whatever else is printed there.
pub fn is_terminal(path: Option<&Path>) -> bool {
    path.is_none() && io::stdout().is_terminal()
}

/// Opening the store's own file for writing would empty it.
pub fn check_is_not_store(path: &Path, store: &Path) -> Result<(), Failure> {
    if is_file_of(store, path) {
        return Err(Failure::Usage(format!("{}: this is the store itself", path.display())));
    }
    Ok(())
}
