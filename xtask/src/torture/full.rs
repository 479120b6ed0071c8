//! Room that runs out: on the disk, in a file, in memory.
//!
//! The limits are swept in small steps, so that the room ends at every kind of place, and the write
//! that meets the end is a short one.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Command;

use zkv::{Durability, Options};

use zkv_measure::random::Random;

use crate::torture::Budget;
use crate::torture::command::{Outcome, Zkv, finish};
use crate::torture::mounts::Mount;
use crate::torture::oracle::Model;
use crate::torture::report::Report;
use crate::torture::victim::{Kind, STORE, Victim, Waits};

/// The least that `tmpfs` grows by.
const PAGE_BYTES: u64 = 4096;
const SIGABRT: i32 = 6;
const SIGXFSZ: i32 = 25;

const IMPORTS: [Kind; 3] =
    [Kind::Import(Waits::Buffered), Kind::Import(Waits::Flushed), Kind::Import(Waits::Synced)];

type Case<'a> = &'a dyn Fn(&mut Report) -> Result<(), String>;

/// All cases.
pub fn run(zkv: &Zkv, budget: &Budget) -> Report {
    let mut report = Report::new("full", budget.seed);
    let step = if budget.is_smoke { 16 } else { 1 };
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => {
            report.skip("everything", &error.to_string());
            return report;
        }
    };
    let bench = Bench { zkv, folder: folder.path(), seed: budget.seed };
    let cases: [(&str, Case<'_>); 5] = [
        ("a full disk", &|report| bench.full_disks(step, report)),
        ("a full disk under an open store", &|report| bench.same_process(step, report)),
        ("a limit of the file's length", &|report| bench.file_limits(step, true, report)),
        ("such a limit, with its signal", &|report| bench.file_limits(step, false, report)),
        ("little memory", &|report| bench.memory_limits(step, report)),
    ];
    for (name, case) in cases {
        if let Err(problem) = case(&mut report) {
            report.fail(&format!("{name}: {problem}"), budget.seed, folder.path());
        }
    }
    report
}

struct Bench<'a> {
    zkv: &'a Zkv,
    folder: &'a Path,
    seed: u64,
}

/// A limit that a shell puts on the run.
struct Limit {
    /// What the shell does before it becomes the command.
    commands: String,
    /// The signal that may end the run, if one may.
    signal: Option<i32>,
    /// What to count it as, where there was enough, and where there was not.
    names: [&'static str; 2],
}

/// What stands behind the limit's commands: the command takes the shell's place.
const EXEC: &str = "exec \"$0\" \"$@\"";

impl Bench<'_> {
    /// A disk that is full after 2 pages, after 3, and so on.
    fn full_disks(&self, step: usize, report: &mut Report) -> Result<(), String> {
        for pages in (2..100).chain((100..250).step_by(5)).step_by(step) {
            let mount = Mount::memory(&self.folder.join("mount"), pages * PAGE_BYTES);
            let mount = match mount {
                Ok(mount) => mount,
                Err(reason) => {
                    report.skip("a full disk", &reason);
                    return Ok(());
                }
            };
            let kind = IMPORTS[(pages % 3) as usize];
            self.full_disk(&mount, kind, report)
                .map_err(|problem| format!("{pages} pages, {kind:?}: {problem}"))?;
            mount.unmount()?;
        }
        Ok(())
    }

    fn full_disk(&self, mount: &Mount, kind: Kind, report: &mut Report) -> Result<(), String> {
        let store = mount.path().join(STORE);
        let (mut model, mut random) = (Model::new(self.seed), Random::new(self.seed));
        let first = Victim::new(kind, mount.path(), model.values, 0, 200, &mut random);
        let outcome = self.run(&first, None)?;
        if !first.is_done(&outcome) && !outcome.is_clear_failure() {
            return Err(outcome.describe());
        }
        report.count(if first.is_done(&outcome) { "disks with room" } else { "full disks" });
        model.check(&store, &first.operations, first.acknowledged(&outcome))?;
        self.check_reads(&store)?;
        // Deleting needs a little room; it may fail, and lose nothing.
        if store.exists() {
            let deletes =
                Victim::new(Kind::Delete, mount.path(), model.values, 200, 3, &mut random);
            let outcome = self.run(&deletes, None)?;
            if !deletes.is_done(&outcome) && !outcome.is_clear_failure() {
                return Err(format!("deletes: {}", outcome.describe()));
            }
            model.check(&store, &deletes.operations, deletes.acknowledged(&outcome))?;
        }
        mount.resize(64 << 20)?;
        let later = Victim::new(kind, mount.path(), model.values, 203, 60, &mut random);
        let outcome = self.run(&later, None)?;
        if !later.is_done(&outcome) {
            return Err(format!("with room again: {}", outcome.describe()));
        }
        model.check(&store, &later.operations, later.operations.len()).map(drop)
    }

    /// One process meets the end, reads on, and writes on once there is room.
    fn same_process(&self, step: usize, report: &mut Report) -> Result<(), String> {
        let levels = [Durability::Buffered, Durability::Flushed, Durability::Synced];
        for pages in (30..150).step_by(3 * step) {
            let Ok(mount) = Mount::memory(&self.folder.join("mount"), pages * PAGE_BYTES) else {
                report.skip("a full disk under an open store", "no file system can be mounted");
                return Ok(());
            };
            let durability = levels[(pages / 3 % 3) as usize];
            self.fill(&mount, durability)
                .map_err(|problem| format!("{pages} pages, {durability:?}: {problem}"))?;
            mount.unmount()?;
            report.count("open stores whose disk was full");
        }
        Ok(())
    }

