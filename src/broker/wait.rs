//! Waits for brokers that end early when the process is to end. A call of the client library cannot
//! be interrupted: a thread of its own makes it, and is left to itself then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use crate::broker::classify::{Error, Reaction};
use crate::clock;

/// How often a wait looks whether the process is to end.
const SLICE: Duration = Duration::from_millis(50);

/// Longer than any call takes: each has a time-out of its own.
const FOR_EVER: Duration = Duration::from_secs(3600);

/// What a call of the library returns, or `None` when the process is to end before it does.
pub(super) fn call<T: Send + 'static>(
    stop: &AtomicBool,
    call: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::spawn(move || {
        // Nobody waits any more when the process ends.
        let _ = sender.send(call());
    });
    match receive(stop, &receiver, FOR_EVER) {
        Ok(answer) => Some(answer),
        Err(RecvTimeoutError::Timeout) => None,
        Err(RecvTimeoutError::Disconnected) => panic!("a call of the client library has panicked"),
    }
}

/// Waits for `timeout` at most, and no longer once the process is to end.
pub(super) fn receive<T>(
    stop: &AtomicBool,
    receiver: &Receiver<T>,
    timeout: Duration,
) -> Result<T, RecvTimeoutError> {
    let deadline = clock::now() + timeout;
    loop {
        match receiver.recv_timeout(SLICE) {
            Err(RecvTimeoutError::Timeout)
                if clock::now() < deadline && !stop.load(Ordering::Relaxed) => {}
            answer => return answer,
        }
    }
}

/// The failure of what was given up because the process is to end.
pub(super) fn given_up(attempt: &'static str) -> Error {
    Error::new(attempt, "the process is to end", Reaction::Wait)
}
