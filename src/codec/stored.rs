//! Internal records: bases, the two changelogs and what the local store keeps. Every value is a
//! version byte and postcard; decoding demands that nothing is left over.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::payment::{Channel, Source};
use crate::domain::rule::Rule;
use crate::domain::settlement::Base;
use crate::domain::totals::Totals;

/// The version that this binary writes, and the only one that it reads.
const VERSION: u8 = 1;

/// Key of the position record of a changelog; rule keys never begin with `@`.
pub const POSITION_KEY: &[u8] = b"@position";

/// Key of a record without a value that says nothing. It stands where the end of a transaction
/// whose markers a broker had lost was written again; readers go on behind it.
pub const TOUCH_KEY: &[u8] = b"@touch";

#[derive(Debug, Error, PartialEq, Eq)]
pub enum Error {
    #[error("empty value")]
    Empty,
    #[error("written by a newer version of settle (format {0}, this binary reads {VERSION})")]
    Newer(u8),
    #[error("damaged value")]
    Damaged,
}

fn encode_into(value: &impl Serialize, out: &mut Vec<u8>) {
    out.push(VERSION);
    let buffer = std::mem::take(out);
    *out = postcard::to_extend(value, buffer).expect("a vector takes whatever is written to it");
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    encode_into(value, &mut out);
    out
}

fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Error> {
    let (version, rest) = bytes.split_first().ok_or(Error::Empty)?;
    match *version {
        VERSION => {}
        newer if newer > VERSION => return Err(Error::Newer(newer)),
        _ => return Err(Error::Damaged),
    }
    match postcard::take_from_bytes(rest) {
        Ok((value, [])) => Ok(value),
        _ => Err(Error::Damaged),
    }
}

#[derive(Serialize, Deserialize)]
struct StoredBase<'a> {
    payment_id: &'a str,
    online: bool,
    type_online: bool,
    amount: i64,
    date: &'a str,
    partition: i32,
    offset: i64,
    received_at: i64,
    original_length: u64,
    original: &'a [u8],
}

/// Appends the value of a base record to `out`.
pub fn write_base(base: &Base, out: &mut Vec<u8>) {
    let stored = StoredBase {
        payment_id: base.payment_id,
        online: base.channel == Channel::Online,
        type_online: base.payment_type == Channel::Online,
        amount: base.amount,
        date: base.date,
        partition: base.source.partition,
        offset: base.source.offset,
        received_at: base.received_at,
        original_length: base.original_length,
        original: base.original,
    };
    encode_into(&stored, out);
}

/// Reads the value of a base record.
pub fn read_base(bytes: &[u8]) -> Result<Base<'_>, Error> {
    let stored: StoredBase = decode(bytes)?;
    let channel = |online| {
        if online {
            Channel::Online
        } else {
            Channel::Offline
        }
    };
    Ok(Base {
        payment_id: stored.payment_id,
        channel: channel(stored.online),
        payment_type: channel(stored.type_online),
        amount: stored.amount,
        date: stored.date,
        source: Source {
            partition: stored.partition,
            offset: stored.offset,
        },
        received_at: stored.received_at,
        original: stored.original,
        original_length: stored.original_length,
    })
}

/// What a changelog says about the position of its task: everything of the source partition below
/// `next` is included in the records up to here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The application that wrote the record; another one must not go on from it.
    pub application_id: String,
    /// The topic whose offsets are meant: payments or bases.
    pub topic: String,
    /// Next offset of that topic's partition.
    pub next: i64,
    /// Highest timestamp among the source records so far, milliseconds since the epoch; 0 for
    /// bases. The duplicate window ends here.
    pub time: i64,
    pub window: WindowStart,
    pub transactional_id: String,
    /// Rises along the log. Of ingest the number of the transaction, for people; of settle
    /// [`next_length`].
    pub transaction: u64,
}

/// Where the part of a source partition begins that holds every payment which is remembered as the
/// *first* of its id. Reading it again restores the duplicate window. Zeros for bases.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WindowStart {
    /// No payment below this offset is remembered.
    pub offset: i64,
    /// Wall clock, milliseconds since the epoch: nothing from `offset` on was decided before.
    pub decided_since: i64,
}

/// Bits of [`Position::transaction`] below those that tell one incarnation of a log from another.
const LENGTH_BITS: u32 = 40;

/// What a position record of totals says about its log, after `last` (0 when nothing came before)
/// and with so many records in its transaction: which incarnation of the log it is, and how many
/// offsets it has at least, the marker of this transaction included. A log that was made anew is
/// told by the one from the local state of the old, and by the other from a whole one.
pub fn next_length(last: u64, records: usize, wall_now: i64) -> u64 {
    let begun = if last == 0 {
        (wall_now.unsigned_abs() & 0xff_ffff) << LENGTH_BITS
    } else {
        last
    };
    begun + records as u64 + 1
}

/// Whether two values of [`next_length`] belong to one incarnation of a log.
pub fn is_same_log(one: u64, other: u64) -> bool {
    one >> LENGTH_BITS == other >> LENGTH_BITS
}

/// How many offsets a log has at least whose newest position record says so.
pub fn least_length(transaction: u64) -> i64 {
    i64::try_from(transaction & ((1 << LENGTH_BITS) - 1)).unwrap_or(i64::MAX)
}

impl Position {
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        decode(bytes)
    }
}

