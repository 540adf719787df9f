//! The public JSON formats that the service writes, and the payout rules that it also reads.
//! Fields stand in the order of `docs/contract.md`, without spaces.

use std::borrow::Cow;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::codec::rule;
use crate::domain::classify::{Exclusion, First};
use crate::domain::payment::Source;
use crate::domain::rule::{Fields, Rule, RuleKey};
use crate::domain::settlement::{Base, Basis};
use crate::domain::totals::Totals;

/// Headers of a dead letter.
pub const REASON_HEADER: &str = "settle-reason";
pub const DETAIL_HEADER: &str = "settle-detail";
pub const SOURCE_HEADER: &str = "settle-source";
pub const TRUNCATED_HEADER: &str = "settle-truncated";

/// Headers of a message that was sent to the source again: its first place there, who had it sent,
/// and why.
pub const REPLAY_HEADER: &str = "settle-replay";
pub const REPLAY_BY_HEADER: &str = "settle-replay-by";
pub const REPLAY_REASON_HEADER: &str = "settle-replay-reason";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceJson {
    pub partition: i32,
    pub offset: i64,
}

impl From<Source> for SourceJson {
    fn from(source: Source) -> Self {
        Self {
            partition: source.partition,
            offset: source.offset,
        }
    }
}

/// A record of the settlements topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettlementJson<'a> {
    #[serde(borrow)]
    pub payment_id: Cow<'a, str>,
    pub channel: &'a str,
    pub payment_type: &'a str,
    pub amount: i64,
    #[serde(borrow)]
    pub merchant_number: Cow<'a, str>,
    #[serde(borrow)]
    pub payment_date: Cow<'a, str>,
    pub payment_action_type: &'a str,
    pub payment_method_type: &'a str,
    pub payout_date: Date,
    pub confirm_date: Date,
    pub payout_basis: &'a str,
    #[serde(borrow)]
    pub rule_id: Option<Cow<'a, str>>,
    pub source: SourceJson,
}

impl SettlementJson<'_> {
    /// The key whose totals it is counted in; `None` when it is none.
    pub fn rule_key(&self) -> Option<RuleKey> {
        let day = self.payment_date.get(..10)?;
        let fields = [&*self.merchant_number, day];
        parse_key(fields, self.payment_action_type, self.payment_method_type)
    }
}

impl StatisticsKey<'_> {
    /// The rule key of these fields; `None` when they are none.
    pub fn rule_key(&self) -> Option<RuleKey> {
        let fields = [&*self.merchant_number, &*self.payment_date_daily];
        parse_key(fields, self.payment_action_type, self.payment_method_type)
    }
}

fn parse_key([merchant, day]: [&str; 2], action: &str, method: &str) -> Option<RuleKey> {
    RuleKey::parse(&format!("{merchant}/{day}/{action}/{method}"))
}

/// Appends the settlement of `base`, whose rule key is `key`.
pub fn write_settlement(base: &Base, key: Fields, basis: &Basis, out: &mut Vec<u8>) {
    write(
        &SettlementJson {
            payment_id: Cow::Borrowed(base.payment_id),
            channel: base.channel.as_str(),
            payment_type: base.payment_type.as_str(),
            amount: base.amount,
            merchant_number: Cow::Borrowed(key.merchant),
            payment_date: Cow::Borrowed(base.date),
            payment_action_type: key.action.as_str(),
            payment_method_type: key.method.as_str(),
            payout_date: basis.payout_date(),
            confirm_date: basis.confirm_date(),
            payout_basis: match basis {
                Basis::Rule(_) => "RULE",
                Basis::Default { .. } => "DEFAULT",
            },
            rule_id: basis.rule_id().map(Cow::Borrowed),
            source: base.source.into(),
        },
        out,
    );
}

/// Key of a statistics record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatisticsKey<'a> {
    #[serde(borrow)]
    pub merchant_number: Cow<'a, str>,
    #[serde(borrow)]
    pub payment_date_daily: Cow<'a, str>,
    pub payment_action_type: &'a str,
    pub payment_method_type: &'a str,
}

impl<'a> From<Fields<'a>> for StatisticsKey<'a> {
    fn from(key: Fields<'a>) -> Self {
        Self {
            merchant_number: Cow::Borrowed(key.merchant),
            payment_date_daily: Cow::Borrowed(key.day),
            payment_action_type: key.action.as_str(),
            payment_method_type: key.method.as_str(),
        }
    }
}

