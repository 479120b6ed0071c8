//! What is known of segments, so that whoever goes through the log need not find it out.

use std::collections::BTreeMap;
use std::sync::Arc;

use zkv_log::SegmentParts;

use crate::sync::atomic::{AtomicU64, Ordering};

/// By slot. Of a segment that is not in it, nothing is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownSegments(BTreeMap<u32, Known>);

#[derive(Clone, Debug)]
struct Known {
    is_untouched: bool,
    /// Those that have, or once had, something in use here, and in which parts.
    collections: Arc<BTreeMap<u32, GrowingParts>>,
}

/// Parts to which the writer adds others, also for whoever looked before: they look at more than they need.
#[derive(Debug)]
struct GrowingParts(AtomicU64);

impl GrowingParts {
    fn new(parts: SegmentParts) -> Self {
        Self(AtomicU64::new(parts.bits()))
    }

    /// All that were added before what the caller sees was published.
    fn get(&self) -> SegmentParts {
        SegmentParts::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn add(&self, parts: SegmentParts) {
        self.0.fetch_or(parts.bits(), Ordering::Relaxed);
    }
}

impl Clone for GrowingParts {
    fn clone(&self) -> Self {
        Self::new(self.get())
    }
}

impl KnownSegments {
    /// Slots, whether each is untouched, and the collections that have something in use there, and where.
    pub(crate) fn of<C>(segments: impl Iterator<Item = (u32, bool, C)>) -> Self
    where
        C: Iterator<Item = (u32, SegmentParts)>,
    {
        let known = segments.map(|(slot, is_untouched, collections)| {
            let collections = collections.map(|(of, parts)| (of, GrowingParts::new(parts)));
            (slot, Known { is_untouched, collections: Arc::new(collections.collect()) })
        });
        Self(known.collect())
    }

    /// Whether none of the segment's records was ever superseded, but for marks: each is the newest of
    /// its key, as the log has it, without a look into the index.
    ///
    /// That holds since a commit notes, for every record that it supersedes or may supersede, the slot
    /// of that ([`LiveChange::kill`](crate::metadata::live::LiveChange::kill)).
    pub(crate) fn is_untouched(&self, slot: u32) -> bool {
        self.0.get(&slot).is_some_and(|known| known.is_untouched)
    }

    /// Where the segment may have records of the collection that the index leads to.
    pub(crate) fn parts_of(&self, slot: u32, collection: u32) -> SegmentParts {
        match self.0.get(&slot) {
            Some(known) => {
                known.collections.get(&collection).map_or(SegmentParts::NONE, GrowingParts::get)
            }
            None => SegmentParts::ALL,
        }
    }

    #[cfg(test)]
    pub(crate) fn collection_count(&self, slot: u32) -> usize {
        self.0.get(&slot).map_or(0, |known| known.collections.len())
    }

    /// All collections that a segment is known to have, or to have had, something of.
    pub(crate) fn collections(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.values().flat_map(|known| known.collections.keys().copied())
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

    /// The collection has something in these parts of the segment from now on.
    pub(crate) fn add(this: &mut Arc<Self>, slot: u32, collection: u32, parts: SegmentParts) {
        let Some(known) = this.0.get(&slot) else { return };
        match known.collections.get(&collection) {
            Some(growing) => growing.add(parts),
            None => {
                if let Some(known) = Arc::make_mut(this).0.get_mut(&slot) {
                    let collections = Arc::make_mut(&mut known.collections);
                    collections.insert(collection, GrowingParts::new(parts));
                }
            }
        }
    }

    /// Nobody will ask for the collection again but those who look at the store as it was before. A
    /// collection that is cleared gets another number: the old ones would pile up, and each new one would take
    /// longer to be added.
    pub(crate) fn drop_collection(this: &mut Arc<Self>, collection: u32) {
        let has_it = |known: &Known| known.collections.contains_key(&collection);
        if !this.0.values().any(has_it) {
            return;
        }
        for known in Arc::make_mut(this).0.values_mut() {
            if has_it(known) {
                Arc::make_mut(&mut known.collections).remove(&collection);
            }
        }
    }

    /// Nothing of the segment is needed any longer.
    pub(crate) fn forget(this: &mut Arc<Self>, slot: u32) {
        if this.0.contains_key(&slot) {
            Arc::make_mut(this).0.remove(&slot);
        }
    }
}
