//! The broker dies, comes back, and has forgotten markers (docs/kafka.md, section 7).
//!
//! The logs and the coordinators' decisions survive. Markers that were still to be written, or
//! whose transaction has expired by the time it is back, are lost for some places, for all or for
//! none, and the coordinator takes them for written all the same.

use std::collections::BTreeSet;

use crate::transactions::State;
use crate::world::{Event, World};

#[derive(Debug, Default)]
pub struct Broker {
    is_gone: bool,
    /// It writes no marker any more and dies soon.
    pub is_dying: bool,
    /// How often it has died.
    pub deaths: u64,
    /// Transactions that have lost a marker.
    pub lost: BTreeSet<u64>,
}

impl World {
    pub fn is_broker_gone(&self) -> bool {
        self.broker.is_gone
    }

    pub fn kill_broker(&mut self) {
        if self.broker.is_gone || self.healed {
            return;
        }
        self.broker.is_gone = true;
        self.broker.is_dying = false;
        self.broker.deaths += 1;
        let duration = if self.dice.bool() {
            self.millis(200..4000)
        } else {
            self.millis(8000..16_000)
        };
        self.schedule(duration, Event::BrokerReturns);
        self.trouble("broker died", || format!("for {duration:?}"));
        let now = self.now;
        for process in &mut self.processes {
            if process.running && !process.frozen && now >= process.cut_until {
                process.breaks += 1;
            } else {
                process.breaks_unnoticed = true;
            }
        }
    }

    /// It stalls, so that whatever is decided meanwhile has no marker yet, and dies.
    pub fn doom_broker(&mut self) {
        self.broker.is_dying = true;
        let delay = self.millis(0..400);
        self.schedule(delay, Event::BrokerDies);
    }

    pub fn return_broker(&mut self) {
        self.broker.is_gone = false;
        self.note(|| "the broker is back".to_owned());
        let now = self.now;
        for member in self.group.members.values_mut() {
            member.heard_at = now;
        }
        self.abort_expired();
        // Markers of the above are as lost as those that were under way.
        self.broker.deaths += 1;
        let ending = self
            .transactional
            .iter()
            .filter(|(_, known)| matches!(known.state, State::Ending { .. }));
        let ending: Vec<String> = ending.map(|(id, _)| id.clone()).collect();
        for id in ending {
            let forgets = match self.dice.u32(0..4) {
                0 => 0.0,
                1 => 1.0,
                _ => self.dice.f64(),
            };
            self.lose_markers(&id, forgets);
            self.send_markers(&id);
        }
    }

    /// No marker of the decided transaction of this id is ever written.
    pub fn forget_markers(&mut self, id: &str) {
        // Those that are under way are none of the broker's that is back.
        self.broker.deaths += 1;
        self.lose_markers(id, 1.0);
    }

    /// The same, and another instance, which took the writer for dead, has undone the transaction.
    pub fn undo(&mut self, id: &str) {
        let places = self.unmarked(id);
        self.forget_markers(id);
        let timestamp = self.wall_millis();
        let known = self.transactional.get_mut(id).expect("it was initialised");
        known.epoch += 1;
        let (producer, number) = (known.producer, known.number);
        for place in places {
            match place {
                Some(partition) => {
                    let log = self.logs.get_mut(&partition).expect("a known partition");
                    log.mark(producer, false, timestamp);
                }
                None => self.group.mark(producer, number, false),
            }
        }
    }

    fn lose_markers(&mut self, id: &str, likelihood: f64) {
        let known = &self.transactional[id];
        let (number, sent) = (known.number, known.sent.clone());
        for place in self.unmarked(id) {
            if !self.chance(likelihood) {
                continue;
            }
            self.trouble("marker lost", || format!("transaction {number}: {place:?}"));
            self.broker.lost.insert(number);
            self.forget_marker(id, place);
        }
        if self.broker.lost.contains(&number) {
            // What becomes of the offsets is decided apart from the records.
            self.group.disturbed.extend(sent);
        }
    }

    /// Whether this process has a transaction open that ends another one again, which is committed
    /// in part. Aborted now, it tears that one.
    pub fn is_mending(&self, process: usize) -> bool {
        let of_process = self.repairs.iter().filter(|(_, of)| **of == process);
        of_process.map(|(id, _)| id).any(|id| {
            let known = &self.transactional[id];
            let covered = known.partitions.iter().flat_map(|at| {
                let log = &self.logs[at];
                let records = log
                    .records()
                    .filter(|(offset, _)| log.is_undecided(*offset));
                records.filter_map(|(_, entry)| entry.transaction)
            });
            let mut covered = covered.filter(|number| *number != known.number);
            known.state == State::Ongoing
                && covered
                    .any(|number| self.broker.lost.contains(&number) && self.is_visible(number))
        })
    }

    pub fn is_anyone_mending(&self) -> bool {
        (0..self.processes.len()).any(|process| self.is_mending(process))
    }

    /// Whether any record of the transaction is committed by its marker.
    fn is_visible(&self, number: u64) -> bool {
        self.logs.values().any(|log| {
            let mut records = log.records();
            records.any(|(offset, entry)| {
                entry.transaction == Some(number) && log.is_committed(offset)
            })
        })
    }

    /// A connection that broke while the process could not see it breaks for it now.
    pub fn notice_break(&mut self, process: usize) -> bool {
        let process = &mut self.processes[process];
        let is_new = std::mem::take(&mut process.breaks_unnoticed);
        process.breaks += u64::from(is_new);
        is_new
    }
}
