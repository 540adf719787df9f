//! Requests that arrive in a transaction they do not belong to.

use std::time::Duration;

use chaos::line::LIMIT;
use chaos::proxy::{Api, Fate, Rule, Side};

use crate::one::{One, are_refused};

/// The answer to an initialisation that has ended a transaction whose markers are still to be written
/// (`CONCURRENT_TRANSACTIONS`).
const ABORTED: i16 = 51;

const SIDES: [Side; 3] = [Side::Closed, Side::Reset, Side::Open];

/// Holds a request of one transaction, which the client repeats and commits, and lets the copy arrive in the next one,
/// before each of the points in turn.
fn arrive_late(name: &str, held: Api, points: &[(Api, usize)]) {
    let mut one = One::start(name);
    let mut codes = Vec::new();
    for side in SIDES {
        for &(before, skip) in points {
            let late = one.arm(held, Fate::Hold(side));
            one.pay();
            late.wait_caught(1, LIMIT).unwrap();
            late.release_before(before, skip);
            one.pay();
            codes.extend(late.wait_answered(LIMIT).unwrap());
            one.check_offset();
        }
    }
    one.prove();
    assert_eq!(codes.len(), SIDES.len() * points.len());
    assert!(are_refused(&codes), "{codes:?}");
}

#[test]
fn an_end_that_arrives_in_the_next_transaction_does_not_end_it() {
    let points = [
        (Api::Produce, 0),
        (Api::Produce, 1),
        (Api::AddOffsetsToTxn, 0),
        (Api::TxnOffsetCommit, 0),
        (Api::EndTxn, 0),
    ];
    arrive_late("late-end", Api::EndTxn, &points);
}

#[test]
fn offsets_that_arrive_in_the_next_transaction_do_not_replace_its_own() {
    let points = [
        (Api::Produce, 0),
        (Api::TxnOffsetCommit, 0),
        (Api::EndTxn, 0),
    ];
    arrive_late("late-offsets", Api::TxnOffsetCommit, &points);
}

#[test]
fn partitions_that_are_added_late_open_no_transaction() {
    let points = [(Api::Produce, 0), (Api::EndTxn, 0)];
    arrive_late("late-partitions", Api::AddPartitionsToTxn, &points);
    arrive_late("late-group", Api::AddOffsetsToTxn, &points);
}

#[test]
fn an_end_that_arrives_before_its_owner_dies_commits_no_part_of_what_it_left() {
    let mut one = One::start("late-death");
    let late = one.arm(Api::EndTxn, Fate::Hold(Side::Closed));
    one.pay();
    late.wait_caught(1, LIMIT).unwrap();
    // All outputs of the next transaction are there, its offsets are not.
    let dying = one.arm(Api::AddOffsetsToTxn, Fate::Hold(Side::Open));
    one.send();
    dying.wait_caught(1, LIMIT).unwrap();
    late.release();
    let codes = late.wait_answered(LIMIT).unwrap();
    one.line.instances[0].kill();
    one.line.instances[0].restart().unwrap();
    one.settle();
    one.prove();
    assert!(are_refused(&codes), "{codes:?}");
}

#[test]
fn offsets_of_a_transaction_that_was_given_up_do_not_come_back() {
    let mut one = One::start("late-given-up");
    let late = one.arm(Api::TxnOffsetCommit, Fate::Hold(Side::Closed));
    let again = Rule::new(
        Api::TxnOffsetCommit,
        &one.line.producer(0),
        Fate::Drop(Side::Closed),
    );
    let again = one.line.proxy().arm(again.skip(1).times(usize::MAX));
    // Asked for by the producer that takes the place of the one that gave up.
    let given_up = one.arm(Api::InitProducerId, Fate::Delay(Duration::ZERO));
    one.send();
    given_up.wait_caught(1, LIMIT).unwrap();
    late.release_before(Api::EndTxn, 0);
    drop(again);
    one.settle();
    let codes = late.wait_answered(LIMIT).unwrap();
    assert!(are_refused(&codes), "{codes:?}");
    one.check_offset();
    one.prove();
}

#[test]
fn an_initialisation_that_arrives_late_fences_once_and_loses_nothing() {
    let mut one = One::start("late-init");
    let late = one.arm(Api::InitProducerId, Fate::Hold(Side::Closed));
    // Makes the producer suspect, so that it is replaced.
    let reason = one.arm(Api::EndTxn, Fate::DropAnswer(Side::Closed));
    one.pay();
    late.wait_caught(1, LIMIT).unwrap();
    drop(reason);
    // It aborts what the next transaction has sent, and takes its epoch away.
    late.release_before(Api::AddOffsetsToTxn, 0);
    one.pay();
    assert_eq!(late.wait_answered(LIMIT).unwrap(), [Some(ABORTED)]);
    assert_eq!(one.count_in_log("taking up again from the log"), 1);
    one.pay();
    one.check_offset();
    one.prove();
}
