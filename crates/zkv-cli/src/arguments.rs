//! What the command takes. The comments are what `--help` prints.

use std::ffi::OsString;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::types::Type;

const EXAMPLES_AND_EXIT_CODES: &str = "\
Examples:
  zkv import pages.zkv pages.tsv      a key, a tab and a value a line; JSON lines and folders, too
  zkv list pages.zkv --prefix news/
  zkv get pages.zkv news/today
  zkv export pages.zkv -o all.jsonl   what `zkv import` reads again

Exit codes:
  0  done
  1  a key was not found
  2  wrong usage: an argument is invalid, or does not fit the stored bytes
  3  the store is damaged, or of a version that this program cannot read; salvage lost something
  4  another process has the store open
  5  input or output failed, a line of the input cannot be parsed, or records were left out";

/// Import, export, look into and back up stores of the zkv key-value store.
///
/// A store is a data file, and an index file beside it, STORE.idx. Keys and values are raw bytes unless told otherwise.
#[derive(Debug, Parser)]
#[command(name = "zkv", version, after_help = EXAMPLES_AND_EXIT_CODES, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    /// Seconds to wait where another process has the store open, such as 10 or 0.5
    #[arg(long, global = true, value_name = "SECONDS", default_value = "0", value_parser = seconds)]
    pub wait: Duration,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    Import(Import),
    Export(Export),
    Get(Get),
    Set(Set),
    Del(Del),
    List(List),
    Stats(Stats),
    Backup(Backup),
    Compact(Compact),
    Verify(Verify),
    RebuildIndex(RebuildIndex),
    Salvage(Salvage),
}

/// Read files or folders into a store, which is created where it does not exist.
///
/// A line that cannot be parsed ends the import; what was imported before it stands, unless --atomic
/// is given. A key that occurs twice keeps its last value. A store that was created for a failed import, and holds
/// nothing, is removed, and an index file of its name is left as it was. It stays where the command is ended by
/// Ctrl-C or otherwise killed, where its file was moved meanwhile, and on systems other than Unix.
#[derive(Args, Debug)]
#[command(after_help = "\
Formats:
  tsv    one record a line: the key, a tab, and the rest of the line as the value; a byte order mark
         is part of the first key
  jsonl  one JSON object a line: the field that --key names is the key, the line the value; text
         gives its characters in UTF-8, a number its digits as they are written. Without --key, the
         pairs that `zkv export` writes, which hold what is stored, whatever its type
  files  one record a file: its path within SOURCE, with forward slashes, and its contents;
         symbolic links are not followed
  auto   files for a folder, else by the name's ending: .tsv, .jsonl or .ndjson

A carriage return at the end of a line, as files from Windows have it, is no part of it. Empty lines
at the end are passed over.

With --acknowledge, a program that pipes records in learns which of them are safe: it can forget
those, and after a crash it sends the others again. Acknowledgements are numbers on standard output,
one a line; the last one counts everything, also where a later line is bad.")]
pub struct Import {
    /// The store's data file
    pub store: PathBuf,
    /// Files and folders to read, in this order; - is standard input
    #[arg(required = true, value_name = "SOURCE")]
    pub sources: Vec<PathBuf>,
    /// What the sources hold
    #[arg(long, value_enum, default_value_t = ImportFormat::Auto)]
    pub format: ImportFormat,
    /// The field that is the key of a JSON line
    #[arg(long, value_name = "FIELD")]
    pub key: Option<String>,
    /// Pass over the first N lines of each source, such as a header row: for tsv and jsonl
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub skip_lines: u64,
    #[command(flatten)]
    pub types: Types,
    #[command(flatten)]
    pub compression: Compression,
    /// What each record waits for before the next one is read
    #[arg(long, value_enum, value_name = "LEVEL", default_value_t = Waits::Buffered)]
    pub durability: Waits,
    /// After every N records, and at the end, print how many are safe so far: on stable storage, or
    /// with --durability flushed, in the system's hands
    #[arg(long, value_name = "N")]
    pub acknowledge: Option<NonZeroU64>,
    /// Import everything or nothing, also where the command is killed. It takes about 100 bytes of memory a record
    #[arg(long, conflicts_with = "acknowledge")]
    pub atomic: bool,
    /// Bytes of a segment of a new store: a power of two from 262144 to 16777216. A store that exists keeps its own
    #[arg(long, value_name = "BYTES")]
    pub slot_bytes: Option<u32>,
    /// Fail where the store does not exist, instead of creating it. With --collection, none is created in any case
    #[arg(long)]
    pub no_create: bool,
}

