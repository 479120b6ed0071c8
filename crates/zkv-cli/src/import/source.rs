//! What there is to import, and how it is to be read.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use crate::arguments::{Import, ImportFormat, Types};
use crate::failure::Failure;
use crate::types::Type;

/// One source.
#[derive(Debug, PartialEq)]
pub enum Source {
    /// A folder, each file of which is a record.
    Folder(PathBuf),
    /// A file that is a record.
    File(PathBuf),
    /// A file, or standard input, each line of which is a record.
    Lines { input: Input, split: Split },
}

impl Source {
    /// Whether it holds what was exported, which may be the bytes of any type.
    pub fn has_pairs(&self) -> bool {
        matches!(self, Self::Lines { split: Split::InPair, .. })
    }

    fn has_lines(&self) -> bool {
        matches!(self, Self::Lines { .. })
    }

    fn has_fields(&self) -> bool {
        matches!(self, Self::Lines { split: Split::InField(_), .. })
    }
}

/// Where lines come from.
#[derive(Debug, PartialEq)]
pub enum Input {
    File(PathBuf),
    StandardInput,
}

/// Where the key of a line is.
#[derive(Debug, PartialEq)]
pub enum Split {
    /// Before the first tab.
    AtTab,
    /// In this field of a JSON object.
    InField(String),
    /// In an object with a key and a value, as `zkv export` writes it.
    InPair,
}

impl Input {
    /// What messages call it.
    pub fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::StandardInput => "standard input".to_owned(),
        }
    }

    /// Opens it. Callers read in large pieces, so it is not buffered.
    pub fn open(&self) -> Result<Box<dyn Read>, Failure> {
        match self {
            Self::File(path) => match File::open(path) {
                Ok(file) => Ok(Box::new(file)),
                Err(error) => Err(Failure::file(path, error)),
            },
            Self::StandardInput => Ok(Box::new(io::stdin())),
        }
    }
}

/// The sources that `arguments` name, none of them read yet.
pub fn check(arguments: &Import) -> Result<Vec<Source>, Failure> {
    let sources = arguments.sources.iter().map(|path| source_of(path, arguments));
    let sources: Vec<Source> = sources.collect::<Result<_, _>>()?;
    if arguments.key.is_some() && !sources.iter().any(Source::has_fields) {
        return Err(Failure::Usage(
            "--key names a field of JSON lines, and none of the sources has any; the key of a line of a \
             tsv file is what stands before its first tab"
                .to_owned(),
        ));
    }
    if arguments.skip_lines > 0 && !sources.iter().any(Source::has_lines) {
        return Err(Failure::Usage(
            "--skip-lines is for tsv and jsonl: none of the sources is read by its lines"
                .to_owned(),
        ));
    }
    let Types { key_type, value_type, .. } = &arguments.types;
    let is_other = |given: &Option<Type>| given.is_some_and(|given| given != Type::Bytes);
    let has_types = is_other(key_type) || is_other(value_type);
    if has_types && sources.iter().any(Source::has_pairs) {
        return Err(Failure::Usage(
            "pairs hold what is stored, so that --key-type and --value-type are not for them; of other JSON \
             lines, --key names the field that is the key"
                .to_owned(),
        ));
    }
    Ok(sources)
}

