//! How much lies behind the last checkpoint: the next opening after a crash replays it.

/// A checkpoint is due when the index of what came behind the last one has this many entries, of
/// 32 bytes each: opening after a crash replays them in a fraction of a second.
const CHANGES_MAX: usize = 400_000;
/// It is also due when the log has grown by this much,
const BYTES_MAX: u64 = 64 << 20;
/// or by this many records: of a few keys that are written over and over, neither of the others
/// grows.
const RECORDS_MAX: u64 = 1_000_000;

/// A closing store leaves so many records to the next opening, which replays them in less time than the
/// three syncs of a checkpoint take: whoever opens a store for one write waits for those of the log alone.
const LEFT_RECORDS_MAX: u64 = 64;
/// They lie in so many bytes of the log at the most.
const LEFT_BYTES_MAX: u64 = 16 << 10;

/// What came behind a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tail {
    /// Keys that changed.
    pub changes: usize,
    pub records: u64,
    /// Bytes in the log.
    pub bytes: u64,
}

impl Tail {
    /// Whether it has grown enough for a checkpoint since it was `attempted`, the tail when the last
    /// one failed, or nothing.
    pub(crate) fn is_due(&self, attempted: &Self) -> bool {
        let Self { changes, records, bytes } = self.behind(attempted);
        changes >= CHANGES_MAX || bytes >= BYTES_MAX || records >= RECORDS_MAX
    }

    /// Whether it has grown by twice as much since then: whoever writes waits for the one that goes on.
    pub(crate) fn is_overdue(&self, attempted: &Self) -> bool {
        let Self { changes, records, bytes } = self.behind(attempted);
        let half = Self { changes: changes / 2, records: records / 2, bytes: bytes / 2 };
        half.is_due(&Self::default())
    }

    /// What has come behind `earlier`.
    pub(crate) fn behind(&self, earlier: &Self) -> Self {
        Self {
            changes: self.changes.saturating_sub(earlier.changes),
            records: self.records.saturating_sub(earlier.records),
            bytes: self.bytes.saturating_sub(earlier.bytes),
        }
    }

    /// Whether a store may be closed without a checkpoint of it.
    pub(crate) fn may_be_left(&self) -> bool {
        self.records <= LEFT_RECORDS_MAX && self.bytes <= LEFT_BYTES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_the_next_opening_is_bounded_in_records_and_in_bytes() {
        let left = Tail { changes: 64, records: LEFT_RECORDS_MAX, bytes: LEFT_BYTES_MAX };
        assert!(left.may_be_left());
        assert!(!Tail { records: LEFT_RECORDS_MAX + 1, ..left }.may_be_left());
        assert!(!Tail { bytes: LEFT_BYTES_MAX + 1, ..left }.may_be_left());
    }

    #[test]
    fn any_bound_makes_a_checkpoint_due_and_a_failed_one_waits_for_another_step() {
        let nothing = Tail::default();
        let cases = [
            Tail { changes: CHANGES_MAX, ..nothing },
            Tail { records: RECORDS_MAX, ..nothing },
            Tail { bytes: BYTES_MAX, ..nothing },
        ];
        for step in cases {
            assert!(step.is_due(&nothing), "{step:?}");
            assert!(!step.is_due(&step), "{step:?}");
            assert!(!step.is_overdue(&nothing), "{step:?}");
            let twice = Tail {
                changes: 2 * step.changes,
                records: 2 * step.records,
                bytes: 2 * step.bytes,
            };
            assert!(twice.is_overdue(&nothing) && !twice.is_overdue(&step), "{step:?}");
            let one_less = Tail {
                changes: step.changes.saturating_sub(1),
                records: step.records.saturating_sub(1),
                bytes: step.bytes.saturating_sub(1),
            };
            assert!(!one_less.is_due(&nothing), "{one_less:?}");
        }
    }
}
