//! Telling whoever pipes records in which of them are safe.

use std::io::{self, Write};

use zkv::Store;

use crate::arguments::{Import, Waits};
use crate::failure::Failure;

/// Numbers on standard output; none where none were asked for.
pub struct Acknowledgements {
    /// How many records apart; `None` for never.
    interval: Option<u64>,
    /// Whether the records did not wait one by one, and are synced before they are acknowledged.
    is_sync_due: bool,
    acknowledged: u64,
}

impl Acknowledgements {
    /// As `arguments` ask for.
    pub fn new(arguments: &Import) -> Self {
        Self {
            interval: arguments.acknowledge.map(u64::from),
            is_sync_due: arguments.durability == Waits::Buffered,
            acknowledged: 0,
        }
    }

    #[cfg(test)]
    pub fn none() -> Self {
        Self { interval: None, is_sync_due: false, acknowledged: 0 }
    }

    /// Acknowledges `record_count` records, if it is time to.
    pub fn after_record(&mut self, store: &Store, record_count: u64) -> Result<(), Failure> {
        match self.interval {
            Some(interval) if record_count.is_multiple_of(interval) => {
                self.tell(store, record_count)
            }
            _ => Ok(()),
        }
    }

    /// Acknowledges what is left, where the input has ended with `record_count` records.
    pub fn finish(&mut self, store: &Store, record_count: u64) -> Result<(), Failure> {
        if self.interval.is_some() && self.acknowledged < record_count {
            self.tell(store, record_count)
        } else {
            Ok(())
        }
    }

    fn tell(&mut self, store: &Store, record_count: u64) -> Result<(), Failure> {
        if self.is_sync_due {
            store.sync()?;
        }
        let mut output = io::stdout().lock();
        // A reader that has gone is a failure here: nobody learns what is safe any more.
        writeln!(output, "{record_count}")
            .and_then(|()| output.flush())
            .map_err(|error| Failure::File { name: "standard output".to_owned(), error })?;
        self.acknowledged = record_count;
        Ok(())
    }
}
