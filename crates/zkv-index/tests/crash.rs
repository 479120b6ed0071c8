//! Power cuts and failing writes: the checkpoint before or the one after, whole.

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use support::{
    ALWAYS_APPEND, FaultStorage, Model, Operation, STORE_ID, check, expected, find, first_run,
    hash, meta, open, path, places_of, read, run_of, sorted, storage_with,
};
use zkv_index::{Checkpoint, IndexError, Location, Rebuild, Run, Thresholds, verify, write_first};
use zkv_io::{OpenMode, Storage};

const REWRITE: Thresholds = Thresholds { base_bytes_least: u64::MAX, ..ALWAYS_APPEND };

/// What a power cut after `operations` may leave of a file that held `before`: what was synced, and
/// any part of what was written since; of the last write, also its first half.
fn images(before: &[u8], operations: &[Operation]) -> Vec<Vec<u8>> {
    let synced = operations.iter().rposition(|operation| matches!(operation, Operation::Sync));
    let (synced, open) = operations.split_at(synced.map_or(0, |index| index + 1));
    let mut durable = before.to_vec();
    synced.iter().for_each(|operation| apply(&mut durable, operation));
    assert!(open.len() <= 8, "too many operations to try all their subsets");
    let mut images = Vec::new();
    for subset in 0..1 << open.len() {
        let kept = |index: usize| subset >> index & 1 == 1;
        let mut image = durable.clone();
        for (index, operation) in open.iter().enumerate().filter(|(index, _)| kept(*index)) {
            if let Operation::Write(offset, bytes) = operation
                && index + 1 == open.len()
            {
                let mut torn = image.clone();
                apply(&mut torn, &Operation::Write(*offset, bytes[..bytes.len() / 2].to_vec()));
                images.push(torn);
                // The length has grown, and the data has not arrived.
                let mut garbage = image.clone();
                apply(&mut garbage, &Operation::Write(*offset, vec![0xC3; bytes.len()]));
                images.push(garbage);
            }
            apply(&mut image, operation);
        }
        images.push(image);
    }
    images
}

fn apply(image: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Write(offset, bytes) => {
            let start = usize::try_from(*offset).unwrap();
            if image.len() < start + bytes.len() {
                image.resize(start + bytes.len(), 0);
            }
            image[start..start + bytes.len()].copy_from_slice(bytes);
        }
        Operation::SetLength(bytes) => image.resize(usize::try_from(*bytes).unwrap(), 0),
        Operation::Sync => {}
    }
}

/// A store's index file, and what each of its checkpoints holds.
struct Sample {
    before: Vec<u8>,
    models: Vec<Model>,
}

fn sample() -> Sample {
    let (storage, mut model) = (FaultStorage::default(), Model::new());
    let run = first_run(&mut model, 40);
    write_first(&storage, path(), &run, &meta(b"", &[])).unwrap();
    Sample { before: read(&storage, path()), models: vec![model] }
}

/// Appends one more checkpoint to a file that holds `image`, and returns what was done to it.
fn append_over(image: &[u8], model: &mut Model, round: u64) -> Vec<Operation> {
    let storage = FaultStorage::over(storage_with(image));
    let checkpoint = open(&storage).unwrap();
    let run = run_of(model, (0..9).map(|key| (key * round, Location::new(key * 3 % 8))));
    let sections = [(1, &[9; 30][..])];
    let meta = meta(b"", &sections);
    checkpoint.write_next_with(&storage, path(), &run, &meta, &ALWAYS_APPEND).unwrap();
    storage.take_log()
}

/// Holds what a power cut after each of `operations` may leave of `before` against the models of the old
/// checkpoint and of the new one, and counts how often each came up.
fn check_after_power_cuts(
    before: &[u8],
    operations: &[Operation],
    models: [&Model; 2],
) -> [u32; 2] {
    let mut seen = [0, 0];
    for count in 0..=operations.len() {
        for image in images(before, &operations[..count]) {
            let checkpoint = open(&storage_with(&image)).unwrap();
            let is_new = checkpoint.number() == 1;
            assert!(is_new || count < operations.len(), "what was synced is lost");
            check(&checkpoint, models[usize::from(is_new)], (0..60).map(hash));
            seen[usize::from(is_new)] += 1;
        }
    }
    seen
}

