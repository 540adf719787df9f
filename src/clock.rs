//! Time. The only place that reads the clocks of the machine.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: LazyLock<Instant> = LazyLock::new(monotonic);

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn monotonic() -> Instant {
    Instant::now()
}

/// Time since the first use of the clock in this process; never goes back.
pub fn now() -> Duration {
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
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(elapsed.as_micros()).unwrap_or(i64::MAX)
}
