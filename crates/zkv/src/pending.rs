//! Counting keys that wait in a buffer, without asking for each whether it is new before somebody
//! wants to know.

use zkv_index::KeyHash;

/// How one buffer changes the count of keys.
#[derive(Debug, Default)]
pub(crate) struct PendingCount {
    /// Keys that the buffer gives a value.
    puts: i64,
    /// Keys of the buffer that had a value before, as far as that was asked.
    existed: i64,
    /// Keys for which it was not asked yet.
    unresolved: Vec<KeyHash>,
}

impl PendingCount {
    /// Notes a record in the buffer: whether it is a put, and whether the one that it replaced in
    /// the same buffer was.
    pub(crate) fn note(&mut self, hash: KeyHash, is_put: bool, replaced: Option<bool>) {
        if replaced.is_none() {
            self.unresolved.push(hash);
        }
        self.puts += i64::from(is_put) - i64::from(replaced.unwrap_or(false));
    }

    /// Asks for each key that was not asked for whether it existed before.
    pub(crate) fn resolve(&mut self, mut existed: impl FnMut(KeyHash) -> bool) {
        for hash in self.unresolved.drain(..) {
            self.existed += i64::from(existed(hash));
        }
    }

    /// What the buffer adds to the count, once all is resolved.
    pub(crate) fn difference(&self) -> i64 {
        debug_assert!(self.unresolved.is_empty());
        self.puts - self.existed
    }
}
