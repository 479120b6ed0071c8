//! What is in use, and where: kept, changed and told apart.

use super::*;

/// Somewhere in `slot`.
fn at(slot: u32) -> Place {
    Place { slot, parts: SegmentParts::from_bits(1) }
}

fn table() -> LiveTable {
    let (mut table, mut change) = (LiveTable::default(), LiveChange::default());
    for slot in 0..5 {
        let weight = if slot == 3 { Weight::Mark(100) } else { Weight::Value(100) };
        change.add(at(slot), slot % 2, weight);
        change.add(at(slot), 1, Weight::Value(50));
        change.kill(slot, 1, 50);
    }
    table.apply(&change);
    table
}

#[test]
fn a_table_round_trips_and_no_truncation_within_a_row_decodes() {
    let (segments, live) = table().encode();
    let decode = |segments, live| LiveTable::decode(segments, live).map(|table| table.encode());
    assert_eq!(decode(&segments, &live), Ok((segments.clone(), live.clone())));
    for end in 0..segments.len() {
        let decoded = decode(&segments[..end], &live);
        assert_ne!(decoded, Ok((segments.clone(), live.clone())));
        assert_eq!(decoded.is_ok(), end % SEGMENT_USE_BYTES == 0);
    }
    for end in 0..live.len() {
        let decoded = decode(&segments, &live[..end]);
        assert_ne!(decoded, Ok((segments.clone(), live.clone())));
        assert_eq!(decoded.is_ok(), end % LIVE_SHARE_BYTES == 0);
    }
}

#[test]
fn a_segment_is_untouched_until_something_of_it_is_superseded_or_it_is_forgotten() {
    let mut table = LiveTable::default();
    let apply = |table: &mut LiveTable, kills: &[u32]| {
        let mut change = LiveChange::default();
        for slot in 0..4 {
            change.add(at(slot), 0, Weight::Value(10));
            change.add(at(slot), 0, Weight::Mark(10));
        }
        kills.iter().for_each(|slot| change.kill(*slot, 0, 10));
        table.apply(&change);
    };
    let untouched = |table: &LiveTable| -> Vec<u32> {
        let mut found = table.clone();
        found.learn_segments();
        let [known, found] = [table.known(), found.known()];
        let untouched = (0..5).filter(|slot| known.is_untouched(*slot)).collect();
        assert!((0..5).all(|slot| known.is_untouched(slot) == found.is_untouched(slot)));
        untouched
    };
    apply(&mut table, &[]);
    let before = table.known();
    assert_eq!(untouched(&table), [0, 1, 2, 3]);
    apply(&mut table, &[1]);
    assert_eq!(untouched(&table), [0, 2, 3]);
    apply(&mut table, &[1, 2]);
    assert_eq!(untouched(&table), [0, 3]);
    table.forget(0);
    assert_eq!(untouched(&table), [3]);
    // Another segment fills the slot.
    apply(&mut table, &[]);
    assert_eq!(untouched(&table), [0, 3]);
    assert!((0..4).all(|slot| before.is_untouched(slot)), "who saw it before sees it still");
}

#[test]
fn a_segment_lacks_a_collection_until_something_of_it_is_added() {
    let (mut table, mut change) = (LiveTable::default(), LiveChange::default());
    change.add(at(0), 20, Weight::Value(10));
    change.add(at(1), 21, Weight::Mark(10));
    table.apply(&change);
    let lacks = |table: &LiveTable, slot| {
        let known = table.known();
        [20, 21].map(|collection| known.parts_of(slot, collection) == SegmentParts::NONE)
    };
    assert_eq!((lacks(&table, 0), lacks(&table, 1)), ([false, true], [true, true]));
    assert_eq!(lacks(&table, 2), [false, false], "nothing is known of it");

    // Another thread's commit adds the first record of a collection and kills the last of another.
    let (before, mut change) = (table.known(), LiveChange::default());
    change.add(at(1), 21, Weight::Value(10));
    change.kill(0, 20, 10);
    table.apply(&change);
    assert_eq!(before.parts_of(1, 21), SegmentParts::NONE, "who saw it before sees it still");
    assert_eq!((lacks(&table, 0), lacks(&table, 1)), ([false, true], [true, false]));
    table.learn_segments();
    assert_eq!((lacks(&table, 0), lacks(&table, 1)), ([true, true], [true, false]));
    table.forget(1);
    assert_eq!(lacks(&table, 1), [false, false]);
}

