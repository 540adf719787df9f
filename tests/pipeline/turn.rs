//! How many pipelines run side by side: each is several processes, and what is waited for must not wait for cores.

use std::sync::{Condvar, Mutex, PoisonError};

/// More of them only share the one broker.
const MOST: usize = 4;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// The right to run one pipeline; goes back when dropped.
#[derive(Debug)]
pub struct Turn;

impl Turn {
    /// Waits for it.
    pub fn take() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |running: &mut usize| *running >= cores.clamp(2, MOST);
        let mut running = ENDED
            .wait_while(running, full)
            .unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        Self
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}