/// Value of the changelog record of a rule key.
pub fn write_totals(totals: Totals, out: &mut Vec<u8>) {
    encode_into(&(totals.amount, totals.count), out);
}

/// Reads the value of the changelog record of a rule key.
pub fn read_totals(bytes: &[u8]) -> Result<Totals, Error> {
    decode::<(i64, u64)>(bytes).map(|(amount, count)| Totals { amount, count })
}

/// A rule as a task knows it: with its place in the rules topic, which decides between two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRule {
    pub rule: Rule,
    /// Offset in the rule key's partition of the rules topic.
    pub offset: i64,
}

/// What the local store keeps of one rule key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyState {
    pub totals: Totals,
    pub rule: Option<StoredRule>,
}

#[derive(Serialize, Deserialize)]
struct StoredKeyState<'a> {
    amount: i64,
    count: u64,
    #[serde(borrow)]
    /// Id, payout date, confirm date, offset.
    rule: Option<(&'a str, YearMonthDay, YearMonthDay, i64)>,
}

type YearMonthDay = (i16, i8, i8);

fn ymd(date: Date) -> YearMonthDay {
    (date.year(), date.month(), date.day())
}

fn date((year, month, day): YearMonthDay) -> Result<Date, Error> {
    Date::new(year, month, day).map_err(|_| Error::Damaged)
}

impl KeyState {
    pub fn encode(&self) -> Vec<u8> {
        let rule = self.rule.as_ref().map(|stored| {
            let rule = &stored.rule;
            let dates = (ymd(rule.payout_date), ymd(rule.confirm_date));
            (rule.rule_id.as_str(), dates.0, dates.1, stored.offset)
        });
        encode(&StoredKeyState {
            amount: self.totals.amount,
            count: self.totals.count,
            rule,
        })
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let stored: StoredKeyState = decode(bytes)?;
        let rule = match stored.rule {
            None => None,
            Some((id, payout, confirm, offset)) => Some(StoredRule {
                rule: Rule {
                    rule_id: id.to_owned(),
                    payout_date: date(payout)?,
                    confirm_date: date(confirm)?,
                },
                offset,
            }),
        };
        Ok(Self {
            totals: Totals {
                amount: stored.amount,
                count: stored.count,
            },
            rule,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Base<'static> {
        Base {
            payment_id: "id",
            channel: Channel::Online,
            payment_type: Channel::Offline,
            amount: -5,
            date: "2025-05-26T14:23",
            source: Source {
                partition: 3,
                offset: 81723,
            },
            received_at: 1_700_000_000_000,
            original: b"{}",
            original_length: 2,
        }
    }

    #[test]
    fn a_log_is_told_from_one_that_was_made_anew_and_counts_its_offsets() {
        let first = next_length(0, 3, 1_700_000_000_000);
        let second = next_length(first, 1, 1_700_000_099_000);
        assert!(is_same_log(first, second) && second > first);
        assert_eq!((least_length(first), least_length(second)), (4, 6));
        let anew = next_length(0, 1, 1_700_000_099_000);
        assert!(!is_same_log(first, anew));
    }

    /// These bytes lie in topics and files of running systems: a change needs a new version.
    #[test]
    fn stored_bytes_do_not_change_by_accident() {
        let mut bytes = Vec::new();
        write_base(&base(), &mut bytes);
        assert_eq!(
            bytes,
            b"\x01\x02id\x01\x00\x09\x102025-05-26T14:23\x06\xf6\xfc\x09\x80\xa0\xab\xfe\xf9\x62\x02\x02{}"
        );
        let position = Position {
            application_id: "a".into(),
            topic: "t".into(),
            next: 300,
            time: 1,
            window: WindowStart {
                offset: 4,
                decided_since: 6,
            },
            transactional_id: "x".into(),
            transaction: 7,
        };
        assert_eq!(
            position.encode(),
            b"\x01\x01a\x01t\xd8\x04\x02\x08\x0c\x01x\x07"
        );
        let mut totals = Vec::new();
        write_totals(
            Totals {
                amount: -1,
                count: 2,
            },
            &mut totals,
        );
        assert_eq!(totals, b"\x01\x01\x02");
    }

    #[test]
    fn what_was_written_is_read_back() {
        let mut bytes = Vec::new();
        write_base(&base(), &mut bytes);
        assert_eq!(read_base(&bytes), Ok(base()));
        let state = KeyState {
            totals: Totals {
                amount: i64::MIN,
                count: 3,
            },
            rule: Some(StoredRule {
                rule: Rule {
                    rule_id: "r".into(),
                    payout_date: jiff::civil::date(2025, 6, 10),
                    confirm_date: jiff::civil::date(9999, 12, 31),
                },
                offset: 12,
            }),
        };
        assert_eq!(KeyState::decode(&state.encode()), Ok(state));
    }

    #[test]
    fn a_newer_version_left_over_bytes_and_damage_are_refused() {
        let mut bytes = KeyState::default().encode();
        bytes.push(0);
        assert_eq!(KeyState::decode(&bytes), Err(Error::Damaged));
        bytes.pop();
        bytes[0] = 2;
        assert_eq!(KeyState::decode(&bytes), Err(Error::Newer(2)));
        assert_eq!(KeyState::decode(&[]), Err(Error::Empty));
        assert_eq!(KeyState::decode(&[1, 0]), Err(Error::Damaged));
    }
}
