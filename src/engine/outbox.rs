//! Records that a batch will send, encoded into one buffer. Nothing leaves before everything of
//! the batch is decided.

use std::ops::Range;

use crate::broker::Partition;
use crate::broker::native::Outgoing;

struct Entry {
    partition: Partition,
    key: Option<Range<usize>>,
    value: Option<Range<usize>>,
    headers: Vec<(&'static str, String)>,
    receipt: Option<usize>,
}

#[derive(Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    receipts: usize,
}

impl Outbox {
    /// Adds a record whose value `write` appends.
    pub fn push(&mut self, partition: Partition, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) {
        self.push_written(partition, |out| out.extend_from_slice(key), write);
    }

    /// Adds a record whose key and value are both appended.
    pub fn push_written(
        &mut self,
        partition: Partition,
        write_key: impl FnOnce(&mut Vec<u8>),
        write_value: impl FnOnce(&mut Vec<u8>),
    ) {
        let key_start = self.bytes.len();
        write_key(&mut self.bytes);
        let value_start = self.bytes.len();
        write_value(&mut self.bytes);
        self.entries.push(Entry {
            partition,
            key: Some(key_start..value_start),
            value: Some(value_start..self.bytes.len()),
            headers: Vec::new(),
            receipt: None,
        });
    }

    /// Adds a record with the key and value of another, and headers.
    pub fn push_raw(
        &mut self,
        partition: Partition,
        (key, value): (Option<&[u8]>, Option<&[u8]>),
        headers: Vec<(&'static str, String)>,
    ) {
        let mut copy = |part: Option<&[u8]>| {
            part.map(|part| {
                let start = self.bytes.len();
                self.bytes.extend_from_slice(part);
                start..self.bytes.len()
            })
        };
        let (key, value) = (copy(key), copy(value));
        self.entries.push(Entry {
            partition,
            key,
            value,
            headers,
            receipt: None,
        });
    }

    /// Asks for the offset of the record that was added last; gives the number of the receipt.
    pub fn want_receipt(&mut self) -> usize {
        let receipt = self.receipts;
        self.receipts += 1;
        let last = self
            .entries
            .last_mut()
            .expect("asked right after a record was added");
        last.receipt = Some(receipt);
        receipt
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Outgoing<'_>> {
        self.entries.iter().map(|entry| Outgoing {
            partition: entry.partition,
            key: entry.key.clone().map(|range| &self.bytes[range]),
            value: entry.value.clone().map(|range| &self.bytes[range]),
            headers: &entry.headers,
            receipt: entry.receipt,
        })
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
        self.receipts = 0;
    }
}
