//! Whether what a crash has left is what it may leave.

use std::ops::RangeInclusive;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use zkv::{Durability, ErrorKind, Finding, IndexState, Severity, Store, StoreFile, VerifyReport};
use zkv_io::Storage;
use zkv_sim::{Image, SimDisk};

use super::EXHAUSTIVE;
use super::history::{Before, History};
use super::images::{Depth, Effort, Tally};
use super::model::{self, DEFAULT, Model};
use super::session::{INDEX, STORE, options};
use super::workload::{IndexFile, Place, Workload};

/// What is written behind a crash, to see that the store can go on.
pub const PROBE: &[u8] = b"probe";

/// A collection that is made behind a crash: it must get a number that no other ever had.
const PROBE_PLACE: Place = 9;
const PROBE_TYPE: &str = "probe";

/// The states that may be found.
#[derive(Clone, Debug)]
pub struct Expected<'a> {
    /// What the store held after each commit.
    pub commits: &'a [Model],
    /// Which of them may be the last.
    pub last: RangeInclusive<usize>,
    /// Index files of its past that somebody may put beside the store.
    pub indexes: Vec<&'a Vec<u8>>,
    /// Whether its own index file, if there is one, must be usable: nobody has put another one in its
    /// place, and it was never out of use.
    pub index_is_own: bool,
}

/// Holds an image that has a store against what is expected. Returns how many images that were: with
/// those of a second crash, more than one.
pub fn check(
    workload: &Workload,
    image: &Image,
    expected: &Expected<'_>,
    depth: Depth,
) -> Result<u64, String> {
    caught(|| {
        let disk = SimDisk::from_image(image, workload.seed);
        let store = open(&disk, workload)?;
        let commit = find_commit(&store, expected)?;
        // Reading has written nothing, so that the image is still what the crash has left.
        drop(store);
        let state = &expected.commits[commit];
        match depth {
            Depth::Read => Ok(1),
            Depth::Write => is_undamaged(workload, image, expected.index_is_own)
                .and_then(|()| copy_unchanged(workload, image, state))
                .and_then(|()| write_on(workload, &SimDisk::from_image(image, 7), state))
                .and_then(|()| with_other_indexes(workload, image, state, &expected.indexes))
                .map(|count| 1 + count),
            Depth::CutAgain(times) => Ok(1 + cut_again(workload, image, state, expected, times)?),
        }
    })
}

/// A crash damages nothing: whatever it has torn, no record is lost by it, as verifying sees it. Nor does
/// the store's own index lead to what is gone, so that it is of no use, or count wrong.
fn is_undamaged(workload: &Workload, image: &Image, index_is_own: bool) -> Result<(), String> {
    let verified = verify(workload, image)?;
    if index_is_own && verified.index == IndexState::SetAside {
        return Err(format!("its own index is set aside: {:?}", verified.findings));
    }
    let is_wrong = |finding: &&Finding| {
        // What is counted belongs to what the index file knows: opening would make up for it.
        finding.severity == Severity::Loss || finding.what.contains("the index counts")
    };
    let lost = verified.findings.iter().find(is_wrong);
    lost.map_or(Ok(()), |finding| Err(format!("verifying finds {finding:?}")))
}

fn verify(workload: &Workload, image: &Image) -> Result<VerifyReport, String> {
    let disk = SimDisk::from_image(image, 5);
    let verified = zkv::verify(STORE, options(&disk, workload), |_| ());
    verified.map_err(|error| format!("verifying: {error}"))
}

/// Whether a block of the log is lost, as verifying sees it.
pub fn has_lost(workload: &Workload, image: &Image) -> Result<bool, String> {
    let verified = verify(workload, image)?;
    Ok(verified.findings.iter().any(|finding| finding.severity == Severity::Loss))
}

/// Whoever may only read what a crash has left can make a copy of it, which is the same store, also
/// where its index is lost.
fn copy_unchanged(workload: &Workload, image: &Image, state: &Model) -> Result<(), String> {
    const COPY: &str = "dir/copy.zkv";
    let after = |error| format!("copying what is only read: {error}");
    let disk = SimDisk::from_image(image, 9);
    let open = |path| options(&disk, workload).open_read_only(path);
    let copied = open(STORE).and_then(|store| store.backup(COPY));
    // It has none where the store had none that was of use.
    let _ = disk.remove(Path::new("dir/copy.zkv.idx"));
    let copy = copied.and_then(|()| open(COPY)).map_err(|error| after(error.to_string()))?;
    find_commit(&copy, &only(state)).map_err(after).map(drop)
}

