//! The answers of the rule service: a pure function of a seed and the rule key, so that a proof can compute them.

use std::fmt;

use jiff::ToSpan;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// One merchant in this many has no rule.
const WITHOUT_RULE: u64 = 20;

/// What a rule belongs to; also the body of a request once the day has its midnight.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleKey {
    pub merchant_number: String,
    pub payment_day: Date,
    pub action_type: String,
    pub method_type: String,
}

impl RuleKey {
    /// The key of a request's or rule's fields; `payment_date` must be a midnight without a zone.
    pub fn parse(fields: &KeyFields) -> Option<Self> {
        let day = fields.payment_date.strip_suffix("T00:00:00")?;
        Some(Self {
            merchant_number: fields.merchant_number.clone(),
            payment_day: day.parse().ok()?,
            action_type: fields.payment_action_type.clone(),
            method_type: fields.payment_method_type.clone(),
        })
    }

    /// The fields as they stand in requests and rules.
    pub fn fields(&self) -> KeyFields {
        KeyFields {
            merchant_number: self.merchant_number.clone(),
            payment_date: format!("{}T00:00:00", self.payment_day),
            payment_action_type: self.action_type.clone(),
            payment_method_type: self.method_type.clone(),
        }
    }
}

/// `merchantNumber/paymentDay/paymentActionType/paymentMethodType`.
impl fmt::Display for RuleKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            merchant_number,
            payment_day,
            action_type,
            method_type,
        } = self;
        write!(
            f,
            "{merchant_number}/{payment_day}/{action_type}/{method_type}"
        )
    }
}

/// The four key fields in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeyFields {
    pub merchant_number: String,
    pub payment_date: String,
    pub payment_action_type: String,
    pub payment_method_type: String,
}

/// A payout rule, as the service answers and as the topic holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    pub rule_id: String,
    #[serde(with = "text")]
    pub payout_date: Date,
    #[serde(with = "text")]
    pub confirm_date: Date,
    #[serde(flatten)]
    pub key: KeyFields,
}

/// The rule of a key; `None` where its merchant has none.
///
/// Payout is 1 to 30 days after the payment, confirmation the day before payout.
pub fn rule_of(seed: u64, key: &RuleKey) -> Option<Rule> {
    if !has_rules(seed, &key.merchant_number) {
        return None;
    }
    let high = hash(seed, &key.to_string());
    let low = mix(high);
    let days = i64::try_from(1 + high % 30).expect("at most 30");
    let payout = key.payment_day.saturating_add(days.days());
    let id = (u128::from(high) << 64) | u128::from(low);
    Some(Rule {
        rule_id: uuid(id),
        payout_date: payout,
        confirm_date: payout.saturating_sub(1.day()),
        key: key.fields(),
    })
}

/// Dates as ISO text in JSON.
mod text {
    use std::borrow::Cow;

    use jiff::civil::Date;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde passes fields by reference"
    )]
    pub(super) fn serialize<S: Serializer>(date: &Date, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(date)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Date, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Whether a merchant has rules at all.
pub fn has_rules(seed: u64, merchant_number: &str) -> bool {
    !hash(seed, merchant_number).is_multiple_of(WITHOUT_RULE)
}

/// FNV-1a, finished so that every bit of the result depends on every byte.
fn hash(seed: u64, text: &str) -> u64 {
    let start = 0xcbf2_9ce4_8422_2325 ^ mix(seed);
    mix(text.bytes().fold(start, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn uuid(id: u128) -> String {
    let hex = format!("{id:032x}");
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(merchant: &str) -> RuleKey {
        RuleKey {
            merchant_number: merchant.to_owned(),
            payment_day: "2025-05-26".parse().unwrap(),
            action_type: "PAYMENT".to_owned(),
            method_type: "MONEY".to_owned(),
        }
    }

    #[test]
    fn the_answer_depends_on_seed_and_key_alone() {
        assert_eq!(
            rule_of(7, &key("merchant-1")),
            rule_of(7, &key("merchant-1"))
        );
        assert_ne!(
            rule_of(7, &key("merchant-1")),
            rule_of(8, &key("merchant-1"))
        );
        assert_ne!(
            rule_of(7, &key("merchant-1")),
            rule_of(7, &key("merchant-2"))
        );
    }

    #[test]
    fn about_one_merchant_in_twenty_has_no_rule() {
        let without = (0..10_000)
            .filter(|number| !has_rules(1, &format!("merchant-{number}")))
            .count();
        assert!((400..600).contains(&without), "{without}");
    }

    #[test]
    fn dates_follow_the_payment_day() {
        for number in 0..100 {
            if let Some(rule) = rule_of(1, &key(&format!("merchant-{number}"))) {
                assert!(rule.payout_date > key("").payment_day);
                assert_eq!(rule.confirm_date.saturating_add(1.day()), rule.payout_date);
            }
        }
    }

    #[test]
    fn a_rule_reads_as_the_topic_holds_it() {
        let rule = Rule {
            rule_id: "16858a4e".to_owned(),
            payout_date: "2025-06-10".parse().unwrap(),
            confirm_date: "2025-06-09".parse().unwrap(),
            key: key("merchant-4436").fields(),
        };
        let expected = r#"{"ruleId":"16858a4e","payoutDate":"2025-06-10","confirmDate":"2025-06-09","merchantNumber":"merchant-4436","paymentDate":"2025-05-26T00:00:00","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}"#;
        assert_eq!(serde_json::to_string(&rule).unwrap(), expected);
    }
}
