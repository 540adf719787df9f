//! Decides the bases of one batch: dates each settlement and adds it up.

#[expect(
    clippy::disallowed_types,
    reason = "looked up by key; iterated in the order of `keys`"
)]
use std::collections::HashMap;

use crate::broker::{Partition, Topic};
use crate::codec::stored::{KeyState, TOUCH_KEY, read_base};
use crate::codec::wire::write_settlement;
use crate::domain::classify::{DeadLetter, Defect};
use crate::domain::payment::day;
use crate::domain::rule::{Fields, RuleKey};
use crate::domain::settlement::{Base, Basis};
use crate::engine::dead_letter::push_dead_letter;
use crate::engine::fixed::Fixed;
use crate::engine::inbox::Item;
use crate::engine::outbox::Outbox;
use crate::engine::settle::rules::key_of;
use crate::engine::settle::{Error, Task};
use crate::metrics::{Amounts, Lookup};

/// What was decided of the inbox.
#[derive(Default)]
pub(super) struct Decided {
    pub(super) keys: Vec<Working>,
    /// Bases that leave the inbox.
    pub(super) done: usize,
    /// Records among them that only ended a transaction again.
    pub(super) touches: usize,
    /// Timestamps of the source records of the settlements, milliseconds since the epoch.
    pub(super) received: Vec<i64>,
    pub(super) overflows: u64,
    pub(super) settled_amount: Amounts,
    pub(super) overflow_amount: Amounts,
}

/// A rule key while a batch is being decided.
pub(super) struct Working {
    pub(super) key: RuleKey,
    pub(super) state: KeyState,
    pub(super) basis: Basis,
    pub(super) found: Lookup,
    pub(super) settled: u64,
    /// Where a newly learnt rule is published.
    pub(super) rule_receipt: Option<usize>,
}

/// The decisions of one batch.
#[expect(
    clippy::disallowed_types,
    reason = "looked up by key; iterated in the order of `keys`"
)]
pub(super) struct Deciding<'a> {
    task: &'a Task,
    fixed: &'a Fixed,
    index: HashMap<RuleKey, usize>,
    pub(super) decided: Decided,
    pub(super) next: i64,
}

impl<'a> Deciding<'a> {
    #[expect(
        clippy::disallowed_types,
        reason = "looked up by key; iterated in the order of `keys`"
    )]
    pub(super) fn new(task: &'a Task, fixed: &'a Fixed) -> Self {
        Self {
            task,
            fixed,
            index: HashMap::default(),
            decided: Decided::default(),
            next: -1,
        }
    }

    /// Settles one base; `false` when its rule is not known yet.
    pub(super) fn decide(&mut self, item: &Item, out: &mut Outbox) -> Result<bool, Error> {
        if item.key == Some(TOUCH_KEY) {
            self.decided.done += 1;
            self.decided.touches += 1;
            self.next = item.offset + 1;
            return Ok(true);
        }
        let (text, fields, base) = self.read(item)?;
        let index = match self.index.get(text) {
            Some(index) => *index,
            None => match self.look_up(text)? {
                Some(working) => {
                    self.index
                        .insert(working.key.clone(), self.decided.keys.len());
                    self.decided.keys.push(working);
                    self.decided.keys.len() - 1
                }
                None => return Ok(false),
            },
        };
        let working = &mut self.decided.keys[index];
        match working.state.totals.with(base.amount) {
            Some(totals) => {
                working.state.totals = totals;
                working.settled += 1;
                self.decided.received.push(base.received_at);
                self.decided.settled_amount.add(base.amount);
                let to = Partition::new(Topic::Settlements, self.task.number);
                let basis = &working.basis;
                out.push(to, base.payment_id.as_bytes(), |value| {
                    write_settlement(&base, fields, basis, value);
                });
            }
            None => self.refuse(&base, out),
        }
        self.decided.done += 1;
        self.next = item.offset + 1;
        Ok(true)
    }

    fn read<'b>(&self, item: &Item<'b>) -> Result<(&'b str, Fields<'b>, Base<'b>), Error> {
        let foreign = |reason: String| Error::ForeignBase {
            topic: self.fixed.names.of(Topic::Bases).to_owned(),
            partition: self.task.number,
            offset: item.offset,
            reason,
        };
        let text = key_of(item).ok_or_else(|| foreign("its key is no text".to_owned()))?;
        let fields =
            Fields::parse(text).ok_or_else(|| foreign("its key is no rule key".to_owned()))?;
        let base = read_base(item.value.unwrap_or_default())
            .map_err(|error| foreign(error.to_string()))?;
        Ok((text, fields, base))
    }

    fn refuse(&mut self, base: &Base, out: &mut Outbox) {
        self.decided.overflows += 1;
        self.decided.overflow_amount.add(base.amount);
        let dead = DeadLetter {
            defect: Defect::AmountOverflow,
            detail: "the total of its rule key would leave 64 bits".to_owned(),
        };
        let original = (
            Some(base.payment_id.as_bytes()),
            base.original,
            base.original_length,
        );
        push_dead_letter(self.fixed, base.source, &dead, original, out);
    }

    /// What is known of a key, when its rule is known or known to be absent.
    fn look_up(&self, text: &str) -> Result<Option<Working>, Error> {
        let task = self.task;
        let state = task.store.get(text)?.unwrap_or_default();
        let now = self.fixed.now;
        let (basis, found) = if let Some(stored) = &state.rule {
            (Basis::Rule(stored.rule.clone()), Lookup::Known)
        } else if let Some(rule) = task.learnt.get(text) {
            (Basis::Rule(rule.clone()), Lookup::Asked)
        } else if task
            .absent
            .get(text)
            .is_some_and(|absent| absent.holds(now))
        {
            let date = Fields::parse(text).and_then(|fields| day(fields.day));
            let date = date.expect("the key was read as a rule key");
            (
                Basis::default_of(date, self.fixed.default_payout_days),
                Lookup::Absent,
            )
        } else {
            return Ok(None);
        };
        let key = RuleKey::parse(text).expect("the key was read as a rule key");
        Ok(Some(Working {
            key,
            state,
            basis,
            found,
            settled: 0,
            rule_receipt: None,
        }))
    }
}
