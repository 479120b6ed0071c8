//! What a store may hold after something went wrong: what it held behind one of the operations, and
//! none before the last one that was acknowledged.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use zkv::Store;

use crate::torture::workload::{Operation, Values};

/// Keys, and the operations that set them.
pub type State = BTreeMap<String, u64>;

/// What the store is known to hold.
#[derive(Clone, Debug)]
pub struct Model {
    pub values: Values,
    pub state: State,
}

impl Model {
    /// An empty store's.
    pub fn new(seed: u64) -> Self {
        Self { values: Values::new(seed), state: State::new() }
    }

    /// Holds the store at `path` against what is known and a run of `operations`, the first
    /// `acknowledged` of which must have happened. What is found is known from then on. Returns how
    /// many happened.
    ///
    /// A store that does not exist is an empty one.
    pub fn check(
        &mut self,
        path: &Path,
        operations: &[Operation],
        acknowledged: usize,
    ) -> Result<usize, String> {
        let found = if path.exists() { self.read(path)? } else { State::new() };
        let count = self.position(&found, operations, acknowledged)?;
        self.state = found;
        Ok(count)
    }

    /// Holds a copy against what is known: it is whole or absent, and there where its making was said to be
    /// done.
    pub fn check_copy(&self, copy: &Path, is_done: bool) -> Result<(), String> {
        if !copy.exists() {
            return if is_done { Err("the copy that was made is missing".into()) } else { Ok(()) };
        }
        let checked = self.clone().check(copy, &[], 0);
        checked.map(drop).map_err(|problem| format!("the copy: {problem}"))
    }

    /// How many of `operations` lead from what is known to `found`.
    fn position(
        &self,
        found: &State,
        operations: &[Operation],
        acknowledged: usize,
    ) -> Result<usize, String> {
        let mut state = self.state.clone();
        let differs = |state: &State, key: &str| state.get(key) != found.get(key);
        let keys: BTreeSet<&str> = state.keys().chain(found.keys()).map(String::as_str).collect();
        let mut different: BTreeSet<String> =
            keys.into_iter().filter(|key| differs(&state, key)).map(str::to_owned).collect();
        let mut nearest: Option<(usize, usize, String)> = None;
        for count in 0..=operations.len() {
            if count > 0 {
                let key = apply(&mut state, &operations[count - 1]);
                if differs(&state, key) {
                    different.insert(key.to_owned());
                } else {
                    different.remove(key);
                }
            }
            if acknowledged <= count {
                if different.is_empty() {
                    return Ok(count);
                }
                if nearest.as_ref().is_none_or(|(least, ..)| different.len() < *least) {
                    let example = different.first().map_or("", String::as_str);
                    let (expected, found) = (state.get(example), found.get(example));
                    let example = format!("{example} is {found:?} and not {expected:?}");
                    nearest = Some((different.len(), count, example));
                }
            }
        }
        let (least, count, example) = nearest.unwrap_or_default();
        Err(format!(
            "the store is that behind none of {} operations, {acknowledged} of them acknowledged: \
             {least} keys differ from that behind {count}, {example}",
            operations.len()
        ))
    }

    /// Everything in the store at `path`, in two ways: all at once, and key by key.
    fn read(&self, path: &Path) -> Result<State, String> {
        let read = catch_unwind(AssertUnwindSafe(|| self.read_all(path)));
        read.unwrap_or_else(|_| Err("reading the store panics".to_owned()))
    }

    fn read_all(&self, path: &Path) -> Result<State, String> {
        let failed = |what: &str, error: zkv::Error| format!("{what}: {error}");
        let store = Store::open_read_only(path).map_err(|error| failed("opening", error))?;
        let mut state = State::new();
        for entry in store.iter_bytes() {
            let (key, value) = entry.map_err(|error| failed("iterating", error))?;
            let key = String::from_utf8(key).map_err(|_| "a key that nobody wrote".to_owned())?;
            let number = self.values.number_of(&value);
            let number = number.ok_or_else(|| format!("a wrong value for {key}"))?;
            if state.insert(key.clone(), number).is_some() {
                return Err(format!("{key} comes twice in an iteration"));
            }
        }
        if store.len() != state.len() as u64 {
            return Err(format!("{} keys counted, {} found", store.len(), state.len()));
        }
        let known: BTreeSet<&String> = self.state.keys().chain(state.keys()).collect();
        for key in known {
            let value = store.get_bytes(key.as_bytes()).map_err(|error| failed("a get", error))?;
            let number = value.as_deref().map(|value| self.values.number_of(value));
            if number != state.get(key).map(|&number| Some(number)) {
                return Err(format!("a get and the iteration disagree about {key}"));
            }
        }
        Ok(state)
    }
}

