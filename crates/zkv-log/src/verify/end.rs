//! What stands behind the log's end.

use crate::layout::COMMIT_BLOCK_BYTES;
use crate::mark::CommitMark;

use super::Severity;
use super::segment::SegmentCheck;

/// Of the bytes of an end mark, as many may be wrong for it to be recognised. A crash that tears one
/// leaves zeros from some sector on.
const WRONG_BYTES_MAX: usize = 4;

impl SegmentCheck<'_, '_> {
    /// Nothing stands behind the last commit, but for what an earlier segment or a crash has left
    /// there, or where the last commit itself was damaged. These cannot be told from each other,
    /// but for an end mark, of which every byte is known. A whole end mark proves nothing of what is behind
    /// it: the next commit stands there, and may be what is damaged.
    pub(super) fn check_behind(&mut self, image: &[u8], end: u32) {
        let rest = image.get(end as usize..).unwrap_or(&[]);
        let Some(at) = rest.iter().position(|byte| *byte != 0) else { return };
        if self.is_nearly_end_mark(rest, end) {
            return self.finding(end, "the mark of the log's clean end", Severity::Mendable);
        }
        let what = "bytes behind the last commit: most often an earlier segment's, as in any slot that is \
                    used again; or torn by a crash, or damaged; the next write clears them away";
        let offset = end + u32::try_from(at).unwrap_or(0);
        self.finding(offset, what, Severity::Notice);
    }

    fn is_nearly_end_mark(&self, rest: &[u8], end: u32) -> bool {
        let (Some(number), Some(chain)) = (self.run.last_commit, self.chain) else { return false };
        let mark = CommitMark { number, synced_upto: self.position(end), chain };
        let mut expected = Vec::with_capacity(COMMIT_BLOCK_BYTES as usize);
        mark.put(&mut expected, &self.member.place, end, true);
        let Some(found) = rest.get(..expected.len()) else { return false };
        let wrong = expected.iter().zip(found).filter(|(expected, found)| expected != found);
        wrong.count() <= WRONG_BYTES_MAX
    }
}
