//! Each system call in turn: killed before it, or told that it failed.
//!
//! `strace` counts the calls of each thread apart; the command makes those that matter here on one
//! thread, so that a run for each number reaches every one of them. Short writes it cannot make:
//! `full` has those, where the room ends within one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use zkv_measure::random::Random;

use crate::torture::Budget;
use crate::torture::command::{Outcome, Zkv, finish, tool};
use crate::torture::oracle::{Model, left_behind};
use crate::torture::report::Report;
use crate::torture::victim::{COPY, Kind, STORE, Victim, Waits};

/// Calls before which the command is killed: all that change a file or a name, and those that begin
/// a phase.
const KILLED_AT: [&str; 12] = [
    "openat",
    "pwrite64",
    "fdatasync",
    "fsync",
    "ftruncate",
    "rename",
    "linkat",
    "unlink",
    "mmap",
    "flock",
    "pread64",
    "write",
];

/// Calls that fail, the errors, and whether those last.
const FAILING: [(&str, &[&str]); 9] = [
    ("pwrite64", &["ENOSPC", "EDQUOT", "EFBIG", "EIO"]),
    ("fdatasync", &["EIO", "ENOSPC", "EDQUOT"]),
    ("fsync", &["EIO", "ENOSPC", "EDQUOT"]),
    ("ftruncate", &["EIO", "ENOSPC"]),
    ("rename", &["EIO", "ENOSPC"]),
    ("linkat", &["EPERM", "EIO", "ENOSPC"]),
    ("unlink", &["EIO"]),
    ("openat", &["EIO", "EMFILE", "ENOSPC"]),
    ("mmap", &["ENOMEM"]),
];

/// Calls that a signal may interrupt, which nobody is to notice.
const INTERRUPTED: [&str; 7] =
    ["pwrite64", "fdatasync", "fsync", "ftruncate", "openat", "pread64", "read"];

/// No scenario makes as many calls of one kind.
const CALLS_MAX: u32 = 2_000;

/// What is done to a run, at which call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Kill,
    Fail(&'static str),
    FailForEver(&'static str),
    Interrupt,
}

impl Blow {
    /// As `strace` takes it.
    fn injection(self, call: &str, number: u32) -> String {
        match self {
            Self::Kill => format!("inject={call}:signal=SIGKILL:when={number}"),
            Self::Fail(error) => format!("inject={call}:error={error}:when={number}"),
            Self::FailForEver(error) => format!("inject={call}:error={error}:when={number}+"),
            Self::Interrupt => format!("inject={call}:error=EINTR:when={number}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "calls killed at",
            Self::Fail(_) => "calls failed once",
            Self::FailForEver(_) => "calls failed for ever",
            Self::Interrupt => "calls interrupted",
        }
    }
}

/// Every call of every scenario.
pub fn run(zkv: &Zkv, budget: &Budget) -> Report {
    let mut report = Report::new("syscall", budget.seed);
    let trial = tool("strace", &["-f", "-qq", "-o", "/dev/null", "--seccomp-bpf", "true"]);
    if let Err(reason) = trial {
        report.skip("every system call", &reason);
        return report;
    }
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            report.skip("every system call", &error.to_string());
            return report;
        }
    };
    for (name, before, kind) in SCENARIOS {
        let bench =
            Bench { zkv, folder: folder.path(), seed: budget.seed, is_smoke: budget.is_smoke };
        let done =
            bench.prepare(before, kind).and_then(|scenario| bench.all(&scenario, &mut report));
        if let Err(problem) = done {
            report.fail(&format!("{name}: {problem}"), budget.seed, folder.path());
        }
        report.count("scenarios");
        if report.is_hopeless() {
            break;
        }
    }
    report
}

/// What is there before the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    Nothing,
    /// A store that was closed.
    Closed,
    /// One that a killed process left, all of it whole.
    Unproven,
    /// The same, with its last commit torn.
    Torn,
    /// The same, without an index file.
    TornWithoutIndex,
}

const SCENARIOS: [(&str, Before, Kind); 10] = [
    ("a store is made", Before::Nothing, Kind::Import(Waits::Synced)),
    ("an import by commits", Before::Closed, Kind::Import(Waits::Flushed)),
    ("an import in buffers", Before::Closed, Kind::Import(Waits::Buffered)),
    ("an import behind an unproven tail", Before::Unproven, Kind::Import(Waits::Synced)),
    ("an import behind a torn tail", Before::Torn, Kind::Import(Waits::Buffered)),
    ("a set behind a torn tail", Before::TornWithoutIndex, Kind::Set),
    ("deletes", Before::Closed, Kind::Delete),
    ("deletes behind an unproven tail", Before::Unproven, Kind::Delete),
    ("a rebuild", Before::Torn, Kind::RebuildIndex),
    ("a backup", Before::Closed, Kind::Backup),
];

