//! A fault at the first call, the second, the third, until none is left: each error, once and for
//! ever.

use std::fmt;
use std::io::ErrorKind;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::Ordering;

use zkv::Durability;
use zkv_io::{Storage, TEMPORARY_SUFFIX};
use zkv_sim::{Calls, Fault, Image, PowerCut, SimDisk, SyncFailure, WriteFailure};

use super::check::{Expected, PROBE, check, has_lost, is_told};
use super::images::{Depth, Tally};
use super::model::{DEFAULT, Model};
use super::session::{INDEX, STORE, Session, Trouble};
use super::workload::{Operation, Workload};

/// Ways to cut the power behind a call that failed, and at the end of a run.
const CUTS_BEHIND_FAULT: usize = 3;
const CUTS: usize = 12;

/// The workloads, which have every operation between them, each with every durability.
const OPERATIONS: &[&str] = &[
    "s0.40,s1.900,d0,sync,s0.50",
    "s0.40,s1.40,reopen,s0.60,d1,reopen",
    "s0.150000,s1.40,s0.300000,d0",
    "s0.40,rebuild-index,s0.50,s1.50,lose-index,s2.40",
    "s0.40,s1.40,backup,d0,backup",
    "s0.5000,kill,s0.70,flush,d0,kill,s1.9000",
    "b0.60x4,t0.50,c1.s3.90,c1.clear,c1.d3,t0.50!",
    "c1.s0.40,b0.18000x4,c1.drop,c1.s0.50,reopen",
    "s0.60000,s1.60000,s2.60000,s3.60000,s4.60000,flush,s0.60000,reopen",
    "s0.40,switch-index,s1.900,d0,switch-index,s2.40",
    "s0.40,s1.900,backup,s0.50,d1,reopen,restore,s1.40,kill,s2.40",
];

/// Those that give space back. Faults begin with the first operation that does; what comes before it
/// fails in the others.
const CLEANING: &[&str] = &[
    "flushed/index/3/c2.s1.900,s40.900,b0.60000x12,d40,c2.drop,b0.60000x12,clean,rebuild-index,clean",
    "synced/index/3/s0.300000,s0.300000,s1.300000,hold,d0,compact,release,compact,s2.40",
    "flushed/appended/3/b0.60000x12,s40.900,clean,b0.60000x12,d40,b0.60000x12,clean,b0.60000x12,clean,reopen",
    "buffered/no-index/3/s40.900,b0.60000x12,d40,c1.clear,compact,s1.40,reopen",
];
/// Ways to cut the power at the end of such a run.
const CUTS_CLEANED: usize = 3;

/// A fault in a workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    workload: Workload,
    /// Which of [`faults`].
    kind: usize,
}

/// All cases but for their number: that counts up until the fault strikes no more.
pub fn cases() -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for operations in OPERATIONS {
        for durability in ["synced", "flushed", "buffered"] {
            let workload: Workload = format!("{durability}/index/3/{operations}").parse()?;
            let kinds = 0..faults().len();
            cases.extend(kinds.map(|kind| Case { workload: workload.clone(), kind }));
        }
    }
    for text in CLEANING {
        let workload: Workload = text.parse()?;
        let kinds = 0..faults().len();
        cases.extend(kinds.map(|kind| Case { workload: workload.clone(), kind }));
    }
    Ok(cases)
}

fn faults() -> Vec<Fault> {
    let mut faults = Vec::new();
    for lasts in [false, true] {
        let fault = Fault {
            calls: Calls::Changes,
            number: 0,
            lasts,
            error: ErrorKind::Other,
            write: WriteFailure::Half,
            sync: SyncFailure::CacheNew,
        };
        // Full disk, quota, size limit, and the disk's own failure: to the store they are one, so that
        // each may leave something else of what was written.
        for (error, write) in [
            (ErrorKind::StorageFull, WriteFailure::AllButLast),
            (ErrorKind::QuotaExceeded, WriteFailure::Half),
            (ErrorKind::FileTooLarge, WriteFailure::Nothing),
            (ErrorKind::Other, WriteFailure::AllButLast),
        ] {
            faults.push(Fault { error, write, ..fault.clone() });
        }
        // One that says of nothing that it is lost, and one that does.
        for error in [ErrorKind::OutOfMemory, ErrorKind::Other] {
            faults.push(Fault { calls: Calls::Reads, error, ..fault.clone() });
        }
        for sync in [SyncFailure::CacheNew, SyncFailure::CacheReverted, SyncFailure::ToldLate] {
            faults.push(Fault { calls: Calls::Syncs, sync, ..fault.clone() });
        }
    }
    faults
}

