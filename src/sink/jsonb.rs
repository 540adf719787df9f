//! Which bytes PostgreSQL takes as jsonb.
//!
//! JSON alone is not enough: jsonb refuses U+0000, lone surrogates and numbers outside of
//! `numeric`. The text itself goes to the database, so that no number loses a digit on the way.

/// Deeper nesting counts as no JSON; the server's own limit is its stack.
const DEPTH_MAX: usize = 1000;
/// Digits that `numeric` holds before and after the decimal point.
const WHOLE_DIGITS_MAX: i64 = 131_072;
const FRACTION_DIGITS_MAX: i64 = 16_383;
/// Exponents from here on are a syntax error to the server.
const EXPONENT_END: i64 = (i32::MAX / 2) as i64;

/// The text of a value that jsonb takes.
pub fn text(value: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(value).ok()?;
    accepts(value).then_some(text)
}

/// Walks over valid UTF-8.
fn accepts(bytes: &[u8]) -> bool {
    let mut scanner = Scanner { bytes, at: 0 };
    scanner.document().is_some() && scanner.at == bytes.len()
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Open {
    Array,
    Object,
}

impl Scanner<'_> {
    fn document(&mut self) -> Option<()> {
        let mut open: Vec<Open> = Vec::new();
        loop {
            // At the beginning of a value.
            self.space();
            match self.peek()? {
                opening @ (b'[' | b'{') => {
                    self.at += 1;
                    self.space();
                    let kind = if opening == b'[' {
                        Open::Array
                    } else {
                        Open::Object
                    };
                    let closing = if kind == Open::Array { b']' } else { b'}' };
                    if self.peek()? == closing {
                        self.at += 1;
                    } else if open.len() == DEPTH_MAX {
                        return None;
                    } else {
                        open.push(kind);
                        if kind == Open::Object {
                            self.name()?;
                        }
                        continue;
                    }
                }
                b'"' => self.string()?,
                b'-' | b'0'..=b'9' => self.number()?,
                b't' => self.word(b"true")?,
                b'f' => self.word(b"false")?,
                b'n' => self.word(b"null")?,
                _ => return None,
            }
            self.space();
            if !self.after_value(&mut open)? {
                return Some(());
            }
        }
    }

    /// Closes what ends here; whether another value follows.
    fn after_value(&mut self, open: &mut Vec<Open>) -> Option<bool> {
        while let Some(&kind) = open.last() {
            match (self.peek()?, kind) {
                (b',', Open::Array) => {
                    self.at += 1;
                    return Some(true);
                }
                (b',', Open::Object) => {
                    self.at += 1;
                    self.space();
                    self.name()?;
                    return Some(true);
                }
                (b']', Open::Array) | (b'}', Open::Object) => {
                    self.at += 1;
                    open.pop();
                    self.space();
                }
                _ => return None,
            }
        }
        Some(false)
    }

    /// A field's name with its colon.
    fn name(&mut self) -> Option<()> {
        self.string()?;
        self.space();
        self.expect(b':')
    }

    fn string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return Some(()),
                b'\\' => self.escape()?,
                0..=0x1f => return None,
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let byte = self.peek()?;
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => match self.hex()? {
                0 | 0xdc00..=0xdfff => None,
                0xd800..=0xdbff => {
                    self.expect(b'\\')?;
                    self.expect(b'u')?;
                    (0xdc00..=0xdfff).contains(&self.hex()?).then_some(())
                }
                _ => Some(()),
            },
            _ => None,
        }
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |sum, &digit| {
            Some(sum * 16 + char::from(digit).to_digit(16)?)
        })
    }

    fn number(&mut self) -> Option<()> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let whole_from = self.at;
        let mut whole = self.digits();
        match self.bytes.get(whole_from)? {
            b'0' if whole > 1 => return None,
            b'0' => whole = 0,
            _ if whole == 0 => return None,
            _ => {}
        }
        let (mut fraction, mut leading_zeros) = (0, 0);
        if self.peek() == Some(b'.') {
            self.at += 1;
            let rest = &self.bytes[self.at..];
            leading_zeros = count(rest, |byte| byte == b'0');
            fraction = self.digits();
            if fraction == 0 {
                return None;
            }
        }
        let mut exponent = 0;
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            exponent = self.exponent()?;
        }
        let zero = whole == 0 && leading_zeros == fraction;
        let magnitude = if whole > 0 { whole } else { -leading_zeros };
        let fits = (zero || magnitude + exponent <= WHOLE_DIGITS_MAX)
            && fraction - exponent <= FRACTION_DIGITS_MAX;
        fits.then_some(())
    }

    /// `None` as well for an exponent that is out of range whatever the digits are.
    fn exponent(&mut self) -> Option<i64> {
        let negative = match self.peek()? {
            b'-' => true,
            b'+' => false,
            _ => {
                self.at -= 1;
                false
            }
        };
        self.at += 1;
        let from = self.at;
        if self.digits() == 0 {
            return None;
        }
        let size = self.bytes[from..self.at].iter().try_fold(0, |sum, digit| {
            Some(sum * 10 + i64::from(digit - b'0')).filter(|&sum| sum < EXPONENT_END)
        })?;
        Some(if negative { -size } else { size })
    }

    /// Skips digits; how many there were.
    fn digits(&mut self) -> i64 {
        let count = count(&self.bytes[self.at..], |byte| byte.is_ascii_digit());
        self.at += usize::try_from(count).expect("counted in memory");
        count
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        let same = self.bytes[self.at..].starts_with(word);
        self.at += if same { word.len() } else { 0 };
        same.then_some(())
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        let found = self.peek()? == byte;
        self.at += 1;
        found.then_some(())
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }
}