fn source_of(path: &Path, arguments: &Import) -> Result<Source, Failure> {
    let usage = |problem: &str| Failure::Usage(format!("{}: {problem}", path.display()));
    let (input, is_folder) = if path == Path::new("-") {
        (Input::StandardInput, false)
    } else {
        let metadata = fs::metadata(path).map_err(|error| Failure::file(path, error))?;
        (Input::File(path.to_owned()), metadata.is_dir())
    };
    let format = match arguments.format {
        ImportFormat::Auto if is_folder => ImportFormat::Files,
        ImportFormat::Auto if input == Input::StandardInput => {
            return Err(usage("standard input has no name that tells the format; use --format tsv or jsonl"));
        }
        ImportFormat::Auto => format_by_name(path).ok_or_else(|| {
            usage(
                "the name does not tell the format: --format tsv or jsonl reads records from its lines, \
                 --format files stores the file itself, under its name",
            )
        })?,
        format => format,
    };
    match (format, input) {
        (ImportFormat::Files, Input::StandardInput) => {
            Err(usage("standard input is no file; use --format tsv or jsonl"))
        }
        (ImportFormat::Files, Input::File(path)) if is_folder => Ok(Source::Folder(path)),
        (ImportFormat::Files, Input::File(path)) => Ok(Source::File(path)),
        _ if is_folder => Err(usage("a folder is imported with --format files")),
        (ImportFormat::Tsv, input) => Ok(Source::Lines { input, split: Split::AtTab }),
        (_, input) => match &arguments.key {
            Some(field) => Ok(Source::Lines { input, split: Split::InField(field.clone()) }),
            None => Ok(Source::Lines { input, split: Split::InPair }),
        },
    }
}

fn format_by_name(path: &Path) -> Option<ImportFormat> {
    match path.extension().and_then(OsStr::to_str) {
        Some("tsv") => Some(ImportFormat::Tsv),
        Some("jsonl" | "ndjson") => Some(ImportFormat::Jsonl),
        _ => None,
    }
}

/// How much there is to read, for the progress bar; `None` where that cannot be known.
pub fn total_bytes(sources: &[Source]) -> Option<u64> {
    sources.iter().map(source_bytes).sum()
}

fn source_bytes(source: &Source) -> Option<u64> {
    match source {
        Source::Lines { input: Input::StandardInput, .. } => None,
        Source::File(path) | Source::Lines { input: Input::File(path), .. } => {
            // A pipe has no length.
            fs::metadata(path).ok().filter(fs::Metadata::is_file).map(|metadata| metadata.len())
        }
        Source::Folder(folder) => {
            let files = WalkDir::new(folder).into_iter().flatten();
            let files = files.filter(|entry| entry.file_type().is_file());
            Some(files.filter_map(|entry| entry.metadata().ok()).map(|found| found.len()).sum())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Compression, Settings, Waits};

    fn check_one(source: &str, format: ImportFormat, key: Option<&str>) -> Result<Source, String> {
        let arguments = Import {
            store: "s.zkv".into(),
            sources: vec![source.into()],
            format,
            key: key.map(str::to_owned),
            skip_lines: 0,
            types: Types { collection: None, key_type: None, value_type: None },
            compression: Compression { settings: Settings::Balanced, level: None },
            durability: Waits::Buffered,
            acknowledge: None,
            atomic: false,
            slot_bytes: None,
            no_create: false,
        };
        let mut sources = check(&arguments).map_err(|failure| failure.to_string())?;
        Ok(sources.remove(0))
    }

    #[test]
    fn standard_input_needs_a_format() {
        let lines = |split| Ok(Source::Lines { input: Input::StandardInput, split });
        assert_eq!(check_one("-", ImportFormat::Tsv, None), lines(Split::AtTab));
        let by_id = lines(Split::InField("id".to_owned()));
        assert_eq!(check_one("-", ImportFormat::Jsonl, Some("id")), by_id);
        for format in [ImportFormat::Auto, ImportFormat::Files] {
            assert!(check_one("-", format, None).unwrap_err().contains("--format"));
        }
        assert_eq!(check_one("-", ImportFormat::Jsonl, None), lines(Split::InPair));
    }

    #[test]
    fn a_field_that_nothing_has_is_refused() {
        let problem = check_one("-", ImportFormat::Tsv, Some("id")).unwrap_err();
        assert!(problem.contains("--key"), "{problem}");
    }

    #[test]
    fn the_name_tells_the_format() {
        let names = [
            ("a.tsv", Some(ImportFormat::Tsv)),
            ("a.b/c.jsonl", Some(ImportFormat::Jsonl)),
            ("a.ndjson", Some(ImportFormat::Jsonl)),
            ("tsv", None),
            ("a.json", None),
        ];
        for (name, expected) in names {
            assert_eq!(format_by_name(Path::new(name)), expected, "{name}");
        }
    }
}