/// How records are compressed.
#[derive(Args, Clone, Copy, Debug)]
pub struct Compression {
    /// What the records that are written are compressed for
    #[arg(long, value_enum, default_value_t = Settings::Balanced)]
    pub settings: Settings,
    /// How hard to compress, -7 to 22 but for 0: higher is smaller and slower, above 9 only where blocks are
    /// larger than 1 KiB. Only below 0 are reads faster
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub level: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Settings {
    /// Level -1, blocks of 512 bytes, more memory for values: small records are read in half of the time
    Fast,
    /// Level 5 and blocks of 1 KiB
    Balanced,
    /// Level 9 and blocks of 4 KiB: for what is seldom read
    Small,
}

impl Compression {
    pub fn options(self) -> zkv::Options {
        let options = match self.settings {
            Settings::Fast => zkv::Options::fast(),
            Settings::Balanced => zkv::Options::new(),
            Settings::Small => zkv::Options::small(),
        };
        match self.level {
            Some(level) => options.compression_level(level),
            None => options,
        }
    }
}

/// What a record can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Waits {
    /// Nothing: many records are compressed and written together
    Buffered,
    /// The system has it: it survives a crash of the process
    Flushed,
    /// It is on stable storage: it survives a power cut
    Synced,
}

impl From<Waits> for zkv::Durability {
    fn from(waits: Waits) -> Self {
        match waits {
            Waits::Buffered => Self::Buffered,
            Waits::Flushed => Self::Flushed,
            Waits::Synced => Self::Synced,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImportFormat {
    Auto,
    Tsv,
    Jsonl,
    Files,
}

/// Write the records of a store's own keys, or of one of its collections, in no particular order.
#[derive(Args, Debug)]
#[command(after_help = "\
Formats:
  pairs  one line a record, {\"key\":\"..\",\"value\":\"..\"}; a part that is no UTF-8 is in Base64,
         as \"key_base64\" or \"value_base64\". `zkv import` of JSON lines without --key reads them
  jsonl  the values, one a line, as they are: what came from JSON lines gives the same lines. Records
         whose value is no JSON object on one line, with the key in the field that --key names, are
         left out
  tsv    key, tab, value; records that hold a tab in the key, a line end, or a carriage return at the
         end of the value, are left out
  files  a file a record, in the folder that -o names, which must not exist or be empty; records
         whose key is no relative path are left out

But for pairs, keys and values of a collection are those that its programs have, not their bytes, as
far as the command knows their types. Records that are left out are counted, and the exit code is
then 5; so it is where --collection is not given, and there are collections with keys. `zkv backup`
copies everything.")]
pub struct Export {
    /// The store's data file
    pub store: PathBuf,
    /// Write the records of this collection, instead of the store's own
    #[arg(long, value_name = "NAME")]
    pub collection: Option<String>,
    /// Where to write, instead of standard output, which - is, too. What a file of this name holds is replaced
    /// once all is written, but not where everything is left out
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// What to write: pairs unless told otherwise, or with --key, jsonl
    #[arg(long, value_enum)]
    pub format: Option<ExportFormat>,
    /// The field that is the key of a JSON line
    #[arg(long, value_name = "FIELD")]
    pub key: Option<String>,
    /// Go on behind damaged places, which are told on standard error: what can be read is written, also to the
    /// file that -o names, and the exit code is 3. Without it, the first one ends the export, and the file is as
    /// it was. `zkv salvage` brings everything that is left, of collections too
    #[arg(long)]
    pub keep_going: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ExportFormat {
    Pairs,
    Jsonl,
    Tsv,
    Files,
}

/// How the keys and values of a command are given and shown.
#[derive(Args, Clone, Debug)]
pub struct Types {
    /// Work on the keys of this collection, which a program has made, instead of the store's own. Its types are
    /// known: shorter numbers are given as u64 and i64 are, and as bytes what it has as bytes or as JSON. Of other
    /// types, what is stored is shown, and nothing is written
    #[arg(long, value_name = "NAME")]
    pub collection: Option<String>,
    /// What keys are: bytes unless told otherwise, and those of a collection of its own type. str, u64 and i64 are
    /// what a program wrote with `store.set(key, ..)`
    #[arg(long, value_enum, value_name = "TYPE")]
    pub key_type: Option<Type>,
    /// What values are: as --key-type
    #[arg(long, value_enum, value_name = "TYPE")]
    pub value_type: Option<Type>,
}

/// Print the value of a key: bytes as they are, other types as text and a line end.
///
/// On a terminal, control characters are escaped, and bytes have a line end, too: with -o FILE, or through a pipe,
/// they are exact. What is printed is what `zkv set` reads, with the same types: the same value again.
#[derive(Args, Debug)]
pub struct Get {
    /// The store's data file
    pub store: PathBuf,
    /// The key
    #[arg(allow_negative_numbers = true)]
    pub key: OsString,
    /// Where to write, instead of standard output, which - is, too
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    pub types: Types,
}

/// Set the value of a key, in a store which is created where it does not exist.
///
/// What is read from standard input as text loses one line end, which `zkv get` and `echo` put behind it; numbers and
/// JSON lose white space around them. Bytes are stored as they come, with every line end.
#[derive(Args, Debug)]
pub struct Set {
    /// The store's data file
    pub store: PathBuf,
    /// The key
    #[arg(allow_negative_numbers = true)]
    pub key: OsString,
    /// The value; read from standard input where it is left out
    #[arg(allow_negative_numbers = true)]
    pub value: Option<OsString>,
    /// Fail where the store does not exist, instead of creating it. With --collection, none is created in any case
    #[arg(long)]
    pub no_create: bool,
    #[command(flatten)]
    pub types: Types,
}

/// Delete keys. The exit code is 1 where one of them was not there; the others are deleted.
#[derive(Args, Debug)]
pub struct Del {
    /// The store's data file
    pub store: PathBuf,
    /// The keys
    #[arg(required = true, value_name = "KEY", allow_negative_numbers = true)]
    pub keys: Vec<OsString>,
    /// Delete keys of this collection, instead of the store's own
    #[arg(long, value_name = "NAME")]
    pub collection: Option<String>,
    /// What keys are: bytes unless told otherwise, and those of a collection of its own type. str, u64 and i64 are
    /// what a program wrote with `store.set(key, ..)`
    #[arg(long, value_enum, value_name = "TYPE")]
    pub key_type: Option<Type>,
    /// Taken for likeness with the other commands; deleting does not look at values
    #[arg(long, value_enum, value_name = "TYPE", hide = true)]
    pub value_type: Option<Type>,
}

/// Print keys, one a line, in no particular order.
///
/// Control characters are escaped on a terminal. Elsewhere, keys with a line end are left out and counted, and with
/// --value-type those with a tab and values with a line end; everywhere, what is not of the type asked for. The exit
/// code is then 5. Keys of collections are counted on standard error where --collection is not given.
#[derive(Args, Debug)]
pub struct List {
    /// The store's data file
    pub store: PathBuf,
    /// Print the keys of this collection, instead of the store's own
    #[arg(long, value_name = "NAME")]
    pub collection: Option<String>,
    /// Print only keys that start with this: bytes, or characters of str keys
    #[arg(long, value_name = "P")]
    pub prefix: Option<OsString>,
    /// Print at most this many keys
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    /// What keys are: bytes unless told otherwise, and those of a collection of its own type. Keys that are
    /// something else are left out and counted
    #[arg(long, value_enum, value_name = "TYPE")]
    pub key_type: Option<Type>,
    /// Print values, too, of this type, behind a tab
    #[arg(long, value_enum, value_name = "TYPE")]
    pub value_type: Option<Type>,
    /// Go on behind damaged places, which are told on standard error; the exit code is 3
    #[arg(long)]
    pub keep_going: bool,
}

/// Print how many keys a store has, and what they take.
///
/// All keys count, those of collections too. How many of these are in collections is said beside that; the others
/// are the store's own, which `zkv list` and `zkv export` show without --collection. With --json they are "keys" and
/// "keys_in_collections".
#[derive(Args, Debug)]
#[command(after_help = "\
keys and values  what is stored, before compression
live, dead       what of the data file holds that, and what holds overwritten and deleted records
free             what of the data file is written next
ratio            keys and values, over both files")]
pub struct Stats {
    /// The store's data file
    pub store: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Copy a store to a file that does not exist yet.
///
/// The files are copied as they are, damage too: `zkv verify` reads the copy.
#[derive(Args, Debug)]
pub struct Backup {
    /// The store's data file
    pub store: PathBuf,
    /// The copy's data file
    #[arg(value_name = "DEST")]
    pub destination: PathBuf,
}

/// Read a whole store, and report everything that is wrong with it. Nothing is written.
///
/// A store that does not open for its damage is read, too, as far as anything tells of it. The exit
/// code is 3 where something is damaged, and 0 where there are only notices.
#[derive(Args, Debug)]
#[command(after_help = "\
Severities:
  loss      records are lost, or what is there cannot be told
  mendable  damaged, and derived from the rest or repeated there: no record is lost by it alone
  notice    no damage: what a crash may have left behind, or an index that opening sets aside

Each finding has its place, in bytes from the start of the data file or the index file. Whether a
damaged store opens, so that commands can read what is not damaged, is said as \"opens\".

The object of --json has the same fields whatever fails: where the store cannot be verified, \"error\"
says why, and \"sound\" and \"opens\" are null, or false where no header in the file says that it is a store;
\"worst\" is loss there where a salvage finds something.

What mends them is said at the end, and in \"remedies\" of --json, in the order in which it is to be
done: `zkv rebuild-index` mends the index, `zkv compact` what is mendable in the data file. Where
something is lost, or the header of the data file is damaged, `zkv salvage` is the only remedy: it
brings all that is left into a new store. A foreign file with the index's name is moved by hand.")]
pub struct Verify {
    /// The store's data file
    pub store: PathBuf,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Write a store anew, without what is dead in it.
///
/// Only what is needed is kept, sorted by key as far as memory allows, compressed with new dictionaries,
/// the first of which is trained on the first of it; then the file is cut. --settings small makes it smaller, and
/// --level 19 beside that, of long values, smaller still, in several times the time. Without them, a store that was
/// imported at once, and of which nothing was overwritten, may gain nothing. It takes up to 30 megabytes of room on
/// the disk, and may be interrupted at any moment: what was done stays done. A store that is written to gives dead
/// space back by itself, so that this is for stores that are done, and for copies to keep.
#[derive(Args, Debug)]
pub struct Compact {
    /// The store's data file
    pub store: PathBuf,
    #[command(flatten)]
    pub compression: Compression,
}

/// Write a store's index file anew, from its data file.
///
/// Where there is none, commands that only read the store (get, list, stats, export, backup) make it in memory each
/// time. Any command that writes to the store writes it, too.
#[derive(Args, Debug)]
pub struct RebuildIndex {
    /// The store's data file
    pub store: PathBuf,
}

/// Bring what is left of a damaged store into a new one.
///
/// Every value that is brought was held against its checksum and is the newest of its key that can
/// be read. Nothing is written to the damaged store, and no other process may write to it meanwhile.
#[derive(Args, Debug)]
#[command(after_help = "\
Exit codes:
  0  the new store has everything
  3  something was lost, or may be: the new store has the rest, and the report says what is missing;
     or nothing in the file says that it is a store, and there is no new one

Names and types of collections that are lost in the data file are taken from the index file, where
that is left; without it, such a collection is called recovered-NUMBER, and its types are lost, too.

In the report, a key is possibly superseded where something newer was lost that may have been another
value of it, or its deletion. Records that are uncommitted were of a write that a crash cut short, for
all that can be known.

--doubtful names those keys, and the keys of values of which a piece is lost, which are not brought:
one JSON object a line, {\"event\":\"possibly-superseded\",\"key\":\"..\"}, or \"incomplete-value\". A key
that is no UTF-8 is in Base64, as \"key_base64\", as `zkv export` has it. Keys of all collections are
listed alike, as they are stored, and without the name of their collection.")]
pub struct Salvage {
    /// The damaged store's data file; its index file is used if it is there
    pub store: PathBuf,
    /// The new store's data file, which must not exist
    #[arg(value_name = "DEST")]
    pub destination: PathBuf,
    /// Print the report as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Write the keys that may be superseded, or whose value is incomplete, to this file
    #[arg(long, value_name = "FILE")]
    pub doubtful: Option<PathBuf>,
}

/// Digits, with a fraction or without.
fn seconds(text: &str) -> Result<Duration, String> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let seconds = text.parse().ok().filter(|&seconds| is_plain && seconds <= f64::from(u32::MAX));
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| format!("no number of seconds from 0 to {}, as 10 or 0.5", u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory;

    use super::{Arguments, seconds};

    #[test]
    fn seconds_may_have_a_fraction_and_have_bounds() {
        for (text, milliseconds) in
            [("0", 0), ("7", 7000), ("0.5", 500), (".25", 250), ("4294967295", 4_294_967_295_000)]
        {
            assert_eq!(seconds(text), Ok(Duration::from_millis(milliseconds)), "{text}");
        }
        for text in
            ["", ".", "-1", "+1", "1e3", "inf", "NaN", "0,5", "1s", "4294967295.5", "4294967296"]
        {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
