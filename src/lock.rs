//! Locks of values that stay whole whatever panics while they are held.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The lock's value, also after a thread has panicked with it: it is replaced or added to in one
/// step, so it is never seen half-changed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