    fn fill(&self, mount: &Mount, durability: Durability) -> Result<(), String> {
        let failed = |error: zkv::Error| error.to_string();
        let mut model = Model::new(self.seed);
        let path = mount.path().join(STORE);
        let options = Options::new().durability(durability).memory_buffer_bytes(64 << 10);
        let store = options.slot_bytes(256 << 10).open(&path).map_err(failed)?;
        let mut number = 0;
        loop {
            let set = store.set_bytes(number.to_string().as_bytes(), &model.values.get(number));
            if set.is_err() || store.flush().is_err() {
                break;
            }
            model.state.insert(number.to_string(), number);
            number += 1;
            if number == 10_000 {
                return Err("the disk is never full".to_owned());
            }
        }
        for (key, &number) in &model.state {
            let value = store.get_bytes(key.as_bytes()).map_err(failed)?;
            if value != Some(model.values.get(number)) {
                return Err(format!("key {key} is not read while the disk is full"));
            }
        }
        mount.resize(64 << 20)?;
        // It may still wait in a buffer: it is written anew, so that it is there for certain.
        for number in number..number + 20 {
            let set = store.set_bytes(number.to_string().as_bytes(), &model.values.get(number));
            set.map_err(|error| format!("with room again: {error}"))?;
            model.state.insert(number.to_string(), number);
        }
        store.close().map_err(failed)?;
        model.check(&path, &[], 0).map(drop)
    }

    /// Files that may have so many bytes and no more. Where the signal is not ignored, it kills.
    fn file_limits(
        &self,
        step: usize,
        is_ignored: bool,
        report: &mut Report,
    ) -> Result<(), String> {
        let trap = if is_ignored { "trap '' XFSZ; " } else { "" };
        let blocks = (1..200u32).chain((200..1200).step_by(7)).step_by(step);
        for (number, blocks) in blocks.enumerate() {
            let limit = Limit {
                commands: format!("{trap}ulimit -f {blocks}; {EXEC}"),
                signal: (!is_ignored).then_some(SIGXFSZ),
                names: ["file lengths that had room", "file lengths that ended a run"],
            };
            let kind = IMPORTS[number % 3];
            self.limited(kind, &limit, report)
                .map_err(|problem| format!("{blocks} blocks, {kind:?}: {problem}"))?;
        }
        Ok(())
    }

    /// Processes that may have so much memory and no more, from where the command can be loaded on.
    fn memory_limits(&self, step: usize, report: &mut Report) -> Result<(), String> {
        let mut can_load = false;
        let sizes = (3_000..20_000u32).step_by(100).chain((20_000..160_000).step_by(2_000));
        for (number, kilobytes) in sizes.step_by(step).enumerate() {
            let limit = Limit {
                commands: format!("ulimit -v {kilobytes}; {EXEC}"),
                signal: Some(SIGABRT),
                names: ["memory sizes that sufficed", "memory sizes that ended a run"],
            };
            let mut shell = Command::new("sh");
            shell.args(["-c", &limit.commands]).arg(self.zkv.path()).arg("--version");
            let loaded = finish(&mut shell).map_err(|error| error.to_string())?;
            if loaded.code() == Some(0) {
                can_load = true;
                let kind = IMPORTS[number % 3];
                self.limited(kind, &limit, report)
                    .map_err(|problem| format!("{kilobytes} KB, {kind:?}: {problem}"))?;
            }
        }
        if !can_load {
            report.skip("little memory", "the shell's `ulimit -v` does not work here");
        }
        Ok(())
    }

    /// Two runs, the second under `limit`, and a third without.
    fn limited(&self, kind: Kind, limit: &Limit, report: &mut Report) -> Result<(), String> {
        let folder = self.folder.join("limited");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let store = folder.join(STORE);
        let (mut model, mut random) = (Model::new(self.seed), Random::new(self.seed));
        let first = Victim::new(IMPORTS[1], &folder, model.values, 0, 3, &mut random);
        let outcome = self.run(&first, None)?;
        model.check(&store, &first.operations, first.acknowledged(&outcome))?;
        let victim = Victim::new(kind, &folder, model.values, 3, 60, &mut random);
        let outcome = self.run(&victim, Some(&limit.commands))?;
        let is_done = victim.is_done(&outcome);
        let is_killed = limit.signal.is_some() && outcome.signal() == limit.signal;
        if !is_done && !outcome.is_clear_failure() && !is_killed {
            return Err(outcome.describe());
        }
        report.count(limit.names[usize::from(!is_done)]);
        model.check(&store, &victim.operations, victim.acknowledged(&outcome))?;
        let later = Victim::new(kind, &folder, model.values, 63, 5, &mut random);
        let after = self.run(&later, None)?;
        if !later.is_done(&after) {
            return Err(format!("with room again: {}", after.describe()));
        }
        model.check(&store, &later.operations, later.operations.len()).map(drop)
    }

    fn run(&self, victim: &Victim, limits: Option<&str>) -> Result<Outcome, String> {
        let input = self.folder.join("input");
        let done = || -> io::Result<Outcome> {
            let mut command = match limits {
                None => victim.command(self.zkv, &input)?,
                Some(limits) => {
                    let mut shell = Command::new("sh");
                    shell.args(["-c", limits]).arg(self.zkv.path());
                    victim.wrapped(shell, &input)?
                }
            };
            finish(&mut command)
        };
        done().map_err(|error| error.to_string())
    }

    /// What only reads needs no room.
    fn check_reads(&self, store: &Path) -> Result<(), String> {
        if !store.exists() {
            return Ok(());
        }
        for name in ["list", "stats", "export"] {
            let mut command = self.zkv.command([name.as_ref(), store.as_os_str()]);
            let outcome = finish(&mut command).map_err(|error| error.to_string())?;
            if outcome.code() != Some(0) {
                return Err(format!("{name}: {}", outcome.describe()));
            }
        }
        Ok(())
    }
}
