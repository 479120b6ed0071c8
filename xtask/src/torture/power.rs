//! Power cuts: the store lies on an ext4 of its own, in a loop device, that is told to stop.
//!
//! The ioctl `EXT4_IOC_SHUTDOWN` makes the file system refuse everything from that moment on. What
//! had not reached the device is lost when it is unmounted; mounting it again replays its journal,
//! as after a power cut. The ioctl is made by Perl, which is part of every Debian, Fedora and
//! Alpine with git: in Rust it would need `unsafe`.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use zkv_measure::random::{Random, mix};

use crate::torture::Budget;
use crate::torture::command::{Outcome, Zkv, start, tool};
use crate::torture::mounts::{Mount, text};
use crate::torture::oracle::Model;
use crate::torture::report::Report;
use crate::torture::verify::{May, verify};
use crate::torture::victim::{Kind, STORE, Victim, Waits};

/// Room for the largest store, and for ext4's journal.
const IMAGE_BYTES: u64 = 48 << 20;
const STORE_BYTES_MAX: u64 = 6 << 20;
/// How many cuts a file system sees at the most.
const CUTS_MAX: u32 = 40;

/// Waits for a line, so that the cut itself takes no time; then `EXT4_IOC_SHUTDOWN`,
/// `_IOR('X', 125, __u32)`, with the flags given.
const CUT: &str = "open(my $f, '<', $ARGV[0]) or die $!; syswrite(STDOUT, 'r'); <STDIN>; \
                   my $flags = pack('L', $ARGV[1]); ioctl($f, 0x8004587d, $flags) or die $!;";

/// How the cut treats the journal.
const FLAGS: [(&str, &str); 2] =
    [("1", "cuts behind the journal"), ("2", "cuts before the journal")];
/// How ext4 orders data and names, and whether it puts off choosing where data lies.
const MOUNT_OPTIONS: [&str; 4] =
    ["data=ordered", "data=writeback", "data=ordered,nodelalloc", "data=writeback,nodelalloc"];

/// Cuts until the time is up.
pub fn run(zkv: &Zkv, budget: &Budget) -> Report {
    let mut report = Report::new("power", budget.seed);
    if !cfg!(target_os = "linux") {
        report.skip("power cuts", "the ioctl is Linux's");
        return report;
    }
    let end = Instant::now() + budget.duration;
    let mut seed = budget.seed;
    while Instant::now() < end && !report.is_hopeless() {
        let Ok(folder) = tempfile::tempdir() else { break };
        let chain = Chain { zkv, folder: folder.path(), end };
        // Whatever keeps the first from starting keeps all of them.
        if let Err(reason) = chain.format() {
            report.skip("power cuts", &reason);
            break;
        }
        if let Err(problem) = chain.run(seed, &mut report) {
            report.fail(&problem, seed, folder.path());
        }
        report.count("file systems");
        seed += 1;
    }
    report
}

/// What happens to one file system.
struct Chain<'a> {
    zkv: &'a Zkv,
    folder: &'a Path,
    end: Instant,
}

