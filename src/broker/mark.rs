//! The mark of a transaction: a header on the first record that it writes to each partition.
//!
//! A reader that stands at a log's stable end stands before the first record of the oldest
//! undecided transaction there, so the mark says whose that is. It also tells the parts of one
//! transaction from those of any other, when a broker has lost some of its markers.

use std::fmt;

use crate::clock;

/// Name of the header.
pub const MARK_HEADER: &str = "settle-transaction";

/// Which transaction a record belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub transactional_id: String,
    /// When it began: microseconds since the epoch by its writer's clock, and never the same for
    /// two transactions of one process.
    pub began: i64,
}

impl Mark {
    /// Reads what [`Mark`] prints: `<transactional id>/<began>`.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (id, began) = std::str::from_utf8(bytes).ok()?.rsplit_once('/')?;
        Some(Self {
            transactional_id: id.to_owned(),
            began: began.parse().ok()?,
        })
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}/{}", self.transactional_id, self.began)
    }
}

/// Makes the marks of one process's transactions with one id.
#[derive(Debug)]
pub struct Marks {
    last: Mark,
}

impl Marks {
    pub fn new(transactional_id: String) -> Self {
        Self {
            last: Mark {
                transactional_id,
                began: 0,
            },
        }
    }

    pub fn transactional_id(&self) -> &str {
        &self.last.transactional_id
    }

    /// The mark of a transaction that begins now.
    pub fn begin(&mut self) -> &Mark {
        self.last.began = clock::wall_micros().max(self.last.began + 1);
        &self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_printed() {
        let mark = Mark {
            transactional_id: "settle/a:settle-0-0".to_owned(),
            began: 1_764_000_000_000_001,
        };
        assert_eq!(Mark::parse(mark.to_string().as_bytes()), Some(mark));
        assert_eq!(Mark::parse(b"settle:settle-0-0"), None);
        assert_eq!(Mark::parse(b"settle:settle-0-0/x"), None);
        assert_eq!(Mark::parse(b"\xff/1"), None);
    }
}
