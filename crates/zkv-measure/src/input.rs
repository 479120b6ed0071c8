//! The records that go into a store: those of a file, or generated ones.

use std::collections::HashSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;
use zkv::{Options, Store};
use zstd_safe::{DCtx, InBuffer, OutBuffer};

use crate::Failure;
use crate::generate::{Generator, Kind};

/// What to put into the store, and where the store is.
#[derive(Clone, Debug, clap::Args)]
pub struct Arguments {
    /// A file of records, .tsv or .jsonl, as it is or with .zst appended. Of a .tsv, the first
    /// column is the key and the rest of the line the value; of a .jsonl, the value is the line.
    /// Or a folder, whose files, at any depth, are the values, and their paths in it the keys.
    #[arg(long, conflicts_with = "generate")]
    pub data: Option<PathBuf>,
    /// The field of a .jsonl line that is the key.
    #[arg(long, default_value = "id")]
    pub key: String,
    /// What kind of records to generate, where no file is given.
    #[arg(long, default_value = "small")]
    pub generate: Kind,
    /// How many records to generate.
    #[arg(long, default_value_t = 200_000)]
    pub count: u64,
    /// What generated records and the order of gets are drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The folder for the temporary store; by default the system's.
    #[arg(long)]
    pub folder: Option<PathBuf>,
    /// The store's option of this name.
    #[arg(long)]
    pub block_bytes: Option<u32>,
    /// The store's option of this name.
    #[arg(long)]
    pub slot_bytes: Option<u32>,
    /// The store's option of this name.
    #[arg(long)]
    pub cache_bytes: Option<usize>,
    /// The store's option `compression_level`.
    #[arg(long, default_value_t = 5, allow_negative_numbers = true)]
    pub level: i32,
}

/// One record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// By which it is found.
    pub key: Vec<u8>,
    /// What is found.
    pub value: Vec<u8>,
}

/// All records.
#[derive(Debug)]
pub enum Input {
    /// They lie in memory.
    File(FileInput),
    /// They are made one by one.
    Generated {
        /// Makes them.
        generator: Generator,
        /// How many there are.
        count: u64,
    },
}

/// The records of a file, parsed.
#[derive(Debug, Default)]
pub struct FileInput {
    /// All values, and of a file whatever else is in it.
    pub bytes: Vec<u8>,
    records: Vec<(Vec<u8>, Range<usize>)>,
}

impl Arguments {
    /// Reads the file, or prepares to make the records.
    pub fn input(&self) -> Result<Input, Failure> {
        match &self.data {
            Some(path) => Ok(Input::File(FileInput::read(path, &self.key)?)),
            None => {
                let generator = Generator::new(self.generate, self.seed);
                Ok(Input::Generated { generator, count: self.count })
            }
        }
    }

    /// A folder that is removed when it is dropped.
    pub fn folder(&self) -> Result<tempfile::TempDir, Failure> {
        let builder = tempfile::Builder::new();
        Ok(match &self.folder {
            Some(folder) => builder.tempdir_in(folder)?,
            None => builder.tempdir()?,
        })
    }

    /// The store's options: the defaults, but for what was given.
    pub fn options(&self) -> Options {
        let mut options = Options::new().compression_level(self.level);
        if let Some(bytes) = self.block_bytes {
            options = options.block_bytes(bytes);
        }
        if let Some(bytes) = self.slot_bytes {
            options = options.slot_bytes(bytes);
        }
        if let Some(bytes) = self.cache_bytes {
            options = options.cache_bytes(bytes);
        }
        options
    }

    /// Imports everything into a new store at `path`, and closes it.
    pub fn import(&self, input: &Input, path: &Path) -> Result<(), Failure> {
        let store = self.options().open(path)?;
        put_all(input, &store)?;
        Ok(store.close()?)
    }

