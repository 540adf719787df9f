//! Looks, and changes nothing: at what is committed in topics and tables (everything about one
//! payment, dead letters), and at the running instances.

pub mod explain;
pub mod letters;
pub mod offsets;
pub mod rules;
pub mod state;
pub mod status;
mod table;

use jiff::Timestamp;

use crate::broker::{Names, Partition, logs};
use crate::exit::Exit;
use crate::sink::connection;

/// Why topics and tables could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Logs(#[from] logs::Error),
    #[error(transparent)]
    Database(#[from] connection::Error),
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Logs(error) => error.exit(),
            Self::Database(error) => error.exit(),
        }
    }
}

/// `payments/3/81725`.
pub fn place(names: &Names, partition: Partition, offset: i64) -> String {
    let topic = names.of(partition.topic);
    format!("{topic}/{}/{offset}", partition.number)
}

/// A record's time, as ISO text in UTC.
pub fn time(millis: i64) -> String {
    let time = Timestamp::from_millisecond(millis);
    time.map_or_else(|_| millis.to_string(), |time| time.to_string())
}

/// Bytes as text, or in hexadecimal digits when they are none.
pub fn readable(bytes: &[u8]) -> (&'static str, String) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return ("text", text.to_owned());
    }
    let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
    ("hex", digits.collect())
}
