//! `settle rules put` and `settle rules forget`: publishes a payout rule, or that there is none any
//! more, as any system may (`docs/contract.md`).

use std::fmt::Write as _;

use jiff::civil::Date;
use serde::Serialize;

use crate::broker::client::Settings;
use crate::broker::logs::Logs;
use crate::broker::native::Outgoing;
use crate::broker::rights::Purpose;
use crate::broker::{Partition, Topic};
use crate::clock;
use crate::codec::wire;
use crate::config::Config;
use crate::domain::payment;
use crate::domain::rule::{Rule, RuleKey};
use crate::inspect::place;
use crate::inspect::rules::{InForce, get};
use crate::operate::{Error, Writer};

/// Names the transactional id.
const TOOL: &str = "rules";

/// A rule as it was typed.
#[derive(Debug, Clone)]
pub struct Typed {
    pub payout_date: String,
    pub confirm_date: String,
    /// One is made up when it is not given.
    pub rule_id: Option<String>,
}

/// What was done, or would be.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// What held before.
    pub before: InForce,
    /// The record's value; `null` forgets.
    pub value: Option<serde_json::Value>,
    /// Where the record stands; `null` when nothing was written.
    pub written: Option<String>,
}

/// The key, if it is one.
pub fn key(text: &str) -> Result<RuleKey, Error> {
    let shape = "merchantNumber/paymentDay/paymentActionType/paymentMethodType, such as \
                 merchant-4436/2025-05-26/PAYMENT/MONEY";
    RuleKey::parse(text).ok_or_else(|| Error::Usage(format!("{text:?} is no rule key: {shape}")))
}

/// What is in force for a key.
pub fn look(config: &Config, key: &RuleKey) -> Result<InForce, Error> {
    Ok(get(&mut Logs::open(config, Purpose::Look)?, key)?)
}

/// Publishes a rule, or with `None` that there is none; only says so unless it is meant.
pub fn change(
    config: &Config,
    key: &RuleKey,
    typed: Option<&Typed>,
    is_meant: bool,
) -> Result<Change, Error> {
    let value = typed.map(|typed| encode(key, typed)).transpose()?;
    let mut logs = Logs::open(config, Purpose::Look)?;
    let before = get(&mut logs, key)?;
    let partition = Partition::new(Topic::Rules, before.partition);
    let written = if is_meant {
        let writer = Writer::take(&Settings::new(config), TOOL)?;
        let at = writer.write(&Outgoing {
            partition,
            key: Some(key.as_str().as_bytes()),
            value: value.as_deref(),
            headers: &[],
            receipt: None,
        })?;
        Some(place(&logs.names(), partition, at))
    } else {
        None
    };
    let value = value.map(|json| serde_json::from_slice(&json));
    Ok(Change {
        before,
        value: value.transpose().expect("it was written as JSON"),
        written,
    })
}

/// The record's value, when the service would read this rule in it.
fn encode(key: &RuleKey, typed: &Typed) -> Result<Vec<u8>, Error> {
    let made_up = || format!("operator-{}", clock::wall_micros());
    let rule = Rule {
        rule_id: typed.rule_id.clone().unwrap_or_else(made_up),
        payout_date: date("--payout-date", &typed.payout_date)?,
        confirm_date: date("--confirm-date", &typed.confirm_date)?,
    };
    let mut json = Vec::new();
    wire::write_rule(key.fields(), &rule, &mut json);
    wire::read_rule(key, &json).map_err(|mismatch| Error::Usage(mismatch.to_string()))?;
    Ok(json)
}

fn date(name: &str, text: &str) -> Result<Date, Error> {
    let wrong = || Error::Usage(format!("{name} {text:?} is no day such as 2025-06-10"));
    payment::iso_date(text).ok_or_else(wrong)
}

impl Change {
    pub fn text(&self) -> String {
        let mut out = format!("before:\n{}", self.before.text());
        match &self.value {
            Some(value) => {
                let _ = writeln!(out, "then:\n{value}");
            }
            None => {
                out.push_str("then:\nno rule: the rule service is asked when a payment comes\n");
            }
        }
        out.push_str("settlements that are made already keep their dates\n");
        match &self.written {
            Some(at) => {
                let _ = writeln!(out, "written as {at}");
            }
            None => out.push_str("nothing was changed: add --yes to publish it\n"),
        }
        out
    }
}
