//! The call of zstd's dictionary trainer. Fast cover with parameters of one's own exists only in
//! `zstd-sys`, which is why this module may be unsafe.

use std::sync::{Mutex, PoisonError};

/// One training at a time in a process: each sets a variable that all share, how much the trainer
/// prints (`g_displayLevel` in `fastcover.c`).
static TURN: Mutex<()> = Mutex::new(());

/// The trainer's parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TrainParameters {
    /// Bytes of a segment that is taken over whole.
    pub segment_bytes: u32,
    /// Bytes of the pieces that are counted.
    pub piece_bytes: u32,
    /// The counting table has 2^this entries.
    pub table_bits: u32,
    /// 1 looks at every piece, 10 at few.
    pub acceleration: u32,
}

/// Trains a dictionary of at most `dictionary_bytes_max` bytes on `samples`, which lie behind one
/// another with the given sizes. `None` where they hold too little to learn from.
///
/// # Panics
/// Where the sizes do not add up to the samples' length.
#[allow(unsafe_code)]
pub(crate) fn train(
    samples: &[u8],
    sample_bytes: &[usize],
    dictionary_bytes_max: usize,
    parameters: TrainParameters,
) -> Option<Vec<u8>> {
    assert_eq!(sample_bytes.iter().sum::<usize>(), samples.len());
    let sample_count = u32::try_from(sample_bytes.len()).ok()?;
    // The trainer makes a dictionary of anything; of less than this it is noise.
    if sample_count < 8 || samples.len() < 8 << 10 {
        return None;
    }
    if !has_room(parameters.table_bits, sample_bytes.len()) {
        return None;
    }
    let mut dictionary = vec![0u8; dictionary_bytes_max];
    let parameters = zstd_sys::ZDICT_fastCover_params_t {
        k: parameters.segment_bytes,
        d: parameters.piece_bytes,
        f: parameters.table_bits,
        steps: 1,
        nbThreads: 1,
        splitPoint: 1.0,
        accel: parameters.acceleration,
        shrinkDict: 0,
        shrinkDictMaxRegression: 0,
        // Level 3 counts matches of five bytes and more, as the encoder looks for them, whatever
        // level that has: others cost 2 to 5 % (the sweep in `docs/benchmarks.md`).
        zParams: zstd_sys::ZDICT_params_t { compressionLevel: 3, notificationLevel: 0, dictID: 1 },
    };
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the destination is valid for `dictionary.len()` bytes and the samples for the sum of
    // `sample_bytes` (asserted above), of which there are `sample_count`; zstd keeps no pointer, and
    // nobody else is in the trainer, whose global variable is not atomic.
    let written = unsafe {
        zstd_sys::ZDICT_trainFromBuffer_fastCover(
            dictionary.as_mut_ptr().cast(),
            dictionary.len(),
            samples.as_ptr().cast(),
            sample_bytes.as_ptr(),
            sample_count,
            parameters,
        )
    };
    drop(turn);
    // SAFETY: the function only looks at the number.
    if unsafe { zstd_sys::ZDICT_isError(written) } != 0 || written > dictionary.len() {
        return None;
    }
    dictionary.truncate(written);
    Some(dictionary)
}

/// Whether there is memory for the trainer's tables: four and two bytes an entry, and eight a
/// sample. zstd 1.5.7 does not look whether it got the second table (`segmentFreqs` in
/// `fastcover.c`), and would write to address zero. The margin is what other threads may take meanwhile:
/// two that start take a mebibyte each on 32-bit systems with glibc.
fn has_room(table_bits: u32, sample_count: usize) -> bool {
    const MARGIN_BYTES: usize = 4 << 20;
    let bytes = (6usize << table_bits) + 8 * sample_count + MARGIN_BYTES;
    Vec::<u8>::new().try_reserve_exact(bytes).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;

    /// Whether the calls touch one variable at once is for ThreadSanitizer to see, which remembers
    /// what a thread did for a short time only: so they begin together, again and again.
    #[test]
    fn threads_that_train_at_once_get_the_same_dictionary() {
        const ROUNDS: usize = 50;
        let samples: Vec<u8> =
            (0..8 << 10).map(|at: u32| ((at * at) >> 7).to_le_bytes()[0]).collect();
        let parameters =
            TrainParameters { segment_bytes: 64, piece_bytes: 6, table_bits: 10, acceleration: 10 };
        let start = Barrier::new(2);
        let train_often = || {
            let train = || train(&samples, &[1 << 10; 8], 512, parameters).unwrap();
            let rounds = (0..ROUNDS).map(|_| {
                start.wait();
                train()
            });
            rounds.collect::<Vec<_>>()
        };
        std::thread::scope(|scope| {
            let beside = scope.spawn(train_often);
            assert_eq!(train_often(), beside.join().unwrap());
        });
    }
}