#[test]
fn the_parts_in_which_a_collection_has_something_are_known_and_kept_as_long_as_it_has() {
    let place = |part: u32| Place { slot: 0, parts: SegmentParts::from_bits(1 << part) };
    let (mut table, mut change) = (LiveTable::default(), LiveChange::default());
    change.add(place(3), 20, Weight::Value(10));
    change.add(place(3), 21, Weight::Value(10));
    table.apply(&change);
    let before = table.known();
    let mut change = LiveChange::default();
    change.add(place(40), 20, Weight::Value(10));
    change.add(place(41), 20, Weight::Mark(10));
    table.apply(&change);
    assert_eq!(table.known().parts_of(0, 20).bits(), 1 << 3 | 1 << 40);
    assert_eq!(before.parts_of(0, 21).bits(), 1 << 3, "it has nothing of another's");

    // Which of the parts has nothing left is not known: only that another one may have.
    let mut change = LiveChange::default();
    change.kill(0, 20, 10);
    table.apply(&change);
    let (segments, live) = table.encode();
    let decoded = LiveTable::decode(&segments, &live).unwrap();
    assert_eq!(decoded.known().parts_of(0, 20).bits(), 1 << 3 | 1 << 40);

    // A table that lacks a part is told apart from the truth, and one that has more is not.
    let of = |parts: &[u32]| {
        let mut table = LiveTable::default();
        table.add_live(place(parts[0]), 20, 10);
        for part in &parts[1..] {
            let share = Share { parts: place(*part).parts, ..Share::default() };
            table.live.entry((0, 20)).or_default().add(share);
        }
        table
    };
    assert!(of(&[3]).differing_slots(&of(&[3, 40])).is_empty());
    assert_eq!(of(&[3, 40]).differing_slots(&of(&[3])), [0]);
    assert_eq!(of(&[3]).differing_slots(&of(&[40])), [0]);
}

#[test]
fn a_segment_does_not_go_on_to_know_collections_that_were_dropped() {
    let mut table = LiveTable::default();
    let apply = |table: &mut LiveTable, collection: u32, is_killed: bool| {
        let mut change = LiveChange::default();
        change.add(at(0), 20, Weight::Value(10));
        change.add(at(1), collection, Weight::Value(10));
        table.apply(&change);
        let mut change = LiveChange::default();
        if is_killed {
            change.kill(1, collection, 10);
        }
        table.apply(&change);
    };
    apply(&mut table, 30, false);
    let before = table.known();
    for collection in 30..1000u32 {
        // Some have nothing in use any longer when they are dropped.
        apply(&mut table, collection, collection.is_multiple_of(3));
        table.drop_collection(collection);
        assert_eq!(table.known().parts_of(1, collection), SegmentParts::NONE);
    }
    assert_eq!(table.known().collection_count(1), 0);
    assert_ne!(table.known().parts_of(0, 20), SegmentParts::NONE, "another one, that goes on");
    assert_ne!(before.parts_of(1, 30), SegmentParts::NONE, "who saw it before sees it still");
}

#[test]
fn a_collection_of_which_something_may_be_superseded_is_not_lacked() {
    let (mut table, mut change) = (LiveTable::default(), LiveChange::default());
    for _ in 0..2 {
        change.add(at(0), 20, Weight::Value(10));
    }
    // Of one that cannot be read, it is not known whether it is superseded, nor how long it is.
    change.kill(0, 20, 0);
    change.kill(0, 20, 10);
    table.apply(&change);
    table.learn_segments();
    assert_ne!(table.known().parts_of(0, 20), SegmentParts::NONE);
}

#[test]
fn what_is_in_use_is_known_by_collection() {
    let mut table = table();
    assert_eq!(table.live_raw_bytes(), 400);
    assert_eq!(table.collections(), BTreeSet::from([0, 1]));
    let before = table.clone();
    table.drop_collection(0);
    assert_eq!(table.live_raw_bytes(), 100);
    assert_eq!(table.differing_slots(&before), [0, 2, 4]);
}
