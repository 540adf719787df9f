//! The outgoing records, byte for byte as the contract shows them, and back.

use std::fmt::Write as _;

use super::json::Json;
use super::payment::Payment;
use super::{Place, Rule};

/// The record of one settled payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    pub payment_id: String,
    pub channel: String,
    pub payment_type: String,
    pub amount: i64,
    pub merchant: String,
    pub payment_date: String,
    pub action_type: String,
    pub method_type: String,
    pub payout_date: String,
    pub confirm_date: String,
    pub basis: String,
    pub rule_id: Option<String>,
    pub source: Place,
}

impl Settlement {
    /// The settlement of a payment, by a rule or by the default dates.
    pub fn of(payment: &Payment, source: Place, rule: Option<&Rule>, default_day: &str) -> Self {
        Self {
            payment_id: payment.id.clone(),
            channel: payment.channel.to_owned(),
            payment_type: payment.payment_type.to_owned(),
            amount: payment.amount,
            merchant: payment.merchant.clone(),
            payment_date: payment.payment_date.clone(),
            action_type: payment.action_type.to_owned(),
            method_type: payment.method_type.to_owned(),
            payout_date: rule
                .map_or(default_day, |rule| &rule.payout_date)
                .to_owned(),
            confirm_date: rule
                .map_or(default_day, |rule| &rule.confirm_date)
                .to_owned(),
            basis: if rule.is_some() { "RULE" } else { "DEFAULT" }.to_owned(),
            rule_id: rule.map(|rule| rule.id.clone()),
            source,
        }
    }

    pub fn read(value: &[u8]) -> Option<Self> {
        let json = Json::read(std::str::from_utf8(value).ok()?)?;
        let text = |name: &str| json.get(name)?.text().map(str::to_owned);
        Some(Self {
            payment_id: text("paymentId")?,
            channel: text("channel")?,
            payment_type: text("paymentType")?,
            amount: json.get("amount")?.integer()?,
            merchant: text("merchantNumber")?,
            payment_date: text("paymentDate")?,
            action_type: text("paymentActionType")?,
            method_type: text("paymentMethodType")?,
            payout_date: text("payoutDate")?,
            confirm_date: text("confirmDate")?,
            basis: text("payoutBasis")?,
            rule_id: match json.get("ruleId")? {
                Json::Null => None,
                id => Some(id.text()?.to_owned()),
            },
            source: place(json.get("source")?)?,
        })
    }

    pub fn day(&self) -> &str {
        self.payment_date.get(..10).unwrap_or("")
    }

    pub fn rule_key(&self) -> String {
        format!(
            "{}/{}/{}/{}",
            self.merchant,
            self.day(),
            self.action_type,
            self.method_type
        )
    }

    pub fn render(&self) -> String {
        let mut out = String::with_capacity(400);
        let mut text = |name: &str, value: &str| {
            let separator = if out.is_empty() { '{' } else { ',' };
            let _ = write!(out, "{separator}\"{name}\":{}", quoted(value));
        };
        text("paymentId", &self.payment_id);
        text("channel", &self.channel);
        text("paymentType", &self.payment_type);
        let _ = write!(out, ",\"amount\":{}", self.amount);
        let mut text = |name: &str, value: &str| {
            let _ = write!(out, ",\"{name}\":{}", quoted(value));
        };
        text("merchantNumber", &self.merchant);
        text("paymentDate", &self.payment_date);
        text("paymentActionType", &self.action_type);
        text("paymentMethodType", &self.method_type);
        text("payoutDate", &self.payout_date);
        text("confirmDate", &self.confirm_date);
        text("payoutBasis", &self.basis);
        let _ = write!(
            out,
            ",\"ruleId\":{},\"source\":{}}}",
            or_null(self.rule_id.as_deref()),
            rendered(self.source)
        );
        out
    }
}

/// The record of a payment that is not settled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exclusion {
    pub payment_id: Option<String>,
    pub reason: String,
    pub source: Place,
    pub first: Option<Place>,
    pub merchant: Option<String>,
    pub amount: Option<i64>,
}

impl Exclusion {
    pub fn read(value: &[u8]) -> Option<Self> {
        let json = Json::read(std::str::from_utf8(value).ok()?)?;
        let text = |name: &str| match json.get(name)? {
            Json::Null => Some(None),
            text => Some(Some(text.text()?.to_owned())),
        };
        Some(Self {
            payment_id: text("paymentId")?,
            reason: text("reason")??,
            source: place(json.get("source")?)?,
            first: match json.get("first") {
                None => None,
                Some(first) => Some(place(first)?),
            },
            merchant: text("merchantNumber")?,
            amount: match json.get("amount")? {
                Json::Null => None,
                amount => Some(amount.integer()?),
            },
        })
    }

    pub fn render(&self) -> String {
        let first = self.first.map_or(String::new(), |first| {
            format!(",\"first\":{}", rendered(first))
        });
        format!(
            "{{\"paymentId\":{},\"reason\":{},\"source\":{}{first},\"merchantNumber\":{},\"amount\":{}}}",
            or_null(self.payment_id.as_deref()),
            quoted(&self.reason),
            rendered(self.source),
            or_null(self.merchant.as_deref()),
            self.amount
                .map_or("null".to_owned(), |amount| amount.to_string()),
        )
    }
}

/// The count and sum of one rule key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub amount: i64,
    pub count: i64,
}

impl Totals {
    pub fn read(json: &Json) -> Option<Self> {
        Some(Self {
            amount: json.get("totalAmount")?.integer()?,
            count: json.get("count")?.integer()?,
        })
    }

