//! Time. The only place that reads the clocks of the machine, and the only one that sleeps on a
//! worker's thread.
//!
//! A thread may be given a clock of its own: the simulation sets it, and then no thread waits.

use std::cell::Cell;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: LazyLock<Instant> = LazyLock::new(monotonic);

/// Wall clock of a simulated thread when its process clock stands at zero.
const SIMULATED_EPOCH_MICROS: i64 = 1_750_000_000_000_000;

thread_local! {
    static SIMULATED: Cell<Option<Duration>> = const { Cell::new(None) };
}

/// Sets both clocks of this thread: from now on they stand still until they are set again.
pub fn simulate(now: Duration) {
    SIMULATED.set(Some(now));
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn monotonic() -> Instant {
    Instant::now()
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// Time since the first use of the clock in this process; never goes back.
pub fn now() -> Duration {
    if let Some(now) = SIMULATED.get() {
        return now;
    }
    let start = *START;
    monotonic().duration_since(start)
}

/// Wall clock, milliseconds since the epoch; for comparing with record timestamps.
pub fn wall_millis() -> i64 {
    wall_micros() / 1000
}

/// Wall clock, microseconds since the epoch.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn wall_micros() -> i64 {
    if let Some(now) = SIMULATED.get() {
        return SIMULATED_EPOCH_MICROS + micros(now);
    }
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    micros(elapsed)
}

/// Lets time pass.
pub fn sleep(duration: Duration) {
    match SIMULATED.get() {
        Some(now) => SIMULATED.set(Some(now + duration)),
        None => thread::sleep(duration),
    }
}
