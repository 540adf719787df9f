//! Partitions move between instances while payments come.

use std::time::Instant;

use chaos::tail::Tail;
use chaos::workload::send::{self, SendOptions};

use crate::line::{LIMIT, Line, day};

/// Calls `work` while payments come at a fixed rate.
pub fn under_load(line: &mut Line, seed: u64, work: impl FnOnce(&mut Line)) {
    under_load_of(line, seed, 800, work);
}

/// The same with so many payments per second.
pub fn under_load_of(line: &mut Line, seed: u64, per_second: u32, work: impl FnOnce(&mut Line)) {
    let sending = SendOptions {
        per_second: Some(per_second),
        ..line.sending()
    };
    send::during(&sending, day(seed, 1_000_000), || work(line)).unwrap();
}

/// Waits until every partition shows a settlement that is newer than this moment.
pub fn progress(tail: &Tail, after: &str) {
    tail.mark(Instant::now()).unwrap();
    tail.wait_newer(after, LIMIT).unwrap();
}

#[test]
fn partitions_move_to_new_instances_and_away_from_stopped_ones_under_load() {
    let mut line = Line::new("moving").with_database();
    line.start(1);
    let tail = line.tail();
    under_load(&mut line, 51, |line| {
        progress(&tail, "the start");
        line.start(1);
        progress(&tail, "the second instance");
        line.start(1);
        progress(&tail, "the third instance");
        line.terminate(0);
        progress(&tail, "the stop of the first");
        line.instances[1].kill();
        progress(&tail, "the kill of the second");
        line.restart(0);
        line.restart(1);
        progress(&tail, "the return of both");
        for instance in &line.instances {
            assert_eq!(instance.exit_status(), None, "{}", instance.tail());
        }
    });
    line.prove();
}