/// Does `operation`, and returns its key.
fn apply<'a>(state: &mut State, operation: &'a Operation) -> &'a str {
    match operation {
        Operation::Set { key, number } => {
            state.insert(key.clone(), *number);
            key
        }
        Operation::Delete { key } => {
            state.remove(key);
            key
        }
    }
}

/// What lies in `folder` and is neither the store `name` nor its index.
pub fn left_behind(folder: &Path, name: &str) -> Result<(), String> {
    let entries = std::fs::read_dir(folder).map_err(|error| error.to_string())?;
    let found = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let index = format!("{name}.idx");
    match found
        .filter(|found| found.starts_with(name))
        .find(|found| found != name && *found != index)
    {
        None => Ok(()),
        Some(found) => Err(format!("{found} is left behind by a run that came to its end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, number: u64) -> Operation {
        Operation::Set { key: key.to_owned(), number }
    }

    fn delete(key: &str) -> Operation {
        Operation::Delete { key: key.to_owned() }
    }

    fn state(pairs: &[(&str, u64)]) -> State {
        pairs.iter().map(|(key, number)| ((*key).to_owned(), *number)).collect()
    }

    /// Where `found` lies among four operations on a store that holds `a` and `b`.
    fn check(found: &[(&str, u64)], acknowledged: usize, expected: Option<usize>) {
        let model = Model { state: state(&[("a", 1), ("b", 2)]), ..Model::new(0) };
        let operations = [set("a", 3), delete("b"), set("c", 4), delete("a")];
        let position = model.position(&state(found), &operations, acknowledged);
        assert_eq!(position.ok(), expected, "{found:?} {acknowledged}");
    }

    #[test]
    fn a_prefix_that_holds_what_was_acknowledged_passes() {
        check(&[("a", 1), ("b", 2)], 0, Some(0));
        check(&[("a", 3), ("b", 2)], 1, Some(1));
        check(&[("a", 3)], 0, Some(2));
        check(&[("a", 3), ("c", 4)], 2, Some(3));
        check(&[("c", 4)], 4, Some(4));
    }

    #[test]
    fn losses_gaps_and_returns_do_not_pass() {
        // What was acknowledged is lost.
        check(&[("a", 1), ("b", 2)], 1, None);
        check(&[("a", 3), ("c", 4)], 4, None);
        // The third without the second; the second without the first.
        check(&[("a", 3), ("b", 2), ("c", 4)], 0, None);
        check(&[("a", 1)], 0, None);
        // A value that was replaced before, and one that was never written.
        check(&[("a", 1), ("c", 4)], 0, None);
        check(&[("a", 3), ("c", 9)], 0, None);
    }

    #[test]
    fn a_store_is_read_and_becomes_what_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("s.zkv");
        let mut model = Model::new(5);
        let operations = [set("a", 0), set("b", 1)];
        assert_eq!(model.check(&path, &operations, 0), Ok(0));
        assert!(model.check(&path, &operations, 1).is_err());
        let store = Store::open(&path).unwrap();
        store.set_bytes(b"a", &model.values.get(0)).unwrap();
        store.close().unwrap();
        assert_eq!(model.check(&path, &operations, 1), Ok(1));
        assert_eq!(model.state, state(&[("a", 0)]));
        assert_eq!(left_behind(folder.path(), "s.zkv"), Ok(()));
        let copy = folder.path().join("copy.zkv");
        assert_eq!(model.check_copy(&copy, false), Ok(()));
        for known in [&model, &Model::new(5)] {
            assert!(known.check_copy(&copy, true).is_err());
        }
        std::fs::copy(&path, &copy).unwrap();
        assert_eq!(model.check_copy(&copy, true), Ok(()));
        assert!(Model::new(5).check_copy(&copy, false).is_err());

        let store = Store::open(&path).unwrap();
        store.set_bytes(b"b", b"1:something else").unwrap();
        store.close().unwrap();
        assert_eq!(model.check(&path, &operations, 1), Err("a wrong value for b".to_owned()));
        std::fs::write(folder.path().join("s.zkv.1.zkv-tmp"), "").unwrap();
        assert!(left_behind(folder.path(), "s.zkv").is_err());
    }
}
