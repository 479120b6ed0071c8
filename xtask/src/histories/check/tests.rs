use super::*;

/// A transaction, of a thread of its own, that begins and takes effect when it is told to.
fn transaction(times: (u64, u64), outcome: Outcome, steps: &[Step]) -> Transaction {
    let steps = steps.to_vec();
    Transaction { thread: 0, kind: "tx", span: times, effect: times, steps, outcome }
}

/// One that is side by side with all others, and committed.
fn committed(steps: &[Step]) -> Transaction {
    transaction((1, 100), Outcome::Committed, steps)
}

/// What is read when all is over.
fn end(steps: &[Step]) -> Transaction {
    transaction((101, 102), Outcome::Committed, steps)
}

fn read(key: u8, list: &[Element]) -> Step {
    Step::Read { key, list: list.to_vec() }
}

fn append(key: u8, element: Element) -> Step {
    Step::Append { key, element }
}

fn group(values: &[u32]) -> Step {
    Step::ReadGroup(values.iter().map(|value| (*value > 0).then_some(*value)).collect())
}

/// What is found in a history of these transactions.
fn found(transactions: &[Transaction]) -> Vec<Name> {
    let history = History { transactions: transactions.to_vec() };
    check(&history).into_iter().map(|anomaly| anomaly.name).collect()
}

#[test]
fn a_history_that_has_an_order_is_clean() {
    let clean = [
        committed(&[read(0, &[]), append(0, 1), read(0, &[1]), append(0, 2), Step::WriteGroup(10)]),
        committed(&[read(0, &[1, 2]), append(0, 3), read(1, &[]), group(&[10, 10])]),
        committed(&[read(0, &[]), group(&[0, 0]), group(&[])]),
        transaction((1, 5), Outcome::Conflicted, &[read(0, &[]), append(0, 4)]),
        transaction((1, 5), Outcome::Dropped, &[Step::WriteGroup(11), group(&[11, 11])]),
        end(&[read(0, &[1, 2, 3]), read(1, &[]), group(&[10, 10])]),
    ];
    assert_eq!(found(&clean), []);
    assert_eq!(found(&[]), []);
}

#[test]
fn a_failed_operation_is_found() {
    let failed = transaction((1, 2), Outcome::Failed("on purpose".to_owned()), &[]);
    assert_eq!(found(&[failed]), [Name::Failed]);
}

#[test]
fn what_was_undone_and_is_read_is_g1a() {
    for outcome in [Outcome::Conflicted, Outcome::Dropped] {
        let undone = [
            transaction((1, 100), outcome.clone(), &[read(0, &[]), append(0, 1)]),
            committed(&[read(0, &[1])]),
            end(&[read(0, &[])]),
        ];
        assert_eq!(found(&undone), [Name::G1a]);
        let undone =
            [transaction((1, 100), outcome, &[Step::WriteGroup(1)]), committed(&[group(&[1, 1])])];
        assert_eq!(found(&undone), [Name::G1a]);
    }
}

#[test]
fn what_was_only_on_the_way_and_is_read_is_g1b() {
    let between = [
        committed(&[read(0, &[]), append(0, 1), append(0, 2)]),
        committed(&[read(0, &[1])]),
        end(&[read(0, &[1, 2])]),
    ];
    assert_eq!(found(&between), [Name::G1b]);
}

#[test]
fn a_transaction_that_contradicts_itself_is_found() {
    let blind = [committed(&[append(0, 1), read(0, &[])]), end(&[read(0, &[1])])];
    assert_eq!(found(&blind), [Name::Internal]);
    let unsteady = [
        committed(&[read(0, &[]), append(0, 1)]),
        committed(&[read(0, &[]), read(0, &[1])]),
        end(&[read(0, &[1])]),
    ];
    assert_eq!(found(&unsteady), [Name::Internal]);
    let unsteady = [
        committed(&[Step::WriteGroup(1)]),
        committed(&[group(&[0]), group(&[1])]),
        committed(&[Step::WriteGroup(2), group(&[1])]),
    ];
    assert_eq!(found(&unsteady), [Name::Fractured, Name::Internal]);
}

#[test]
fn a_batch_that_is_seen_in_part_is_fractured() {
    let torn = [
        committed(&[Step::WriteGroup(1)]),
        committed(&[Step::WriteGroup(2)]),
        committed(&[group(&[1, 2, 1])]),
    ];
    assert_eq!(found(&torn), [Name::Fractured]);
}

