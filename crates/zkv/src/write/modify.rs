//! Writes to one key: blind ones, and those that depend on what the key had.

use std::sync::Arc;

use zkv_record::check_key;

use crate::error::{Error, Result};
use crate::metadata::catalog::DEFAULT;
use crate::options::Durability;
use crate::read::view::{KeyRef, Moment};
use crate::shared::Shared;
use crate::store::Store;
use crate::write::recent::{Reads, Tick};
use crate::write::write_set::{CollectionState, Condition, Numbered, Write, WriteSet};

/// How often a write that depends on its key is tried before it counts as a conflict: of others that write to
/// the key somebody succeeds each time, so that only one which its own closure makes gets so far.
const ATTEMPTS_MAX: u32 = 10_000;

/// A collection that is written to.
#[derive(Clone, Copy)]
pub(crate) enum Target<'a> {
    Default,
    Named(&'a Arc<CollectionState>),
    /// One that nobody else knows yet.
    Number(u32),
}

/// What becomes of a key.
pub(crate) enum Fate {
    Keep,
    Set(Vec<u8>),
    Delete,
}

/// A transaction's beginning: what is written since is kept in mind until this is dropped.
pub(crate) struct Begun {
    shared: Arc<Shared>,
    pub since: Tick,
}

impl Target<'_> {
    /// Its number now, and what has to stay so.
    #[inline]
    fn now(self) -> Result<(u32, Vec<Numbered>)> {
        match self {
            Self::Default => Ok((DEFAULT, Vec::new())),
            Self::Number(id) => Ok((id, Vec::new())),
            Self::Named(state) => {
                let numbered = Numbered::now(state)?;
                Ok((numbered.id, vec![numbered]))
            }
        }
    }
}

impl Begun {
    /// Begins, and gives the moment of that.
    pub(crate) fn now(shared: &Arc<Shared>) -> (Self, Moment) {
        let mut front = shared.front();
        // Nothing is published meanwhile.
        (Self { shared: Arc::clone(shared), since: front.recent.begin() }, shared.now())
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.shared.front().recent.end(self.since);
    }
}

impl Store {
    /// Gives a key a value, whatever it had.
    pub(crate) fn set_in(&self, target: Target<'_>, key: &[u8], value: &[u8]) -> Result<()> {
        let shared = self.shared();
        let durability = shared.options.durability;
        self.before_writing(durability)?;
        check_key(key)?;
        shared.check_value_bytes(value.len() as u64)?;
        loop {
            let (id, collections) = target.now()?;
            let mut write = Write::put(shared.key(id, key), value, shared.inline_bytes_max());
            let committed = if !write.is_record() {
                shared.wait_to_commit(|| value.len() as u64);
                // It is not copied.
                shared.commit_alone(&WriteSet { collections, ..WriteSet::one(write, durability) })
            } else if durability == Durability::Buffered {
                let on = Condition { reads: None, collections: &collections };
                shared.buffer(std::slice::from_mut(&mut write), on)
            } else {
                let set = WriteSet::one(write.into_owned(), durability);
                shared.commit(WriteSet { collections, ..set })
            };
            match committed {
                // The collection was cleared meanwhile, and has another number.
                Err(Error::Conflict) => {}
                done => return done,
            }
        }
    }

    /// Removes a key, and says whether it was there.
    pub(crate) fn delete_in(&self, target: Target<'_>, key: &[u8]) -> Result<bool> {
        self.decide(target, key, |moment, key| {
            let is_there = self.shared().contains_at(moment, key)?;
            Ok((is_there, if is_there { Fate::Delete } else { Fate::Keep }))
        })
    }

    /// Lets `decide` say what becomes of a key, and lets that happen if nobody else has written to the
    /// key meanwhile; otherwise asks again, up to [`ATTEMPTS_MAX`] times.
    pub(crate) fn decide<T>(
        &self,
        target: Target<'_>,
        key: &[u8],
        mut decide: impl FnMut(&Moment, KeyRef<'_>) -> Result<(T, Fate)>,
    ) -> Result<T> {
        let shared = self.shared();
        let durability = shared.options.durability;
        shared.check_writable()?;
        self.before_writing(durability)?;
        check_key(key)?;
        for _ in 0..ATTEMPTS_MAX {
            let (begun, id, collections, (said, fate)) = shared.mended(|| {
                let (begun, moment) = Begun::now(shared);
                let (id, collections) = target.now()?;
                let decided = decide(&moment, shared.key(id, key))?;
                Ok((begun, id, collections, decided))
            })?;
            let key = shared.key(id, key);
            let write = match &fate {
                Fate::Keep => return Ok(said),
                Fate::Set(value) => {
                    shared.check_value_bytes(value.len() as u64)?;
                    Write::put(key, value, shared.inline_bytes_max())
                }
                Fate::Delete => Write::delete(key),
            };
            let mut reads = Box::new(Reads { since: begun.since, ..Reads::default() });
            reads.keys.insert(key.hash);
            reads.note_touch(id);
            let set = WriteSet::one(write.into_owned(), durability);
            match shared.commit(WriteSet { reads: Some(reads), collections, ..set }) {
                Err(Error::Conflict) => {}
                done => return done.map(|()| said),
            }
        }
        Err(Error::Conflict)
    }
}
