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

    /// Asks for each key that was not asked for whether it existed before, until one cannot be
    /// answered.
    pub(crate) fn resolve<E>(
        &mut self,
        mut existed: impl FnMut(KeyHash) -> Result<bool, E>,
    ) -> Result<(), E> {
        while let Some(hash) = self.unresolved.last() {
            self.existed += i64::from(existed(*hash)?);
            self.unresolved.pop();
        }
        Ok(())
    }

    /// Forgets all answers: what lies beneath the buffer, which holds `keys`, has changed.
    pub(crate) fn ask_again(&mut self, keys: Vec<KeyHash>) {
        self.existed = 0;
        self.unresolved = keys;
    }

    /// What the buffer adds to the count, once all is resolved.
    pub(crate) fn difference(&self) -> i64 {
        debug_assert!(self.unresolved.is_empty());
        self.puts - self.existed
    }
}
