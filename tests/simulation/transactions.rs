//! The transaction coordinator: ids and epochs, the state of each transaction, markers that reach
//! each partition at a time of its own, and time-outs.
//!
//! Requests carry an epoch and no number, as those of clients without the second part of KIP-890
//! do: the coordinator cannot tell a late one from one of the next transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use settle::broker::Partition;

use crate::group::Membership;
use crate::log::Payload;
use crate::world::{Code, Event, World};

pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than a broker takes to die.
const STALL: Duration = Duration::from_secs(1);
const SCAN: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Empty,
    Ongoing,
    /// Decided; markers are under way.
    Ending {
        commit: bool,
    },
    Ended {
        commit: bool,
    },
}

/// What the coordinator keeps of a transactional id.
#[derive(Debug)]
pub struct Transactional {
    pub producer: u64,
    pub epoch: i32,
    pub state: State,
    pub number: u64,
    begun: Duration,
    timeout: Duration,
    /// Where its markers are still to be written.
    pub partitions: BTreeSet<Partition>,
    pub has_offsets: bool,
    /// Of which partitions it sends offsets.
    pub sent: BTreeSet<Partition>,
}

/// A producer as its requests name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    pub id: String,
    pub producer: u64,
    pub epoch: i32,
}

impl World {
    /// `InitProducerId`.
    pub fn initialise(&mut self, id: &str, timeout: Duration) -> Result<Holder, Code> {
        let next = self.transactional.len() as u64;
        let now = self.now;
        let known = self
            .transactional
            .entry(id.to_owned())
            .or_insert_with(|| Transactional {
                producer: next,
                epoch: -1,
                state: State::Empty,
                number: 0,
                begun: now,
                timeout,
                partitions: BTreeSet::new(),
                has_offsets: false,
                sent: BTreeSet::new(),
            });
        match known.state {
            State::Ending { .. } => Err(Code::Concurrent),
            State::Ongoing => {
                known.epoch += 1;
                self.decide(id, false);
                Err(Code::Concurrent)
            }
            State::Empty | State::Ended { .. } => {
                known.epoch += 1;
                known.state = State::Empty;
                known.timeout = timeout;
                let holder = Holder {
                    id: id.to_owned(),
                    producer: known.producer,
                    epoch: known.epoch,
                };
                self.note(|| format!("{id} has epoch {}", holder.epoch));
                Ok(holder)
            }
        }
    }

    fn held(&mut self, holder: &Holder) -> Result<&mut Transactional, Code> {
        let known = self.transactional.get_mut(&holder.id);
        let known = known.expect("it was initialised");
        if known.epoch == holder.epoch {
            Ok(known)
        } else {
            Err(Code::Fenced)
        }
    }

    /// `AddPartitionsToTxn` and `AddOffsetsToTxn` (no partitions).
    pub fn add(&mut self, holder: &Holder, partitions: &[Partition]) -> Result<(), Code> {
        let (now, next) = (self.now, self.last_transaction + 1);
        let known = self.held(holder)?;
        let mut is_new = false;
        match known.state {
            State::Ending { .. } => return Err(Code::Concurrent),
            State::Ongoing => {}
            State::Empty | State::Ended { .. } => {
                known.state = State::Ongoing;
                known.number = next;
                known.begun = now;
                known.partitions.clear();
                known.has_offsets = false;
                known.sent.clear();
                is_new = true;
            }
        }
        known.partitions.extend(partitions);
        known.has_offsets |= partitions.is_empty();
        if is_new {
            self.last_transaction = next;
            self.note(|| format!("transaction {next} of {} begins", holder.id));
        }
        Ok(())
    }

    /// `Produce`, one batch.
    pub fn produce(
        &mut self,
        holder: &Holder,
        partition: Partition,
        batch: u64,
        payloads: &[Payload],
    ) -> Result<i64, Code> {
        let timestamp = self.wall_millis();
        let known = self.held(holder)?;
        if known.state != State::Ongoing || !known.partitions.contains(&partition) {
            return Err(Code::InvalidTransactionState);
        }
        let number = known.number;
        let log = self.logs.get_mut(&partition).expect("a known partition");
        let writer = (holder.producer, holder.epoch, batch);
        let base = log.append_batch(writer, payloads, timestamp, number);
        self.note(|| {
            let count = payloads.len();
            format!("transaction {number}: {count} records to {partition:?} at {base}")
        });
        Ok(base)
    }

    /// `TxnOffsetCommit`.
    pub fn put_offsets(
        &mut self,
        holder: &Holder,
        offsets: &[(Partition, i64)],
        membership: &Membership,
    ) -> Result<(), Code> {
        self.group.check(membership)?;
        let known = self.held(holder)?;
        if known.state != State::Ongoing || !known.has_offsets {
            return Err(Code::InvalidTransactionState);
        }
        let number = known.number;
        known.sent.extend(offsets.iter().map(|(at, _)| *at));
        let of = (known.producer, number);
        let pending = self.group.pending.entry(of).or_default();
        pending.extend(offsets.iter().copied());
        self.note(|| format!("transaction {number}: offsets {offsets:?}"));
        Ok(())
    }

