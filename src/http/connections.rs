//! Who is connected, and who must go when there is no room for another.
//!
//! A connection that waits for a request holds nothing of value, so it is what gives way: idle
//! connections, however many, keep nobody out. One whose answer is being made stays.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// One connection, as the others see it.
#[derive(Debug, Default)]
pub(super) struct Connection {
    /// Requests whose answer has not begun.
    answering: AtomicUsize,
    leave: Notify,
}

/// A request whose answer has not begun.
pub(super) struct Answering(Arc<Connection>);

impl Connection {
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

/// All connections, the oldest first.
#[derive(Debug)]
pub(super) struct Connections {
    open: VecDeque<Arc<Connection>>,
    most: usize,
}

impl Connections {
    pub(super) fn new(most: usize) -> Self {
        Self {
            open: VecDeque::new(),
            most,
        }
    }

    /// Adds a connection. With no room the oldest that may go has to; `None` when none may.
    pub(super) fn add(&mut self) -> Option<Arc<Connection>> {
        // Nobody else holds a connection that has ended.
        self.open
            .retain(|connection| Arc::strong_count(connection) > 1);
        if self.open.len() >= self.most {
            let oldest = self
                .open
                .iter()
                .position(|connection| connection.may_go())?;
            let connection = self.open.remove(oldest)?;
            connection.leave.notify_one();
        }
        let connection = Arc::new(Connection::default());
        self.open.push_back(Arc::clone(&connection));
        Some(connection)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_waits_gives_way_and_one_that_is_answered_stays() {
        let mut connections = Connections::new(2);
        let (first, second) = (connections.add().unwrap(), connections.add().unwrap());
        let answering = first.answering();
        let third = connections.add().unwrap();
        assert!(
            !connections
                .open
                .iter()
                .any(|connection| Arc::ptr_eq(connection, &second))
        );
        let busy = third.answering();
        assert!(connections.add().is_none());
        drop(answering);
        let fourth = connections.add().unwrap();
        assert!(
            !connections
                .open
                .iter()
                .any(|connection| Arc::ptr_eq(connection, &first))
        );
        drop((busy, third, fourth));
        assert!(connections.add().is_some());
        assert_eq!(connections.open.len(), 1);
    }
}
