//! Parameters of the queries. Unknown ones are ignored; a known one stands at most once.

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;

use crate::domain::payment::{ActionType, MethodType, day, is_merchant_number};
use crate::domain::rule::RuleKey;
use crate::http::refusal::Refusal;

const MERCHANT: &str = "merchantNumber";
const DAY: &str = "paymentDateDailyStr";
const ACTION: &str = "actionTypeStr";
const METHOD: &str = "methodTypeStr";
const LIMIT: &str = "limit";
const AFTER: &str = "after";
const PARTITION: &str = "partition";
const SCAN: &str = "scan";

const A_MERCHANT: &str = "a merchant number: 1 to 64 bytes without '/' and control characters";
const A_DAY: &str = "a date like 2025-05-26, years 0001 to 9998";

/// The query string, decoded.
pub(super) type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl Parameters {
    pub(super) fn new(pairs: Pairs) -> Result<Self, Refusal> {
        match pairs {
            Ok(Query(pairs)) => Ok(Self(pairs)),
            Err(_) => Err(Refusal::BadParameter("query", "a query string")),
        }
    }

    /// The rule key that the four parameters name.
    pub(super) fn rule_key(&self) -> Result<RuleKey, Refusal> {
        let merchant = required(MERCHANT, A_MERCHANT, self.merchant()?)?;
        let day = required(DAY, A_DAY, self.day()?)?;
        let action = "PAYMENT, CANCEL, PARTIAL_CANCEL or FULL_CANCEL";
        let action = self.parsed(ACTION, action, |text| {
            ActionType::parse(&text.to_ascii_uppercase())
        })?;
        let method = "CARD, MONEY, PAY or POINT";
        let method = self.parsed(METHOD, method, |text| {
            MethodType::parse(&text.to_ascii_uppercase())
        })?;
        Ok(RuleKey::new(merchant, day, action, method))
    }

    pub(super) fn filter(&self) -> Result<Filter, Refusal> {
        Ok(Filter {
            merchant: self.merchant()?.map(str::to_owned),
            day: self.day()?.map(str::to_owned),
        })
    }

    /// How many entries at most.
    pub(super) fn limit(&self) -> Result<Option<usize>, Refusal> {
        self.positive(LIMIT)
    }

    /// The rule key behind which to start.
    pub(super) fn after(&self) -> Result<Option<RuleKey>, Refusal> {
        let wanted = "a rule key: merchantNumber/day/paymentActionType/paymentMethodType";
        self.optional(AFTER, wanted, RuleKey::parse)
    }

    pub(super) fn partition(&self) -> Result<i32, Refusal> {
        self.parsed(PARTITION, "a partition number", |text| text.parse().ok())
    }

    /// How many keys to look at, at most.
    pub(super) fn scan(&self) -> Result<Option<usize>, Refusal> {
        self.positive(SCAN)
    }

    fn merchant(&self) -> Result<Option<&str>, Refusal> {
        let valid = |text| is_merchant_number(text).then_some(text);
        self.optional(MERCHANT, A_MERCHANT, valid)
    }

    fn day(&self) -> Result<Option<&str>, Refusal> {
        self.optional(DAY, A_DAY, |text| day(text).map(|_| text))
    }

    fn positive(&self, name: &'static str) -> Result<Option<usize>, Refusal> {
        let positive = |text: &str| text.parse().ok().filter(|number| *number > 0);
        self.optional(name, "a whole number from 1", positive)
    }

    fn parsed<'a, T>(
        &'a self,
        name: &'static str,
        wanted: &'static str,
        parse: impl Fn(&'a str) -> Option<T>,
    ) -> Result<T, Refusal> {
        required(name, wanted, self.optional(name, wanted, parse)?)
    }

    fn optional<'a, T>(
        &'a self,
        name: &'static str,
        wanted: &'static str,
        parse: impl Fn(&'a str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        let mut values = self.0.iter().filter(|(of, _)| of == name);
        match (values.next(), values.next()) {
            (None, _) => Ok(None),
            (Some((_, value)), None) => match parse(value) {
                Some(value) => Ok(Some(value)),
                None => Err(Refusal::BadParameter(name, wanted)),
            },
            (Some(_), Some(_)) => Err(Refusal::BadParameter(name, "given once")),
        }
    }
}

