//! Who is connected, and who must go when there is no room for another.
//!
//! A connection that waits for a request holds nothing of value, so it is what gives way: idle
//! connections, however many, keep nobody out. One whose answer is being made stays.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// One connection's place.
#[derive(Debug, Default)]
pub(super) struct Seat {
    /// Requests whose answer has not begun.
    answering: AtomicUsize,
    leave: Notify,
}

/// A request whose answer has not begun.
pub(super) struct Answering(Arc<Seat>);

impl Seat {
    pub(super) fn answering(self: &Arc<Self>) -> Answering {
        self.answering.fetch_add(1, Ordering::SeqCst);
        Answering(Arc::clone(self))
    }

    /// Ready when the connection must give way.
    pub(super) async fn must_leave(&self) {
        self.leave.notified().await;
    }

    fn may_go(&self) -> bool {
        self.answering.load(Ordering::SeqCst) == 0
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answering.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The places of all connections, the oldest first.
#[derive(Debug)]
pub(super) struct Seats {
    taken: VecDeque<Arc<Seat>>,
    most: usize,
}

impl Seats {
    pub(super) fn new(most: usize) -> Self {
        Self {
            taken: VecDeque::new(),
            most,
        }
    }

    /// Seats a new connection. With no room the oldest that may go has to; `None` when none may.
    pub(super) fn take(&mut self) -> Option<Arc<Seat>> {
        // Nobody else holds the seat of a connection that has ended.
        self.taken.retain(|seat| Arc::strong_count(seat) > 1);
        if self.taken.len() >= self.most {
            let oldest = self.taken.iter().position(|seat| seat.may_go())?;
            let seat = self.taken.remove(oldest)?;
            seat.leave.notify_one();
        }
        let seat = Arc::new(Seat::default());
        self.taken.push_back(Arc::clone(&seat));
        Some(seat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_waits_gives_way_and_one_that_is_answered_stays() {
        let mut seats = Seats::new(2);
        let (first, second) = (seats.take().unwrap(), seats.take().unwrap());
        let answering = first.answering();
        let third = seats.take().unwrap();
        assert!(!seats.taken.iter().any(|seat| Arc::ptr_eq(seat, &second)));
        let busy = third.answering();
        assert!(seats.take().is_none());
        drop(answering);
        let fourth = seats.take().unwrap();
        assert!(!seats.taken.iter().any(|seat| Arc::ptr_eq(seat, &first)));
        drop((busy, third, fourth));
        assert!(seats.take().is_some());
        assert_eq!(seats.taken.len(), 1);
    }
}
