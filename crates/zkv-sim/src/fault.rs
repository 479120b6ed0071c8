//! Calls that fail.

use std::io;

/// Which calls a [`Fault`] counts and fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// Those that change the disk, or make a change durable.
    Changes,
    /// Those that only look.
    Reads,
    /// Syncs of files alone.
    Syncs,
}

/// How much of a write that fails has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFailure {
    /// Nothing.
    Nothing,
    /// The first half.
    Half,
    /// All but the last byte.
    AllButLast,
}

/// What a sync that fails leaves behind (Rebello et al., ATC 2020). In all three the system takes
/// the changes before it for written, which they are not, or only in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncFailure {
    /// The process reads the new bytes on, and only a new write brings them to the disk.
    CacheNew,
    /// The process reads what the disk has.
    CacheReverted,
    /// As `CacheNew`, and the sync seems to succeed: the next one of the file fails in its place.
    ToldLate,
}

/// Makes calls fail: the `number`th of its kind, counted from 1 on from when it is set.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The kind of calls.
    pub calls: Calls,
    /// Which of them.
    pub number: u64,
    /// Whether all calls of the kind after it fail, too.
    pub lasts: bool,
    /// What they report.
    pub error: io::ErrorKind,
    /// What a failed write leaves.
    pub write: WriteFailure,
    /// What a failed sync leaves.
    pub sync: SyncFailure,
}

impl WriteFailure {
    /// How many of a write's bytes have arrived.
    pub(crate) fn arrived(self, len: usize) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Half => len / 2,
            Self::AllButLast => len.saturating_sub(1),
        }
    }
}

/// A fault, and how far it has come.
#[derive(Clone, Debug)]
pub(crate) struct ArmedFault {
    fault: Fault,
    counted: u64,
}

/// What kind of call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read,
    Change,
    Sync,
}

impl ArmedFault {
    pub(crate) fn new(fault: Fault) -> Self {
        Self { fault, counted: 0 }
    }

    /// How many calls of the fault's kind were made.
    pub(crate) fn counted(&self) -> u64 {
        self.counted
    }

    /// Counts a call, and tells how it fails, if it does.
    pub(crate) fn strikes(&mut self, call: Call) -> Option<&Fault> {
        let is_meant = match self.fault.calls {
            Calls::Changes => call != Call::Read,
            Calls::Reads => call == Call::Read,
            Calls::Syncs => call == Call::Sync,
        };
        if !is_meant {
            return None;
        }
        self.counted += 1;
        let number = self.fault.number;
        let strikes = self.counted == number || (self.fault.lasts && number < self.counted);
        strikes.then_some(&self.fault)
    }
}
