//! Whether what a crash has left is what it may leave.

use std::ops::RangeInclusive;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;

use zkv::{Durability, ErrorKind, Severity, Store};
use zkv_io::Storage;
use zkv_sim::{Image, SimDisk};

use super::history::History;
use super::images::{Depth, Effort, Tally};
use super::model::{self, DEFAULT, Model};
use super::session::{INDEX, STORE, options};
use super::workload::{Place, Workload};

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
            Depth::Write => is_undamaged(workload, image)
                .and_then(|()| write_on(workload, &SimDisk::from_image(image, 7), state))
                .map(|()| 1),
            Depth::CutAgain(times) => Ok(1 + cut_again(workload, image, state, times)?),
        }
    })
}

/// A crash damages nothing: whatever it has torn, no record is lost by it, as verifying sees it.
fn is_undamaged(workload: &Workload, image: &Image) -> Result<(), String> {
    let disk = SimDisk::from_image(image, 5);
    let verified = zkv::verify(STORE, &options(&disk, workload), |_| ());
    let verified = verified.map_err(|error| format!("verifying: {error}"))?;
    let lost = verified.findings.iter().find(|finding| finding.severity == Severity::Loss);
    lost.map_or(Ok(()), |finding| Err(format!("verifying finds {finding:?}")))
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
        let expected = Expected { commits: std::slice::from_ref(state), last: 0..=0 };
        find_commit(&store, &expected).map(|_| ()).map_err(|error| format!("the backup: {error}"))
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
    Expected { commits: std::slice::from_ref(state), last: 0..=0 }
}

/// What another process may do after a crash: it writes, closes, and finds everything again, with the
/// index file and without.
fn write_on(workload: &Workload, disk: &SimDisk, state: &Model) -> Result<(), String> {
    let after = |what: &'static str| move |error| format!("{what}: {error}");
    let state = with_probe(state);
    let store = open(disk, workload)?;
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

/// Goes on with the store of an image, under another workload, and cuts the power within that. Returns
/// how many images were tried.
fn cut_again(workload: &Workload, image: &Image, state: &Model, times: u32) -> Result<u64, String> {
    let (next, tally) = (workload.next_life(times), Tally::default());
    let effort = Effort {
        cuts_most: 5,
        write_one_in: 8,
        cut_one_in: 8,
        crashes_most: times,
        last_only: false,
    };
    let gone_on = History::behind_crash(&next, image, state)
        .and_then(|history| history.cut_everywhere(effort, &tally));
    gone_on.map_err(|error| format!("{error}\n  in another life, {next}, which began"))?;
    Ok(tally.images.into_inner())
}