#[test]
fn a_power_cut_while_appending_leaves_one_checkpoint_or_the_other() {
    let Sample { before, models } = sample();
    let mut new = models[0].clone();
    let operations = append_over(&before, &mut new, 3);
    let seen = check_after_power_cuts(&before, &operations, [&models[0], &new]);
    assert!(seen[0] > 10 && seen[1] > 1, "{seen:?}");
}

#[test]
fn a_second_power_cut_over_what_the_first_one_left_is_no_worse() {
    let Sample { before, models } = sample();
    let mut first = models[0].clone();
    let first_operations = append_over(&before, &mut first, 3);
    for count in 0..first_operations.len() {
        for image in images(&before, &first_operations[..count]) {
            let is_first = open(&storage_with(&image)).unwrap().number() == 1;
            let old = if is_first { &first } else { &models[0] };
            let mut new = old.clone();
            let operations = append_over(&image, &mut new, 5);
            for count in 0..=operations.len() {
                for image in images(&image, &operations[..count]) {
                    let checkpoint = open(&storage_with(&image)).unwrap();
                    let is_new = checkpoint.number() == 1 + u64::from(is_first);
                    assert!(is_new || count < operations.len(), "what was synced is lost");
                    check(&checkpoint, if is_new { &new } else { old }, (0..60).map(hash));
                }
            }
        }
    }
}

#[test]
fn a_header_that_was_taken_back_does_not_come_up_again() {
    let Sample { before, models } = sample();
    let storage = FaultStorage::over(storage_with(&before));
    let (mut first, mut second) = (models[0].clone(), models[0].clone());
    let run = run_of(&mut first, (0..30).map(|key| (key, None)));
    let meta = meta(b"", &[]);
    let old = open(&storage).unwrap();
    old.write_next_with(&storage, path(), &run, &meta, &ALWAYS_APPEND).unwrap();
    // As if its last sync had failed, and no other file could be written: the header may or may not be
    // on the disk.
    let mut operations = storage.take_log();
    assert!(matches!(operations.pop(), Some(Operation::Sync)));
    let file = storage.open(path(), OpenMode::ReadWrite).unwrap();
    file.set_len(before.len() as u64).unwrap();
    // The next process appends something else in its place.
    let run = run_of(&mut second, (0..40).map(|key| (key, Location::new(key + 9))));
    let next = open(&storage).unwrap();
    assert_eq!(next.number(), 0);
    next.write_next_with(&storage, path(), &run, &meta, &ALWAYS_APPEND).unwrap();
    operations.extend(storage.take_log());
    let old_models = [&models[0], &first];
    for count in 0..=operations.len() {
        for image in images(&before, &operations[..count]) {
            let checkpoint = open(&storage_with(&image)).unwrap();
            let found = (0..60).map(|key| find(&checkpoint, hash(key)).unwrap());
            let found: Vec<_> = found.collect();
            let answers = |model: &Model| {
                let places = places_of(model);
                (0..60).map(|key| expected(&places, hash(key))).eq(found.iter().map(|f| sorted(f)))
            };
            let is_old = checkpoint.number() == 0 || count < operations.len();
            assert!(answers(&second) || is_old && old_models.iter().any(|model| answers(model)));
        }
    }
}

#[test]
fn a_body_without_its_header_counts_for_nothing() {
    let Sample { before, models } = sample();
    let mut new = models[0].clone();
    let operations = append_over(&before, &mut new, 3);
    let is_header = |operation: &&Operation| !matches!(operation, Operation::Write(offset, _) if *offset == before.len() as u64);
    let mut image = before.clone();
    operations.iter().filter(is_header).for_each(|operation| apply(&mut image, operation));
    assert!(image.len() > before.len() + 512);
    let checkpoint = open(&storage_with(&image)).unwrap();
    assert_eq!(checkpoint.file_bytes(), before.len() as u64);
    check(&checkpoint, &models[0], (0..60).map(hash));
}

#[test]
fn a_header_of_which_a_power_cut_has_left_one_sector_is_no_damage() {
    let Sample { before, models } = sample();
    let operations = append_over(&before, &mut models[0].clone(), 3);
    let mut whole = before.clone();
    operations.iter().for_each(|operation| apply(&mut whole, operation));
    let (start, border) = (before.len(), before.len().next_multiple_of(512));
    assert!(start < border);
    let mut flipped = whole.clone();
    flipped[start + 9] ^= 1;
    let torn = [start..border, border..start + 512].map(|lost| {
        let mut image = whole.clone();
        image[lost].fill(0);
        image
    });
    for (image, is_damaged) in torn.iter().map(|image| (image, false)).chain([(&flipped, true)]) {
        let storage: Arc<dyn Storage> = Arc::new(storage_with(image));
        let mut findings = Vec::new();
        let verified = verify(&storage, path(), STORE_ID, &mut |found| findings.push(found));
        assert_eq!(verified.unwrap().checkpoint.unwrap().number(), 0);
        let [finding] = &findings[..] else { panic!("{findings:?}") };
        assert_eq!(finding.is_damage, is_damaged, "{finding:?}");
    }
}

