//! Values of configuration keys: their kinds, how a text or a TOML value becomes one, how one is printed.

use std::time::Duration;

use super::check::{self, Check};

/// What a key takes. Bounds are inclusive.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    Text(Check),
    Topic,
    List(Check),
    Flag,
    Integer { min: i64, max: i64 },
    Duration { min: Duration, max: Duration },
    Size { min: u64, max: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Text(String),
    List(Vec<String>),
    Flag(bool),
    Integer(i64),
    Duration(Duration),
    Size(u64),
}

/// A value as it was given, before its key says what it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Raw {
    /// Text without a type: an environment variable, a default, the content of a secret's file.
    Untyped(String),
    Text(String),
    /// `None` where the number does not fit 64 bits.
    Integer(Option<i64>),
    Flag(bool),
    List(Vec<Raw>),
    /// Any other TOML value, by the name of its type.
    Other(&'static str),
}

impl Raw {
    fn type_name(&self) -> &'static str {
        match self {
            Raw::Untyped(_) | Raw::Text(_) => "a string",
            Raw::Integer(_) => "an integer",
            Raw::Flag(_) => "a boolean",
            Raw::List(_) => "a list",
            Raw::Other(name) => name,
        }
    }

    /// The text of a property of librdkafka, which has no types.
    pub fn as_property(&self) -> Result<String, String> {
        match self {
            Raw::Untyped(text) | Raw::Text(text) => Ok(text.clone()),
            Raw::Integer(Some(number)) => Ok(number.to_string()),
            Raw::Flag(flag) => Ok(flag.to_string()),
            other => Err(format!(
                "must be a string, an integer or a boolean, not {}",
                other.type_name()
            )),
        }
    }
}

impl Kind {
    /// Name of the type for people.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Text(_) | Kind::Topic => "text",
            Kind::List(_) => "list",
            Kind::Flag => "true or false",
            Kind::Integer { .. } => "integer",
            Kind::Duration { .. } => "duration",
            Kind::Size { .. } => "size",
        }
    }

    /// Whether its values stand in quotes in a file.
    pub fn is_quoted(self) -> bool {
        match self {
            Kind::Text(_) | Kind::Topic | Kind::Duration { .. } | Kind::Size { .. } => true,
            Kind::List(_) | Kind::Flag | Kind::Integer { .. } => false,
        }
    }

    pub fn read(self, raw: &Raw) -> Result<Value, String> {
        match (self, raw) {
            (Kind::Text(check), Raw::Text(text) | Raw::Untyped(text)) => {
                check(text).map(|()| Value::Text(text.clone()))
            }
            (Kind::Topic, Raw::Text(text) | Raw::Untyped(text)) => {
                check::topic(text).map(|()| Value::Text(text.clone()))
            }
            (Kind::List(check), Raw::List(items)) => list(check, items),
            (Kind::List(check), Raw::Untyped(text)) => {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                list(
                    check,
                    &items
                        .map(|item| Raw::Text(item.to_owned()))
                        .collect::<Vec<_>>(),
                )
            }
            (Kind::Flag, Raw::Flag(flag)) => Ok(Value::Flag(*flag)),
            (Kind::Flag, Raw::Untyped(text)) => text
                .parse()
                .map(Value::Flag)
                .map_err(|_| format!("must be true or false, not {text:?}")),
            (Kind::Integer { min, max }, Raw::Integer(number)) => integer(*number, min, max),
            (Kind::Integer { min, max }, Raw::Untyped(text)) => match text.parse() {
                Ok(number) => integer(Some(number), min, max),
                Err(_) => Err(format!("must be an integer, not {text:?}")),
            },
            (Kind::Duration { min, max }, Raw::Text(text) | Raw::Untyped(text)) => {
                duration(text, min, max)
            }
            (Kind::Size { min, max }, Raw::Text(text) | Raw::Untyped(text)) => size(text, min, max),
            (_, raw) => Err(format!(
                "must be {}, not {}",
                self.wanted(),
                raw.type_name()
            )),
        }
    }

    fn wanted(self) -> &'static str {
        match self {
            Kind::Text(_) | Kind::Topic => "a string",
            Kind::List(_) => "a list of strings",
            Kind::Flag => "true or false",
            Kind::Integer { .. } => "an integer",
            Kind::Duration { .. } => "a duration in quotes, such as \"100ms\"",
            Kind::Size { .. } => "a size in quotes, such as \"64MiB\"",
        }
    }
}

fn list(check: Check, items: &[Raw]) -> Result<Value, String> {
    let mut texts = Vec::new();
    for item in items {
        let Raw::Text(text) = item else {
            return Err(format!(
                "must be a list of strings, it holds {}",
                item.type_name()
            ));
        };
        check(text)?;
        texts.push(text.clone());
    }
    Ok(Value::List(texts))
}

fn integer(number: Option<i64>, min: i64, max: i64) -> Result<Value, String> {
    match number {
        Some(number) if (min..=max).contains(&number) => Ok(Value::Integer(number)),
        Some(number) => Err(format!("must be between {min} and {max}, not {number}")),
        None => Err(format!("must be between {min} and {max}")),
    }
}

