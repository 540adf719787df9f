//! A strict JSON reader of its own (RFC 8259): numbers stay text, objects keep every field in order, so that a field
//! that stands twice can be seen.

use std::borrow::Cow;

/// How deep arrays and objects may nest before the reader gives up.
const DEEPEST: usize = 512;

#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    Null,
    Bool(bool),
    /// The number as written.
    Number(&'a str),
    String(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl<'a> Json<'a> {
    /// Reads one value that fills `text` but for white space; `None` when it is not JSON.
    pub fn read(text: &'a str) -> Option<Self> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value(0)?;
        reader.white_space();
        (reader.at == text.len()).then_some(value)
    }

    /// The first field of this name; `None` too when this is no object.
    pub fn get(&self, name: &str) -> Option<&Json<'a>> {
        match self {
            Json::Object(fields) => fields.iter().find(|(key, _)| key == name).map(|(_, v)| v),
            _ => None,
        }
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Json::String(text) => Some(text),
            _ => None,
        }
    }

    /// A number written as an integer that fits 64 bits.
    pub fn integer(&self) -> Option<i64> {
        match self {
            Json::Number(text) => text.parse().ok(),
            _ => None,
        }
    }

    /// The same value however it is written: fields sorted, the last of equal names kept, numbers reduced.
    pub fn canonical(&self) -> String {
        match self {
            Json::Null => "null".to_owned(),
            Json::Bool(value) => value.to_string(),
            Json::Number(text) => canonical_number(text),
            Json::String(text) => format!("{text:?}"),
            Json::Array(items) => {
                let items: Vec<_> = items.iter().map(Json::canonical).collect();
                format!("[{}]", items.join(","))
            }
            Json::Object(fields) => {
                let fields: std::collections::BTreeMap<_, _> = fields
                    .iter()
                    .map(|(name, value)| (name.as_ref(), value.canonical()))
                    .collect();
                let fields: Vec<_> = fields
                    .iter()
                    .map(|(name, value)| format!("{name:?}:{value}"))
                    .collect();
                format!("{{{}}}", fields.join(","))
            }
        }
    }

    /// Whether `jsonb` of PostgreSQL can hold it: no NUL in strings and no absurd numbers.
    pub fn storable(&self) -> bool {
        match self {
            Json::Null | Json::Bool(_) => true,
            Json::Number(text) => text.len() < 300 && exponent(text).is_some_and(|e| e.abs() < 300),
            Json::String(text) => storable_text(text),
            Json::Array(items) => items.iter().all(Json::storable),
            Json::Object(fields) => fields
                .iter()
                .all(|(name, value)| storable_text(name) && value.storable()),
        }
    }
}

/// U+FFFD stands in for what a lone surrogate would have been.
fn storable_text(text: &str) -> bool {
    !text.contains(['\0', '\u{fffd}'])
}

fn exponent(number: &str) -> Option<i64> {
    match number.split_once(['e', 'E']) {
        Some((_, exponent)) => exponent.parse().ok(),
        None => Some(0),
    }
}

