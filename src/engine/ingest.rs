//! Ingest: one task per partition of the source topic. Reads each record, drops duplicates,
//! excludes, and sends payments on to the partition of their rule key.

use std::path::Path;

use crate::broker::transaction::Committed;
use crate::broker::{Partition, Topic};
use crate::codec::payment::{self, Message};
use crate::codec::stored::{POSITION_KEY, Position, write_base};
use crate::codec::wire;
use crate::domain::classify::{DeadLetter, Defect, Exclusion, First, exclusion};
use crate::domain::partition;
use crate::domain::payment::{Payment, Source};
use crate::domain::settlement::Base;
use crate::engine::dead_letter::push_dead_letter;
use crate::engine::fixed::Fixed;
use crate::engine::inbox::{Inbox, Item};
use crate::engine::outbox::Outbox;
use crate::metrics::{Amounts, Outcome as Money, Worker as Metrics};
use crate::state;
use crate::state::ids::{Ids, Window};
use crate::state::run::Seen;
use crate::state::seen::{Positions, Store};

pub struct Task {
    number: i32,
    pub store: Store,
    pub inbox: Inbox,
    staged: Option<Staged>,
    again: Again,
}

/// What is known of the payments that are read again while a task restores.
#[derive(Default)]
pub struct Again {
    /// Wall clock, milliseconds since the epoch: none of them was decided before.
    pub decided_since: i64,
    /// Highest timestamp of the partition, milliseconds since the epoch. Not every record with it is
    /// read again.
    pub time: i64,
    /// Offsets of those that were excluded as repeats, rising; all others are the first of their
    /// id. `None` when the store knows what came before, and tells them itself.
    pub repeats: Option<Vec<i64>>,
}

/// What a batch changes here once it is committed.
struct Staged {
    ids: Ids,
    positions: Positions,
    receipt: usize,
    records: usize,
    tally: Tally,
}

/// Outcomes of a batch, for the metrics.
#[derive(Default)]
struct Tally {
    bases: u64,
    payments: u64,
    excluded: Vec<Exclusion>,
    excluded_amount: Amounts,
    dead: Vec<Defect>,
}

/// What becomes of a source record, with the facts that its record needs.
enum Outcome<'a> {
    Base {
        id: &'a str,
        payment: Payment<'a>,
    },
    Excluded {
        reason: Exclusion,
        first: Option<First>,
        payment: Option<Payment<'a>>,
    },
    Dead(DeadLetter),
}

impl Task {
    pub fn open(
        path: &Path,
        fixed: &Fixed,
        number: i32,
        window: Window,
    ) -> Result<Self, state::Error> {
        let identity = format!(
            "{}/{}/{number}",
            fixed.application_id,
            fixed.names.of(Topic::Source)
        );
        let store = Store::open(path, &identity, fixed.cache_per_task, window)?;
        Ok(Self {
            number,
            store,
            inbox: Inbox::default(),
            staged: None,
            again: Again::default(),
        })
    }

    /// The source partition of this task.
    pub const fn partition(&self) -> Partition {
        Partition::new(Topic::Source, self.number)
    }

    /// The partition that holds this task's positions.
    pub const fn changelog(&self) -> Partition {
        Partition::new(Topic::IngestChangelog, self.number)
    }