    /// `EndTxn`.
    pub fn end(&mut self, holder: &Holder, commit: bool) -> Result<(), Code> {
        let known = self.held(holder)?;
        match known.state {
            State::Ongoing => {
                self.decide(&holder.id, commit);
                Ok(())
            }
            State::Ending { commit: ending } if ending == commit => Err(Code::Concurrent),
            State::Ended { commit: ended } if ended == commit => Ok(()),
            _ => Err(Code::InvalidTransactionState),
        }
    }

    /// Decides the open transaction of an id, and sends the markers on their ways.
    fn decide(&mut self, id: &str, commit: bool) {
        let known = self.transactional.get_mut(id).expect("it has one open");
        known.state = State::Ending { commit };
        self.repairs.remove(id);
        let transaction = known.number;
        if commit {
            let next = self.commits.len() as u64 + 1;
            self.commits.insert(transaction, next);
        }
        self.note(|| format!("transaction {transaction} of {id}: commit {commit}"));
        if !self.broker.is_dying && self.chance(self.faults.broker_after_end) {
            self.doom_broker();
        }
        self.send_markers(id);
    }

    /// Sends the markers on their ways that are still to be written.
    pub fn send_markers(&mut self, id: &str) {
        for place in self.unmarked(id) {
            let is_late = self.chance(self.faults.late_marker);
            let is_stalled = self.broker.is_dying && self.dice.u32(0..4) > 0;
            let delay = if is_stalled {
                STALL
            } else if is_late {
                self.millis(20..2500)
            } else {
                self.millis(0..4)
            };
            let event = Event::Marker {
                id: id.to_owned(),
                place,
                broker: self.broker.deaths,
            };
            self.schedule(delay, event);
        }
        self.end_if_marked(id);
    }

    /// Where markers are still to be written; `None` is the partition of the group's offsets.
    pub fn unmarked(&self, id: &str) -> Vec<Option<Partition>> {
        let known = &self.transactional[id];
        let partitions = known.partitions.iter().copied().map(Some);
        partitions
            .chain(known.has_offsets.then_some(None))
            .collect()
    }

    fn end_if_marked(&mut self, id: &str) {
        let known = self.transactional.get_mut(id).expect("it has one ending");
        if let State::Ending { commit } = known.state
            && known.partitions.is_empty()
            && !known.has_offsets
        {
            known.state = State::Ended { commit };
        }
    }

    /// A marker arrives.
    pub fn mark(&mut self, id: &str, place: Option<Partition>) {
        let timestamp = self.wall_millis();
        let known = &self.transactional[id];
        let State::Ending { commit } = known.state else {
            unreachable!("a transaction ends when all its markers are there");
        };
        let (producer, transaction) = (known.producer, known.number);
        if let Some(partition) = place {
            let log = self.logs.get_mut(&partition).expect("a known partition");
            log.mark(producer, commit, timestamp);
        } else {
            self.group.mark(producer, transaction, commit);
            if self.broker.lost.contains(&transaction) {
                let sent = self.transactional[id].sent.iter();
                self.group.disturbed.extend(sent);
            }
        }
        self.forget_marker(id, place);
    }

    /// The coordinator takes this marker for written.
    pub fn forget_marker(&mut self, id: &str, place: Option<Partition>) {
        let known = self.transactional.get_mut(id).expect("it has one ending");
        match place {
            Some(partition) => known.partitions.remove(&partition),
            None => std::mem::take(&mut known.has_offsets),
        };
        self.end_if_marked(id);
    }

    /// Aborts what has been open for too long, with a new epoch.
    pub fn expire_transactions(&mut self) {
        self.schedule(SCAN, Event::Timeouts);
        if !self.is_broker_gone() {
            self.abort_expired();
        }
    }

    pub fn abort_expired(&mut self) {
        let now = self.now;
        let expired: Vec<String> = self
            .transactional
            .iter()
            .filter(|(_, known)| known.state == State::Ongoing && now > known.begun + known.timeout)
            .map(|(id, _)| id.clone())
            .collect();
        for id in expired {
            self.trouble("transaction timed out", || id.clone());
            let known = self.transactional.get_mut(&id).expect("just found");
            known.epoch += 1;
            self.decide(&id, false);
        }
    }

    /// Offsets of the group as the coordinators have decided them, markers or not.
    pub fn decided_offsets(&self) -> BTreeMap<Partition, i64> {
        let mut offsets = self.group.offsets.clone();
        for ((_, transaction), pending) in &self.group.pending {
            let is_lost = self.broker.lost.contains(transaction);
            if self.commits.contains_key(transaction) && !is_lost {
                offsets.extend(pending);
            }
        }
        offsets
    }
}