fn duration(text: &str, min: Duration, max: Duration) -> Result<Value, String> {
    let duration = parse_duration(text).ok_or_else(|| {
        format!(
            "must be a duration such as \"100ms\", \"10s\", \"5m\", \"2h\" or \"7d\", not {text:?}"
        )
    })?;
    if (min..=max).contains(&duration) {
        return Ok(Value::Duration(duration));
    }
    Err(format!(
        "must be between {} and {}, not {text:?}",
        duration_text(min),
        duration_text(max)
    ))
}

fn size(text: &str, min: u64, max: u64) -> Result<Value, String> {
    let size = parse_size(text).ok_or_else(|| {
        format!("must be a size such as \"512KiB\", \"64MiB\" or \"1GiB\", not {text:?}")
    })?;
    if (min..=max).contains(&size) {
        return Ok(Value::Size(size));
    }
    Err(format!(
        "must be between {} and {}, not {text:?}",
        size_text(min),
        size_text(max)
    ))
}

const DURATION_UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
const SIZE_UNITS: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];

/// A whole number with its unit, or several of them: `"1h30m"`. Milliseconds are the smallest unit.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return None;
    }
    let mut total = 0_u64;
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let unit_length = after
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_length);
        total = total.checked_add(scaled(number, unit, &DURATION_UNITS)?)?;
        rest = after;
    }
    Some(Duration::from_millis(total))
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text.trim())?;
    scaled(number, unit.trim_start(), &SIZE_UNITS)
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

fn scaled(number: u64, unit: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

pub fn duration_text(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if millis == 0 {
        "0s".to_owned()
    } else {
        in_largest_unit(millis, &DURATION_UNITS)
    }
}

fn size_text(size: u64) -> String {
    if size == 0 {
        "0B".to_owned()
    } else {
        in_largest_unit(size, &SIZE_UNITS)
    }
}

fn in_largest_unit(amount: u64, units: &[(&str, u64)]) -> String {
    let (unit, factor) = units
        .iter()
        .find(|(_, factor)| amount.is_multiple_of(*factor))
        .expect("the smallest unit divides everything");
    format!("{}{unit}", amount / factor)
}

impl Value {
    /// As it stands in a TOML file.
    pub fn toml(&self) -> String {
        match self {
            Value::Text(text) => quoted(text),
            Value::List(items) => {
                format!(
                    "[{}]",
                    items
                        .iter()
                        .map(|item| quoted(item))
                        .collect::<Vec<_>>()
                        .join(", ")
                )
            }
            Value::Flag(flag) => flag.to_string(),
            Value::Integer(number) => number.to_string(),
            Value::Duration(duration) => quoted(&duration_text(*duration)),
            Value::Size(size) => quoted(&size_text(*size)),
        }
    }
}

pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Kind, Raw, Value, duration_text, parse_duration, parse_size, size_text};

    #[test]
    fn durations_are_read_and_printed_in_their_largest_unit() {
        for (text, millis, printed) in [
            ("100ms", 100, "100ms"),
            ("10s", 10_000, "10s"),
            ("7d", 604_800_000, "7d"),
            ("1h30m", 5_400_000, "90m"),
            ("60s", 60_000, "1m"),
            ("0s", 0, "0s"),
        ] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(duration_text(duration), printed);
        }
    }

    #[test]
    fn a_duration_needs_whole_numbers_and_units() {
        for wrong in [
            "",
            "10",
            "s",
            "1.5s",
            "10 s",
            "-1s",
            "1w",
            "1H",
            "99999999999999999999s",
            "9999999999999999d",
        ] {
            assert_eq!(parse_duration(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn sizes_are_read_and_printed_in_their_largest_unit() {
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("512 KiB"), Some(512 << 10));
        assert_eq!(size_text(1 << 30), "1GiB");
        for wrong in ["", "64", "64MB", "MiB", "1.5GiB", "99999999TiB"] {
            assert_eq!(parse_size(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn an_environment_variable_takes_the_type_of_its_key() {
        let untyped = |text: &str| Raw::Untyped(text.to_owned());
        let integer = Kind::Integer { min: 1, max: 9 };
        assert_eq!(integer.read(&untyped("7")), Ok(Value::Integer(7)));
        assert_eq!(Kind::Flag.read(&untyped("true")), Ok(Value::Flag(true)));
        let list = Kind::List(|_| Ok(()));
        assert_eq!(
            list.read(&untyped("a, b")),
            Ok(Value::List(vec!["a".into(), "b".into()]))
        );
        assert_eq!(list.read(&untyped("")), Ok(Value::List(vec![])));
    }

    #[test]
    fn a_value_of_a_file_must_have_the_type_of_its_key() {
        let integer = Kind::Integer { min: 1, max: 9 };
        assert_eq!(
            integer.read(&Raw::Text("7".into())).unwrap_err(),
            "must be an integer, not a string"
        );
        assert_eq!(
            integer.read(&Raw::Integer(Some(10))).unwrap_err(),
            "must be between 1 and 9, not 10"
        );
        let duration = Kind::Duration {
            min: Duration::ZERO,
            max: Duration::MAX,
        };
        assert!(
            duration
                .read(&Raw::Integer(Some(10)))
                .unwrap_err()
                .contains("\"100ms\"")
        );
    }
}