    /// Decides everything in the inbox, or moves an idle task to `past_markers`. The next source
    /// offset, when there was anything to do.
    pub fn stage(
        &mut self,
        fixed: &Fixed,
        past_markers: Option<i64>,
        out: &mut Outbox,
    ) -> Result<Option<i64>, state::Error> {
        let mut positions = self.store.positions();
        let mut ids = Ids::decided_since(fixed.wall_now);
        let mut tally = Tally::default();
        for item in self.inbox.iter() {
            let outcome = self.decide(fixed, &item, &mut ids, &mut tally)?;
            let source = Source {
                partition: self.number,
                offset: item.offset,
            };
            push(fixed, (&item, source), outcome, out, &mut tally);
            positions.source = item.offset + 1;
            positions.time = positions.time.max(item.timestamp.min(fixed.wall_now));
        }
        let records = self.inbox.len();
        if records == 0 {
            match past_markers {
                Some(next) if next > positions.source => positions.source = next,
                _ => return Ok(None),
            }
        }
        positions.transaction += 1;
        let position = Position {
            application_id: fixed.application_id.clone(),
            topic: fixed.names.of(Topic::Source).to_owned(),
            next: positions.source,
            time: positions.time,
            window: (self.store).start_with(&ids, positions.source, fixed.wall_now),
            transactional_id: fixed.transactional_id.clone(),
            transaction: positions.transaction,
        };
        out.push(self.changelog(), POSITION_KEY, |value| {
            value.extend(position.encode());
        });
        let receipt = out.want_receipt();
        let next = positions.source;
        self.staged = Some(Staged {
            ids,
            positions,
            receipt,
            records,
            tally,
        });
        Ok(Some(next))
    }

    fn decide<'a>(
        &self,
        fixed: &Fixed,
        item: &Item<'a>,
        ids: &mut Ids,
        tally: &mut Tally,
    ) -> Result<Outcome<'a>, state::Error> {
        let (id, payment) = match payment::read(item.key, item.value) {
            Message::DeadLetter(dead) => return Ok(Outcome::Dead(dead)),
            Message::Finish => return Ok(excluded(Exclusion::Finish)),
            Message::NoData => return Ok(excluded(Exclusion::NoData)),
            Message::Payment { id, payment } => (id, payment),
        };
        tally.payments += 1;
        let earlier = self.remember(item, id, ids)?;
        let first = earlier.map(|(seen, same_bytes)| First {
            source: seen.source(self.number),
            same_bytes,
        });
        Ok(match exclusion(&payment, first.as_ref(), &fixed.exclude) {
            None => Outcome::Base { id, payment },
            Some(reason) => Outcome::Excluded {
                reason,
                first,
                payment: Some(payment),
            },
        })
    }

    /// The first payment that this one repeats, and whether its bytes are the same; or remembers this
    /// one as the first of its id.
    fn remember(
        &self,
        item: &Item,
        id: &str,
        ids: &mut Ids,
    ) -> Result<Option<(Seen, bool)>, state::Error> {
        let seen = seen(item, id);
        let is_same = |first: &Seen| first.fingerprint == seen.fingerprint;
        let in_batch = ids.find(&seen, self.store.window());
        let first = match in_batch {
            Some(first) if is_same(&first) => in_batch,
            _ => {
                let stored = self.store.find(&seen)?;
                stored.filter(is_same).or(in_batch).or(stored)
            }
        };
        if first.is_none() {
            ids.insert(seen);
        }
        Ok(first.map(|first| (first, is_same(&first))))
    }

    /// From now on committed records are read again.
    pub fn begin_again(&mut self, again: Again) {
        self.again = again;
    }

    /// Reads a committed record again, to rebuild the duplicate window.
    pub fn replay(&mut self, item: &Item, wall_now: i64) -> Result<(), state::Error> {
        let mut ids = Ids::decided_since(self.again.decided_since);
        if let Message::Payment { id, .. } = payment::read(item.key, item.value) {
            match &self.again.repeats {
                None => {
                    self.remember(item, id, &mut ids)?;
                }
                Some(repeats) if repeats.binary_search(&item.offset).is_ok() => {}
                Some(_) => ids.insert(seen(item, id)),
            }
        }
        let mut positions = self.store.positions();
        // With what is missing below, the store holds nothing until all of it is read: a restore that
        // is interrupted begins again.
        if self.again.repeats.is_none() {
            positions.source = item.offset + 1;
        }
        let read = item.timestamp.min(wall_now);
        positions.time = positions.time.max(self.again.time).max(read);
        self.store.replay(ids, positions);
        Ok(())
    }

    /// Everything below `next` is in the store, and everything below `changelog` stands for it.
    /// Not before: a store that had the one without the other would say that records of the
    /// source are still to be processed which were.
    pub fn begin_at(&mut self, next: i64, changelog: i64) {
        let again = std::mem::take(&mut self.again);
        let positions = self.store.positions();
        let positions = Positions {
            source: next,
            changelog,
            time: positions.time.max(again.time),
            ..positions
        };
        let nothing = Ids::decided_since(i64::MAX);
        self.store.replay(nothing, positions);
    }

    /// Advances by the committed batch.
    pub fn apply(&mut self, committed: &Committed, metrics: &Metrics) {
        let Some(staged) = self.staged.take() else {
            return;
        };
        let changelog = committed.offset(staged.receipt) + 1;
        let positions = Positions {
            changelog,
            ..staged.positions
        };
        self.store.apply(staged.ids, positions, committed);
        self.inbox.finish(staged.records);
        let tally = staged.tally;
        metrics.ingested.increment(staged.records as u64);
        metrics.bases.increment(tally.bases);
        metrics.amount(Money::Exclusion, tally.excluded_amount);
        metrics.duplicates_checked.increment(tally.payments);
        tally
            .excluded
            .into_iter()
            .for_each(|reason| metrics.excluded(reason));
        tally
            .dead
            .into_iter()
            .for_each(|defect| metrics.dead_letter(defect));
    }

    /// Drops everything that is not committed.
    pub fn discard(&mut self) {
        self.staged = None;
        self.inbox.clear();
    }
}

