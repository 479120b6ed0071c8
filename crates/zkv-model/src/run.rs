//! Runs of a model, by seed.

use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, FailurePersistence, Runner};

/// Runs of each of the two schedulers for one seed.
const RUNS: usize = 25;
/// A failure that needs this many changes of the thread at the right steps is found with a known
/// probability (Burckhardt and others, ASPLOS 2010), one that needs many more by chance.
const DEPTH: usize = 3;
/// Decompressing takes more than shuttle's 32 KiB.
const STACK_BYTES: usize = 1 << 20;

/// Whoever drops this while panicking learns how to see that again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!(
                "model: seed {seed} fails; again: ZKV_MODEL_SEED={seed} cargo test -p zkv-model"
            );
        }
    }
}

/// Runs `model` fifty times for each of so many seeds, every time with another order of its threads:
/// half of them at random, half with priorities that change at a few steps. It is told its number.
///
/// `ZKV_MODEL_SEEDS` in the environment is another count of seeds, `ZKV_MODEL_SEED` the only one to
/// be tried. The same seed gives the same orders.
pub fn check(seeds: u64, model: impl Fn() + Clone + Send + Sync + 'static) {
    let asked = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seeds = match asked("ZKV_MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..asked("ZKV_MODEL_SEEDS").unwrap_or(seeds) + 1,
    };
    for seed in seeds {
        let _replay = Replay(seed);
        run(RandomScheduler::new_from_seed(seed, RUNS), model.clone());
        run(PctScheduler::new_from_seed(seed, DEPTH, RUNS), model.clone());
    }
}

fn run(scheduler: impl Scheduler + 'static, model: impl Fn() + Send + Sync + 'static) {
    let mut config = Config::new();
    config.stack_size = STACK_BYTES;
    // Orders are thousands of steps long; the seed says as much.
    config.failure_persistence = FailurePersistence::None;
    config.silence_warnings = true;
    Runner::new(scheduler, config).run(model);
}
