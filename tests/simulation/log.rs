//! One partition's log: records, control markers, high watermark and stable offset.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What a producer sends.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Payload {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, String)>,
}

/// One record. Its offset is its place in the log.
#[derive(Debug)]
pub struct Entry {
    /// Milliseconds since the epoch.
    pub timestamp: i64,
    pub payload: Payload,
    /// Number of the coordinator's transaction, and the producer; none for a plain one.
    pub transaction: Option<u64>,
    producer: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Undecided,
    Committed,
    Aborted,
    /// A control marker.
    Marker,
}

#[derive(Debug, Default)]
pub struct Log {
    entries: Vec<Arc<Entry>>,
    fates: Vec<Fate>,
    /// First undecided offset of each producer. A transaction whose marker was lost keeps it, and
    /// the next one of the producer goes on from there.
    open: BTreeMap<u64, i64>,
    /// Batches that were taken, so that a repeated one is taken once: (producer, epoch, number).
    batches: BTreeMap<(u64, i32, u64), i64>,
}

fn offset(length: usize) -> i64 {
    i64::try_from(length).expect("a short log")
}

fn index(offset: i64) -> usize {
    usize::try_from(offset).expect("offsets are never negative")
}

impl Log {
    /// One past the last record or marker.
    pub fn high(&self) -> i64 {
        offset(self.entries.len())
    }

    /// Below the first undecided record.
    pub fn stable(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.high())
    }

    /// Appends a record of a plain producer.
    pub fn append(&mut self, payload: Payload, timestamp: i64) -> i64 {
        self.push(payload, timestamp, None, Fate::Committed)
    }

    /// Appends a batch of a transaction, once.
    pub fn append_batch(
        &mut self,
        (producer, epoch, number): (u64, i32, u64),
        payloads: &[Payload],
        timestamp: i64,
        transaction: u64,
    ) -> i64 {
        if let Some(base) = self.batches.get(&(producer, epoch, number)) {
            return *base;
        }
        let base = self.high();
        self.batches.insert((producer, epoch, number), base);
        self.open.entry(producer).or_insert(base);
        for payload in payloads {
            let writer = Some((producer, transaction));
            self.push(payload.clone(), timestamp, writer, Fate::Undecided);
        }
        base
    }

    fn push(
        &mut self,
        payload: Payload,
        timestamp: i64,
        writer: Option<(u64, u64)>,
        fate: Fate,
    ) -> i64 {
        let at = self.high();
        self.entries.push(Arc::new(Entry {
            timestamp,
            payload,
            transaction: writer.map(|(_, transaction)| transaction),
            producer: writer.map(|(producer, _)| producer),
        }));
        self.fates.push(fate);
        at
    }

    /// Writes the marker that decides all that the producer has undecided here.
    pub fn mark(&mut self, producer: u64, commit: bool, timestamp: i64) {
        if let Some(from) = self.open.remove(&producer) {
            for at in index(from)..self.entries.len() {
                if self.fates[at] == Fate::Undecided && self.entries[at].producer == Some(producer)
                {
                    self.fates[at] = if commit {
                        Fate::Committed
                    } else {
                        Fate::Aborted
                    };
                }
            }
        }
        self.push(Payload::default(), timestamp, None, Fate::Marker);
    }

    /// The record that a read-committed reader at `from` gets, and where it stands.
    pub fn next_committed(&self, from: i64) -> Option<(i64, Arc<Entry>)> {
        (from..self.stable())
            .find(|at| self.fates[index(*at)] == Fate::Committed)
            .map(|at| (at, Arc::clone(&self.entries[index(at)])))
    }

    /// Records that are no markers, undecided and aborted ones too.
    pub fn records(&self) -> impl Iterator<Item = (i64, &Arc<Entry>)> {
        let both = self.entries.iter().zip(&self.fates).enumerate();
        both.filter(|(_, (_, fate))| **fate != Fate::Marker)
            .map(|(at, (entry, _))| (offset(at), entry))
    }

    pub fn is_undecided(&self, at: i64) -> bool {
        self.fates[index(at)] == Fate::Undecided
    }

    pub fn is_committed(&self, at: i64) -> bool {
        self.fates[index(at)] == Fate::Committed
    }

    /// Whether markers, as far as they are written, have made this record visible.
    pub fn is_aborted(&self, at: i64) -> bool {
        self.fates[index(at)] == Fate::Aborted
    }
}
