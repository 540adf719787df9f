//! Settle: one task per partition of the bases topic. Finds the payout rule of each base, dates
//! the settlement and adds it to the running total of its rule key.
//!
//! Bases are settled in their order. A base whose rule is not known yet holds up those behind it
//! in its partition, while the rules of all of them are asked for at once.

mod decide;
mod rules;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use crate::broker::transaction::Committed;
use crate::broker::{Partition, Topic};
use crate::codec::stored::{
    POSITION_KEY, Position, StoredRule, WindowStart, next_length, read_totals, write_totals,
};
use crate::codec::wire::{self, StatisticsKey, StatisticsValue, write_rule};
use crate::domain::classify::Defect;
use crate::domain::rule::{Rule, RuleKey};
use crate::domain::settlement::Basis;
use crate::engine::fixed::Fixed;
use crate::engine::inbox::Inbox;
use crate::engine::outbox::Outbox;
use crate::engine::settle::decide::{Decided, Deciding, Working};
use crate::engine::settle::rules::Absent;
use crate::engine::settle::waiting::Measured;
use crate::failpoint::{self, Point};
use crate::metrics::{Lookup, Outcome, Worker as Metrics};
use crate::rules::Service;
use crate::state;
use crate::state::totals::{Batch, Positions, Store};

/// Keys that are looked at.
const SAMPLE: usize = 100;

pub struct Task {
    number: i32,
    pub store: Store,
    pub inbox: Inbox,
    /// Answers of the rule service that no committed transaction has published yet. They survive
    /// a failed transaction.
    learnt: BTreeMap<RuleKey, Rule>,
    /// Keys of which the service has said that there is no rule.
    absent: BTreeMap<RuleKey, Absent>,
    /// Keys that the service is being asked for.
    asked: BTreeSet<RuleKey>,
    /// Bases of the inbox whose keys have been looked at, while the first one waits.
    scanned: usize,
    staged: Option<Staged>,
    measured: Measured,
}

/// What a batch changes here once it is committed.
struct Staged {
    decided: Decided,
    positions: Positions,
    receipt: usize,
}

/// A base of the inbox that cannot be read: written by something else than this service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    State(#[from] state::Error),
    #[error("{topic}/{partition}/{offset} is no base of this service: {reason}")]
    ForeignBase {
        topic: String,
        partition: i32,
        offset: i64,
        reason: String,
    },
}

impl Task {
    pub fn open(path: &Path, fixed: &Fixed, number: i32) -> Result<Self, state::Error> {
        let identity = format!(
            "{}/{}/{number}",
            fixed.application_id,
            fixed.names.of(Topic::Bases)
        );
        let store = Store::open(path, &identity, fixed.cache_per_task)?;
        Ok(Self {
            number,
            store,
            inbox: Inbox::default(),
            learnt: BTreeMap::new(),
            absent: BTreeMap::new(),
            asked: BTreeSet::new(),
            scanned: 0,
            staged: None,
            measured: Measured::default(),
        })
    }

    /// The bases partition of this task.
    pub const fn partition(&self) -> Partition {
        Partition::new(Topic::Bases, self.number)
    }

    pub const fn changelog(&self) -> Partition {
        Partition::new(Topic::Changelog, self.number)
    }

    pub const fn rules(&self) -> Partition {
        Partition::new(Topic::Rules, self.number)
    }

    /// Whether the first base waits for the rule service.
    pub fn is_waiting(&self) -> bool {
        !self.inbox.is_empty() && !self.asked.is_empty()
    }

    /// Decides the inbox up to the first base without a rule, and asks for the rules that are
    /// missing; or moves an idle task to `past_markers`. The next source offset, when there was
    /// anything to do.
    pub fn stage(
        &mut self,
        fixed: &Fixed,
        desk: &mut dyn Service,
        past_markers: Option<i64>,
        out: &mut Outbox,
    ) -> Result<Option<i64>, Error> {
        if self.inbox.is_empty() {
            let source = self.store.positions().source;
            let next = past_markers.filter(|next| *next > source);
            return Ok(
                next.inspect(|next| self.stage_position(*next, Decided::default(), fixed, out))
            );
        }
        let mut batch = Deciding::new(self, fixed);
        for item in self.inbox.iter() {
            if !batch.decide(&item, out)? {
                break;
            }
        }
        let (decided, next) = (batch.decided, batch.next);
        let done = decided.done;
        for working in decided
            .keys
            .iter()
            .filter(|working| working.found == Lookup::Absent)
        {
            if let Some(absent) = self.absent.get_mut(&working.key) {
                absent.unused_until = None;
            }
        }
        if done < self.inbox.len() {
            self.ask(done, fixed.now, desk)?;
        } else {
            self.scanned = 0;
            self.absent.retain(|_, absent| absent.holds(fixed.now));
        }
        if done == 0 {
            return Ok(None);
        }
        self.scanned = self.scanned.saturating_sub(done);
        self.stage_position(next, decided, fixed, out);
        Ok(Some(next))
    }

    /// Adds what was decided, and last the position record that stands for it.
    fn stage_position(&mut self, next: i64, mut decided: Decided, fixed: &Fixed, out: &mut Outbox) {
        let mut positions = self.store.positions();
        positions.source = next;
        self.publish(&mut decided.keys, out);
        let records = decided.keys.len() + 1;
        positions.transaction = next_length(positions.transaction, records, fixed.wall_now);
        let position = Position {
            application_id: fixed.application_id.clone(),
            topic: fixed.names.of(Topic::Bases).to_owned(),
            next,
            time: 0,
            window: WindowStart::default(),
            transactional_id: fixed.transactional_id.clone(),
            transaction: positions.transaction,
        };
        out.push(self.changelog(), POSITION_KEY, |value| {
            value.extend(position.encode());
        });
        let receipt = out.want_receipt();
        self.staged = Some(Staged {
            decided,
            positions,
            receipt,
        });
    }