/// Value of a statistics record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatisticsValue {
    pub total_amount: i64,
    pub count: u64,
}

impl From<Totals> for StatisticsValue {
    fn from(totals: Totals) -> Self {
        Self {
            total_amount: totals.amount,
            count: totals.count,
        }
    }
}

/// A record of the exclusions topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExclusionJson<'a> {
    #[serde(borrow)]
    pub payment_id: Option<Cow<'a, str>>,
    pub reason: &'a str,
    pub source: SourceJson,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<SourceJson>,
    #[serde(borrow)]
    pub merchant_number: Option<Cow<'a, str>>,
    pub amount: Option<i64>,
}

/// A longer key of a message that is no payment is not repeated in its exclusion: a payment id has at
/// most 255 bytes, and a record has no room for a key of any length twice.
pub const EXCLUDED_KEY_BYTES_MAX: usize = 64 * 1024;

/// Of an exclusion: where the payment stands, if it was excluded because it repeats another one.
pub fn read_repeat(value: &[u8]) -> Option<Source> {
    let exclusion: ExclusionJson = serde_json::from_slice(value).ok()?;
    let reasons = [Exclusion::Duplicate, Exclusion::DuplicateConflict];
    let is_repeat = reasons.map(Exclusion::as_str).contains(&exclusion.reason);
    is_repeat.then_some(Source {
        partition: exclusion.source.partition,
        offset: exclusion.source.offset,
    })
}

/// Appends an exclusion. `payment` is merchant and amount, where known.
pub fn write_exclusion(
    (key, source): (Option<&[u8]>, Source),
    reason: Exclusion,
    first: Option<&First>,
    payment: Option<(&str, i64)>,
    out: &mut Vec<u8>,
) {
    write(
        &ExclusionJson {
            payment_id: key
                .and_then(|key| std::str::from_utf8(key).ok())
                .map(Cow::Borrowed),
            reason: reason.as_str(),
            source: source.into(),
            first: first.map(|first| first.source.into()),
            merchant_number: payment.map(|(merchant, _)| Cow::Borrowed(merchant)),
            amount: payment.map(|(_, amount)| amount),
        },
        out,
    );
}

/// A record of the rules topic; [`rule::read`] reads it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleJson<'a> {
    #[serde(borrow)]
    pub rule_id: Cow<'a, str>,
    #[serde(borrow)]
    pub payout_date: Cow<'a, str>,
    #[serde(borrow)]
    pub confirm_date: Cow<'a, str>,
    #[serde(borrow)]
    pub merchant_number: Cow<'a, str>,
    /// The day at midnight.
    #[serde(borrow)]
    pub payment_date: Cow<'a, str>,
    #[serde(borrow)]
    pub payment_action_type: Cow<'a, str>,
    #[serde(borrow)]
    pub payment_method_type: Cow<'a, str>,
}

/// Appends a rule for the rules topic.
pub fn write_rule(key: Fields, rule: &Rule, out: &mut Vec<u8>) {
    write(
        &RuleJson {
            rule_id: Cow::Borrowed(&rule.rule_id),
            payout_date: Cow::Owned(rule.payout_date.to_string()),
            confirm_date: Cow::Owned(rule.confirm_date.to_string()),
            merchant_number: Cow::Borrowed(key.merchant),
            payment_date: Cow::Owned(midnight(key.day)),
            payment_action_type: Cow::Borrowed(key.action.as_str()),
            payment_method_type: Cow::Borrowed(key.method.as_str()),
        },
        out,
    );
}

/// The day of a rule key at midnight, as the rule service wants it.
pub fn midnight(day: &str) -> String {
    format!("{day}T00:00:00")
}

/// Reads a record of the rules topic.
pub fn read_rule(key: &RuleKey, json: &[u8]) -> Result<Rule, rule::Mismatch> {
    rule::read(key, json)
}

