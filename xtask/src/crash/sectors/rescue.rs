//! What is made of a store that nobody has open: it is verified and salvaged, beside bad sectors and without.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use zkv::{SalvageEvent, Severity, Store};
use zkv_sim::{BadSector, Image, SimDisk};

use super::super::model::{self, DEFAULT, Model};
use super::super::session::{INDEX, STORE, options};
use super::super::workload::Workload;
use super::seen::{Key, Known, Seen, is_of_disk, name};
use super::spoil;

const SALVAGED: &str = "dir/salvaged.zkv";

/// A store on a disk.
pub struct Found<'a> {
    pub workload: &'a Workload,
    pub image: &'a Image,
    /// Of the data file, and of the index file.
    pub bad: &'a [(&'static str, Vec<BadSector>)],
    /// What it holds.
    pub model: &'a Model,
    pub known: &'a Known,
    /// It may have what a power cut has torn, or records of a call that has failed, which count for nothing.
    pub is_unwiped: bool,
}

impl Found<'_> {
    pub fn is_bad(&self) -> bool {
        self.bad.iter().any(|(_, sectors)| !sectors.is_empty())
    }

    pub fn disk(&self, seed: u64) -> SimDisk {
        let disk = SimDisk::from_image(self.image, seed);
        for (path, sectors) in self.bad {
            // There may be no index file.
            let _ = disk.set_bad_sectors(Path::new(path), sectors.clone());
        }
        disk
    }

    pub fn verify(&self) -> Result<(), String> {
        let disk = self.disk(3);
        match zkv::verify(STORE, options(&disk, self.workload), |_| ()) {
            Err(error) if self.is_bad() && is_of_disk(&error) => Ok(()),
            Err(error) => Err(format!("verifying: {error}")),
            // Known flaw: of a place that could not be read when its key was overwritten, `verify` tells.
            Ok(_) if self.is_bad() || !self.known.stale.is_empty() => Ok(()),
            Ok(report) => {
                let mut findings = report.findings.iter();
                match findings.find(|finding| finding.severity == Severity::Loss) {
                    Some(finding) => Err(format!("verifying a good disk finds {finding:?}")),
                    None => Ok(()),
                }
            }
        }
    }

    /// Salvages it. All that is not marked as doubtful is the newest; `seen` is what opening it there has
    /// yielded, of which salvage brings everything.
    pub fn salvage(&self, seen: Option<&Seen>) -> Result<(), String> {
        let disk = self.disk(5);
        let mut doubtful = BTreeSet::new();
        let salvaged = zkv::salvage(STORE, SALVAGED, options(&disk, self.workload), |event| {
            if let SalvageEvent::PossiblySuperseded { key, .. } = event {
                doubtful.insert(key.to_vec());
            }
        });
        let report = match salvaged {
            Ok(report) => report,
            Err(error) if self.is_bad() && is_of_disk(&error) => return Ok(()),
            Err(error) => return Err(format!("salvage: {error}")),
        };
        let after = |error: String| format!("salvage: {error}; {report:?}");
        let opened = options(&disk, self.workload).open(SALVAGED);
        let store = opened.map_err(|error| after(error.to_string()))?;
        let found = contents(&store).map_err(|error| after(error.to_string()))?;
        let is_complete = report.is_complete() && report.recovered_collections == 0;
        for (key, value) in &found.entries {
            if self.model.entries.get(key) == Some(value) || self.is_confused(key) {
                continue;
            }
            if !self.known.had(key, value) {
                return Err(after(format!("{} has a value that it never had", name(key))));
            }
            // Known flaw: "What a power cut has torn and could not be wiped".
            let may_be_back = self.is_unwiped && self.known.was_taken(key, value);
            if !doubtful.contains(&stored(key)) && !may_be_back {
                let newest = self.model.entries.get(key).map(|newest| newest.len());
                let what = format!("{}, of {} bytes, is not the newest", name(key), value.len());
                return Err(after(format!("{what}, of {newest:?}, without a word")));
            }
        }
        let lacks = |key: &&Key| !found.entries.contains_key(*key) && !self.is_confused(key);
        let lacking = self.model.entries.keys().find(lacks);
        if let Some(key) = lacking.filter(|_| is_complete || !self.is_bad()) {
            return Err(after(format!("{} is missing, without a word", name(key))));
        }
        if is_complete && found.types != self.model.types {
            return Err(after(format!("collections are {:?}", found.types)));
        }
        let alarm = report.lost_blocks + report.missing_segments + report.possibly_superseded;
        // Salvage brings none of them, and says that they are there. Known flaw: "What a power cut has torn and
        // could not be wiped".
        let is_told_so = report.uncommitted_records > 0 || report.lost_seals > 0;
        let may_alarm = self.is_bad() || self.is_unwiped && is_told_so;
        if !may_alarm && (alarm > 0 || !is_complete) {
            return Err(after("an alarm on a good disk".to_owned()));
        }
        let readable = seen.into_iter().flat_map(|seen| &seen.got);
        let mut readable = readable.filter(|(_, got)| matches!(got, Ok(Some(_))));
        // One whose name is lost may be a collection that is called otherwise.
        let is_named = |key: &Key| key.0 == DEFAULT || report.recovered_collections == 0;
        let is_there = |key: &Key| is_named(key) && self.model.entries.contains_key(key);
        let is_missing = |key: &Key| is_there(key) && lacks(&key);
        // Known flaw: "Where the system gives a part of a page, of which a sector cannot be read, [...]
        // salvage takes all of it but a seal for lost".
        let has_parts = self.bad.iter().any(|(_, bad)| spoil::has_parts_of_pages(bad));
        match readable.find(|(key, _)| !has_parts && is_missing(key)) {
            Some((key, _)) => Err(after(format!("{} is missing, and can be read", name(key)))),
            None => Ok(()),
        }
    }

    /// Known flaw: what a stale place in the index leads to is there again, and a cleaning moves it.
    fn is_confused(&self, key: &Key) -> bool {
        self.known.has_moved_stale && self.known.stale.contains(key)
    }
}

/// A key's bytes as the store has them: a collection's keys are typed, and start with their length.
fn stored((place, key): &Key) -> Vec<u8> {
    let len = u8::try_from(key.len()).ok().filter(|_| *place != DEFAULT);
    len.into_iter().chain(key.iter().copied()).collect()
}

/// What a salvaged store holds, but for collections without their names.
fn contents(store: &Store) -> Result<Model, super::super::session::Trouble> {
    let mut found = Model::default();
    for entry in store.iter_bytes() {
        found.take(DEFAULT, entry)?;
    }
    for info in store.collections() {
        let Some(place) = info.name.strip_prefix('c').and_then(|number| number.parse().ok()) else {
            continue;
        };
        for entry in model::open(store, place, &info.value_type)?.iter()? {
            found.take(place, entry)?;
        }
        found.types.insert(place, info.value_type);
    }
    Ok(found)
}

/// The image with another index file, or without one.
pub fn with_index(image: &Image, index: Option<&Arc<Vec<u8>>>) -> Image {
    let mut image = image.clone();
    match index {
        Some(bytes) => image.insert(INDEX, bytes.to_vec()),
        None => image.remove(Path::new(INDEX)),
    }
    image
}
