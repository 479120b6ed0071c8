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
    use super::*;

    #[test]
    fn a_case_reads_back_as_it_is_printed() {
        for case in (0..50).map(Case::random) {
            assert_eq!(case.to_string().parse(), Ok(case));
        }
        assert!("sectors/1".parse::<Case>().is_err());
    }
}
