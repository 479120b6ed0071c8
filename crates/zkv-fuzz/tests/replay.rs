//! Every seed and every case that fuzzing has found runs, with each target that starts from it.

use std::time::Instant;

use zkv_fuzz::{TARGETS, corpus};

/// A second is allowed; machines that test have other things to do.
const SECONDS_MAX: u64 = 20;

#[test]
fn seeds_and_found_cases_do_no_harm() {
    for target in TARGETS {
        let inputs = corpus::inputs(target).unwrap();
        assert!(!inputs.is_empty(), "{}: no seeds", target.name);
        for (path, input) in inputs {
            let start = Instant::now();
            println!("{} {}", target.name, path.display());
            (target.run)(&input);
            let seconds = start.elapsed().as_secs();
            assert!(seconds < SECONDS_MAX, "{}: {seconds} s", path.display());
        }
    }
}