/// A store, what is known of it, and the run that is to be hurt.
struct Scenario {
    fixture: PathBuf,
    model: Model,
    victim: Victim,
    next: u64,
    /// How many calls are made before the command's own first one.
    start: Vec<(&'static str, u32)>,
}

/// Where the runs take place.
struct Bench<'a> {
    zkv: &'a Zkv,
    folder: &'a Path,
    seed: u64,
    is_smoke: bool,
}

const OPERATIONS: u64 = 8;

impl Bench<'_> {
    fn prepare(&self, before: Before, kind: Kind) -> Result<Scenario, String> {
        let failed = |error: io::Error| error.to_string();
        self.clear().map_err(failed)?;
        let (mut random, mut model) = (Random::new(self.seed), Model::new(self.seed));
        let mut next = 0;
        let store = self.folder.join(STORE);
        if before != Before::Nothing {
            let first = Kind::Import(Waits::Synced);
            let victim = Victim::new(first, self.folder, model.values, next, 40, &mut random);
            next = victim.next(next);
            self.run_whole(&victim)?;
            model.check(&store, &victim.operations, victim.operations.len())?;
        }
        if !matches!(before, Before::Nothing | Before::Closed) {
            let second = Kind::Import(Waits::Flushed);
            let victim = Victim::new(second, self.folder, model.values, next, 20, &mut random);
            next = victim.next(next);
            // The index is written last: killed there, all of the log is there, and not closed.
            let (outcome, _) = self.hurt(&victim, "rename", 1, Blow::Kill).map_err(failed)?;
            if outcome.signal() != Some(9) {
                return Err(format!("no killed store can be made: {}", outcome.describe()));
            }
            if before != Before::Unproven {
                let file = fs::File::options().write(true).open(&store).map_err(failed)?;
                let bytes = file.metadata().map_err(failed)?.len();
                file.set_len(bytes - 5).map_err(failed)?;
            }
            model.check(&store, &victim.operations, 0)?;
        }
        if before == Before::TornWithoutIndex {
            fs::remove_file(self.folder.join(format!("{STORE}.idx"))).map_err(failed)?;
        }
        let victim = Victim::new(kind, self.folder, model.values, next, OPERATIONS, &mut random);
        next = victim.next(next);
        let fixture = self.folder.join("fixture");
        copy_store(self.folder, &fixture).map_err(failed)?;
        let start = self.calls_at_start().map_err(failed)?;
        Ok(Scenario { fixture, model, victim, next, start })
    }

    /// Every blow at every call.
    fn all(&self, scenario: &Scenario, report: &mut Report) -> Result<(), String> {
        for call in KILLED_AT {
            self.each(scenario, call, Blow::Kill, report)?;
        }
        for (call, errors) in FAILING {
            for error in errors {
                self.each(scenario, call, Blow::Fail(error), report)?;
                self.each(scenario, call, Blow::FailForEver(error), report)?;
            }
        }
        for call in INTERRUPTED {
            self.each(scenario, call, Blow::Interrupt, report)?;
        }
        Ok(())
    }

    /// One blow, at the first call, the second, and so on until there is none.
    fn each(
        &self,
        scenario: &Scenario,
        call: &str,
        blow: Blow,
        report: &mut Report,
    ) -> Result<(), String> {
        let skipped = scenario.start.iter().find(|(name, _)| *name == call).map_or(0, |(_, n)| *n);
        // A share of them, and another one for each seed: a prime, so that each has its turn.
        let step = if self.is_smoke { 29 } else { 1 };
        let first = skipped
            + 1
            + if self.is_smoke { u32::try_from(self.seed % 29).unwrap_or(0) } else { 0 };
        for number in (first..CALLS_MAX).step_by(step) {
            self.restore(&scenario.fixture).map_err(|error| error.to_string())?;
            let hurt = self.hurt(&scenario.victim, call, number, blow);
            let (outcome, is_hit) = hurt.map_err(|error| error.to_string())?;
            if is_hit {
                report.count(blow.name());
            }
            self.judge(scenario, &outcome, call, blow, is_hit).map_err(|problem| {
                format!("{blow:?} at {call} {number}, {}: {problem}", outcome.describe())
            })?;
            if !is_hit {
                return Ok(());
            }
        }
        Err(format!("{call} is called for ever"))
    }

    /// Runs `victim` under `strace`, and says whether the call was reached.
    fn hurt(
        &self,
        victim: &Victim,
        call: &str,
        number: u32,
        blow: Blow,
    ) -> io::Result<(Outcome, bool)> {
        let log = self.folder.join("strace");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(&log);
        if blow != Blow::Kill {
            // Faster, but a signal would never arrive.
            command.arg("--seccomp-bpf");
        }
        command.args(["-e", &format!("trace={call}"), "-e", &blow.injection(call, number)]);
        command.arg(self.zkv.path());
        let mut command = victim.wrapped(command, &self.folder.join("input"))?;
        let outcome = finish(&mut command)?;
        let is_hit = match blow {
            Blow::Kill => outcome.signal() == Some(9),
            _ => fs::read_to_string(&log)?.contains("(INJECTED)"),
        };
        Ok((outcome, is_hit))
    }

    fn judge(
        &self,
        scenario: &Scenario,
        outcome: &Outcome,
        call: &str,
        blow: Blow,
        is_hit: bool,
    ) -> Result<(), String> {
        let victim = &scenario.victim;
        let is_done = victim.is_done(outcome);
        match blow {
            _ if !is_hit && !is_done => {
                return Err("it failed, and nothing was done to it".to_owned());
            }
            Blow::Kill => {}
            Blow::Interrupt if !is_done => return Err("an interruption was noticed".to_owned()),
            Blow::Interrupt => {}
            // Memory that runs out is as a kill.
            Blow::Fail(_) | Blow::FailForEver(_) if call == "mmap" && is_abort(outcome) => {}
            Blow::Fail(_) | Blow::FailForEver(_) if is_done || outcome.is_clear_failure() => {}
            Blow::Fail(_) | Blow::FailForEver(_) => return Err("no clear failure".to_owned()),
        }
        let mut model = scenario.model.clone();
        let store = self.folder.join(STORE);
        model.check(&store, &victim.operations, victim.acknowledged(outcome))?;
        if victim.kind == Kind::Backup {
            model.check_copy(&self.folder.join(COPY), is_done)?;
        }
        self.go_on(scenario, model)
    }

    /// The store that is left can be used on.
    fn go_on(&self, scenario: &Scenario, mut model: Model) -> Result<(), String> {
        let mut random = Random::new(self.seed);
        let kind = Kind::Import(Waits::Synced);
        let victim = Victim::new(kind, self.folder, model.values, scenario.next, 3, &mut random);
        self.run_whole(&victim).map_err(|problem| format!("the next run: {problem}"))?;
        let count = victim.operations.len();
        let checked = model.check(&self.folder.join(STORE), &victim.operations, count);
        checked.map_err(|problem| format!("after the next run: {problem}"))?;
        left_behind(self.folder, STORE)
    }

    fn run_whole(&self, victim: &Victim) -> Result<(), String> {
        let command = victim.command(self.zkv, &self.folder.join("input"));
        let outcome = command.and_then(|mut command| finish(&mut command));
        let outcome = outcome.map_err(|error| error.to_string())?;
        if victim.is_done(&outcome) { Ok(()) } else { Err(outcome.describe()) }
    }

    /// What loading the command calls, which is none of its doing.
    fn calls_at_start(&self) -> io::Result<Vec<(&'static str, u32)>> {
        let log = self.folder.join("strace");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", "trace=openat,mmap,pread64,read", "-o"]).arg(&log);
        finish(command.arg(self.zkv.path()).arg("--version"))?;
        let text = fs::read_to_string(&log)?;
        let count =
            |call: &str| text.lines().filter(|line| line.contains(&format!(" {call}("))).count();
        let calls = ["openat", "mmap", "pread64", "read"];
        Ok(calls.map(|call| (call, u32::try_from(count(call)).unwrap_or(u32::MAX))).to_vec())
    }

    fn clear(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.folder)? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        Ok(())
    }

    fn restore(&self, fixture: &Path) -> io::Result<()> {
        for entry in fs::read_dir(self.folder)? {
            let path = entry?.path();
            if path.is_file() {
                fs::remove_file(path)?;
            }
        }
        copy_store(fixture, self.folder)
    }
}

fn is_abort(outcome: &Outcome) -> bool {
    const SIGABRT: i32 = 6;
    outcome.signal() == Some(SIGABRT)
}

fn copy_store(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for name in [STORE.to_owned(), format!("{STORE}.idx")] {
        if from.join(&name).exists() {
            fs::copy(from.join(&name), to.join(&name))?;
        }
    }
    Ok(())
}
