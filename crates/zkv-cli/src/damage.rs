//! Damaged places that a command meets on its way through all records.

use zkv::{Error, ErrorKind};

use crate::failure::{Failure, store_problem};
use crate::progress::Progress;

/// Counts the places that are passed over, where that is asked for.
pub struct DamagedPlaces {
    keep_going: bool,
    count: u64,
}

impl DamagedPlaces {
    /// None so far.
    pub fn new(keep_going: bool) -> Self {
        Self { keep_going, count: 0 }
    }

    /// What an iteration yields; `None` where that is a damaged place, which is told. Its next item lies behind it.
    pub fn pass<T>(
        &mut self,
        item: Result<T, Error>,
        progress: &Progress,
    ) -> Result<Option<T>, Failure> {
        match item {
            Ok(item) => Ok(Some(item)),
            Err(error) if error.kind() != ErrorKind::Corrupt => Err(error.into()),
            Err(error) if self.keep_going => {
                progress.say(format_args!("zkv: {}", store_problem(&error)));
                self.count += 1;
                Ok(None)
            }
            Err(error) => Err(Failure::DamagedPlace(error)),
        }
    }

    /// What is to be said of them at the end.
    pub fn failure(&self) -> Option<Failure> {
        (self.count != 0).then_some(Failure::PassedOver { places: self.count })
    }
}