/// Whether the store in an image says that it is damaged, when it is opened or when it is read. What it
/// yields all the same must be values that their keys once had.
pub fn is_told(
    workload: &Workload,
    image: &Image,
    expected: &Expected<'_>,
) -> Result<bool, String> {
    let store = match options(&SimDisk::from_image(image, 1), workload).create(false).open(STORE) {
        Ok(store) => store,
        Err(error) => return Ok(error.kind() == ErrorKind::Corrupt),
    };
    let mut is_told = false;
    let mut note = |place: Place, entry: zkv::Result<(Vec<u8>, Vec<u8>)>| match entry {
        Ok((key, value)) => {
            let mut had = expected.commits.iter().filter_map(|state| state.get(place, &key));
            if had.any(|had| **had == value) {
                Ok(())
            } else {
                Err("a wrong value beside damage".to_owned())
            }
        }
        Err(error) => {
            is_told |= error.kind() == ErrorKind::Corrupt;
            Ok(())
        }
    };
    store.iter_bytes().try_for_each(|entry| note(DEFAULT, entry))?;
    let types = model::types(&store).map_err(|error| error.to_string())?;
    for (place, value_type) in &types {
        let collection = model::open(&store, *place, value_type);
        let entries = collection.and_then(|collection| collection.iter());
        entries.map_err(|error| error.to_string())?.try_for_each(|entry| note(*place, entry))?;
    }
    Ok(is_told)
}

/// Holds a backup against the state that it was made of.
pub fn check_backup(
    workload: &Workload,
    image: &Image,
    path: &Path,
    state: &Model,
) -> Result<(), String> {
    caught(|| {
        let disk = SimDisk::from_image(image, 1);
        let opened = options(&disk, workload).open_read_only(path);
        let store = opened.map_err(|error| format!("the backup does not open: {error}"))?;
        find_commit(&store, &only(state)).map_err(|error| format!("the backup: {error}"))?;
        Ok(())
    })
}

fn caught<T>(attempt: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    let done = panic::catch_unwind(AssertUnwindSafe(attempt));
    done.unwrap_or_else(|_| Err("a panic, printed above".to_owned()))
}

fn open(disk: &SimDisk, workload: &Workload) -> Result<Store, String> {
    let options = options(disk, workload).durability(Durability::Synced).create(false);
    options.open(STORE).map_err(|error| format!("it does not open: {error}"))
}

/// The commit whose state the store has.
fn find_commit(store: &Store, expected: &Expected<'_>) -> Result<usize, String> {
    let found = Model::of(store).map_err(|error| error.to_string())?;
    let last = expected.last.clone();
    let Some(commit) = last.rev().find(|commit| expected.commits[*commit] == found) else {
        let place = expected.commits.iter().position(|state| *state == found);
        let place = place.map_or("no commit".to_owned(), |commit| format!("commit {commit}"));
        return Err(format!("the state is that of {place}, not of {:?}", expected.last));
    };
    let got = Model::read(store, expected.commits.iter());
    if got.map_err(|error| format!("get: {error}"))? != found {
        return Err("a get and the iteration differ".to_owned());
    }
    Ok(commit)
}

fn only<'a>(state: &'a Model) -> Expected<'a> {
    let commits = std::slice::from_ref(state);
    Expected { commits, last: 0..=0, indexes: Vec::new(), index_is_own: false }
}