fn count(bytes: &[u8], matches: impl Fn(u8) -> bool) -> i64 {
    let count = bytes.iter().take_while(|&&byte| matches(byte)).count();
    i64::try_from(count).expect("counted in memory")
}

/// Texts whose answers were taken from a PostgreSQL server; `tests/sink/database.rs` asks it again.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_jsonb_takes_is_accepted_as_it_stands() {
        for taken in [
            "{}",
            "[]",
            " {\"a\" : [1, -0, 2.50, 1E+2, true, false, null, \"x\"], \"b\":{}} \n",
            "null",
            "\"\\ud83d\\ude00 \\u0001 \\\\ \\/\"",
            "0e131073",
            "0.00001e131076",
            "1e131071",
            "1e-16383",
            "\u{22}é\u{7f}\u{22}",
        ] {
            assert_eq!(text(taken.as_bytes()), Some(taken));
        }
    }

    #[test]
    fn what_jsonb_refuses_is_left_to_raw() {
        for refused in [
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{1:2}",
            "[1}",
            "1 2",
            "]",
            "01",
            "-",
            "1.",
            ".5",
            "+1",
            "1e",
            "1e+",
            "1ex",
            "0x1",
            "NaN",
            "tru",
            "truex",
            "\"\n\"",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\\u0000\"",
            "{\"\\u0000\":1}",
            "\"\\ud83d\"",
            "\"\\ud83dx\"",
            "\"\\ud83d\\u0041\"",
            "\"\\ude00\"",
            "1e131072",
            "10e131071",
            "1e-16384",
            "0.1e-16383",
            "1e99999999999999999999",
            "\u{feff}{}",
            "\u{0}",
            "\"abc",
        ] {
            assert_eq!(text(refused.as_bytes()), None, "{refused}");
        }
        assert_eq!(text(b"\"\xff\""), None);
        assert_eq!(text(b"\"\xed\xa0\x80\""), None);
    }

    #[test]
    fn nesting_is_bounded_and_costs_no_stack() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(text(nested(DEPTH_MAX).as_bytes()).is_some());
        assert!(text(nested(1_000_000).as_bytes()).is_none());
    }
}