    pub fn render(&self) -> String {
        format!(
            "{{\"totalAmount\":{},\"count\":{}}}",
            self.amount, self.count
        )
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} payments", self.amount, self.count)
    }
}

/// The key of a statistics record for a rule key.
pub fn statistics_key(rule_key: &str) -> Option<String> {
    let [merchant, day, action, method] = fields(rule_key)?;
    Some(format!(
        "{{\"merchantNumber\":{},\"paymentDateDaily\":{},\"paymentActionType\":{},\"paymentMethodType\":{}}}",
        quoted(merchant),
        quoted(day),
        quoted(action),
        quoted(method)
    ))
}

/// The rule key of a statistics key.
pub fn statistics_rule_key(key: &Json) -> Option<String> {
    let text = |name: &str| key.get(name)?.text();
    Some(format!(
        "{}/{}/{}/{}",
        text("merchantNumber")?,
        text("paymentDateDaily")?,
        text("paymentActionType")?,
        text("paymentMethodType")?
    ))
}

/// A rule record, or a request to the rule service when there is no rule yet.
pub fn rule_record(rule_key: &str, rule: &Rule) -> Option<String> {
    let [merchant, day, action, method] = fields(rule_key)?;
    Some(format!(
        "{{\"ruleId\":{},\"payoutDate\":{},\"confirmDate\":{},\"merchantNumber\":{},\"paymentDate\":{},\"paymentActionType\":{},\"paymentMethodType\":{}}}",
        quoted(&rule.id),
        quoted(&rule.payout_date),
        quoted(&rule.confirm_date),
        quoted(merchant),
        quoted(&format!("{day}T00:00:00")),
        quoted(action),
        quoted(method)
    ))
}

/// The rule in a record of the rules topic, when it parses and its fields agree with the key.
pub fn read_rule(rule_key: &str, value: &[u8]) -> Option<Rule> {
    let json = Json::read(std::str::from_utf8(value).ok()?)?;
    let text = |name: &str| json.get(name)?.text();
    let [merchant, day, action, method] = fields(rule_key)?;
    let agrees = text("merchantNumber")? == merchant
        && text("paymentDate")?.get(..10)? == day
        && text("paymentActionType")? == action
        && text("paymentMethodType")? == method;
    agrees.then_some(Rule {
        id: text("ruleId")?.to_owned(),
        payout_date: text("payoutDate")?.to_owned(),
        confirm_date: text("confirmDate")?.to_owned(),
    })
}

/// Merchant number, day, action type, method type.
pub fn fields(rule_key: &str) -> Option<[&str; 4]> {
    let mut parts = rule_key.split('/');
    let fields = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(fields)
}

fn place(json: &Json) -> Option<Place> {
    Some(Place {
        partition: i32::try_from(json.get("partition")?.integer()?).ok()?,
        offset: json.get("offset")?.integer()?,
    })
}

fn rendered(place: Place) -> String {
    format!(
        "{{\"partition\":{},\"offset\":{}}}",
        place.partition, place.offset
    )
}

fn or_null(text: Option<&str>) -> String {
    text.map_or("null".to_owned(), quoted)
}

fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..='\u{1f}' => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_settlement_reads_and_renders_as_in_the_contract() {
        let value = r#"{"paymentId":"p \"1\"","channel":"ONLINE","paymentType":"ONLINE","amount":12500,"merchantNumber":"merchant-4436","paymentDate":"2025-05-26T14:23:51.123456","paymentActionType":"PAYMENT","paymentMethodType":"MONEY","payoutDate":"2025-06-10","confirmDate":"2025-06-09","payoutBasis":"RULE","ruleId":"16858a4e","source":{"partition":3,"offset":81723}}"#;
        let read = Settlement::read(value.as_bytes()).unwrap();
        assert_eq!(read.render(), value);
        assert_eq!(read.rule_key(), "merchant-4436/2025-05-26/PAYMENT/MONEY");
        let by_default = value.replace("\"16858a4e\"", "null");
        assert_eq!(
            Settlement::read(by_default.as_bytes()).unwrap().render(),
            by_default
        );
    }

    #[test]
    fn an_exclusion_reads_and_renders_as_in_the_contract() {
        for value in [
            r#"{"paymentId":"p","reason":"DUPLICATE","source":{"partition":3,"offset":81724},"first":{"partition":3,"offset":81723},"merchantNumber":"merchant-4436","amount":12500}"#,
            r#"{"paymentId":null,"reason":"FINISH","source":{"partition":3,"offset":81724},"merchantNumber":null,"amount":null}"#,
        ] {
            assert_eq!(Exclusion::read(value.as_bytes()).unwrap().render(), value);
        }
    }

    #[test]
    fn statistics_and_rules_read_and_render_as_in_the_contract() {
        let key = "merchant-4436/2025-05-26/PAYMENT/MONEY";
        let rendered = statistics_key(key).unwrap();
        assert_eq!(
            rendered,
            r#"{"merchantNumber":"merchant-4436","paymentDateDaily":"2025-05-26","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}"#
        );
        assert_eq!(
            statistics_rule_key(&Json::read(&rendered).unwrap()).unwrap(),
            key
        );
        let rule = Rule {
            id: "r".into(),
            payout_date: "2025-06-10".into(),
            confirm_date: "2025-06-09".into(),
        };
        let record = rule_record(key, &rule).unwrap();
        assert_eq!(read_rule(key, record.as_bytes()), Some(rule));
        assert_eq!(
            read_rule("merchant-1/2025-05-26/PAYMENT/MONEY", record.as_bytes()),
            None
        );
    }
}
