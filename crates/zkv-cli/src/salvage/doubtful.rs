//! The keys that a salvage is not certain of, one a line.

use std::path::Path;

use zkv::SalvageEvent;

use crate::arguments::Salvage;
use crate::failure::Failure;
use crate::json;
use crate::output::{Output, check_is_not_store, named_file};
use crate::store::would_be_file_of;

/// The file that `--doubtful` names, as it grows.
pub struct Doubtful<'a> {
    path: Option<&'a Path>,
    /// The salvage goes on behind a line that cannot be written.
    output: Result<Option<Output>, Failure>,
}

impl<'a> Doubtful<'a> {
    /// Opens the file, if one is asked for. Wrong usage is found before a salvage, which takes its time.
    pub fn open(arguments: &'a Salvage) -> Result<Self, Failure> {
        let Some(path) = arguments.doubtful.as_deref() else {
            return Ok(Self { path: None, output: Ok(None) });
        };
        if named_file(Some(path)).is_none() {
            let problem = "--doubtful needs a file: the report goes to standard output";
            return Err(Failure::Usage(problem.to_owned()));
        }
        if would_be_file_of(&arguments.destination, path) {
            let problem = format!("{}: this is to be the new store itself", path.display());
            return Err(Failure::Usage(problem));
        }
        let output = Output::open(Some(path), &arguments.store)?;
        Ok(Self { path: Some(path), output: Ok(Some(output)) })
    }

    /// Writes the line of `event`, if it has one.
    pub fn take(&mut self, event: &SalvageEvent<'_>) {
        let (name, key) = match event {
            SalvageEvent::PossiblySuperseded { key, .. } => ("possibly-superseded", *key),
            SalvageEvent::IncompleteValue { key, .. } => ("incomplete-value", *key),
            _ => return,
        };
        let Ok(Some(output)) = &mut self.output else { return };
        let written = output.write_with(|mut into| {
            json::event_into(name, key, &mut into)?;
            into.write_all(b"\n")
        });
        if let Err(failure) = written {
            self.output = Err(failure);
        }
    }

    /// Puts the whole file in its place, beside the new store, which is there by now.
    pub fn finish(self, destination: &Path) -> Result<(), Failure> {
        let (Some(path), Some(output)) = (self.path, self.output?) else { return Ok(()) };
        // Systems differ in what they take for one name.
        check_is_not_store(path, destination)?;
        output.finish()
    }
}