fn required<T>(name: &'static str, wanted: &'static str, value: Option<T>) -> Result<T, Refusal> {
    value.ok_or(Refusal::BadParameter(name, wanted))
}

/// Which keys a listing is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Filter {
    pub merchant: Option<String>,
    pub day: Option<String>,
}

impl Filter {
    /// What every matching key begins with.
    pub(super) fn prefix(&self) -> String {
        match (&self.merchant, &self.day) {
            (None, _) => String::new(),
            (Some(merchant), None) => format!("{merchant}/"),
            (Some(merchant), Some(day)) => format!("{merchant}/{day}/"),
        }
    }

    /// Whether keys that do not match may lie between keys that do.
    pub(super) fn is_sparse(&self) -> bool {
        self.merchant.is_none() && self.day.is_some()
    }

    /// Whether a key with the prefix matches.
    pub(super) fn matches(&self, key: &str) -> bool {
        let day = self.day.as_deref();
        day.is_none_or(|day| key.split('/').nth(1) == Some(day))
    }

    /// The query string of one page of one partition, as [`Parameters`] reads it.
    pub(super) fn page_query(&self, partition: i32, after: Option<&str>, scan: usize) -> String {
        let mut query = format!("{PARTITION}={partition}&{SCAN}={scan}");
        let named = [
            (MERCHANT, self.merchant.as_deref()),
            (DAY, self.day.as_deref()),
            (AFTER, after),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                query.push('&');
                query.push_str(name);
                query.push('=');
                percent_encode(value, &mut query);
            }
        }
        query
    }
}

fn percent_encode(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(query: &str) -> Parameters {
        let uri = format!("/?{query}").parse().unwrap();
        Parameters::new(Ok(Query::try_from_uri(&uri).unwrap())).unwrap()
    }

    const WHOLE: &str = "merchantNumber=m-1&paymentDateDailyStr=2025-05-26&actionTypeStr=payment&methodTypeStr=Money";

    #[test]
    fn enum_parameters_are_taken_in_any_case() {
        let key = parameters(WHOLE).rule_key().unwrap();
        assert_eq!(key.as_str(), "m-1/2025-05-26/PAYMENT/MONEY");
    }

    #[test]
    fn a_bad_or_missing_parameter_is_named() {
        for (from, to, name) in [
            ("merchantNumber=m-1&", "", MERCHANT),
            ("m-1", "", MERCHANT),
            ("m-1", "a%2Fb", MERCHANT),
            ("2025-05-26", "2025-02-30", DAY),
            ("2025-05-26", "2025-05-26T00:00", DAY),
            ("payment&", "PAY&", ACTION),
            ("&methodTypeStr=Money", "", METHOD),
            ("Money", "Money&methodTypeStr=Money", METHOD),
        ] {
            let query = WHOLE.replacen(from, to, 1);
            match parameters(&query).rule_key() {
                Err(Refusal::BadParameter(named, _)) => assert_eq!(named, name, "{query}"),
                other => panic!("{query}: {other:?}"),
            }
        }
        for (query, name) in [
            ("limit=0", LIMIT),
            ("limit=-1", LIMIT),
            ("limit=x", LIMIT),
            ("after=m-1", AFTER),
        ] {
            let parameters = parameters(query);
            let refused = parameters.limit().err().or(parameters.after().err());
            assert!(
                matches!(refused, Some(Refusal::BadParameter(named, _)) if named == name),
                "{query}"
            );
        }
    }

    #[test]
    fn a_page_query_is_read_as_it_was_meant() {
        let filter = Filter {
            merchant: Some("müll & co=+%".into()),
            day: Some("2025-05-26".into()),
        };
        let after = "a b/2025-05-26/PAYMENT/CARD";
        let read = parameters(&filter.page_query(3, Some(after), 10));
        assert_eq!(read.filter(), Ok(filter));
        assert_eq!(read.after().unwrap().unwrap().as_str(), after);
        assert_eq!(read.partition(), Ok(3));
        assert_eq!(read.scan(), Ok(Some(10)));
    }
}