impl Case {
    /// Runs the workload with the fault at each call, until it strikes no more; where it cleans, at each
    /// of so many.
    pub fn run(&self, one_cleaning_in: usize, tally: &Tally) -> Result<(), String> {
        let kinds = faults();
        let kind = kinds.get(self.kind).ok_or("there is no such fault")?;
        let (first, step) = match self.workload.first_cleaning() {
            Some(first) => (self.calls_before(first, kind)? + 1, one_cleaning_in),
            None => (1, 1),
        };
        // Not the same calls with each kind.
        let first = first + (self.kind % step) as u64;
        for number in (first..).step_by(step) {
            let fault = Fault { number, ..kind.clone() };
            let ran = panic::catch_unwind(AssertUnwindSafe(|| run(&self.workload, &fault, tally)));
            let ran = ran.unwrap_or_else(|_| Err("a panic, printed above".to_owned()));
            let has_struck = ran.map_err(|error| format!("{error}\n  the fault: {fault:?}"))?;
            if !has_struck {
                break;
            }
            tally.faults.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Case {
    /// Calls that count for the fault before the operation `first`.
    fn calls_before(&self, first: usize, kind: &Fault) -> Result<u64, String> {
        let disk = SimDisk::from_image(&Image::new(), self.workload.seed);
        disk.set_fault(Some(Fault { number: u64::MAX, ..kind.clone() }));
        let mut session = Session::new(&self.workload, disk);
        let operations = self.workload.operations.iter().enumerate().take(first);
        let mut done = session.open();
        for (number, operation) in operations {
            done = done.and_then(|()| session.step(number, *operation));
        }
        done.map_err(|trouble| trouble.to_string())?;
        Ok(session.disk.counted_calls())
    }
}

/// The form that [`Case::from_str`] reads: the number of the fault's kind, and the workload.
impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "fault/{}/{}", self.kind, self.workload)
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.strip_prefix("fault/").and_then(|rest| rest.split_once('/'));
        let (kind, workload) = parts.ok_or("a fault is fault/KIND/WORKLOAD")?;
        let kind = kind.parse().map_err(|error| format!("the kind: {error}"))?;
        Ok(Self { workload: workload.parse()?, kind })
    }
}

/// Returns whether the fault has struck.
fn run(workload: &Workload, fault: &Fault, tally: &Tally) -> Result<bool, String> {
    let disk = SimDisk::recording(workload.seed);
    disk.set_fault(Some(fault.clone()));
    let session = Session::new(workload, disk);
    let mut run = FaultRun { session, fault, tally, has_struck: false, proven: None };
    run.go().map_err(|error| error.to_string())?;
    run.session.end_process();
    let most = if workload.first_cleaning().is_some() { CUTS_CLEANED } else { CUTS };
    run.cut_power(most, Depth::Write)?;
    Ok(run.has_struck)
}

struct FaultRun<'a> {
    session: Session<'a>,
    fault: &'a Fault,
    tally: &'a Tally,
    has_struck: bool,
    /// Of a sync that lied: the last commit that was durable before it.
    proven: Option<usize>,
}