/// Appends `value` as JSON.
pub fn write(value: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("plain structs written to memory");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::payment::{ActionType, Channel, MethodType};

    fn text(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn key() -> RuleKey {
        RuleKey::new(
            "merchant-4436",
            "2025-05-26",
            ActionType::Payment,
            MethodType::Money,
        )
    }

    fn rule() -> Rule {
        Rule {
            rule_id: "16858a4e".into(),
            payout_date: jiff::civil::date(2025, 6, 10),
            confirm_date: jiff::civil::date(2025, 6, 9),
        }
    }

    #[test]
    fn settlements_read_as_the_contract_prints_them() {
        let base = Base {
            payment_id: "p\"1",
            channel: Channel::Online,
            payment_type: Channel::Offline,
            amount: 12500,
            date: "2025-05-26T14:23:51.123456",
            source: Source {
                partition: 3,
                offset: 81723,
            },
            received_at: 0,
            original: b"",
            original_length: 0,
        };
        let settled =
            |basis: &Basis| text(|out| write_settlement(&base, key().fields(), basis, out));
        let json = settled(&Basis::Rule(rule()));
        assert_eq!(
            json,
            r#"{"paymentId":"p\"1","channel":"ONLINE","paymentType":"OFFLINE","amount":12500,"merchantNumber":"merchant-4436","paymentDate":"2025-05-26T14:23:51.123456","paymentActionType":"PAYMENT","paymentMethodType":"MONEY","payoutDate":"2025-06-10","confirmDate":"2025-06-09","payoutBasis":"RULE","ruleId":"16858a4e","source":{"partition":3,"offset":81723}}"#
        );
        let read = serde_json::from_str::<SettlementJson>(&json).unwrap();
        assert_eq!(read.rule_key(), Some(key()));
        let json = settled(&Basis::default_of(key().day(), 2));
        assert!(
            json.contains(r#""payoutDate":"2025-05-28","confirmDate":"2025-05-28","payoutBasis":"DEFAULT","ruleId":null,"#)
        );
    }

    #[test]
    fn statistics_and_exclusions_read_as_the_contract_prints_them() {
        let statistics = text(|out| write(&StatisticsKey::from(key().fields()), out));
        assert_eq!(
            statistics,
            r#"{"merchantNumber":"merchant-4436","paymentDateDaily":"2025-05-26","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}"#
        );
        let read: StatisticsKey = serde_json::from_str(&statistics).unwrap();
        assert_eq!(read.rule_key(), Some(key()));
        let totals = Totals {
            amount: 12500,
            count: 1,
        };
        assert_eq!(
            text(|out| write(&StatisticsValue::from(totals), out)),
            r#"{"totalAmount":12500,"count":1}"#
        );
        let source = Source {
            partition: 3,
            offset: 81724,
        };
        let first = First {
            source: Source {
                partition: 3,
                offset: 81723,
            },
            same_bytes: true,
        };
        assert_eq!(
            text(|out| write_exclusion(
                (Some(b"p"), source),
                Exclusion::Duplicate,
                Some(&first),
                Some(("m", 12500)),
                out
            )),
            r#"{"paymentId":"p","reason":"DUPLICATE","source":{"partition":3,"offset":81724},"first":{"partition":3,"offset":81723},"merchantNumber":"m","amount":12500}"#
        );
        assert_eq!(
            text(|out| write_exclusion(
                (Some(b"\xff"), source),
                Exclusion::NoData,
                None,
                None,
                out
            )),
            r#"{"paymentId":null,"reason":"NO_DATA","source":{"partition":3,"offset":81724},"merchantNumber":null,"amount":null}"#
        );
    }

    #[test]
    fn a_rule_is_read_back_and_only_under_its_own_key() {
        let json = text(|out| write_rule(key().fields(), &rule(), out));
        assert_eq!(
            json,
            r#"{"ruleId":"16858a4e","payoutDate":"2025-06-10","confirmDate":"2025-06-09","merchantNumber":"merchant-4436","paymentDate":"2025-05-26T00:00:00","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}"#
        );
        assert_eq!(read_rule(&key(), json.as_bytes()), Ok(rule()));
        let java = json.replace("T00:00:00", "T00:00");
        assert_eq!(read_rule(&key(), java.as_bytes()), Ok(rule()));
        for (from, to) in [
            ("T00:00:00", "T00:00:01"),
            ("merchant-4436", "merchant-4437"),
            ("\"MONEY\"", "\"CARD\""),
            ("2025-06-10", "2025-06-31"),
            ("16858a4e", ""),
            ("}", ""),
        ] {
            let other = json.replace(from, to);
            assert!(read_rule(&key(), other.as_bytes()).is_err(), "{to}");
        }
    }
}
