//! What is done to a log while its disk may fail at any moment.

use std::fmt;
use std::str::FromStr;

use super::LogRun;
use crate::crash::images::{Effort, Tally};

/// Steps, and what decides the disk's random bytes and the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogWorkload {
    /// A long one, chosen by a seed.
    Random(u64),
    /// The script of this number.
    Script(usize),
}

/// One step.
#[derive(Clone, Debug)]
pub enum Step {
    /// A commit of entries that are so long.
    Append(Vec<usize>),
    /// A commit of two entries that are so long, the first of which another thread makes durable before
    /// the second is written.
    Halves([usize; 2]),
    /// As `Append`, and the commit is dropped before its end.
    Abandon(Vec<usize>),
    /// Frees full segments, by their places among them.
    Free(Vec<usize>),
    Sync,
    Checkpoint,
    /// Begins a segment that opens with a roll call.
    Rebase,
    /// Cuts off free slots.
    Cut,
    /// Closes and opens, from the log alone or from the last checkpoint.
    Reopen,
    /// As `Reopen`, and somebody has cut the file where its log ends, within a page.
    Shorten,
    /// The process is killed, and another one opens the log.
    Kill,
    /// A sync fails, and another process opens the log as the system still has it.
    SyncFails,
    /// As `SyncFails`, between the two entries of a commit: another thread syncs what was before it.
    SyncFailsWithin([usize; 2]),
}

/// What chance seldom finds.
fn scripts() -> Vec<Vec<Step>> {
    use Step::{
        Abandon, Append, Checkpoint, Cut, Free, Halves, Kill, Rebase, Shorten, Sync, SyncFails,
        SyncFailsWithin,
    };
    // Each fills most of a slot.
    let fill = || Append(vec![60_000]);
    vec![
        // A commit is abandoned in a slot that was freed, whose header alone names the newest roll call.
        vec![fill(), fill(), fill(), Free(vec![0]), Sync, Abandon(vec![60_000]), Sync],
        // A checkpoint leads into a segment that was freed since, whose slot is used again.
        vec![fill(), Checkpoint, fill(), fill(), fill(), Free(vec![1]), Sync, fill(), fill()],
        // A commit is abandoned that has filled segments, which have higher numbers than the log's
        // newest for a while. They know of the first roll call, and what that lists is used again.
        vec![
            Checkpoint,
            fill(),
            fill(),
            fill(),
            fill(),
            Sync,
            Abandon(vec![60_000; 4]),
            Free(vec![1]),
            Sync,
            fill(),
            Sync,
        ],
        // All that there was is freed and cut off, twice, since the first base lies behind it.
        vec![
            fill(),
            fill(),
            Checkpoint,
            fill(),
            Rebase,
            Free(vec![0, 1, 2]),
            Sync,
            Rebase,
            Free(vec![0]),
            Sync,
            Cut,
            fill(),
            Sync,
            fill(),
        ],
        // The roll call of a base ends with a sector: it may arrive without its commit's end.
        std::iter::repeat_with(fill).take(12).chain([Sync, Rebase, fill()]).collect(),
        // What was freed behind the newest roll call that a header names, and lies behind the log's last
        // segment, is not cut off before a base.
        vec![
            fill(),
            fill(),
            fill(),
            Free(vec![0]),
            Sync,
            fill(),
            Free(vec![0, 1]),
            Sync,
            Cut,
            Rebase,
            Sync,
            Cut,
            Kill,
            fill(),
        ],
        // What the next commit leaves behind the file's end, none of it before that, comes to light.
        vec![Append(vec![300]), Shorten, Append(vec![400]), Sync],
        // What the second half leaves there comes to light before the first half is wiped.
        vec![Append(vec![300]), Sync, Halves([20_000, 400]), Sync],
        // What was freed leads to the rest, and the disk has none of it.
        vec![fill(), fill(), fill(), fill(), Free(vec![1, 2]), SyncFails, Append(vec![300]), Sync],
        // The commit uses a slot again, which another sync would allow: the system lets it pass.
        vec![
            fill(),
            fill(),
            fill(),
            Free(vec![0]),
            Sync,
            Append(vec![3000]),
            SyncFailsWithin([300, 60_000]),
            Append(vec![300]),
            Sync,
        ],
    ]
}

impl LogWorkload {
    /// All that are written out.
    pub fn scripts() -> impl Iterator<Item = Self> + Send {
        (0..scripts().len()).map(Self::Script)
    }

    /// Runs the workload, and cuts the power at every change.
    pub fn run(self, effort: Effort, tally: &Tally) -> Result<(), String> {
        let (seed, script) = match self {
            Self::Random(seed) => (seed, None),
            Self::Script(number) => {
                (1, Some(scripts().into_iter().nth(number).ok_or("there is no such script")?))
            }
        };
        let mut run = LogRun::new(seed).map_err(super::message)?;
        match script {
            Some(steps) => steps.iter().try_for_each(|step| run.step(step))?,
            None => {
                let count = run.random.usize(4..40);
                run.random_steps(count)?;
            }
        }
        run.cut_everywhere(effort, seed, tally)
    }
}

impl LogRun {
    pub fn random_steps(&mut self, count: usize) -> Result<(), String> {
        for _ in 0..count {
            let step = self.random_step();
            self.step(&step)?;
        }
        Ok(())
    }

    fn random_step(&mut self) -> Step {
        match self.random.u8(..100) {
            0..43 => Step::Append(self.random_lens()),
            43..46 => Step::Halves(self.random_halves()),
            46..50 => Step::Abandon(self.random_lens()),
            50..62 => Step::Free(self.random_places()),
            62 => Step::SyncFails,
            63 => Step::SyncFailsWithin(self.random_halves()),
            64..68 => Step::Rebase,
            68..72 => Step::Cut,
            72..80 => Step::Sync,
            80..88 => Step::Checkpoint,
            88..93 => Step::Reopen,
            93 => Step::Shorten,
            _ => Step::Kill,
        }
    }

    fn random_halves(&mut self) -> [usize; 2] {
        [self.random.usize(1..50_000), self.random.usize(1..8_000)]
    }

    fn random_lens(&mut self) -> Vec<usize> {
        let most = [300, 8_000, 50_000][self.random.usize(..3)];
        let count = self.random.usize(1..6);
        (0..count).map(|_| self.random.usize(1..most)).collect()
    }

    /// As a rule the oldest alone.
    fn random_places(&mut self) -> Vec<usize> {
        if self.random.u8(..3) > 0 {
            return vec![0];
        }
        (0..self.full_count()).filter(|_| self.random.bool()).collect()
    }
}

/// The form that [`LogWorkload::from_str`] reads, behind `log/`.
impl fmt::Display for LogWorkload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Random(seed) => write!(formatter, "log/{seed}"),
            Self::Script(number) => write!(formatter, "log/script-{number}"),
        }
    }
}

impl FromStr for LogWorkload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |error| format!("{text}: {error}");
        match text.strip_prefix("script-") {
            Some(number) => number.parse().map(Self::Script).map_err(wrong),
            None => text.parse().map(Self::Random).map_err(wrong),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_reads_back_as_it_is_printed() {
        for workload in LogWorkload::scripts().chain([LogWorkload::Random(17)]) {
            let printed = workload.to_string();
            assert_eq!(printed.strip_prefix("log/").unwrap().parse(), Ok(workload));
        }
        assert!("script-".parse::<LogWorkload>().is_err());
    }
}