impl FaultRun<'_> {
    fn go(&mut self) -> Result<(), Trouble> {
        let opened = self.session.open();
        self.note_lie(0, 0);
        if let Err(trouble) = opened {
            self.refused(trouble, None)?;
        }
        for (number, operation) in self.session.workload.operations.iter().enumerate() {
            let (before, durable) = (self.session.disk.counted_calls(), self.session.durable);
            if self.session.store.is_none() {
                match self.reopen() {
                    Ok(()) => {}
                    Err(Trouble::Refused(_)) => continue,
                    Err(wrong) => return Err(wrong),
                }
            }
            let done = match operation {
                // What a failed operation has handed to the system is not known.
                Operation::Kill | Operation::LoseIndex if self.has_struck => {
                    self.session.end_process();
                    if *operation == Operation::LoseIndex {
                        let _ = self.session.disk.remove(Path::new(INDEX));
                    }
                    self.reopen()
                }
                _ => self.session.step(number, *operation),
            };
            self.note_lie(before, durable);
            match done {
                Ok(()) if self.fault.calls == Calls::Reads => self.compare_or_fail()?,
                Ok(()) => self.session.compare()?,
                Err(trouble) => self.refused(trouble, Some((number, *operation)))?,
            }
        }
        self.has_struck = self.has_struck_by_now();
        self.settle()
    }

    /// A fault that is cleared counts no more calls.
    fn has_struck_by_now(&self) -> bool {
        self.has_struck || self.fault.number <= self.session.disk.counted_calls()
    }

    /// While reads may fail: whatever is read is so, or cannot be read.
    fn compare_or_fail(&mut self) -> Result<(), Trouble> {
        match self.session.compare_values() {
            Err(Trouble::Refused(error))
                if self.has_struck_by_now()
                    && matches!(error.kind(), zkv::ErrorKind::Io | zkv::ErrorKind::Corrupt) =>
            {
                self.has_struck = true;
                self.check_is_no_damage(&error)
            }
            compared => compared,
        }
    }

    /// What could not be read this time is not damaged.
    fn check_is_no_damage(&self, error: &zkv::Error) -> Result<(), Trouble> {
        if self.fault.error == ErrorKind::OutOfMemory && error.kind() == zkv::ErrorKind::Corrupt {
            return Err(Trouble::Wrong(format!("for want of memory: {error}")));
        }
        Ok(())
    }

    /// Notes where a sync has lied since `before` calls were counted: then no more than `durable` was
    /// proven.
    fn note_lie(&mut self, before: u64, durable: usize) {
        let calls = self.session.disk.counted_calls();
        let has_struck = before < self.fault.number && self.fault.number <= calls;
        if has_struck && self.fault.sync == SyncFailure::ToldLate {
            self.proven = Some(durable);
        }
    }

    /// After an operation that failed: it has not happened, unless only its sync has failed.
    fn refused(
        &mut self,
        trouble: Trouble,
        operation: Option<(usize, Operation)>,
    ) -> Result<(), Trouble> {
        match &trouble {
            Trouble::Refused(error) if self.has_struck_by_now() => {
                self.check_is_no_damage(error)?;
            }
            _ => return Err(trouble),
        }
        self.has_struck = true;
        if !self.fault.lasts || self.fault.calls == Calls::Reads {
            self.session.disk.set_fault(None);
        }
        if self.session.store.is_none() {
            self.session.commit();
            // Under a lasting fault, the next step tries again.
            if !self.fault.lasts || self.fault.calls == Calls::Reads {
                self.reopen()?;
            }
            return Ok(());
        }
        let before = self.session.visible.clone();
        if self.fault.sync == SyncFailure::CacheReverted {
            // The process cannot read what it wrote, and is told so; what opens the store next can.
            self.session.commit();
            for after in self.after(operation) {
                self.session.visible = after;
                self.session.commit();
            }
            return self.reopen();
        }
        let after = self.after(operation);
        let models: Vec<&Model> = std::iter::once(&before).chain(&after).collect();
        let found = self.session.read(&models)?;
        self.session.commit();
        if self.fault.lasts {
            // It cannot be wiped either, and a crash now may find it whole.
            self.session.commits.extend(after.iter().cloned());
            self.session.commit();
        }
        if found != before {
            let place = after.iter().position(|state| *state == found);
            // What an operation commits before its last commit may stand.
            let is_whole = place.is_some_and(|place| place + 1 == after.len());
            if place.is_none() || (is_whole && !self.is_synced(operation)) {
                return Err(Trouble::Wrong("a write that failed has happened".to_owned()));
            }
            // A sync that failed may have kept the first of them, and lost the rest.
            for state in after.into_iter().take(place.map_or(0, |place| place + 1)) {
                self.session.visible = state;
                self.session.commit();
            }
        }
        // What was refused is gone by now, not only with the next write.
        self.cut_power(CUTS_BEHIND_FAULT, Depth::Read).map_err(Trouble::Wrong)
    }

    /// What an operation that failed would have made visible, commit by commit.
    fn after(&self, operation: Option<(usize, Operation)>) -> Vec<Model> {
        let Some((number, operation)) = operation else { return Vec::new() };
        self.session.visible.after(self.session.workload, number, operation)
    }

    fn is_synced(&self, operation: Option<(usize, Operation)>) -> bool {
        let syncs = matches!(operation, Some((_, Operation::Transact { is_synced: true, .. })));
        syncs || self.session.workload.durability == Durability::Synced
    }

    /// The disk works again: so does the store, after a failed sync once it is opened anew.
    fn settle(&mut self) -> Result<(), Trouble> {
        self.session.disk.set_fault(None);
        if self.session.store.is_none() {
            self.reopen()?;
        }
        if let Err(trouble) = self.probe() {
            // Nothing but a failed sync keeps a store from writing on.
            if !self.session.disk.has_failed_sync() {
                return Err(trouble);
            }
            self.reopen()?;
            self.probe()?;
        }
        self.session.compare()?;
        // Before the store is closed, which makes more durable than a sync.
        self.cut_power(CUTS_BEHIND_FAULT, Depth::Read).map_err(Trouble::Wrong)?;
        // What was left beside the store goes with the next opening.
        self.session.step(usize::MAX, Operation::Reopen)?;
        self.session.compare()?;
        if self.session.workload.first_cleaning().is_some() {
            // What was left half done is done.
            self.session.step(usize::MAX, Operation::Compact)?;
            self.session.compare()?;
        }
        let files = self.session.disk.list(Path::new("dir")).unwrap_or_default();
        let left = files.iter().map(|path| path.to_string_lossy()).find(|name| {
            // Beside a backup they stay where nothing could be removed any more.
            name.ends_with(TEMPORARY_SUFFIX) && (!self.fault.lasts || name.starts_with(STORE))
        });
        match left {
            Some(name) => Err(Trouble::Wrong(format!("{name} is left behind"))),
            None => Ok(()),
        }
    }

    /// Writes, durably.
    fn probe(&mut self) -> Result<(), Trouble> {
        self.session.store()?.set_bytes(PROBE, b"1")?;
        self.session.visible.set(DEFAULT, PROBE.to_vec(), b"1".to_vec());
        let synced = self.session.store()?.sync();
        self.session.commit();
        synced?;
        self.session.acknowledge();
        Ok(())
    }

    /// Opens the store anew, as the program's next start would: what was never handed to the system
    /// may be gone, and everything else is there.
    fn reopen(&mut self) -> Result<(), Trouble> {
        self.session.end_process();
        self.session.open()?;
        let least = self.proven.unwrap_or(self.session.durable);
        let all: Vec<&Model> = self.session.commits.iter().collect();
        let found = self.session.read(&all)?;
        let Some(commit) =
            (least..self.session.commits.len()).rev().find(|n| self.session.commits[*n] == found)
        else {
            return Err(Trouble::Wrong("opened again, it is at no commit it may be at".to_owned()));
        };
        self.session.commits.truncate(commit + 1);
        // Of one that was made behind a sync that lied, the state is known no more.
        self.session.backups.retain(|backup| backup.commit <= commit);
        self.session.durable = self.session.durable.min(commit);
        self.session.visible = found;
        Ok(())
    }

    /// What is acknowledged by now survives, and nothing that was refused.
    fn cut_power(&self, most: usize, depth: Depth) -> Result<(), String> {
        let mut cut = PowerCut::new();
        for event in self.session.disk.events(0) {
            cut.follow(&event);
        }
        let session = &self.session;
        let mut random = fastrand::Rng::with_seed(self.fault.number);
        for way in cut.cuts(false, most, &mut random) {
            let last = self.proven.unwrap_or(session.durable)..=session.commits.len() - 1;
            let commits = &*session.commits;
            let expected = Expected { commits, last, indexes: Vec::new(), index_is_own: false };
            let image = cut.image(&way);
            let mut depth = depth;
            if self.proven.is_some() {
                // The disk has lied: what it has lost is told to whoever needs it, and nothing wrong is read.
                // What nobody needs is found by verifying alone, and must not be missing from what is read.
                if is_told(session.workload, &image, &expected)? {
                    continue;
                }
                if has_lost(session.workload, &image)? {
                    depth = Depth::Read;
                }
            }
            let checked = check(session.workload, &image, &expected, depth);
            let tried = checked.map_err(|error| format!("a power cut behind it: {error}"))?;
            self.tally.images.fetch_add(tried, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A new operation does not compile before it is here.
    fn number_of(operation: Operation) -> usize {
        match operation {
            Operation::Set(..) => 0,
            Operation::Delete(..) => 1,
            Operation::Batch { .. } => 2,
            Operation::Transact { .. } => 3,
            Operation::Clear(_) => 4,
            Operation::Drop(_) => 5,
            Operation::Flush => 6,
            Operation::Sync => 7,
            Operation::Reopen => 8,
            Operation::Kill => 9,
            Operation::LoseIndex => 10,
            Operation::RebuildIndex => 11,
            Operation::Backup => 12,
            Operation::Restore => 13,
            Operation::Clean => 14,
            Operation::Compact => 15,
            Operation::Hold => 16,
            Operation::Release => 17,
            Operation::SwitchIndex => 18,
        }
    }

    #[test]
    fn the_workloads_have_every_operation_between_them() {
        let cases = cases().unwrap();
        let operations = cases.iter().flat_map(|case| &case.workload.operations);
        let found: BTreeSet<usize> = operations.map(|operation| number_of(*operation)).collect();
        assert_eq!(found, (0..=18).collect());
    }

    #[test]
    fn a_case_reads_back_as_it_is_printed() {
        for case in cases().unwrap() {
            assert_eq!(case.to_string().parse(), Ok(case));
        }
        assert!("fault/1".parse::<Case>().is_err());
    }
}
