//! Records that a task has taken from the consumer and not yet finished with, copied into one
//! buffer so that the consumer can be polled on.

use crate::broker::Record;

/// One record in the buffer.
#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: i64,
    timestamp: i64,
    /// Key, then value, in the buffer.
    start: usize,
    key_length: Option<usize>,
    value_length: Option<usize>,
}

/// A record of the inbox.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    pub offset: i64,
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

#[derive(Debug, Default)]
pub struct Inbox {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Entries before this one are done with.
    head: usize,
    /// Offset of the last record that came in since the inbox was emptied for a new start.
    last: Option<i64>,
}

impl Inbox {
    pub fn push(&mut self, record: &Record) {
        self.last = Some(record.offset);
        let start = self.bytes.len();
        self.bytes.extend_from_slice(record.key.unwrap_or_default());
        self.bytes
            .extend_from_slice(record.value.unwrap_or_default());
        self.entries.push(Entry {
            offset: record.offset,
            timestamp: record.timestamp,
            start,
            key_length: record.key.map(<[u8]>::len),
            value_length: record.value.map(<[u8]>::len),
        });
    }

    pub fn len(&self) -> usize {
        self.entries.len() - self.head
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of keys and values, those included that are done with and not dropped yet.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Everything that is not done with, oldest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Item<'_>> {
        self.entries[self.head..].iter().map(|entry| {
            let value_start = entry.start + entry.key_length.unwrap_or(0);
            let slice = |start, length: Option<usize>| {
                length.map(|length| &self.bytes[start..start + length])
            };
            Item {
                offset: entry.offset,
                timestamp: entry.timestamp,
                key: slice(entry.start, entry.key_length),
                value: slice(value_start, entry.value_length),
            }
        })
    }

    /// Drops the oldest `count` records.
    pub fn finish(&mut self, count: usize) {
        self.head += count;
        if self.head == self.entries.len() {
            self.empty();
        } else if self.head > self.entries.len() / 2 {
            let cut = self.entries[self.head].start;
            self.bytes.drain(..cut);
            self.entries.drain(..self.head);
            for entry in &mut self.entries {
                entry.start -= cut;
            }
            self.head = 0;
        }
    }

    /// Forgets everything: the task starts anew.
    pub fn clear(&mut self) {
        self.empty();
        self.last = None;
    }

    /// Where the next record is expected, when the task has come to `next`.
    pub fn expects(&self, next: i64) -> i64 {
        self.last.map_or(next, |last| next.max(last + 1))
    }

    /// Whether something has come in since the task began, all of it below `next`, and is done with.
    pub fn is_done_before(&self, next: i64) -> bool {
        self.is_empty() && self.last.is_some_and(|last| last < next)
    }

    /// Whether nothing has come in since the task began.
    pub fn is_untouched(&self) -> bool {
        self.is_empty() && self.last.is_none()
    }

    fn empty(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.head = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Partition, Topic};

    fn record<'a>(offset: i64, key: Option<&'a [u8]>, value: Option<&'a [u8]>) -> Record<'a> {
        let partition = Partition::new(Topic::Source, 0);
        Record {
            partition,
            offset,
            timestamp: offset * 10,
            key,
            value,
        }
    }

    #[test]
    fn markers_behind_the_last_record_are_passed_again_and_again() {
        let mut inbox = Inbox::default();
        assert!(inbox.is_untouched());
        inbox.push(&record(100, None, None));
        assert!(!inbox.is_done_before(101));
        inbox.finish(1);
        for next in [101, 102, 110] {
            assert!(inbox.is_done_before(next));
            assert_eq!(inbox.expects(next), next);
        }
        assert!(!inbox.is_done_before(100));
    }

    #[test]
    fn records_come_out_as_they_went_in_whatever_was_finished_before() {
        let mut inbox = Inbox::default();
        let mut next = 0;
        for round in 0..50 {
            for offset in round * 3..round * 3 + 3 {
                let value = offset.to_string();
                inbox.push(&record(offset, None, Some(value.as_bytes())));
            }
            let finished = if round % 5 == 4 { inbox.len() } else { 2 };
            for item in inbox.iter().take(finished) {
                assert_eq!((item.offset, item.timestamp), (next, next * 10));
                assert_eq!(item.value, Some(next.to_string().as_bytes()));
                next += 1;
            }
            inbox.finish(finished);
        }
        assert_eq!(next, 150);
    }

    #[test]
    fn null_and_empty_are_told_apart() {
        let mut inbox = Inbox::default();
        inbox.push(&record(1, None, Some(b"")));
        inbox.push(&record(2, Some(b""), None));
        let items: Vec<_> = inbox.iter().map(|item| (item.key, item.value)).collect();
        assert_eq!(items, [(None, Some(&b""[..])), (Some(&b""[..]), None)]);
    }
}
