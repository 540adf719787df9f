//! `settle rules get`: the payout rule of a key that is in force by the rules topic.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde::Serialize;

use crate::broker::Topic;
use crate::broker::logs::{Error, Logs};
use crate::broker::port::Fetched as _;
use crate::codec::wire;
use crate::domain::partition;
use crate::domain::rule::RuleKey;
use crate::inspect::{place, time};

/// What the rules topic says of one key.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InForce {
    pub rule_key: String,
    /// Of all topics that are keyed by it.
    pub partition: i32,
    /// `null` when none is in force: the rule service is asked for the next payment.
    pub rule: Option<Published>,
    /// Where and when the last rule was forgotten, if that is why none is in force.
    pub forgotten: Option<Place>,
    /// Records of the key that are not a rule of it: counted by the service, and ignored.
    pub ignored: u64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    pub rule_id: String,
    pub payout_date: String,
    pub confirm_date: String,
    #[serde(flatten)]
    pub at: Place,
}

#[derive(Debug, Clone, Serialize)]
pub struct Place {
    /// Topic, partition and offset.
    pub record: String,
    pub time: String,
}

/// Reads the key's partition of the rules topic.
pub fn get(logs: &mut Logs, key: &RuleKey) -> Result<InForce, Error> {
    let number = partition::of_key(key.as_str().as_bytes(), logs.count(Topic::Rules));
    let names = logs.names();
    let mut found = InForce {
        rule_key: key.as_str().to_owned(),
        partition: number,
        rule: None,
        forgotten: None,
        ignored: 0,
    };
    logs.scan(Topic::Rules, &BTreeSet::from([number]), |fetched| {
        let record = fetched.record();
        if record.key != Some(key.as_str().as_bytes()) {
            return Ok(());
        }
        let at = Place {
            record: place(&names, record.partition, record.offset),
            time: time(record.timestamp),
        };
        match record.value.map(|json| wire::read_rule(key, json)) {
            None => (found.rule, found.forgotten) = (None, Some(at)),
            Some(Err(_)) => found.ignored += 1,
            Some(Ok(rule)) => {
                found.forgotten = None;
                found.rule = Some(Published {
                    rule_id: rule.rule_id,
                    payout_date: rule.payout_date.to_string(),
                    confirm_date: rule.confirm_date.to_string(),
                    at,
                });
            }
        }
        Ok(())
    })?;
    Ok(found)
}

impl InForce {
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "rule key   {}", self.rule_key);
        let _ = writeln!(out, "partition  {}", self.partition);
        match (&self.rule, &self.forgotten) {
            (Some(rule), _) => {
                let Place { record, time } = &rule.at;
                let _ = writeln!(out, "in force   {} since {record} at {time}", rule.rule_id);
                let _ = writeln!(out, "payout     {}", rule.payout_date);
                let _ = writeln!(out, "confirm    {}", rule.confirm_date);
            }
            (None, Some(Place { record, time })) => {
                let _ = writeln!(out, "in force   none: forgotten by {record} at {time}");
            }
            (None, None) => {
                let _ = writeln!(out, "in force   none: no rule of this key was published");
            }
        }
        if self.ignored > 0 {
            let _ = writeln!(
                out,
                "ignored    {} records that are no rule of this key",
                self.ignored
            );
        }
        out
    }
}