fn excluded(reason: Exclusion) -> Outcome<'static> {
    Outcome::Excluded {
        reason,
        first: None,
        payment: None,
    }
}

fn seen(item: &Item, id: &str) -> Seen {
    Seen {
        id: hash_id(id),
        offset: item.offset,
        timestamp: item.timestamp,
        fingerprint: fingerprint(item.value.unwrap_or_default()),
    }
}

fn hash_id(id: &str) -> u128 {
    let hash = blake3::hash(id.as_bytes());
    let first = hash.as_bytes().first_chunk().expect("a hash of 32 bytes");
    u128::from_be_bytes(*first)
}

fn fingerprint(value: &[u8]) -> u64 {
    let hash = blake3::hash(value);
    let first = hash.as_bytes().first_chunk().expect("a hash of 32 bytes");
    u64::from_be_bytes(*first)
}

/// Adds the record of an outcome.
fn push(
    fixed: &Fixed,
    (item, source): (&Item, Source),
    outcome: Outcome,
    out: &mut Outbox,
    tally: &mut Tally,
) {
    match outcome {
        Outcome::Base { id, payment } => {
            tally.bases += 1;
            let key = payment.rule_key();
            let number = partition::of_key(key.as_str().as_bytes(), fixed.partitions.bases);
            let value = item.value.unwrap_or_default();
            let base = Base {
                payment_id: id,
                channel: payment.channel,
                payment_type: payment.payment_type,
                amount: payment.amount,
                date: &payment.date,
                source,
                received_at: item.timestamp,
                original: &value[..value.len().min(Base::ORIGINAL_BYTES_MAX)],
                original_length: value.len() as u64,
            };
            let to = Partition::new(Topic::Bases, number);
            out.push(to, key.as_str().as_bytes(), |out| write_base(&base, out));
        }
        Outcome::Excluded {
            reason,
            first,
            payment,
        } => {
            tally.excluded.push(reason);
            if let Some(payment) = &payment {
                tally.excluded_amount.add(payment.amount);
            }
            let number = source.partition % fixed.partitions.exclusions;
            let to = Partition::new(Topic::Exclusions, number);
            let known = payment
                .as_ref()
                .map(|payment| (payment.merchant.as_ref(), payment.amount));
            let mut json = Vec::with_capacity(256);
            let fits = |key: &&[u8]| key.len() <= wire::EXCLUDED_KEY_BYTES_MAX;
            let key = item.key.filter(fits);
            wire::write_exclusion((key, source), reason, first.as_ref(), known, &mut json);
            out.push_raw(to, (key, Some(&json)), Vec::new());
        }
        Outcome::Dead(dead) => {
            tally.dead.push(dead.defect);
            let value = item.value.unwrap_or_default();
            push_dead_letter(
                fixed,
                source,
                &dead,
                (item.key, value, value.len() as u64),
                out,
            );
        }
    }
}
