//! A commit whose answer never comes: it has happened or it has not, and both look the same from here.

use std::time::Duration;

use chaos::cluster::wait;
use chaos::line::LIMIT;
use chaos::proxy::{Api, Fate, Rule, Side};

use crate::one::One;

/// Every request to commit meets `fate` until the instance has given the commit up.
fn doubt(name: &str, fate: Fate) -> One {
    let mut one = One::start(name);
    // Asked for by the producer that takes the place of the one in doubt.
    let given_up = one.arm(Api::InitProducerId, Fate::Delay(Duration::ZERO));
    let rule = Rule::new(Api::EndTxn, &one.line.producer(0), fate);
    let ends = one.line.proxy().arm(rule.times(usize::MAX));
    one.send();
    given_up.wait_caught(1, LIMIT).unwrap();
    assert!(ends.stages().len() > 1, "{:?}", ends.stages());
    drop(ends);
    one.settle();
    one.pay();
    one.check_offset();
    one
}

#[test]
fn a_commit_that_happened_and_was_never_answered_counts_once() {
    doubt("answer-lost", Fate::DropAnswer(Side::Closed)).prove();
}

#[test]
fn a_commit_that_never_arrived_is_made_again() {
    doubt("commit-lost", Fate::Drop(Side::Reset)).prove();
}

/// Nothing that is sent is answered any more.
#[test]
fn offsets_whose_coordinator_is_cut_off_are_given_up() {
    let mut one = One::start("offsets-cut-off");
    let first = one.arm(Api::AddOffsetsToTxn, Fate::Hold(Side::Open));
    one.send();
    first.wait_caught(1, LIMIT).unwrap();
    let cut = Rule::all(&one.line.producer(0), Fate::Drop(Side::Open));
    let cut = one.line.proxy().arm(cut);
    wait::until("the offsets are given up", LIMIT, || {
        let given_up = one.count_in_log("add the source positions to the transaction");
        Ok((given_up > 0).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", one.line.tails()));
    drop(cut);
    drop(first);
    one.settle();
    one.pay();
    one.check_offset();
    one.prove();
}
