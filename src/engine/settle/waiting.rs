//! What waits for the rule service, counted for people: how many payments, how much money, and
//! since when.

use std::time::Duration;

use crate::codec::stored::read_base;
use crate::engine::settle::Task;
use crate::engine::status::Waiting;

/// Everything that waits is looked at, so not on every turn.
const INTERVAL: Duration = Duration::from_secs(1);

/// The last measurement and when it was made (process clock).
#[derive(Debug, Default)]
pub(super) struct Measured {
    at: Duration,
    waiting: Waiting,
}

impl Task {
    /// What is held back by a base whose rule is not known, at most a second ago.
    pub fn waiting(&mut self, now: Duration) -> Waiting {
        if !self.is_waiting() {
            self.measured = Measured::default();
        } else if self.measured.waiting.records == 0 || now >= self.measured.at + INTERVAL {
            let waiting = self.measure();
            self.measured = Measured { at: now, waiting };
        }
        self.measured.waiting
    }

    fn measure(&self) -> Waiting {
        let mut waiting = Waiting::default();
        for item in self.inbox.iter() {
            // What is no base ends a transaction again, or stops the worker when its turn comes.
            if let Ok(base) = read_base(item.value.unwrap_or_default()) {
                waiting.records += 1;
                waiting.amount = waiting.amount.saturating_add(base.amount);
                let oldest = waiting
                    .oldest
                    .map_or(base.received_at, |oldest| oldest.min(base.received_at));
                waiting.oldest = Some(oldest);
            }
        }
        waiting
    }
}
