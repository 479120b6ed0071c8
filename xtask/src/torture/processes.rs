//! Several processes at one store, and files that cannot be written.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::torture::command::{Outcome, Zkv, finish, start};
use crate::torture::mounts::Mount;
use crate::torture::report::Report;
use crate::torture::victim::STORE;

/// A command that waits for a lock takes for ever; one that does not, milliseconds.
const AT_ONCE: Duration = Duration::from_secs(2);
/// How often a holder is killed.
const HOLDERS: u32 = 50;
/// `nobody`, by an old custom.
const NOBODY: u32 = 65_534;

/// What looks at a store.
const READS: [&[&str]; 4] = [&["get", "key"], &["list"], &["stats"], &["export"]];
/// What changes one.
const WRITES: [&[&str]; 4] =
    [&["set", "key", "other"], &["del", "key"], &["rebuild-index"], &["import"]];

/// All cases.
pub fn run(zkv: &Zkv) -> Report {
    let mut report = Report::new("processes", 0);
    case(&mut report, "locks", |folder, report| locks(zkv, folder, report));
    case(&mut report, "read-only permissions", |folder, report| permissions(zkv, folder, report));
    case(&mut report, "a read-only mount", |folder, report| read_only_mount(zkv, folder, report));
    report
}

/// Runs a case in a folder of its own. `Ok(Some(reason))` says that it could not run.
fn case(
    report: &mut Report,
    name: &str,
    run: impl FnOnce(&Path, &mut Report) -> Result<Option<String>, String>,
) {
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => return report.skip(name, &error.to_string()),
    };
    match run(folder.path(), report) {
        Ok(None) => {}
        Ok(Some(reason)) => report.skip(name, &reason),
        Err(problem) => report.fail(&format!("{name}: {problem}"), 0, folder.path()),
    }
}

/// The arguments with the store behind the command's name.
fn on_store(zkv: &Zkv, arguments: &[&str], store: &Path) -> Command {
    let mut command = zkv.command(&arguments[..1]);
    command.arg(store).args(&arguments[1..]);
    if arguments[0] == "import" {
        command.args(["-", "--format", "tsv"]);
    }
    command
}

fn expect(command: &mut Command, code: i32) -> Result<Outcome, String> {
    let begin = Instant::now();
    let outcome = finish(command).map_err(|error| error.to_string())?;
    let took = begin.elapsed();
    if outcome.code() != Some(code) {
        return Err(format!("{command:?}: {}, not code {code}", outcome.describe()));
    }
    if AT_ONCE < took {
        return Err(format!("{command:?} took {} ms", took.as_millis()));
    }
    Ok(outcome)
}

/// A second process is refused at once, and let in the moment the first is gone.
fn locks(zkv: &Zkv, folder: &Path, report: &mut Report) -> Result<Option<String>, String> {
    let store = folder.join(STORE);
    for number in 0..HOLDERS {
        let mut holder = Holder::new(zkv, &store).map_err(|error| error.to_string())?;
        holder.put(number).map_err(|error| error.to_string())?;
        for arguments in if number == 0 { [READS, WRITES].concat() } else { READS[..1].to_vec() } {
            expect(&mut on_store(zkv, arguments, &store), 4)?;
            report.count("refused while it is open");
        }
        if number == 0 {
            let copy = folder.join("copy.zkv");
            expect(zkv.command(["backup"]).arg(&store).arg(copy), 4)?;
        }
        holder.kill().map_err(|error| error.to_string())?;
        let found = expect(&mut on_store(zkv, READS[0], &store), 0)?;
        if found.output != number.to_string().as_bytes() {
            return Err(format!("holder {number}: what it acknowledged is not there"));
        }
        report.count("let in behind a killed holder");
    }
    Ok(None)
}

/// A process that has the store open, and waits for its input to go on.
struct Holder {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Holder {
    fn new(zkv: &Zkv, store: &Path) -> io::Result<Self> {
        let mut command = zkv.command(["import"]);
        command.arg(store).args(["-", "--format", "tsv", "--acknowledge", "1"]);
        let mut child = start(command.stdin(Stdio::piped()))?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok(Self { child, output: BufReader::new(output) })
    }

