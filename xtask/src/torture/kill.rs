//! SIGKILL at random moments.
//!
//! Stores are used on: what one victim left is what the next one opens, and it may be killed over
//! that, too. In between, an index file is lost now and then, or an older one comes back.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use zkv_measure::random::{Random, mix};

use crate::torture::Budget;
use crate::torture::command::{Outcome, Zkv, finish, start};
use crate::torture::oracle::{Model, left_behind};
use crate::torture::report::Report;
use crate::torture::verify::{May, verify};
use crate::torture::victim::{COPY, Kind, STORE, Victim, Waits};

/// A longer store takes longer to check than to hurt.
const STORE_BYTES_MAX: u64 = 6 << 20;
/// How many victims a store sees at the most.
const VICTIMS_MAX: u32 = 120;

/// Kills until the time is up.
pub fn run(zkv: &Zkv, budget: &Budget) -> Report {
    let mut report = Report::new("kill", budget.seed);
    let end = Instant::now() + budget.duration;
    let mut windows = Windows::default();
    let mut seed = budget.seed;
    while Instant::now() < end && !report.is_hopeless() {
        match tempfile::tempdir() {
            Ok(folder) => {
                let chain = Chain { zkv, folder: folder.path(), end };
                if let Err(problem) = chain.run(seed, &mut windows, &mut report) {
                    report.fail(&problem, seed, folder.path());
                }
            }
            Err(error) => {
                report.skip("a temporary folder", &error.to_string());
                break;
            }
        }
        report.count("stores");
        seed += 1;
    }
    report
}

/// What happens to one store.
struct Chain<'a> {
    zkv: &'a Zkv,
    folder: &'a Path,
    end: Instant,
}

impl Chain<'_> {
    fn run(&self, seed: u64, windows: &mut Windows, report: &mut Report) -> Result<(), String> {
        let mut random = Random::new(mix(seed));
        let mut model = Model::new(seed);
        let mut next = 0;
        for _ in 0..VICTIMS_MAX {
            if self.end <= Instant::now() || STORE_BYTES_MAX < self.store_bytes() {
                break;
            }
            self.hurt_index(&mut random, report).map_err(|error| error.to_string())?;
            let kind = self.choose(&mut random);
            let count = 1 + random.below(60);
            let victim = Victim::new(kind, self.folder, model.values, next, count, &mut random);
            next = victim.next(next);
            let outcome = self.kill(&victim, windows, &mut random).map_err(|e| e.to_string())?;
            self.judge(&victim, &outcome, &mut model, report)
                .map_err(|problem| format!("{kind:?}, {}: {problem}", outcome.describe()))?;
        }
        self.check_end(&mut model)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn store_bytes(&self) -> u64 {
        fs::metadata(self.path(STORE)).map_or(0, |found| found.len())
    }

    fn choose(&self, random: &mut Random) -> Kind {
        let needs_store = !self.path(STORE).exists();
        match random.below(20) {
            0..5 => Kind::Import(Waits::Buffered),
            5..9 => Kind::Import(Waits::Flushed),
            9..13 => Kind::Import(Waits::Synced),
            13 => Kind::Set,
            _ if needs_store => Kind::Import(Waits::Synced),
            14..17 => Kind::Delete,
            17..19 => Kind::RebuildIndex,
            _ => Kind::Backup,
        }
    }

    /// Loses the index file, or brings back what it was some victims ago.
    fn hurt_index(&self, random: &mut Random, report: &mut Report) -> io::Result<()> {
        let (index, older) = (self.path(&format!("{STORE}.idx")), self.path("older.idx"));
        if !index.exists() {
            return Ok(());
        }
        match random.below(40) {
            0 => {
                report.count("indexes lost");
                fs::remove_file(index)
            }
            1 if older.exists() => {
                report.count("older indexes back");
                fs::copy(older, index).map(drop)
            }
            2..5 => fs::copy(index, older).map(drop),
            _ => Ok(()),
        }
    }

    fn kill(
        &self,
        victim: &Victim,
        windows: &mut Windows,
        random: &mut Random,
    ) -> io::Result<Outcome> {
        let mut command = victim.command(self.zkv, &self.path("input"))?;
        let window = windows.of(victim.kind);
        let delay = Duration::from_micros(random.below(window.max(1)));
        let mut child = start(&mut command)?;
        std::thread::sleep(delay);
        child.kill()?;
        let outcome = Outcome::new(child.wait_with_output()?);
        windows.learn(victim.kind, outcome.signal().is_some());
        Ok(outcome)
    }

    fn judge(
        &self,
        victim: &Victim,
        outcome: &Outcome,
        model: &mut Model,
        report: &mut Report,
    ) -> Result<(), String> {
        let is_killed = outcome.signal() == Some(9);
        if !is_killed && !victim.is_done(outcome) {
            return Err("it failed, and was not killed".to_owned());
        }
        let acknowledged = victim.acknowledged(outcome);
        model.check(&self.path(STORE), &victim.operations, acknowledged)?;
        verify(self.zkv, &self.path(STORE), May::BeSound)?;
        report.add("operations acknowledged", acknowledged);
        report.count(if is_killed { "kills" } else { "runs that were faster" });
        match victim.kind {
            Kind::Backup => {
                model.check_copy(&self.path(COPY), victim.is_done(outcome))?;
                self.remove_all(COPY).map_err(|error| error.to_string())
            }
            // Whoever opens a store to write tidies up first; a backup only reads it.
            _ if !is_killed => left_behind(self.folder, STORE),
            _ => Ok(()),
        }
    }

    fn remove_all(&self, start: &str) -> io::Result<()> {
        for entry in fs::read_dir(self.folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(start) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    /// At last, an index from the data alone gives the same answers, and nothing is left behind.
    fn check_end(&self, model: &mut Model) -> Result<(), String> {
        let store = self.path(STORE);
        if !store.exists() {
            return Ok(());
        }
        let mut command = self.zkv.command(["rebuild-index".as_ref(), store.as_os_str()]);
        let outcome = finish(&mut command).map_err(|error| error.to_string())?;
        if outcome.code() != Some(0) {
            return Err(format!("rebuilding at the end: {}", outcome.describe()));
        }
        model.check(&store, &[], 0)?;
        left_behind(self.folder, STORE)
    }
}

/// How long victims of each kind live, in microseconds: most are to be killed, and a few to end.
#[derive(Debug, Default)]
struct Windows(BTreeMap<Kind, u64>);

impl Windows {
    fn of(&self, kind: Kind) -> u64 {
        self.0.get(&kind).copied().unwrap_or(20_000)
    }

    fn learn(&mut self, kind: Kind, is_killed: bool) {
        let window = self.of(kind);
        let next = if is_killed { window + window / 64 } else { window - window / 8 };
        self.0.insert(kind, next.clamp(1_000, 1_000_000));
    }
}
