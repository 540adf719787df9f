//! Partitions change hands all the time.

use chaos::cluster::wait;
use chaos::line::LIMIT;

use crate::flow::Flow;

const ROUNDS: usize = 3;
const MOST: usize = 4;

/// One instance becomes four and one again, each time before the last change is digested.
#[test]
fn instances_that_come_and_go_every_few_seconds_keep_every_partition_going() {
    let quick = [("session.timeout.ms", "2000")];
    let mut flow = Flow::start("storm", 1, &quick);
    flow.under_load(84, |flow| {
        flow.progress("the start");
        for round in 0..ROUNDS {
            for index in 1..MOST {
                if index < flow.line.instances.len() {
                    flow.line.instances[index].restart().unwrap();
                } else {
                    flow.add();
                }
            }
            flow.progress("the arrival of three");
            // In turn without a word and in order, and the one that stays is not always the same.
            for index in (0..MOST).filter(|index| *index != round) {
                let instance = &flow.line.instances[index];
                if (index + round) % 2 == 0 {
                    instance.kill();
                } else {
                    // Before, it may die of the signal.
                    wait::until("an answer", LIMIT, || {
                        let answer = reqwest::blocking::get(format!("{}/livez", instance.http()));
                        Ok(answer.ok())
                    })
                    .unwrap();
                    let status = instance.terminate(LIMIT).unwrap();
                    assert_eq!(status.code(), Some(0), "{}", instance.tail());
                }
            }
            flow.progress("the end of three");
        }
    });
}