    /// Stores `number` under the key, and waits until that is acknowledged.
    fn put(&mut self, number: u32) -> io::Result<()> {
        let input = self.child.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(input, "key\t{number}")?;
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        if line == "1\n" { Ok(()) } else { Err(io::Error::other("it is not acknowledged")) }
    }

    fn kill(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

/// The files may be read, and neither they nor their folder be written.
fn permissions(zkv: &Zkv, folder: &Path, report: &mut Report) -> Result<Option<String>, String> {
    let (store, work) = (prepare(zkv, folder)?, folder.join("work"));
    set_mode(&work, 0o555)?;
    for file in files(&work)? {
        set_mode(&file, 0o444)?;
    }
    set_mode(folder, 0o755)?;
    // The superuser may do everything: somebody else has to try, who can reach the command.
    let binary = folder.join("zkv");
    fs::copy(zkv.path(), &binary).map_err(|error| error.to_string())?;
    let is_superuser = fs::write(work.join("probe"), "").is_ok();
    if is_superuser {
        fs::remove_file(work.join("probe")).map_err(|error| error.to_string())?;
    }
    let run = |arguments: &[&str]| {
        let mut command = Command::new(&binary);
        command.arg(arguments[0]).arg(&store).args(&arguments[1..]).stdin(Stdio::null());
        if is_superuser {
            std::os::unix::process::CommandExt::uid(&mut command, NOBODY);
        }
        command
    };
    if let Err(error) = finish(&mut run(&["stats"])) {
        return Ok(Some(format!("no process of another user: {error}")));
    }
    check_read_only(&work, report, run)?;
    set_mode(&work, 0o755)?;
    Ok(None)
}

/// The whole file system may not be written.
fn read_only_mount(
    zkv: &Zkv,
    folder: &Path,
    report: &mut Report,
) -> Result<Option<String>, String> {
    prepare(zkv, folder)?;
    let mount = match Mount::read_only(&folder.join("mount"), &folder.join("work")) {
        Ok(mount) => mount,
        Err(reason) => return Ok(Some(reason)),
    };
    let store = mount.path().join(STORE);
    check_read_only(mount.path(), report, |arguments| on_store(zkv, arguments, &store))?;
    mount.unmount()?;
    Ok(None)
}

/// A store that a killed process left, in a folder of its own: it has something to recover from.
fn prepare(zkv: &Zkv, folder: &Path) -> Result<PathBuf, String> {
    let work = folder.join("work");
    fs::create_dir_all(&work).map_err(|error| error.to_string())?;
    let store = work.join(STORE);
    expect(zkv.command(["set"]).arg(&store).args(["closed", "before"]), 0)?;
    let mut holder = Holder::new(zkv, &store).map_err(|error| error.to_string())?;
    holder.put(7).and_then(|()| holder.kill()).map_err(|error| error.to_string())?;
    Ok(store)
}

/// Reads work and change nothing; writes fail clearly and change nothing.
fn check_read_only(
    work: &Path,
    report: &mut Report,
    run: impl Fn(&[&str]) -> Command,
) -> Result<(), String> {
    let before = contents(work)?;
    for arguments in READS {
        let found = expect(&mut run(arguments), 0)?;
        if arguments[0] == "get" && found.output != b"7" {
            return Err("a wrong value".to_owned());
        }
        report.count("reads of what cannot be written");
    }
    for arguments in &WRITES[..3] {
        let outcome = expect(&mut run(arguments), 5)?;
        if !outcome.is_clear_failure() {
            return Err(format!("{arguments:?}: {}", outcome.describe()));
        }
        report.count("writes refused");
    }
    if contents(work)? == before { Ok(()) } else { Err("something was written".to_owned()) }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.sort();
    Ok(files)
}

fn contents(folder: &Path) -> Result<Vec<(PathBuf, Vec<u8>)>, String> {
    let read = |path: PathBuf| Ok((path.clone(), fs::read(&path).map_err(|e| e.to_string())?));
    files(folder)?.into_iter().map(read).collect()
}

fn set_mode(path: &Path, mode: u32) -> Result<(), String> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, permissions).map_err(|error| error.to_string())
}
