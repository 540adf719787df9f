//! Records that are deleted before they were processed, and logs that are made anew.

use chaos::cluster::rule_faults::Fault;
use chaos::cluster::wait;
use chaos::workload::day::{Day, DayOptions};

use crate::line::{LIMIT, Line, plain};
use crate::operator::{
    BROKEN_PROMISE, FAILED, assert_contains, delete_topic, ends, line, positions, refused, settle,
};
use crate::parts::Parts;

const PARTS: Parts = Parts {
    day: plain,
    seed: 321,
    size: 400,
};

fn position(line: &Line, topic: &str, partition: usize) -> i64 {
    let group = &line.names.application_id;
    line.topics.committed(group, topic).unwrap()[partition].unwrap()
}

fn end(line: &Line, topic: &str, partition: usize) -> i64 {
    ends(line, topic)[partition]
}

/// What the message of a partition that lost these records must hold.
fn numbers(topic: &str, position: i64, low: i64) -> [String; 4] {
    let lost = low - position;
    [
        format!("{topic}/1: the next record to process is offset {position}"),
        format!("the log begins at {low}"),
        format!("{lost} records were deleted before they were processed"),
        format!("settle positions set {topic} 1 earliest"),
    ]
}

fn assert_told(log: &str, numbers: &[String]) {
    let parts: Vec<&str> = numbers.iter().map(String::as_str).collect();
    assert_contains(log, &parts);
}

/// Gives the records up as the message says.
fn give_up(line: &Line, topic: &str, position: i64, low: i64) {
    let (code, printed) = positions(line, &["set", topic, "1", "earliest"]);
    assert_eq!(code, 0, "{printed}");
    let lost = format!(
        "goes on at {low}, not at {position}: {} offsets are given up",
        low - position
    );
    assert_contains(&printed, &[&lost]);
}

#[test]
fn payments_deleted_before_they_were_read_are_refused_with_their_number() {
    let mut line = PARTS.begin("gone", &[]);
    let topic = line.names.source.clone();
    line.terminate(0);
    let stood = position(&line, &topic, 1);
    PARTS.send(&line, 1);
    let low = stood + 20;
    line.topics.delete_records(&topic, 1, low).unwrap();
    let log = refused(&mut line, BROKEN_PROMISE);
    assert_told(&log, &numbers(&topic, stood, low));
    // Nothing else is done by a slip.
    for wrong in [["0", "0"], ["1", "3"], ["1", "99999999"], ["9", "0"]] {
        let (code, printed) = positions(&line, &["set", &topic, wrong[0], wrong[1]]);
        assert_eq!(code, FAILED, "{wrong:?}: {printed}");
    }
    give_up(&line, &topic, stood, low);
    // What was deleted had been in the duplicate window.
    let log = refused(&mut line, BROKEN_PROMISE);
    assert_contains(&log, &["dedup.accept_shorter_window"]);
    let accepting = line.options(0).set("dedup.accept_shorter_window", true);
    line.instances[0].restart_with(accepting).unwrap();
    line.wait_ready();
    line.settle();
    // While it runs: it stands still, so that there is something to delete. The first part may still be the answer
    // to the fetch that is open at the broker; what comes after it can not.
    line.instances[0].pause();
    PARTS.send(&line, 2);
    PARTS.send(&line, 3);
    let low = end(&line, &topic, 1) - 10;
    line.topics.delete_records(&topic, 1, low).unwrap();
    line.instances[0].resume();
    let status = line.instances[0].wait_exit(LIMIT).unwrap();
    assert_eq!(
        status.code(),
        Some(BROKEN_PROMISE),
        "{}",
        line.instances[0].tail()
    );
    let stood = position(&line, &topic, 1);
    assert_told(&line.log(0), &numbers(&topic, stood, low));
    give_up(&line, &topic, stood, low);
    line.restart(0);
    PARTS.send(&line, 4);
    line.settle();
    // Everything that is still there has its one outcome.
    let (code, printed) = settle(&line, &["verify", "--at-rest"]);
    assert_eq!(code, 0, "{printed}");
}

#[test]
fn what_was_deleted_before_the_first_start_is_never_missed() {
    let mut line = line("head");
    PARTS.send(&line, 0);
    let topic = line.names.source.clone();
    let low = end(&line, &topic, 1) - 20;
    line.topics.delete_records(&topic, 1, low).unwrap();
    line.start(1);
    line.settle();
    PARTS.send(&line, 1);
    line.settle();
    // The window is read again by whoever has no state.
    line.instances[0].kill();
    line.lose_state(0).unwrap();
    line.restart(0);
    PARTS.send(&line, 1);
    line.settle();
    let (code, printed) = settle(&line, &["verify", "--at-rest"]);
    assert_eq!(code, 0, "{printed}");
    // What is remembered and deleted is missed.
    line.instances[0].kill();
    line.lose_state(0).unwrap();
    line.topics.delete_records(&topic, 1, low + 5).unwrap();
    let log = refused(&mut line, BROKEN_PROMISE);
    assert_contains(
        &log,
        &["dedup.accept_shorter_window", &(low + 5).to_string()],
    );
}

