//! Transactions that an instance left open when it died. They keep every reader of the partitions
//! they touched from going on until they time out; whoever takes such a partition over may end them
//! at once, by taking the dead writer's transactional id over for a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::broker::group::Members;
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
        // An answer without this worker is none: while the group's coordinator moves, no broker may
        // know the group.
        let is_answer = members.transactional_ids.contains(&fixed.transactional_id);
        let Some(asked_at) = members.asked_at.filter(|_| is_answer) else {
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
/// payment must. Once at a time: a second takeover would abort what the first one commits.
fn end<P: Port>(port: &P, fixed: &Fixed, transactional_id: String) {
    let Some(turn) = Turn::take(fixed, &transactional_id) else {
        return;
    };
    let (ending, fixed) = (port.clone(), fixed.clone());
    port.aside(move || {
        let _turn = turn;
        match end_left_by(&ending, &fixed, &transactional_id) {
            Ok(()) => {
                tracing::info!(
                    transactional_id,
                    "ended the open transaction of a former owner"
                );
            }
            Err(error) => tracing::warn!(
                transactional_id,
                %error,
                "could not end the transaction that a former owner left; readers wait until it \
                 times out, or is found again"
            ),
        }
    });
}

/// The right of this process's threads to take an id over; given back when dropped.
struct Turn {
    ending: Arc<Mutex<BTreeSet<String>>>,
    transactional_id: String,
}

impl Turn {
    fn take(fixed: &Fixed, transactional_id: &str) -> Option<Self> {
        let mut ending = fixed.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.insert(transactional_id.to_owned()).then(|| Self {
            ending: Arc::clone(&fixed.ending),
            transactional_id: transactional_id.to_owned(),
        })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.remove(&self.transactional_id);
    }
}
