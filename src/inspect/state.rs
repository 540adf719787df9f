//! `settle state`: what a stopped instance has written down.

use std::fmt::Write as _;

use serde::Serialize;

use crate::config::Config;
use crate::domain::rule::RuleKey;
use crate::exit::Exit;
use crate::inspect::table::{Table, or_dash};
use crate::state;
use crate::state::look::{Described, Held, Look};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    State(#[from] state::Error),
    #[error(
        "{text:?} is no rule key: merchantNumber/paymentDay/paymentActionType/paymentMethodType, \
         such as merchant-4436/2025-05-26/PAYMENT/MONEY"
    )]
    Key { text: String },
    /// An instance runs, and knows it better.
    #[error("{error}; ask the instance: curl 'http://{address}/api/aggregation-data?{query}'")]
    Running {
        error: state::Error,
        address: String,
        query: String,
    },
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Self::State(_) | Self::Running { .. } => Exit::State,
            Self::Key { .. } => Exit::Usage,
        }
    }
}

/// Total and rule of a key, as one file has them.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Total {
    pub rule_key: String,
    pub total_amount: i64,
    pub count: u64,
    /// `null` when none is in force by the file.
    pub rule: Option<Rule>,
    pub file: String,
    /// Next offset of the bases that the file has.
    pub position: i64,
}

#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    pub rule_id: String,
    pub payout_date: String,
    pub confirm_date: String,
    /// In the rules topic.
    pub offset: i64,
}

impl Total {
    fn new(rule_key: &str, held: Held) -> Self {
        let totals = held.state.totals;
        let rule = held.state.rule.map(|stored| Rule {
            rule_id: stored.rule.rule_id,
            payout_date: stored.rule.payout_date.to_string(),
            confirm_date: stored.rule.confirm_date.to_string(),
            offset: stored.offset,
        });
        Self {
            rule_key: rule_key.to_owned(),
            total_amount: totals.amount,
            count: totals.count,
            rule,
            file: held.file,
            position: held.position,
        }
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "rule key  {}", self.rule_key);
        let _ = writeln!(
            out,
            "total     {} of {} settlements",
            self.total_amount, self.count
        );
        let _ = match &self.rule {
            Some(rule) => writeln!(
                out,
                "rule      {}: payout {}, confirm {}, offset {} of the rules topic",
                rule.rule_id, rule.payout_date, rule.confirm_date, rule.offset
            ),
            None => writeln!(out, "rule      none"),
        };
        let _ = writeln!(
            out,
            "as of     bases before offset {}, in {}",
            self.position, self.file
        );
        out
    }
}

pub fn describe(config: &Config) -> Result<Vec<Described>, Error> {
    Ok(Look::open(&config.state.directory)?.describe()?)
}

/// What the files have of a key.
pub fn get(config: &Config, text: &str) -> Result<Vec<Total>, Error> {
    let key = RuleKey::parse(text).ok_or_else(|| Error::Key {
        text: text.to_owned(),
    })?;
    let look = Look::open(&config.state.directory).map_err(|error| match error {
        state::Error::Unusable { attempt, .. } if attempt.starts_with("lock") => Error::Running {
            error,
            address: config.http.advertise.clone(),
            query: query(&key),
        },
        error => error.into(),
    })?;
    let held = look.get(key.as_str())?.into_iter();
    Ok(held.map(|held| Total::new(key.as_str(), held)).collect())
}

fn query(key: &RuleKey) -> String {
    let merchant = key.merchant().bytes();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let merchant = merchant.map(|byte| {
        if is_plain(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    });
    let merchant: String = merchant.collect();
    let (day, action, method) = (key.day_text(), key.action(), key.method());
    format!(
        "merchantNumber={merchant}&paymentDateDailyStr={day}&actionTypeStr={}&methodTypeStr={}",
        action.as_str(),
        method.as_str()
    )
}

/// Hands every total to `each`.
pub fn export(config: &Config, mut each: impl FnMut(Total)) -> Result<(), Error> {
    let look = Look::open(&config.state.directory)?;
    look.each(|key, held| {
        if held.state.totals.count > 0 {
            each(Total::new(key, held));
        }
    })?;
    Ok(())
}

/// The files as a table.
pub fn text(files: &[Described]) -> String {
    let mut table = Table::new([
        "FILE",
        "BYTES",
        "LAYOUT",
        "BELONGS TO",
        "POSITION",
        "CHANGELOG",
        "RULES",
        "KEYS",
        "IDS",
    ]);
    let mut out = String::new();
    for of in files {
        let content = of.content.as_ref();
        table.row([
            of.file.clone(),
            of.bytes.to_string(),
            or_dash(content.map(|content| &content.layout)),
            or_dash(content.map(|content| &content.belongs_to)),
            or_dash(content.map(|content| content.position)),
            or_dash(content.map(|content| content.changelog)),
            or_dash(content.and_then(|content| content.rules)),
            or_dash(content.and_then(|content| content.keys)),
            or_dash(content.and_then(|content| content.ids)),
        ]);
    }
    out.push_str(&table.text());
    for problem in files.iter().filter_map(|of| of.problem.as_ref()) {
        let _ = writeln!(out, "problem: {problem}");
    }
    out
}
