//! Transactions that an instance left open when it died. They keep every reader of the partitions
//! they touched from going on until they time out; whoever takes such a partition over may end them
//! at once, by taking the dead writer's transactional id over for a moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::broker::monitor::Members;
use crate::broker::port::Port;
use crate::clock;
use crate::engine::fixed::Fixed;
use crate::engine::hanging::end_left_by;

/// Writers that stand in the position records of partitions that were taken over.
pub struct FormerWriters {
    members: Arc<Mutex<Members>>,
    /// By transactional id, with the process clock when a partition of theirs was taken over.
    waiting: BTreeMap<String, Duration>,
}

impl FormerWriters {
    pub fn new(members: Arc<Mutex<Members>>) -> Self {
        Self {
            members,
            waiting: BTreeMap::new(),
        }
    }

    /// When the group last answered; process clock.
    pub fn members_asked_at(&self) -> Option<Duration> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.asked_at
    }

    /// A partition was taken over whose last writer was `transactional_id`.
    pub fn add(&mut self, transactional_id: String) {
        self.waiting.insert(transactional_id, clock::now());
    }

    /// Ends the transactions of those that the group no longer counts among its members. Who still
    /// is one has handed its partition over in order, and has no transaction open there.
    pub fn end_transactions<P: Port>(&mut self, port: &P, fixed: &Fixed) {
        if self.waiting.is_empty() {
            return;
        }
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(asked_at) = members.asked_at else {
            return;
        };
        let (decided, undecided): (BTreeMap<_, _>, _) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(|(_, since)| *since < asked_at);
        self.waiting = undecided;
        for id in decided.into_keys() {
            if members.transactional_ids.contains(&id) {
                continue;
            }
            end(port, fixed, id);
        }
    }
}

/// Ends what `transactional_id` has left, in the background: it may wait for the broker, and no
/// payment must.
pub fn end<P: Port>(port: &P, fixed: &Fixed, transactional_id: String) {
    let (ending, fixed) = (port.clone(), fixed.clone());
    port.aside(
        move || match end_left_by(&ending, &fixed, &transactional_id) {
            Ok(()) => tracing::info!(transactional_id, "ended what a former owner left"),
            Err(error) => tracing::warn!(transactional_id, %error, "former owner"),
        },
    );
}