#[test]
fn a_power_cut_behind_an_append_that_the_disk_had_no_room_for_is_no_worse() {
    let Sample { before, models } = sample();
    let storage = FaultStorage::over(storage_with(&before));
    let checkpoint = open(&storage).unwrap();
    let (mut refused, mut new) = (models[0].clone(), models[0].clone());
    let append = |run: &Run| {
        checkpoint.write_next_with(&storage, path(), run, &meta(b"", &[]), &ALWAYS_APPEND)
    };
    // The first operation settles its end.
    storage.fail_at(2, false);
    let error = append(&run_of(&mut refused, (0..30).map(|key| (key, None)))).unwrap_err();
    assert!(matches!(error, IndexError::Io(_)), "{error}");
    let run = run_of(&mut new, (0..40).map(|key| (key, Location::new(key + 9))));
    assert_eq!(append(&run).unwrap().run_count(), 2);
    let operations = storage.take_log();
    let is_write = |operation: &&Operation| matches!(operation, Operation::Write(..));
    assert_eq!(operations.iter().filter(is_write).count(), 3, "a half, a body and a header");
    check_after_power_cuts(&before, &operations, [&models[0], &new]);
}

fn names(storage: &FaultStorage) -> Vec<PathBuf> {
    storage.memory.list(path().parent().unwrap()).unwrap()
}

/// Lets the first, second, third ... operation of a checkpoint fail, once and for ever. Returns behind how
/// many failures the next one was appended, which else is a new file.
fn check_failures(old: &Model, old_run: &Run, thresholds: &Thresholds) -> usize {
    let mut appended = 0;
    for for_ever in [false, true] {
        for number in 1.. {
            let storage = FaultStorage::default();
            let checkpoint = write_first(&storage, path(), old_run, &meta(b"", &[])).unwrap();
            let mut new = old.clone();
            let run = run_of(&mut new, (0..9).map(|key| (key * 3, Location::new(key * 3 % 8))));
            let write = |checkpoint: &Checkpoint| {
                checkpoint.write_next_with(&storage, path(), &run, &meta(b"", &[]), thresholds)
            };
            storage.fail_at(number, for_ever);
            let failed = write(&checkpoint);
            let has_struck = storage.has_struck();
            storage.fail_at(0, false);
            assert_eq!(names(&storage), [path()], "operation {number}");
            check(&checkpoint, old, (0..60).map(hash));
            let reopened = open(&storage).unwrap();
            let is_new = reopened.number() == 1;
            check(&reopened, if is_new { &new } else { old }, (0..60).map(hash));
            let Err(error) = failed else {
                assert!(is_new);
                if has_struck {
                    // A sync of the old file has failed once: there is a new one.
                    assert_eq!(reopened.run_count(), 1);
                    continue;
                }
                assert!(number > 3);
                break;
            };
            assert!(matches!(error, IndexError::Io(_)), "{error}");
            if !for_ever && !is_new {
                assert_eq!(read(&storage, path()).len() as u64, checkpoint.file_bytes());
            }
            // With room again it goes through.
            let meta = meta(b"", &[]);
            let next =
                checkpoint.write_next_with(&storage, path(), &run, &meta, &ALWAYS_APPEND).unwrap();
            appended += next.run_count() - 1;
            check(&next, &new, (0..60).map(hash));
            check(&open(&storage).unwrap(), &new, (0..60).map(hash));
        }
    }
    appended
}

#[test]
fn an_append_that_fails_anywhere_leaves_the_old_checkpoint() {
    let mut model = Model::new();
    let run = first_run(&mut model, 40);
    // Only of a body that was not written, once, is known what it has left.
    assert_eq!(check_failures(&model, &run, &ALWAYS_APPEND), 1);
}

#[test]
fn a_rewrite_that_fails_anywhere_leaves_the_old_file() {
    let mut model = Model::new();
    let run = first_run(&mut model, 40);
    assert_eq!(check_failures(&model, &run, &REWRITE), 0);
}

