//! What is known of segments, so that whoever goes through the log need not find it out.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// By slot. Of a segment that is not in it, nothing is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownSegments(BTreeMap<u32, Known>);

#[derive(Clone, Debug)]
struct Known {
    is_untouched: bool,
    /// Those that have, or once had, something in use here.
    collections: Arc<BTreeSet<u32>>,
}

impl KnownSegments {
    /// Slots, whether each is untouched, and the collections that have something in use there.
    pub(crate) fn of(segments: impl Iterator<Item = (u32, bool, BTreeSet<u32>)>) -> Self {
        let known = segments.map(|(slot, is_untouched, collections)| {
            (slot, Known { is_untouched, collections: Arc::new(collections) })
        });
        Self(known.collect())
    }

    /// Whether none of the segment's records was ever superseded, but for marks: each is the newest of
    /// its key, as the log has it, without a look into the index.
    ///
    /// That holds since a commit notes, for every record that it supersedes or may supersede, the slot
    /// of that ([`LiveChange::kill`](crate::live::LiveChange::kill)).
    pub(crate) fn is_untouched(&self, slot: u32) -> bool {
        self.0.get(&slot).is_some_and(|known| known.is_untouched)
    }

    /// Whether the segment has no record of the collection that the index leads to.
    pub(crate) fn lacks(&self, slot: u32, collection: u32) -> bool {
        self.0.get(&slot).is_some_and(|known| !known.collections.contains(&collection))
    }

    // Most commits change nothing, and copy nothing that a view holds.

    /// A segment begins, in which there is nothing yet.
    pub(crate) fn begin(this: &mut Arc<Self>, slot: u32) {
        let known = Known { is_untouched: true, collections: Arc::default() };
        Arc::make_mut(this).0.insert(slot, known);
    }

    /// A record is superseded, or may be.
    pub(crate) fn touch(this: &mut Arc<Self>, slot: u32) {
        if this.is_untouched(slot)
            && let Some(known) = Arc::make_mut(this).0.get_mut(&slot)
        {
            known.is_untouched = false;
        }
    }

    /// The collection has something in the segment from now on.
    pub(crate) fn add(this: &mut Arc<Self>, slot: u32, collection: u32) {
        if this.lacks(slot, collection)
            && let Some(known) = Arc::make_mut(this).0.get_mut(&slot)
        {
            Arc::make_mut(&mut known.collections).insert(collection);
        }
    }

    /// Nothing of the segment is needed any longer.
    pub(crate) fn forget(this: &mut Arc<Self>, slot: u32) {
        if this.0.contains_key(&slot) {
            Arc::make_mut(this).0.remove(&slot);
        }
    }
}