    /// Adds the new totals, and the rules that were used for the first time.
    fn publish(&self, keys: &mut Vec<Working>, out: &mut Outbox) {
        keys.retain(|working| working.settled > 0);
        for working in keys {
            let fields = working.key.fields();
            let text = working.key.as_str().as_bytes();
            if let (Basis::Rule(rule), Lookup::Asked) = (&working.basis, working.found) {
                out.push(self.rules(), text, |value| write_rule(fields, rule, value));
                working.rule_receipt = Some(out.want_receipt());
                failpoint::hit(Point::RulePublish);
            }
            let totals = working.state.totals;
            out.push_written(
                Partition::new(Topic::Statistics, self.number),
                |key| wire::write(&StatisticsKey::from(fields), key),
                |value| wire::write(&StatisticsValue::from(totals), value),
            );
            out.push(self.changelog(), text, |value| write_totals(totals, value));
        }
    }

    /// A key of the store that belongs to another partition: the number of partitions was changed,
    /// and totals of keys that moved would begin anew. So many keys never stay by chance.
    pub fn misplaced(&self, fixed: &Fixed) -> Result<Option<String>, state::Error> {
        let page = self.store.view().page(None, SAMPLE);
        let (keys, _) = page.map_err(|error| state::Error::Damaged {
            path: self.store.path().to_owned(),
            reason: error.to_string(),
        })?;
        let mut keys = keys.into_iter().map(|(key, _)| key);
        Ok(keys.find(|key| fixed.home_of(key) != self.number))
    }

    /// Takes a record of the changelog while restoring.
    pub fn read_changelog(
        &mut self,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<Option<Position>, String> {
        let (Some(key), Some(value)) = (key, value) else {
            return Err("a changelog record has no key or no value".to_owned());
        };
        let mut positions = self.store.positions();
        positions.changelog = offset + 1;
        if key == POSITION_KEY {
            let position = Position::decode(value).map_err(|error| error.to_string())?;
            positions.source = position.next;
            positions.transaction = position.transaction;
            self.store.replay(Batch {
                keys: Vec::new(),
                positions,
            });
            return Ok(Some(position));
        }
        let text = std::str::from_utf8(key).map_err(|error| error.to_string())?;
        let key = RuleKey::parse(text).ok_or("a changelog key is no rule key")?;
        let known = self.store.get(text).map_err(|error| error.to_string())?;
        let mut state = known.unwrap_or_default();
        state.totals = read_totals(value).map_err(|error| error.to_string())?;
        self.store.replay(Batch {
            keys: vec![(key, state)],
            positions,
        });
        Ok(None)
    }

    /// Everything below `next` is in the store.
    pub fn begin_at(&mut self, next: i64) {
        let positions = Positions {
            source: next,
            ..self.store.positions()
        };
        self.store.replay(Batch {
            keys: Vec::new(),
            positions,
        });
    }

    /// Advances by the committed batch.
    pub fn apply(&mut self, committed: &Committed, fixed: &Fixed, metrics: &Metrics) {
        let Some(staged) = self.staged.take() else {
            return;
        };
        let mut keys = Vec::with_capacity(staged.decided.keys.len());
        for mut working in staged.decided.keys {
            metrics.looked_up(working.found, working.settled);
            if let (Basis::Rule(rule), Some(receipt)) = (working.basis, working.rule_receipt) {
                self.learnt.remove(&working.key);
                let offset = committed.offset(receipt);
                working.state.rule = Some(StoredRule { rule, offset });
            }
            keys.push((working.key, working.state));
        }
        let changelog = committed.offset(staged.receipt) + 1;
        assert!(
            changelog > self.store.positions().changelog,
            "partition {} of the changelog was made anew while this instance runs: what it holds \
             is not whole. Stop all instances, delete the topic, and run `settle positions rebuild`",
            self.number
        );
        let positions = Positions {
            changelog,
            ..staged.positions
        };
        self.store.apply(Batch { keys, positions }, committed);
        self.inbox.finish(staged.decided.done);
        let bases = staged.decided.done - staged.decided.touches;
        metrics.bases_done.increment(bases as u64);
        metrics
            .settled
            .increment(staged.decided.received.len() as u64);
        metrics.amount(Outcome::Settlement, staged.decided.settled_amount);
        metrics.amount(Outcome::DeadLetter, staged.decided.overflow_amount);
        (0..staged.decided.overflows).for_each(|_| metrics.dead_letter(Defect::AmountOverflow));
        for same in staged.decided.received.chunk_by(|a, b| a == b) {
            let millis = u64::try_from(fixed.wall_now - same[0]).unwrap_or(0);
            metrics.end_to_end(Duration::from_millis(millis), same.len() as u64);
        }
    }

    /// Drops everything that is not committed; what the rule service said stays.
    pub fn discard(&mut self) {
        self.staged = None;
        self.inbox.clear();
        self.scanned = 0;
    }

    /// Stops asking: the partition is given up.
    pub fn close(&mut self, desk: &mut dyn Service) {
        for key in std::mem::take(&mut self.asked) {
            desk.cancel(&key);
        }
    }
}
