//! Runs inputs one by one, and ends with the one that does what none may do.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use zkv_fuzz::corpus;
use zkv_fuzz::targets::Target;

/// An input may take 1 s of processor time. This leaves room for slow machines.
const PROCESSOR_TIME_MAX: Duration = Duration::from_secs(10);
/// Who waits for what never comes takes no processor time. Nor does who gets none, since others want
/// it: so this is long.
const TIME_MAX: Duration = Duration::from_secs(300);
/// What an input may take, and what the process takes without one.
const MEMORY_KIB_MAX: u64 = (256 + 64) << 10;
/// Nothing touches that much memory in less: the system has to clear it. So whoever is faster is not
/// asked, which takes longer than most inputs do.
const MEMORY_TIME_MIN: Duration = Duration::from_millis(5);

/// Runs inputs of one target. A panic, a hang or too much memory ends the process or the run; the
/// input is then left in a file.
pub struct Runner {
    target: &'static Target,
    seed: u64,
    current: Current,
    watch: Watch,
    count: u64,
    slowest: Duration,
}

impl Runner {
    /// A runner for `target`; `seed` is named in failures.
    pub fn new(target: &'static Target, seed: u64) -> Result<Self, String> {
        let current = Current::new(target, seed).map_err(|error| error.to_string())?;
        announce_failures(target, seed, &current.path);
        let watch = Watch::start(target, seed, &current.path);
        Ok(Self { target, seed, current, watch, count: 0, slowest: Duration::ZERO })
    }

    /// Runs one input.
    pub fn run(&mut self, input: &[u8]) -> Result<(), String> {
        self.current.write(input).map_err(|error| error.to_string())?;
        self.count += 1;
        self.watch.begin(self.count);
        let start = Instant::now();
        (self.target.run)(input);
        let took = start.elapsed();
        self.slowest = self.slowest.max(took);
        // The process's own peak: no input before has gone beyond the limit.
        if took >= MEMORY_TIME_MIN && peak_kib().is_some_and(|peak| peak > MEMORY_KIB_MAX) {
            let what = "it takes too much memory";
            return Err(failure(self.target, self.seed, &self.current.path, what));
        }
        Ok(())
    }

    /// How many inputs it has run.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Ends the run, and says what it did.
    pub fn finish(self) -> String {
        self.watch.begin(0);
        let _ = std::fs::remove_file(&self.current.path);
        let (count, slowest) = (self.count, self.slowest.as_secs_f64());
        format!("{count} inputs, the slowest {slowest:.3} s")
    }
}

/// The input that is being run lies in a file, so that it is there whatever it does to the process.
struct Current {
    path: PathBuf,
    file: std::fs::File,
    bytes: usize,
}

impl Current {
    fn new(target: &Target, seed: u64) -> std::io::Result<Self> {
        let folder = corpus::folder().join("failures").join(target.name);
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("seed-{seed}"));
        let file = std::fs::File::create(&path)?;
        Ok(Self { path, file, bytes: 0 })
    }

    fn write(&mut self, input: &[u8]) -> std::io::Result<()> {
        use std::io::Seek as _;
        self.file.rewind()?;
        self.file.write_all(input)?;
        if input.len() < self.bytes {
            self.file.set_len(input.len() as u64)?;
        }
        self.bytes = input.len();
        Ok(())
    }
}

fn failure(target: &Target, seed: u64, path: &Path, what: &str) -> String {
    format!(
        "{} fails with seed {seed}: {what}\nreplay: cargo xtask fuzz replay {} {}",
        target.name,
        target.name,
        path.display()
    )
}

/// A panic in any thread ends the process: the library's own threads would hide it.
fn announce_failures(target: &'static Target, seed: u64, path: &Path) {
    let (path, print) = (path.to_owned(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        eprintln!("{}", failure(target, seed, &path, "it panics"));
        std::process::exit(1);
    }));
}

/// Ends the process where an input takes too long.
struct Watch(Arc<AtomicU64>);

impl Watch {
    fn start(target: &'static Target, seed: u64, path: &Path) -> Self {
        let (running, path) = (Arc::new(AtomicU64::new(0)), path.to_owned());
        let seen_by_thread = Arc::clone(&running);
        std::thread::spawn(move || {
            let mut seen = (0, Instant::now(), ProcessTime::now());
            loop {
                std::thread::sleep(Duration::from_secs(1));
                let (number, since, used) = seen;
                let now = seen_by_thread.load(Ordering::Relaxed);
                if now != number || now == 0 {
                    seen = (now, Instant::now(), ProcessTime::now());
                } else if used.elapsed() > PROCESSOR_TIME_MAX || since.elapsed() > TIME_MAX {
                    eprintln!("{}", failure(target, seed, &path, "it takes too long"));
                    std::process::exit(1);
                }
            }
        });
        Self(running)
    }

    fn begin(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }
}

/// The most memory that the process has had; `None` where nobody tells, elsewhere than on Linux.
pub fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
