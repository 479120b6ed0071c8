//! Sectors of a store that cannot be read while it is opened, read, written, cleaned and salvaged, with power
//! cuts in between.

mod ends;
mod rescue;
mod run;
mod seen;
mod spoil;

use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::str::FromStr;

use super::images::Tally;
use super::workload::Workload;
use run::Run;

/// A workload, between whose operations sectors go bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Decides which sectors, when, and for how long; and when the process ends, and how.
    chance: u64,
    workload: Workload,
}

impl Case {
    /// Three in four clean, which decides more by what is read than all else does.
    pub fn random(seed: u64) -> Self {
        let cleans = !seed.is_multiple_of(4);
        let mut workload = Workload::random_with(seed, cleans);
        // A life of its own before the first sector goes bad, as a rule.
        let more = Workload::random_with(seed ^ 1 << 40, cleans);
        workload.operations.extend(more.operations);
        Self { chance: seed, workload }
    }

    pub fn run(&self, tally: &Tally) -> Result<(), String> {
        let mut run = Run::new(&self.workload, self.chance, tally);
        let ran = panic::catch_unwind(AssertUnwindSafe(|| run.go()));
        let ran = ran.unwrap_or_else(|_| Err("a panic, printed above".to_owned()));
        ran.map_err(|error| format!("{error}\n{}", run.story()))
    }
}

/// The form that [`Case::from_str`] reads: the number that decides by chance, and the workload.
impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "sectors/{}/{}", self.chance, self.workload)
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.strip_prefix("sectors/").and_then(|rest| rest.split_once('/'));
        let (chance, workload) = parts.ok_or("bad sectors are sectors/CHANCE/WORKLOAD")?;
        let chance = chance.parse().map_err(|error| format!("the chance: {error}"))?;
        Ok(Self { chance, workload: workload.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    /// A cleaning that never ended, and an opening that cut off what was flushed.
    #[test]
    fn what_was_found_once_stays_mended() {
        let found = [
            "sectors/3177/buffered/appended/3177/switch-index,hold,reopen,clean,d13,s4.300000,c1.d1,\
             kill,b7.21776x10,hold,s11.300000,s11.1155,c2.s6.545,c2.s0.300000,clean,c1.drop,\
             b12.29447x11,b7.41905x9,b5.54836x13,c1.d2,c1.clear,b2.33060x13,b4.31693x6,restore,\
             b2.34407x12,b1.32813x12,kill,clean,c2.s3.1469,b7.35122x7,d9,b8.59094x6,c2.s4.300000,\
             b2.54339x13",
            "sectors/274/synced/index/274/c2.s13.1430,clean,b2.57285x8,b1.22737x9,d4,b9.47813x11,d8,\
             c2.clear,kill,hold,kill,b2.41370x8,reopen,clean,restore,c1.d3,b12.41588x9,b13.30550x9,\
             c1.clear,c1.clear,b0.29157x6,c2.s2.1395,hold,c2.d10",
        ];
        for case in found {
            let case: Case = case.parse().unwrap();
            let (done, outcome) = channel();
            std::thread::spawn(move || done.send(case.run(&Tally::default())));
            outcome.recv_timeout(Duration::from_secs(120)).expect("it hangs").unwrap();
        }
    }

    #[test]
    fn a_case_reads_back_as_it_is_printed() {
        for case in (0..50).map(Case::random) {
            assert_eq!(case.to_string().parse(), Ok(case));
        }
        assert!("sectors/1".parse::<Case>().is_err());
    }
}