    /// What the input is, in a few words.
    pub fn title(&self) -> String {
        match &self.data {
            Some(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            None => format!("{} generated, {:?}", self.count, self.generate).to_lowercase(),
        }
    }

    /// The same input, to be given to a process of its own.
    pub fn to_command_line(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut push = |name: &str, value: String| words.extend([format!("--{name}"), value]);
        match &self.data {
            Some(path) => push("data", path.to_string_lossy().into_owned()),
            None => push("generate", format!("{:?}", self.generate).to_lowercase()),
        }
        push("key", self.key.clone());
        push("count", self.count.to_string());
        push("seed", self.seed.to_string());
        push("level", self.level.to_string());
        if let Some(bytes) = self.block_bytes {
            push("block-bytes", bytes.to_string());
        }
        if let Some(bytes) = self.slot_bytes {
            push("slot-bytes", bytes.to_string());
        }
        if let Some(bytes) = self.cache_bytes {
            push("cache-bytes", bytes.to_string());
        }
        if let Some(folder) = &self.folder {
            push("folder", folder.to_string_lossy().into_owned());
        }
        words
    }
}

/// Puts everything into `store`.
pub fn put_all(input: &Input, store: &Store) -> Result<(), Failure> {
    input.for_each(|key, value| Ok(store.set_bytes(key, value)?))
}

impl Input {
    /// How many records there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        match self {
            Self::File(file) => file.records.len() as u64,
            Self::Generated { count, .. } => *count,
        }
    }

    /// Puts record `number` into `record`.
    pub fn record(&self, number: u64, record: &mut Record) {
        match self {
            Self::Generated { generator, .. } => generator.record(number, record),
            Self::File(file) => {
                let (key, value) = file.record(usize::try_from(number).unwrap_or(usize::MAX));
                record.key.clear();
                record.key.extend_from_slice(key);
                record.value.clear();
                record.value.extend_from_slice(value);
            }
        }
    }

    /// Shows all records to `each`, in their order.
    pub fn for_each(
        &self,
        mut each: impl FnMut(&[u8], &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        match self {
            Self::File(file) => (0..file.count()).try_for_each(|number| {
                let (key, value) = file.record(number);
                each(key, value)
            }),
            Self::Generated { generator, count } => {
                let mut record = Record::default();
                (0..*count).try_for_each(|number| {
                    generator.record(number, &mut record);
                    each(&record.key, &record.value)
                })
            }
        }
    }

    /// All records in memory, so that reading them costs what it costs for a file.
    pub fn in_memory(self) -> Result<FileInput, Failure> {
        if let Self::File(file) = self {
            return Ok(file);
        }
        let mut file = FileInput::default();
        self.for_each(|key, value| {
            let start = file.bytes.len();
            file.bytes.extend_from_slice(value);
            file.records.push((key.to_vec(), start..file.bytes.len()));
            Ok(())
        })?;
        Ok(file)
    }
}

impl FileInput {
    /// How many records there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.records.len()
    }

    /// Key and value of record `number`.
    ///
    /// # Panics
    /// Where there is no such record.
    #[must_use]
    pub fn record(&self, number: usize) -> (&[u8], &[u8]) {
        let (key, value) = &self.records[number];
        (key, &self.bytes[value.clone()])
    }

    fn read(path: &Path, field: &str) -> Result<Self, Failure> {
        if path.is_dir() {
            let mut found = Self::default();
            found.add_folder(path, "")?;
            return Ok(found);
        }
        let fail = |what: &str| format!("{}: {what}", path.display());
        let mut bytes = std::fs::read(path).map_err(|error| fail(&error.to_string()))?;
        let mut name = path.to_owned();
        if name.extension().is_some_and(|ending| ending == "zst") {
            bytes = decompress(&bytes).map_err(|what| fail(&what))?;
            name.set_extension("");
        }
        let is_json = match name.extension().and_then(|ending| ending.to_str()) {
            Some("tsv") => false,
            Some("jsonl") => true,
            _ => return Err(fail("neither .tsv nor .jsonl, with or without .zst").into()),
        };
        let (mut records, mut start) = (Vec::new(), 0);
        while start < bytes.len() {
            let left = &bytes[start..];
            let end = start + left.iter().position(|byte| *byte == b'\n').unwrap_or(left.len());
            let line = &bytes[start..end];
            let record = if is_json { json_key(line, field) } else { tsv_key(line) };
            let (key, value_at) =
                record.ok_or_else(|| fail(&format!("no key in line {}", records.len() + 1)))?;
            records.push((key, start + value_at..end));
            start = end + 1;
        }
        drop_superseded(&mut records);
        Ok(Self { bytes, records })
    }

    /// Links are not followed: they may lead round in a circle.
    fn add_folder(&mut self, folder: &Path, prefix: &str) -> Result<(), Failure> {
        let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let key = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.add_folder(&entry.path(), &format!("{key}/"))?;
            } else if kind.is_file() {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(&std::fs::read(entry.path())?);
                self.records.push((key.into_bytes(), start..self.bytes.len()));
            }
        }
        Ok(())
    }
}

