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

/// Workloads in which one record that cannot be read decides what is deleted, or where the log goes on: keys are
/// deleted, and set anew, and what they stood in is cleaned. Of each, chances by which it has shown a fault, that is
/// mended or that was planted.
const SCRIPTS: [(&str, &[u64]); 3] = [
    (
        "flushed/index/1/s40.900,s41.900,b100.60000x12,b0.60000x12,d40,d41,b0.60000x12,s40.60,s41.60,\
         clean,lose-index",
        &[513, 601, 726, 1167, 2698, 3646],
    ),
    (
        "flushed/index/1/s40.900,s41.900,b100.60000x12,b0.60000x12,d40,d41,b0.60000x12,s40.60,s41.900,\
         b0.60000x12,clean,b0.60000x12,clean,lose-index",
        &[176, 379, 726, 1218],
    ),
    (
        "flushed/index/1/s40.900,s41.900,b100.60000x12,b0.60000x12,d40,d41,b0.60000x12,b120.60000x12,\
         s40.60,s41.60,b120.60000x12,clean,reopen,clean,lose-index",
        &[24, 245, 1218, 1847],
    ),
];
/// Of so many cases by seed, one is a script.
const SCRIPT_ONE_IN: u64 = 4;

/// A workload, between whose operations sectors go bad.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Decides which sectors, when, and for how long; and when the process ends, and how.
    chance: u64,
    workload: Workload,
}

impl Case {
    /// The scripts, with the chances that have told something.
    pub fn written_out() -> Result<Vec<Self>, String> {
        let mut cases = Vec::new();
        for (workload, (_, chances)) in scripts()?.iter().zip(SCRIPTS) {
            let of = |chance: &u64| Self { chance: *chance, workload: workload.clone() };
            cases.extend(chances.iter().map(of));
        }
        Ok(cases)
    }

    /// Cases by seed, from one on: scripts, and workloads by chance.
    pub fn from(seed: u64) -> Result<impl Iterator<Item = Self>, String> {
        let mut scripts = scripts()?.into_iter().cycle();
        Ok((seed..).map(move |seed| {
            let script = seed.is_multiple_of(SCRIPT_ONE_IN).then(|| scripts.next()).flatten();
            script.map_or_else(|| Self::random(seed), |workload| Self { chance: seed, workload })
        }))
    }

    /// Two in three clean, which decides more by what is read than all else does.
    fn random(seed: u64) -> Self {
        let cleans = !seed.is_multiple_of(3);
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

fn scripts() -> Result<Vec<Workload>, String> {
    SCRIPTS.iter().map(|(script, _)| script.parse()).collect()
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

    /// A cleaning that never ended; an opening that cut off what was flushed; a salvage, two times, that took the
    /// log's end for a commit that was given up, and one that passed over it; openings that took what stood before a compaction, whose first
    /// page they could not read, for the log; and this check, which took what a power cut, or a call that failed,
    /// has left for wiped, and an index file that was not used for one that was
    /// made anew; and what a power cut had taken for something that is gone, where a bad sector kept it.
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
            "sectors/103/flushed/appended/103/kill,b7.59218x13,clean,c1.d9,b4.25053x6,b4.56909x6,\
             b1.56885x13,c1.clear,d8,c2.d8,b9.39230x7,b1.31772x12,c1.s3.193,b3.45101x12,compact,\
             c1.d3,compact,restore,kill,d5,s1.1271,c2.s12.341,lose-index,b2.58847x13,clean,clean,\
             clean,c1.d5,b4.30271x9,clean,clean,clean,lose-index,b1.50125x11,c2.d12,b2.54940x7,\
             b7.46130x11",
            "sectors/5207/buffered/no-index/5207/hold,clean,clean,clean,b5.27166x9,compact,hold,hold,\
             rebuild-index,b6.22757x8,restore,b3.26754x6,b4.46897x6,c2.s12.99,s9.1555,b9.35970x12,\
             restore,c1.s11.300000,rebuild-index,lose-index,b3.43369x11,s3.1856,clean,c1.d9,\
             b8.32752x9,compact,kill,b5.40672x10,b9.56713x10,s4.1546,b2.55811x13,clean,c1.s9.300000",
            "sectors/5056/flushed/index/5056/c1.s11.43,c1.s1.31,reopen,c2.s3.25,c1.s5.41,c1.s6.44,\
             s8.42,c2.s16.28,c1.clear,c1.s7.50,c2.s16.44,c1.s2.13,s10.47,t14.3!,s10.13,s12.300000,\
             c1.s13.48,s11.28,s2.30,b6.60000x12,flush,c1.s7.58,s5.34,c2.d4,s6.47,t17.36,c2.d0,s18.34,\
             restore,sync,b12.58x3,t17.20!,c1.drop,b3.37x9,flush,t15.12,c1.d5,s16.1,s4.28,b18.47x8,\
             c2.clear,d5,b1.11835x8,b3.1380x5,c1.s4.2157,c2.s0.425,c1.s2.8702,s2.5652,b1.50x1,c2.d2,\
             c2.s3.2666,sync,b3.1055x2,d6,s0.8994,s2.141331,c1.d4,kill,sync,c2.clear,b2.60000x12,\
             s1.2568,sync,c2.d0,s4.348",
            "sectors/1594/buffered/index/1594/clean,c2.s13.1376,d8,hold,hold,clean,s12.1997,\
             b13.55420x11,c1.s4.1313,clean,b8.49399x8,b5.55656x12,c1.clear,b4.38107x6,c2.drop,\
             c1.s13.198,clean,c2.d5,release,release,kill,c2.d11,b6.24419x8,c2.d7,b12.26781x11,c1.d6,\
             b2.39509x10,lose-index",
            "sectors/62121/synced/appended/62121/clean,b12.29274x12,compact,reopen,b2.58463x12,d1,\
             clean,clean,b0.46962x12,s1.1115,switch-index,kill,c2.s11.300000,compact,b5.24308x8,\
             clean,clean,s4.1126,b3.24379x11,b2.35767x8,release,b1.37100x13,reopen,b5.31575x11,\
             b0.20103x8,d4,c2.d6,switch-index,clean,c2.s13.840,hold,reopen,b1.44919x11,kill,d3,\
             c2.clear,c1.drop",
            "sectors/1167/flushed/index/1/s40.900,s41.900,b100.60000x12,b0.60000x12,d40,d41,\
             b0.60000x12,s40.60,s41.60,clean,lose-index",
            "sectors/176/flushed/index/1/s40.900,s41.900,b100.60000x12,b0.60000x12,d40,d41,\
             b0.60000x12,s40.60,s41.900,b0.60000x12,clean,b0.60000x12,clean,lose-index",
            "sectors/1847/flushed/index/1/s40.900,s41.900,b100.60000x12,b0.60000x12,d40,d41,\
             b0.60000x12,b120.60000x12,s40.60,s41.60,b120.60000x12,clean,reopen,clean,lose-index",
            "sectors/81185/flushed/appended/81185/kill,s2.300000,b4.26839x12,reopen,reopen,c2.d0,\
             b11.58409x8,s13.300000,c2.d6,b1.20320x8,c2.clear,c1.s4.300000,c1.s3.1067,s12.300000,clean,\
             c2.d13,b8.21607x7,b4.24350x10,c2.s8.300000,b13.54484x7,c2.s12.1986,b10.58458x8,compact,\
             clean,b2.20144x12",
            "sectors/205735/flushed/no-index/8/d0,c1.clear,b100.60000x12,compact,c2.clear,s41.900,\
             c1.s41.9000,b100.60000x12,compact,s40.60,rebuild-index",
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
