//! How a settle task comes by its rules: what it asks, what it is told, what the topic says.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::codec::stored::{StoredRule, TOUCH_KEY};
use crate::codec::wire;
use crate::domain::rule::{Rule, RuleKey};
use crate::engine::fixed::Fixed;
use crate::engine::inbox::Item;
use crate::engine::settle::{Error, Task};
use crate::failpoint::{self, Point};
use crate::metrics;
use crate::rules::{Answer, Service};
use crate::state;
use crate::state::totals::{Batch, fold_rule};

/// How long an answer serves the bases that waited for it, however short its life.
const FIRST_USE: Duration = Duration::from_secs(1);

/// The service has said that a key has no rule. Times are of the process clock.
pub(super) struct Absent {
    /// Asked again after it (`rules.absent_ttl`).
    pub(super) until: Duration,
    /// It was not used yet, and may be until then.
    pub(super) unused_until: Option<Duration>,
}

impl Absent {
    pub(super) fn holds(&self, now: Duration) -> bool {
        self.until.max(self.unused_until.unwrap_or_default()) > now
    }
}

impl Task {
    /// Asks for the rules of all bases behind the first one that waits, each key once.
    pub(super) fn ask(
        &mut self,
        waiting: usize,
        now: Duration,
        desk: &mut dyn Service,
    ) -> Result<(), Error> {
        let waiting_key = self
            .inbox
            .iter()
            .nth(waiting)
            .and_then(|item| key_of(&item));
        // Where one answer has become too old while its base waited behind others, more have.
        let expired = waiting_key.and_then(|key| self.absent.get(key));
        let from = match expired {
            Some(absent) if !absent.holds(now) => waiting,
            _ => self.scanned.max(waiting),
        };
        let behind = self
            .inbox
            .iter()
            .skip(from)
            .filter_map(|item| key_of(&item));
        let mut missing = BTreeSet::new();
        for key in waiting_key.into_iter().chain(behind) {
            let known = self.asked.contains(key)
                || missing.contains(key)
                || self.learnt.contains_key(key)
                || self.absent.get(key).is_some_and(|absent| absent.holds(now))
                || self
                    .store
                    .get(key)?
                    .is_some_and(|state| state.rule.is_some());
            if !known && let Some(key) = RuleKey::parse(key) {
                missing.insert(key);
            }
        }
        for key in missing {
            failpoint::hit(Point::RuleAsk);
            desk.request(&key);
            self.asked.insert(key);
        }
        self.scanned = self.inbox.len();
        Ok(())
    }

    /// Takes an answer of the rule service.
    pub fn answer(&mut self, key: RuleKey, answer: Answer, fixed: &Fixed) {
        self.asked.remove(&key);
        match answer {
            Answer::Rule(rule) => {
                self.absent.remove(&key);
                self.learnt.insert(key, rule);
            }
            Answer::NoRule => {
                let absent = Absent {
                    until: fixed.now + fixed.absent_ttl,
                    unused_until: Some(fixed.now + FIRST_USE),
                };
                self.absent.insert(key, absent);
            }
        }
    }

    /// Takes a record of the rules topic: the newest one of a key is in force from here on.
    pub fn read_rule(
        &mut self,
        offset: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<(), state::Error> {
        let mut positions = self.store.positions();
        if offset < positions.rules {
            return Ok(());
        }
        positions.rules = offset + 1;
        let folded = match rule_of(key, value) {
            _ if key == Some(TOUCH_KEY) && value.is_none() => None,
            Ok((key, rule)) => {
                let rule = rule.map(|rule| StoredRule { rule, offset });
                let known = self.store.get(key.as_str())?;
                fold_rule(known, rule, offset).map(|state| (key, state))
            }
            Err(reason) => {
                metrics::rule_ignored();
                tracing::warn!(
                    partition = self.number,
                    offset,
                    reason,
                    "a record of the rules topic is ignored"
                );
                None
            }
        };
        if let Some((key, _)) = &folded {
            // Whatever the service said before, the topic is newer.
            self.learnt.remove(key);
            self.absent.remove(key);
        }
        self.store.replay(Batch {
            keys: folded.into_iter().collect(),
            positions,
        });
        Ok(())
    }
}

/// A record of the rules topic; `None` as rule is a tombstone.
fn rule_of(key: Option<&[u8]>, value: Option<&[u8]>) -> Result<(RuleKey, Option<Rule>), String> {
    let key = key
        .and_then(|key| std::str::from_utf8(key).ok())
        .and_then(RuleKey::parse);
    let key = key.ok_or("its key is no rule key")?;
    let rule = value
        .map(|value| wire::read_rule(&key, value))
        .transpose()
        .map_err(|error| error.to_string())?;
    Ok((key, rule))
}

/// The rule key of a base, unread.
pub(super) fn key_of<'a>(item: &Item<'a>) -> Option<&'a str> {
    item.key.and_then(|key| std::str::from_utf8(key).ok())
}
