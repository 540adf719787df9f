//! An owner stands still in the middle of a transaction, others take its partitions over, and it goes on.

use std::thread;
use std::time::Duration;

use chaos::line::LIMIT;
use chaos::proxy::{Api, Fate, Rule, Side};

use crate::flow::Flow;

/// Short, so that they pass quickly.
const PROPERTIES: [(&str, &str); 2] = [
    ("session.timeout.ms", "2000"),
    ("transaction.timeout.ms", "5000"),
];

/// Longer than all of them, and than the broker needs to notice.
const STOPPED: Duration = Duration::from_secs(7);

#[test]
fn processes_that_stood_still_past_every_time_out_write_nothing_when_they_go_on() {
    // Each is stopped with another request of its transaction under way.
    let moments = [Api::Produce, Api::TxnOffsetCommit, Api::EndTxn];
    let mut flow = Flow::start("stopped", moments.len(), &PROPERTIES);
    flow.under_load(81, |flow| {
        flow.progress("the start");
        for (victim, moment) in moments.into_iter().enumerate() {
            let rule = Rule::new(moment, &flow.line.producer(victim), Fate::Hold(Side::Open));
            let late = flow.line.proxy().arm(rule);
            late.wait_caught(1, LIMIT).unwrap();
            flow.line.instances[victim].pause();
            flow.mark();
            // The trouble itself, not a wait for something.
            thread::sleep(STOPPED);
            flow.progress_since_mark("the takeover");
            flow.line.instances[victim].resume();
            late.release();
            late.wait_answered(LIMIT).unwrap();
            flow.progress("the zombie's return");
            flow.line.wait_ready().unwrap();
            assert!(flow.is_running(victim), "{}", flow.line.tails());
        }
    });
}

#[test]
fn a_worker_that_is_stuck_past_its_turn_while_its_process_lives_is_replaced_and_writes_nothing() {
    // The group gives up a member whose worker does not come back to it, whatever its heartbeats say.
    let patience = [("max.poll.interval.ms", "4000")];
    let properties = [PROPERTIES.as_slice(), &patience].concat();
    let mut flow = Flow::start("stuck", 2, &properties);
    flow.under_load(82, |flow| {
        flow.progress("the start");
        let stuck = Rule::all(&flow.line.producer(0), Fate::Hold(Side::Open));
        let stuck = flow.line.proxy().arm(stuck);
        stuck.wait_caught(1, LIMIT).unwrap();
        flow.progress("the takeover");
        stuck.release();
        flow.progress("the zombie's return");
        flow.line.wait_ready().unwrap();
        assert!(flow.is_running(0), "{}", flow.line.tails());
    });
}