/// Of records with the same key, leaves the last one, which is what a store would have.
fn drop_superseded(records: &mut Vec<(Vec<u8>, Range<usize>)>) {
    let mut seen = HashSet::new();
    let is_last: Vec<bool> = records.iter().rev().map(|(key, _)| seen.insert(key)).collect();
    drop(seen);
    let mut is_last = is_last.into_iter().rev();
    records.retain(|_| is_last.next().unwrap_or(true));
}

/// The key of a line, and where in it the value starts.
fn tsv_key(line: &[u8]) -> Option<(Vec<u8>, usize)> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    Some((line[..tab].to_vec(), tab + 1))
}

fn json_key(line: &[u8], field: &str) -> Option<(Vec<u8>, usize)> {
    let object: Value = serde_json::from_slice(line).ok()?;
    match object.get(field)? {
        Value::String(text) => Some((text.clone().into_bytes(), 0)),
        Value::Number(number) => Some((number.to_string().into_bytes(), 0)),
        _ => None,
    }
}

fn decompress(compressed: &[u8]) -> Result<Vec<u8>, String> {
    let mut context = DCtx::create();
    let mut input = InBuffer::around(compressed);
    let mut bytes = Vec::with_capacity(compressed.len() * 6);
    let mut chunk = vec![0; DCtx::out_size()];
    loop {
        let mut output = OutBuffer::around(&mut chunk[..]);
        let left = context
            .decompress_stream(&mut output, &mut input)
            .map_err(|code| zstd_safe::get_error_name(code).to_owned())?;
        let is_full = output.pos() == output.capacity();
        bytes.extend_from_slice(output.as_slice());
        if input.pos() == compressed.len() && !is_full {
            return if left == 0 { Ok(bytes) } else { Err("it is cut short".to_owned()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_they_are_and_compressed() {
        let folder = tempfile::tempdir().unwrap();
        let cases = [
            ("a.tsv", "l\told\nk\tv\tw\nl\t\n"),
            ("a.jsonl", "{\"id\":\"k\",\"x\":1}\n{\"id\":2}"),
        ];
        for (name, text) in cases {
            let plain = folder.path().join(name);
            std::fs::write(&plain, text).unwrap();
            let packed = folder.path().join(format!("{name}.zst"));
            let mut frame = Vec::with_capacity(1000);
            zstd_safe::compress(&mut frame, text.as_bytes(), 3).unwrap();
            std::fs::write(&packed, frame).unwrap();
            for path in [plain, packed] {
                let input = FileInput::read(&path, "id").unwrap();
                let found: Vec<_> = input
                    .records
                    .iter()
                    .map(|(key, value)| (&key[..], &input.bytes[value.clone()]))
                    .collect();
                if name == "a.tsv" {
                    assert_eq!(found, [(&b"k"[..], &b"v\tw"[..]), (b"l", b"")]);
                } else {
                    let lines = [&b"{\"id\":\"k\",\"x\":1}"[..], b"{\"id\":2}"];
                    assert_eq!(found, [(&b"k"[..], lines[0]), (b"2", lines[1])]);
                }
            }
        }
    }

    #[test]
    fn a_folder_gives_its_files_by_their_paths() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        for (name, text) in [("b/c", "two"), ("a", "one"), ("d", "")] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let input = FileInput::read(folder.path(), "id").unwrap();
        let mut found = Vec::new();
        let each = |key: &[u8], value: &[u8]| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        };
        Input::File(input).for_each(each).unwrap();
        let expected = [("a", "one"), ("b/c", "two"), ("d", "")];
        assert_eq!(found, expected.map(|(key, value)| (key.into(), value.into())));
    }
}