#[test]
fn bases_deleted_before_they_were_settled_are_refused_and_verify_names_the_payments() {
    let mut line = PARTS.begin("unsettled", &[]);
    let topic = line.names.bases.clone();
    // Ingest goes on, settling waits for rules that are not known yet.
    line.rules.set_fault(Fault::Status {
        code: 503,
        retry_after: None,
    });
    let before = end(&line, &topic, 1);
    line.send(Day::new(DayOptions {
        is_plain: true,
        ..DayOptions::new(PARTS.seed + 1, 4 * PARTS.size as u64, 4)
    }));
    wait::until("bases on their way", LIMIT, || {
        Ok((end(&line, &topic, 1) > before + 50).then_some(()))
    })
    .unwrap();
    line.instances[0].kill();
    let stood = position(&line, &topic, 1);
    let low = stood + 5;
    line.topics.delete_records(&topic, 1, low).unwrap();
    line.rules.set_fault(Fault::Healthy);
    let log = refused(&mut line, BROKEN_PROMISE);
    assert_told(&log, &numbers(&topic, stood, low));
    give_up(&line, &topic, stood, low);
    line.restart(0);
    wait::until("the rest of the bases", LIMIT, || {
        Ok((position(&line, &topic, 1) + 1 >= end(&line, &topic, 1)).then_some(()))
    })
    .unwrap();
    // Payments that were given up are not forgotten.
    let (code, printed) = settle(&line, &["verify", "--at-rest"]);
    assert_eq!(code, FAILED, "{printed}");
    assert_contains(&printed, &["1 Outcomes", "BROKEN"]);
}

#[test]
fn a_marker_that_is_deleted_behind_the_last_base_is_no_loss() {
    let mut line = PARTS.begin("marker", &[]);
    let topic = line.names.bases.clone();
    // Nothing comes in after this start, and the positions move past the markers all the same.
    line.instances[0].kill();
    line.restart(0);
    wait::until("positions behind the markers", LIMIT, || {
        let is_at_end = |number| position(&line, &topic, number) == end(&line, &topic, number);
        Ok((0..4).all(is_at_end).then_some(()))
    })
    .unwrap();
    PARTS.send(&line, 1);
    line.settle();
    line.instances[0].kill();
    let mut stood_before_marker = 0;
    for number in 0..4 {
        let high = end(&line, &topic, number);
        stood_before_marker += high - position(&line, &topic, number);
        let partition = i32::try_from(number).unwrap();
        line.topics.delete_records(&topic, partition, high).unwrap();
    }
    assert!(stood_before_marker > 0);
    line.restart(0);
    line.wait_ready();
    PARTS.send(&line, 2);
    line.settle();
    let (code, printed) = settle(&line, &["verify", "--at-rest"]);
    assert_eq!(code, 0, "{printed}");
}

#[test]
fn a_source_that_was_made_anew_is_refused_and_bases_that_were_can_be_gone_on_with() {
    let mut line = PARTS.begin("anew", &[]);
    line.terminate(0);
    let (source, bases) = (line.names.source.clone(), line.names.bases.clone());
    let stood: Vec<i64> = (0..4)
        .map(|number| position(&line, &bases, number))
        .collect();
    delete_topic(&line, &bases);
    // The start makes it again.
    let log = refused(&mut line, BROKEN_PROMISE);
    assert_contains(&log, &["the log ends at 0", "settle positions set"]);
    for (number, stood) in stood.iter().enumerate() {
        let set = ["set", &bases, &number.to_string(), "earliest"];
        let (code, printed) = positions(&line, &set);
        assert_eq!(code, 0, "{printed}");
        assert_contains(&printed, &[&format!("goes on at 0, not at {stood}")]);
    }
    line.restart(0);
    PARTS.send(&line, 1);
    line.settle();
    line.terminate(0);
    let (code, printed) = settle(&line, &["verify", "--at-rest"]);
    assert_eq!(code, 0, "{printed}");
    let stood = position(&line, &source, 0);
    delete_topic(&line, &source);
    let log = refused(&mut line, BROKEN_PROMISE);
    assert_contains(&log, &["the log ends at 0", "another kafka.application_id"]);
    let (code, printed) = positions(&line, &["set", &source, "0", "earliest"]);
    assert_eq!(code, FAILED, "{printed}");
    assert_contains(
        &printed,
        &[&format!("the position is {stood}, the log ends at 0")],
    );
}
