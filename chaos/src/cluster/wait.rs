//! Waiting for conditions: the only sleep of the cluster stands here.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

const STEP: Duration = Duration::from_millis(10);

/// Asks `condition` until it yields a value, at most for `limit`; `what` names it in the error.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition()? {
            return Ok(value);
        }
        if start.elapsed() >= limit {
            bail!("{what} did not happen within {limit:?}");
        }
        thread::sleep(STEP);
    }
}
