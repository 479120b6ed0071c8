//! Why a command failed, and the exit code for it.

use std::fmt;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use zkv::{ErrorKind, RecordError};

/// Why a command failed. No variant holds a key or a value; a name is that of a file of the user's.
#[derive(Debug)]
pub enum Failure {
    /// Keys that a command was given are not in the store.
    KeysNotFound { missing: usize, asked: usize },
    /// The command was asked for something that makes no sense.
    Usage(String),
    /// The store refused.
    Store(zkv::Error),
    /// A file or folder could not be read or written.
    File { name: String, error: io::Error },
    /// A line of the input is no record.
    Line { name: String, number: u64, problem: String },
    /// Records could not be written in the format, or as the type, asked for.
    LeftOut { count: u64, problem: &'static str },
    /// Keys are in collections, of which none was named.
    CollectionsLeftOut { keys: u64, collections: usize },
    /// Records could not be read, and the others were not asked for.
    DamagedPlace(zkv::Error),
    /// All records were read but those of so many damaged places.
    PassedOver { places: u64 },
    /// A store was found to be damaged.
    Damaged { is_lost: bool },
    /// A damaged store could not be brought whole into a new one, which has `keys` of its keys.
    Incomplete { keys: u64 },
    /// Whoever read the standard output has read enough.
    OutputClosed,
}

impl Failure {
    /// A failure to read or write `path`.
    pub fn file(path: &Path, error: io::Error) -> Self {
        Self::File { name: path.display().to_string(), error }
    }

    /// A failure to write to the standard output.
    pub fn standard_output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::File { name: "standard output".to_owned(), error },
        }
    }

    /// The code that the process ends with; `zkv --help` lists them.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::OutputClosed => 0,
            Self::KeysNotFound { .. } => 1,
            Self::Usage(_) => 2,
            Self::Store(error) | Self::DamagedPlace(error) => store_code(error.kind()),
            Self::PassedOver { .. } | Self::Damaged { .. } => 3,
            Self::Incomplete { .. } => 3,
            Self::File { .. } | Self::Line { .. } => 5,
            Self::LeftOut { .. } | Self::CollectionsLeftOut { .. } => 5,
        })
    }

    /// Whether there is nothing to say, as when `head` closes the pipe.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::OutputClosed)
    }
}

fn store_code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::Corrupt | ErrorKind::UnsupportedVersion => 3,
        ErrorKind::Locked => 4,
        ErrorKind::Limit | ErrorKind::Misuse | ErrorKind::Encoding => 2,
        // The rest is the file system's: a missing file, no permission, a full disk.
        _ => 5,
    }
}

impl From<zkv::Error> for Failure {
    fn from(error: zkv::Error) -> Self {
        Self::Store(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KeysNotFound { asked: 1, .. } => formatter.write_str("the key was not found"),
            Self::KeysNotFound { missing, asked } => {
                write!(formatter, "{missing} of {asked} keys were not found")
            }
            Self::Usage(problem) => formatter.write_str(problem),
            Self::Store(error) => formatter.write_str(&store_problem(error)),
            Self::DamagedPlace(error) => {
                write!(formatter, "{}; --keep-going goes on behind it", store_problem(error))
            }
            Self::PassedOver { places: 1 } => {
                formatter.write_str("1 damaged place was passed over: what it held is missing")
            }
            Self::PassedOver { places } => {
                write!(
                    formatter,
                    "{places} damaged places were passed over: what they held is missing"
                )
            }
            Self::File { name, error } => write!(formatter, "{name}: {error}"),
            Self::Line { name, number, problem } => write!(formatter, "{name}:{number}: {problem}"),
            Self::LeftOut { count, problem } => {
                write!(formatter, "{} left out: {problem}", records_were(*count))
            }
            Self::CollectionsLeftOut { keys, collections } => write!(
                formatter,
                "{} in {} left out: --collection NAME takes one, `zkv stats` names them",
                if *keys == 1 { "1 key".to_owned() } else { format!("{keys} keys") },
                match collections {
                    1 if *keys == 1 => "1 collection was".to_owned(),
                    1 => "1 collection were".to_owned(),
                    _ => format!("{collections} collections were"),
                }
            ),
            Self::Damaged { is_lost: true } => {
                formatter.write_str("the store is damaged, and records are lost")
            }
            Self::Damaged { is_lost: false } => {
                formatter.write_str("the store is damaged, and no record is lost by it")
            }
            Self::Incomplete { keys } => write!(
                formatter,
                "the new store has {} and not all, or not all for certain",
                records(*keys)
            ),
            Self::OutputClosed => formatter.write_str("the output was closed"),
        }
    }
}

/// How many records, in words.
pub fn records(count: u64) -> String {
    match count {
        1 => "1 record".to_owned(),
        _ => format!("{count} records"),
    }
}

/// As [`records`], with the verb that fits.
fn records_were(count: u64) -> String {
    format!("{} {}", records(count), if count == 1 { "was" } else { "were" })
}

/// What a store refuses, in the command's terms: the library's text is of a program's own handles and options.
pub fn store_problem(error: &zkv::Error) -> String {
    match error {
        zkv::Error::Locked { path } => format!(
            "{} is open in another process: try again when that has closed it, or let the command wait for it \
             with --wait SECONDS",
            path.display()
        ),
        zkv::Error::InvalidOption { option, value, allowed } => {
            let name = match *option {
                "compression_level" => "level".to_owned(),
                option => option.replace('_', "-"),
            };
            format!("--{name} is {value}, and must be {allowed}")
        }
        // The command leaves the limit where it is, and no store has a higher one.
        zkv::Error::Record(RecordError::ValueTooLong { bytes, max }) => {
            format!("a value of {bytes} bytes exceeds the limit of {max}")
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_refuses_speaks_of_what_the_command_takes() {
        let error: zkv::Error =
            RecordError::ValueTooLong { bytes: 1 << 32, max: 4_294_967_295 }.into();
        let expected = "a value of 4294967296 bytes exceeds the limit of 4294967295";
        assert_eq!(Failure::from(error).to_string(), expected);
        for (option, expected) in [
            ("compression_level", "--level is 99, and must be less"),
            ("slot_bytes", "--slot-bytes is 99, and must be less"),
        ] {
            let error = zkv::Error::InvalidOption { option, value: 99, allowed: "less" };
            assert_eq!(store_problem(&error), expected);
        }
    }
}
