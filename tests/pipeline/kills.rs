//! SIGKILL, again and again.

use std::thread;
use std::time::Duration;

use chaos::cluster::wait;

use crate::line::{LIMIT, Line, day};
use crate::moving::under_load;

const KILLS: usize = 20;
/// Between two kills so many outcomes become visible, at least.
const PROGRESS: u64 = 200;

/// Its instance has settled payments of every kind, checkpoints among them, and is killed.
pub fn settled_and_killed(mut line: Line, seed: u64) -> Line {
    line.start(1);
    line.send(day(seed, 500));
    line.settle();
    line.instances[0].kill();
    line
}

#[test]
fn twenty_kills_at_random_moments_under_load_change_no_outcome_and_no_total() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut line = Line::new("kills").with_database();
    line.start(2);
    let tail = line.tail();
    under_load(&mut line, seed, |line| {
        for kill in 0..KILLS {
            let before = tail.seen().unwrap().total();
            wait::until("progress before the kill", LIMIT, || {
                let seen = tail.seen()?.total();
                Ok((seen >= before + PROGRESS).then_some(()))
            })
            .unwrap();
            // Somewhere in its transactions, its restore or its start.
            thread::sleep(Duration::from_millis(rng.u64(..400)));
            let victim = rng.usize(..2);
            eprintln!("kill {kill}: settle-{victim}");
            line.instances[victim].kill();
            line.instances[victim].restart().unwrap();
        }
    });
    line.prove();
}