impl Chain<'_> {
    fn image(&self) -> PathBuf {
        self.folder.join("image")
    }

    /// Makes the file system, and shows that it can be mounted and told to stop.
    fn format(&self) -> Result<(), String> {
        let image = self.image();
        let file = fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(IMAGE_BYTES).map_err(|error| error.to_string())?;
        tool("mkfs.ext4", &["-q", "-F", text(&image)?])?;
        let mount = self.mount(MOUNT_OPTIONS[0])?;
        Switch::new(mount.path(), "2")?.cut()?;
        mount.unmount()
    }

    fn mount(&self, options: &str) -> Result<Mount, String> {
        Mount::image(&self.folder.join("mount"), &self.image(), options)
    }

    fn run(&self, seed: u64, report: &mut Report) -> Result<(), String> {
        let mut random = Random::new(mix(seed));
        let options = random.pick(&MOUNT_OPTIONS);
        let mut model = Model::new(seed);
        let mut next = 0;
        let mut window = 30_000;
        for number in 0..CUTS_MAX {
            if self.end <= Instant::now() {
                break;
            }
            let mount = self.mount(options)?;
            let store = mount.path().join(STORE);
            if STORE_BYTES_MAX < fs::metadata(&store).map_or(0, |found| found.len()) {
                break;
            }
            let kind = choose(&mut random, store.exists());
            let count = 1 + random.below(40);
            let victim = Victim::new(kind, mount.path(), model.values, next, count, &mut random);
            next = victim.next(next);
            let (flags, what) = random.pick(&FLAGS);
            let delay = random.below(window);
            let delay = Duration::from_micros(delay);
            let cut = self.cut(&victim, &mount, flags, delay);
            let (outcome, acknowledged) = cut.map_err(|error| error.to_string())?;
            let is_cut_short = !victim.is_done(&outcome);
            window = if is_cut_short { window + window / 32 } else { window - window / 16 };
            mount.unmount()?;
            report.count(what);
            report.add("operations acknowledged", acknowledged);
            report.count(if is_cut_short { "while it ran" } else { "after it had ended" });
            let judged = self.judge(&victim, &outcome, acknowledged, &mut model, options);
            let lacks_header = judged.map_err(|problem| {
                format!("cut {number}, {options}, {kind:?}, {}: {problem}", outcome.describe())
            })?;
            if lacks_header {
                report.count("stores that lacked a header");
            }
        }
        Ok(())
    }

    /// Runs `victim`, and takes the power away under it. The number is that of the operations which
    /// were acknowledged before.
    ///
    /// The victim runs on, and has to fail; but what it says from then on does not count. A sync
    /// that was under way may report success, though it lost its data: ext4 forgets the error where
    /// the shutdown keeps it from turning written extents into such that are in use.
    fn cut(
        &self,
        victim: &Victim,
        mount: &Mount,
        flags: &str,
        delay: Duration,
    ) -> io::Result<(Outcome, usize)> {
        let switch = Switch::new(mount.path(), flags).map_err(io::Error::other)?;
        let mut child = start(&mut victim.command(self.zkv, &self.folder.join("input"))?)?;
        let output = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let printed = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            scope.spawn(|| gather(output, &printed));
            std::thread::sleep(delay);
            let has_ended = child.try_wait()?.is_some();
            let told = victim.told_in(&printed.lock().unwrap_or_else(PoisonError::into_inner));
            switch.cut().map_err(io::Error::other)?;
            let outcome = Outcome::new(child.wait_with_output()?);
            let acknowledged = if has_ended { victim.acknowledged(&outcome) } else { told };
            Ok((outcome, acknowledged))
        })
    }

    /// Mounts what is left, and holds the store in it against what was acknowledged. Says whether the
    /// cut took a segment's header.
    fn judge(
        &self,
        victim: &Victim,
        outcome: &Outcome,
        acknowledged: usize,
        model: &mut Model,
        options: &str,
    ) -> Result<bool, String> {
        let is_clear = outcome.is_clear_failure() || outcome.could_not_read();
        if !victim.is_done(outcome) && !is_clear {
            return Err("it did not fail as documented".to_owned());
        }
        let is_synced = victim.kind != Kind::Import(Waits::Flushed) || victim.is_done(outcome);
        let acknowledged = if is_synced { acknowledged } else { 0 };
        let mount = self.mount(options)?;
        let store = mount.path().join(STORE);
        let checked = model.check(&store, &victim.operations, acknowledged);
        let checked = checked.and_then(|_| verify(self.zkv, &store, May::LackHeaders));
        if checked.is_err() {
            // Beside the image, where whoever looks into it finds it.
            for name in [STORE.to_owned(), format!("{STORE}.idx")] {
                let _ = fs::copy(mount.path().join(&name), self.folder.join(name));
            }
        }
        mount.unmount()?;
        checked
    }
}

fn choose(random: &mut Random, exists: bool) -> Kind {
    match random.below(20) {
        0..5 => Kind::Import(Waits::Buffered),
        5..8 => Kind::Import(Waits::Flushed),
        8..15 => Kind::Import(Waits::Synced),
        15 => Kind::Set,
        _ if !exists => Kind::Import(Waits::Synced),
        16..18 => Kind::Delete,
        _ => Kind::RebuildIndex,
    }
}

/// Moves what is read into `printed` as it comes.
fn gather(mut output: impl Read, printed: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = output.read(&mut buffer) {
        let mut printed = printed.lock().unwrap_or_else(PoisonError::into_inner);
        printed.extend_from_slice(&buffer[..count]);
    }
}

/// A process that is ready to cut the power.
struct Switch(Child);

impl Switch {
    fn new(mounted: &Path, flags: &str) -> Result<Self, String> {
        let mut child = Command::new("perl")
            .args(["-e", CUT, text(mounted)?, flags])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("perl: {error}"))?;
        let mut ready = [0];
        let is_ready = child.stdout.take().map(|mut output| output.read_exact(&mut ready));
        match is_ready {
            Some(Ok(())) => Ok(Self(child)),
            _ => Err(said(child)),
        }
    }

    fn cut(mut self) -> Result<(), String> {
        let told = self.0.stdin.take().map(|mut input| input.write_all(b"\n"));
        let status = self.0.wait().map_err(|error| error.to_string())?;
        match told {
            Some(Ok(())) if status.success() => Ok(()),
            _ => Err(said(self.0)),
        }
    }
}

/// Why it could not.
fn said(child: Child) -> String {
    match child.wait_with_output() {
        Ok(output) => {
            format!("perl, for the ioctl: {}", String::from_utf8_lossy(&output.stderr).trim())
        }
        Err(error) => format!("perl: {error}"),
    }
}