#[test]
fn a_rebuild_that_fails_anywhere_leaves_no_file() {
    for number in 1.. {
        let storage = FaultStorage::default();
        storage.fail_at(number, true);
        let written = rebuild(&storage);
        storage.fail_at(0, false);
        let Err(error) = written else {
            assert!(number > 5);
            break;
        };
        assert!(matches!(error, IndexError::Io(_)), "{error}");
        // The directory's sync comes after the rename.
        assert!(names(&storage).iter().all(|name| name == path()), "operation {number}");
    }
}

#[test]
fn no_checkpoint_goes_to_a_file_that_a_rebuild_may_have_replaced() {
    let mut replaced = 0;
    for number in 1.. {
        let storage = FaultStorage::default();
        let mut model = Model::new();
        let run = first_run(&mut model, 40);
        let old = write_first(&storage, path(), &run, &meta(b"old", &[])).unwrap();
        storage.fail_at(number, false);
        old.retire();
        let written = rebuild(&storage);
        storage.fail_at(0, false);
        if written.is_ok() {
            break;
        }
        replaced += u32::from(open(&storage).unwrap().watermark() != b"old");
        let run = run_of(&mut model, [(1, Location::new(77))]);
        let meta = meta(b"next", &[]);
        old.write_next_with(&storage, path(), &run, &meta, &ALWAYS_APPEND).unwrap();
        let there = open(&storage).unwrap();
        assert_eq!(there.watermark(), b"next", "operation {number}");
        check(&there, &model, (0..60).map(hash));
    }
    // The folder's sync has failed, and the opening of the new file.
    assert_eq!(replaced, 2);
}

fn rebuild(storage: &FaultStorage) -> Result<Checkpoint, IndexError> {
    let mut rebuild = Rebuild::new(Arc::new(storage.clone()), path().to_owned(), 0);
    for key in 0..2000 {
        rebuild.push(hash(key % 900), Location::new(key + 1), 1)?;
    }
    rebuild.finish(&mut |_, _| true)?.write(storage, path(), &meta(b"", &[]))
}

#[test]
fn a_checkpoint_behind_the_last_one_never_overwrites_it() {
    let storage = FaultStorage::default();
    let mut model = Model::new();
    let run = first_run(&mut model, 40);
    let first = write_first(&storage, path(), &run, &meta(b"", &[])).unwrap();
    let meta = meta(b"", &[]);
    let append = |checkpoint: &Checkpoint, run: &Run| {
        checkpoint.write_next_with(&storage, path(), run, &meta, &ALWAYS_APPEND).unwrap()
    };
    let (mut left, mut right) = (model.clone(), model.clone());
    let left_run = run_of(&mut left, [(1, Location::new(77))]);
    let right_run = run_of(&mut right, [(2, Location::new(88)), (3, None)]);
    // Another handle, which sees the first one as the last even when there is a second one.
    let other = open(&storage).unwrap();
    let left_checkpoint = append(&first, &left_run);
    for checkpoint in [&first, &other] {
        let right_checkpoint = append(checkpoint, &right_run);
        check(&right_checkpoint, &right, (0..60).map(hash));
    }
    let right_checkpoint = append(&other, &right_run);
    check(&left_checkpoint, &left, (0..60).map(hash));
    check(&right_checkpoint, &right, (0..60).map(hash));
    check(&open(&storage).unwrap(), &right, (0..60).map(hash));
}

#[test]
fn two_handles_that_append_in_turns_never_overwrite_each_other() {
    let storage = FaultStorage::default();
    let mut model = Model::new();
    let run = first_run(&mut model, 40);
    write_first(&storage, path(), &run, &meta(b"", &[])).unwrap();
    let meta = meta(b"", &[]);
    let append = |checkpoint: &Checkpoint, run: &Run| {
        checkpoint.write_next_with(&storage, path(), run, &meta, &ALWAYS_APPEND).unwrap()
    };
    let left = append(&open(&storage).unwrap(), &Run::from_changes(Vec::new()));
    let run = run_of(&mut model, [(5, Location::new(9))]);
    let right = append(&open(&storage).unwrap(), &run);
    // The left one has appended before, and sees that it is not the last.
    check(&append(&left, &run), &model, (0..60).map(hash));
    check(&right, &model, (0..60).map(hash));
    check(&open(&storage).unwrap(), &model, (0..60).map(hash));
}