/// Whatever has become of the index file, the store is the same: without it, and with any that it ever
/// had. Returns how many images were tried.
fn with_other_indexes(
    workload: &Workload,
    image: &Image,
    state: &Model,
    indexes: &[&Vec<u8>],
) -> Result<u64, String> {
    let without = ("without the index", None);
    let older = indexes.iter().map(|index| ("with an older index", Some(*index)));
    for (number, (what, index)) in std::iter::once(without).chain(older).enumerate() {
        let after = |error| format!("{what}: {error}");
        let image = with_index(image, index);
        let index = if workload.index.is_used() { workload.index } else { IndexFile::Rewritten };
        let indexed = Workload { index, ..workload.clone() };
        let store = open(&SimDisk::from_image(&image, 11), &indexed).map_err(after)?;
        find_commit(&store, &only(state)).map_err(after)?;
        drop(store);
        // The oldest has most to be wrong about.
        if number == 1 {
            write_on(&indexed, &SimDisk::from_image(&image, 13), state).map_err(after)?;
        }
    }
    Ok(1 + indexes.len() as u64)
}

fn with_index(image: &Image, index: Option<&Vec<u8>>) -> Image {
    let mut image = image.clone();
    match index {
        Some(bytes) => image.insert(INDEX, bytes.clone()),
        None => image.remove(Path::new(INDEX)),
    }
    image
}

/// What another process may do after a crash: it writes, closes, and finds everything again, with the
/// index file and without.
fn write_on(workload: &Workload, disk: &SimDisk, state: &Model) -> Result<(), String> {
    let after = |what: &'static str| move |error| format!("{what}: {error}");
    let state = with_probe(state);
    let store = open(disk, workload)?;
    // Before anything that is written makes up for it.
    let verified = store.verify(|_| ()).map_err(|error| format!("verifying: {error}"))?;
    let is_of_index =
        |finding: &&Finding| finding.file == StoreFile::Index || finding.what.contains("the index");
    if let Some(finding) = verified.findings.iter().find(is_of_index) {
        return Err(format!("verifying what was opened finds {finding:?}"));
    }
    let probed = store.set_bytes(PROBE, b"1").and_then(|()| {
        let made = model::open(&store, PROBE_PLACE, PROBE_TYPE)?;
        made.set(PROBE, &b"1".to_vec())
    });
    probed.map_err(|error| format!("a write behind it: {error}"))?;
    find_commit(&store, &only(&state)).map_err(after("a write behind it"))?;
    store.close().map_err(|error| format!("closing: {error}"))?;
    let store = open(disk, workload).map_err(after("a second opening"))?;
    find_commit(&store, &only(&state)).map_err(after("a second opening"))?;
    let verified = store.verify(|_| ()).map_err(|error| format!("verifying: {error}"))?;
    if !verified.is_sound() || !verified.findings.is_empty() {
        return Err(format!("verifying finds {:?}", verified.findings));
    }
    drop(store);
    // There is none where the store keeps none.
    let _ = disk.remove(Path::new(INDEX));
    let store = open(disk, workload).map_err(after("without the index"))?;
    find_commit(&store, &only(&state)).map_err(after("without the index"))?;
    Ok(())
}

fn with_probe(state: &Model) -> Model {
    let mut state = state.clone();
    state.types.insert(PROBE_PLACE, PROBE_TYPE.to_owned());
    for place in [DEFAULT, PROBE_PLACE] {
        state.set(place, PROBE.to_vec(), b"1".to_vec());
    }
    state
}

/// Goes on with the store of an image, under another workload, and cuts the power within that. In one
/// of two the oldest index file has come back before. Returns how many images were tried.
fn cut_again(
    workload: &Workload,
    image: &Image,
    state: &Model,
    expected: &Expected<'_>,
    times: u32,
) -> Result<u64, String> {
    let (next, tally) = (workload.next_life(times), Tally::default());
    let oldest = expected.indexes.first().filter(|_| next.seed.is_multiple_of(2));
    let replaced = oldest.map(|index| with_index(image, Some(index)));
    let image = replaced.as_ref().unwrap_or(image);
    let before = Before {
        index_is_own: expected.index_is_own && replaced.is_none(),
        indexes: expected.indexes.iter().map(|index| index.to_vec()).collect(),
    };
    let effort = Effort { cuts_most: 5, crashes_most: times, last_only: false, ..EXHAUSTIVE };
    let gone_on = History::behind_crash(&next, image, state, &before)
        .and_then(|history| history.cut_everywhere(effort, &tally));
    gone_on.map_err(|error| format!("{error}\n  in another life, {next}, which began"))?;
    Ok(tally.images.into_inner())
}