#[test]
fn appends_that_are_lost_doubled_or_out_of_order_are_found() {
    let lost = [
        committed(&[read(0, &[]), append(0, 1)]),
        committed(&[read(0, &[]), append(0, 2)]),
        end(&[read(0, &[2])]),
    ];
    assert_eq!(found(&lost), [Name::Lost]);
    let doubled = [committed(&[append(0, 1)]), end(&[read(0, &[1, 1])])];
    assert_eq!(found(&doubled), [Name::Duplicate]);
    let disordered = [
        committed(&[append(0, 1)]),
        committed(&[append(0, 2)]),
        committed(&[read(0, &[2])]),
        end(&[read(0, &[1, 2])]),
    ];
    assert_eq!(found(&disordered), [Name::Incompatible]);
    let foreign = [committed(&[append(0, 1)]), end(&[read(0, &[1, 7])])];
    assert_eq!(found(&foreign), [Name::Garbage]);
}

#[test]
fn writes_in_a_circle_are_g0() {
    let circle = [
        committed(&[append(0, 1), append(1, 2)]),
        committed(&[append(0, 3), append(1, 4)]),
        end(&[read(0, &[1, 3]), read(1, &[4, 2])]),
    ];
    assert_eq!(found(&circle), [Name::Cycle(Cycle::G0, false)]);
}

#[test]
fn two_that_have_read_each_other_are_g1c() {
    let circle = [
        committed(&[append(0, 1), read(1, &[2])]),
        committed(&[append(1, 2), read(0, &[1])]),
        end(&[read(0, &[1]), read(1, &[2])]),
    ];
    assert_eq!(found(&circle), [Name::Cycle(Cycle::G1c, false)]);
}

#[test]
fn a_read_that_is_half_old_and_half_new_is_g_single() {
    let skew = [
        committed(&[append(0, 1), append(1, 2)]),
        committed(&[read(0, &[]), read(1, &[2])]),
        end(&[read(0, &[1]), read(1, &[2])]),
    ];
    assert_eq!(found(&skew), [Name::Cycle(Cycle::GSingle, false)]);
    // Between a list and the group, too: who wrote later is known once it has read.
    let skew = [
        committed(&[Step::WriteGroup(1)]),
        committed(&[group(&[1]), Step::WriteGroup(2), append(0, 3)]),
        committed(&[read(0, &[3]), group(&[1])]),
        end(&[read(0, &[3]), group(&[2])]),
    ];
    assert_eq!(found(&skew), [Name::Cycle(Cycle::GSingle, false)]);
}

#[test]
fn two_that_each_overwrite_what_the_other_has_read_are_g2() {
    let skew = [
        committed(&[read(0, &[]), append(1, 1)]),
        committed(&[read(1, &[]), append(0, 2)]),
        end(&[read(0, &[2]), read(1, &[1])]),
    ];
    assert_eq!(found(&skew), [Name::Cycle(Cycle::G2, false)]);
    // The two keys were there before: what neither of them saw are the new ones.
    let phantom = [
        committed(&[append(0, 1), append(1, 2)]),
        committed(&[read(0, &[1]), read(1, &[2]), read(2, &[]), read(3, &[]), append(2, 3)]),
        committed(&[read(0, &[1]), read(1, &[2]), read(2, &[]), read(3, &[]), append(3, 4)]),
        end(&[read(0, &[1]), read(1, &[2]), read(2, &[3]), read(3, &[4])]),
    ];
    assert_eq!(found(&phantom), [Name::Cycle(Cycle::G2, false)]);
}

#[test]
fn what_the_order_in_time_forbids_is_found() {
    let at = |begin, end, steps: &[Step]| transaction((begin, end), Outcome::Committed, steps);
    let stale =
        [at(1, 2, &[read(0, &[]), append(0, 1)]), at(3, 4, &[read(0, &[])]), end(&[read(0, &[1])])];
    assert_eq!(found(&stale), [Name::Cycle(Cycle::GSingle, true)]);
    let early = [at(3, 4, &[append(0, 1)]), at(1, 2, &[read(0, &[1])]), end(&[read(0, &[1])])];
    assert_eq!(found(&early), [Name::Cycle(Cycle::G1c, true)]);
    let reversed = [at(1, 2, &[append(0, 1)]), at(3, 4, &[append(0, 2)]), end(&[read(0, &[2, 1])])];
    assert_eq!(found(&reversed), [Name::Cycle(Cycle::G0, true)]);
    let old_group = [
        at(1, 2, &[Step::WriteGroup(1)]),
        at(3, 4, &[Step::WriteGroup(2)]),
        at(5, 6, &[group(&[1])]),
    ];
    assert_eq!(found(&old_group), [Name::Cycle(Cycle::GSingle, true)]);
    // Side by side, either may have come first.
    let abreast = [at(1, 4, &[read(0, &[]), append(0, 1)]), at(3, 4, &[read(0, &[])])];
    assert_eq!(found(&[&abreast[..], &[end(&[read(0, &[1])])]].concat()), []);
}