fn canonical_number(number: &str) -> String {
    let (mantissa, _) = number.split_once(['e', 'E']).unwrap_or((number, ""));
    let (sign, mantissa) = mantissa
        .strip_prefix('-')
        .map_or(("", mantissa), |rest| ("-", rest));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return "0".to_owned();
    }
    let dropped = i64::try_from(digits.len() - significant.len())
        .expect("a number of this length fits memory");
    let shift = i64::try_from(fraction.len()).expect("a number of this length fits memory");
    match exponent(number) {
        Some(exponent) => format!("{sign}{significant}e{}", exponent - shift + dropped),
        None => number.to_owned(),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn word(&mut self, word: &str, value: Json<'a>) -> Option<Json<'a>> {
        self.text[self.at..].starts_with(word).then(|| {
            self.at += word.len();
            value
        })
    }

    fn value(&mut self, depth: usize) -> Option<Json<'a>> {
        if depth > DEEPEST {
            return None;
        }
        self.white_space();
        match self.peek()? {
            b'n' => self.word("null", Json::Null),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'"' => self.string().map(Json::String),
            b'[' => self.array(depth),
            b'{' => self.object(depth),
            _ => self.number(),
        }
    }

    fn array(&mut self, depth: usize) -> Option<Json<'a>> {
        self.eat(b'[')?;
        let mut items = Vec::new();
        self.white_space();
        if self.eat(b']').is_some() {
            return Some(Json::Array(items));
        }
        loop {
            items.push(self.value(depth + 1)?);
            self.white_space();
            if self.eat(b',').is_none() {
                self.eat(b']')?;
                return Some(Json::Array(items));
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Json<'a>> {
        self.eat(b'{')?;
        let mut fields = Vec::new();
        self.white_space();
        if self.eat(b'}').is_some() {
            return Some(Json::Object(fields));
        }
        loop {
            self.white_space();
            let name = self.string()?;
            self.white_space();
            self.eat(b':')?;
            fields.push((name, self.value(depth + 1)?));
            self.white_space();
            if self.eat(b',').is_none() {
                self.eat(b'}')?;
                return Some(Json::Object(fields));
            }
        }
    }

    fn digits(&mut self) -> Option<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }

    fn number(&mut self) -> Option<Json<'a>> {
        let start = self.at;
        let _ = self.eat(b'-');
        if self.eat(b'0').is_none() {
            self.digits()?;
        }
        if self.eat(b'.').is_some() {
            self.digits()?;
        }
        if self.eat(b'e').or_else(|| self.eat(b'E')).is_some() {
            let _ = self.eat(b'+').or_else(|| self.eat(b'-'));
            self.digits()?;
        }
        Some(Json::Number(&self.text[start..self.at]))
    }

    fn string(&mut self) -> Option<Cow<'a, str>> {
        self.eat(b'"')?;
        let start = self.at;
        let mut written: Option<String> = None;
        let mut from = start;
        loop {
            match self.peek()? {
                b'"' => {
                    let rest = &self.text[from..self.at];
                    self.at += 1;
                    return Some(match written {
                        None => Cow::Borrowed(rest),
                        Some(text) => Cow::Owned(text + rest),
                    });
                }
                b'\\' => {
                    let text = written.get_or_insert_default();
                    text.push_str(&self.text[from..self.at]);
                    self.at += 1;
                    let read = self.escape()?;
                    written.as_mut().expect("set above").push(read);
                    from = self.at;
                }
                0..=0x1f => return None,
                _ => self.at += 1,
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let byte = self.peek()?;
        self.at += 1;
        Some(match byte {
            b'"' => '"',
            b'\\' => '\\',
            b'/' => '/',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex()?;
                if !(0xd800..0xdc00).contains(&unit) {
                    return Some(char::from_u32(unit).unwrap_or('\u{fffd}'));
                }
                let here = self.at;
                if let Some(low) = self.low_surrogate() {
                    return char::from_u32(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
                }
                self.at = here;
                '\u{fffd}'
            }
            _ => return None,
        })
    }

    fn low_surrogate(&mut self) -> Option<u32> {
        self.eat(b'\\')?;
        self.eat(b'u')?;
        self.hex().filter(|low| (0xdc00..0xe000).contains(low))
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4)?;
        let mut unit = 0;
        for &digit in digits {
            unit = unit * 16 + char::from(digit).to_digit(16)?;
        }
        self.at += 4;
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_json_is_refused() {
        for text in [
            "",
            " ",
            "{",
            "{}x",
            "{\"a\":1,}",
            "[1,]",
            "01",
            "1.",
            ".5",
            "+1",
            "-",
            "1e",
            "nul",
            "\u{feff}{}",
            "\"\t\"",
            "\"\\x\"",
            "\"\\u12\"",
            "{'a':1}",
            "{\"a\" 1}",
            "NaN",
            "{\"a\":1}{}",
            "\"",
        ] {
            assert_eq!(Json::read(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_json_is_read() {
        assert_eq!(Json::read(" -0 "), Some(Json::Number("-0")));
        assert_eq!(Json::read("1e999"), Some(Json::Number("1e999")));
        assert_eq!(
            Json::read("\"\\u0061\\ud83d\\ude00é\""),
            Some(Json::String("a😀é".into()))
        );
        let twice = Json::read("{\"a\":1,\"a\":[true,null,{}]}").unwrap();
        assert!(matches!(&twice, Json::Object(fields) if fields.len() == 2));
    }

    #[test]
    fn equal_values_have_one_canonical_form() {
        for (a, b) in [
            ("{\"b\":1.50,\"a\":2}", "{\"a\": 2e0,\"b\":15E-1}"),
            ("100", "1e2"),
            ("-0", "0"),
            ("{\"a\":1,\"a\":2}", "{\"a\":2}"),
        ] {
            assert_eq!(
                Json::read(a).unwrap().canonical(),
                Json::read(b).unwrap().canonical()
            );
        }
        assert_ne!(
            Json::read("1").unwrap().canonical(),
            Json::read("\"1\"").unwrap().canonical()
        );
    }
}
