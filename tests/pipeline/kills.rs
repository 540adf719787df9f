//! SIGKILL, again and again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use chaos::cluster::wait;
use chaos::workload::send::{self, SendOptions};

use crate::line::{LIMIT, Line, day};

const KILLS: usize = 20;
const PER_SECOND: u32 = 1000;
/// Between two kills so many outcomes become visible, at least.
const PROGRESS: u64 = 200;

#[test]
fn twenty_kills_at_random_moments_under_load_change_no_outcome_and_no_total() {
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut line = Line::new("kills").with_database();
    line.start(2);
    let tail = line.tail();
    let stop = AtomicBool::new(false);
    let sending = SendOptions {
        per_second: Some(PER_SECOND),
        ..line.sending()
    };
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            send::send(&sending, day(seed, 1_000_000), |_| {
                !stop.load(Ordering::Relaxed)
            })
        });
        let stop_sending = StopOnDrop(&stop);
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
        drop(stop_sending);
        let sent = sender.join().unwrap().unwrap();
        assert!(sent.messages > KILLS as u64 * PROGRESS);
    });
    line.prove();
}

/// A failed condition must not leave the sender running.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
