//! A sorted run of payment ids on disk: blocks of entries, with a filter in memory in front, so
//! that an id that was never seen (nearly all are) costs no read.

use serde::{Deserialize, Serialize};

use crate::codec::stored::WindowStart;
use crate::domain::payment::Source;
use crate::state::ids::earlier;

/// Bytes of one entry in a block.
const ENTRY_BYTES: usize = 16 + 8 + 8 + 8;

/// Entries of one block: about 16 KiB.
pub const BLOCK_ENTRIES: usize = 400;

/// Filter bits per entry; with four probes about one id in forty asks the disk for nothing.
const FILTER_BITS: usize = 8;
const FILTER_PROBES: u32 = 4;

/// The first payment of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// Cryptographic hash of the payment id, cut to 128 bits: nobody can have another's payment
    /// dropped by constructing a collision.
    pub id: u128,
    /// Offset in the source partition.
    pub offset: i64,
    /// Timestamp of the record, milliseconds since the epoch.
    pub timestamp: i64,
    /// Hash of the value bytes.
    pub fingerprint: u64,
}

impl Seen {
    /// The place of the payment in the source topic.
    pub const fn source(&self, partition: i32) -> Source {
        Source {
            partition,
            offset: self.offset,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_be_bytes());
        out.extend_from_slice(&self.offset.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.fingerprint.to_be_bytes());
    }

    fn read(bytes: &[u8; ENTRY_BYTES]) -> Self {
        let field = |at: usize| {
            let mut field = [0; 8];
            field.copy_from_slice(&bytes[at..at + 8]);
            field
        };
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[..16]);
        Self {
            id: u128::from_be_bytes(id),
            offset: i64::from_be_bytes(field(16)),
            timestamp: i64::from_be_bytes(field(24)),
            fingerprint: u64::from_be_bytes(field(32)),
        }
    }
}

/// What is known of a run without reading its blocks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Header {
    /// Span of partition time in which the run was written; only runs of one span are merged.
    pub generation: i64,
    pub entries: u64,
    pub oldest: i64,
    pub newest: i64,
    pub life: Life,
    /// First id of each block, its upper half.
    first_ids: Vec<u64>,
    filter: Vec<u64>,
}

/// When the entries of a run came, and until when they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Where the entries begin.
    pub start: WindowStart,
    /// Partition time from which the run is of no use any more.
    pub expires_at: i64,
    /// Wall clock of the checkpoint with the newest of them, milliseconds since the epoch.
    pub written_at: i64,
}

impl Life {
    /// The life of the entries of two runs together.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self {
            start: earlier(self.start, other.start),
            expires_at: self.expires_at.max(other.expires_at),
            written_at: self.written_at.max(other.written_at),
        }
    }
}

/// Collects sorted entries into blocks and a header.
pub struct Builder {
    header: Header,
    filter_mask: u64,
    block: Vec<u8>,
}

impl Builder {
    /// For at most `entries` entries.
    pub fn new(generation: i64, life: Life, entries: usize) -> Self {
        let words = (entries * FILTER_BITS).div_ceil(64).next_power_of_two();
        Self {
            header: Header {
                generation,
                entries: 0,
                oldest: i64::MAX,
                newest: i64::MIN,
                life,
                first_ids: Vec::new(),
                filter: vec![0; words],
            },
            filter_mask: (words as u64) * 64 - 1,
            block: Vec::with_capacity(BLOCK_ENTRIES * ENTRY_BYTES),
        }
    }

    /// Adds the next entry in the order of ids. Gives a block when one is full.
    pub fn push(&mut self, entry: &Seen) -> Option<(u32, Vec<u8>)> {
        if self.block.is_empty() {
            self.header.first_ids.push(upper(entry.id));
        }
        entry.write(&mut self.block);
        self.header.entries += 1;
        self.header.oldest = self.header.oldest.min(entry.timestamp);
        self.header.newest = self.header.newest.max(entry.timestamp);
        for bit in probes(entry.id, self.filter_mask) {
            let word = usize::try_from(bit / 64).expect("below the filter's length");
            self.header.filter[word] |= 1 << (bit % 64);
        }
        (self.block.len() == BLOCK_ENTRIES * ENTRY_BYTES).then(|| self.take_block())
    }

    /// The last block, if any is open, and the header.
    pub fn finish(mut self) -> (Option<(u32, Vec<u8>)>, Header) {
        let last = (!self.block.is_empty()).then(|| self.take_block());
        (last, self.header)
    }

    fn take_block(&mut self) -> (u32, Vec<u8>) {
        let number = u32::try_from(self.header.first_ids.len() - 1).expect("blocks of a run");
        (number, std::mem::take(&mut self.block))
    }
}

fn upper(id: u128) -> u64 {
    u64::try_from(id >> 64).expect("64 bits are left")
}

fn lower(id: u128) -> u64 {
    u64::try_from(id & u128::from(u64::MAX)).expect("64 bits are left")
}

fn probes(id: u128, mask: u64) -> impl Iterator<Item = u64> {
    // The id is a hash already: two halves of it make all probes.
    let (start, step) = (upper(id), lower(id) | 1);
    (0..FILTER_PROBES).map(move |probe| start.wrapping_add(step.wrapping_mul(probe.into())) & mask)
}

impl Header {
    /// Whether the id may stand in the run. `false` is certain.
    pub fn may_hold(&self, id: u128) -> bool {
        let mask = (self.filter.len() as u64) * 64 - 1;
        probes(id, mask).all(|bit| {
            let word = usize::try_from(bit / 64).expect("below the filter's length");
            self.filter[word] & (1 << (bit % 64)) != 0
        })
    }

    /// The blocks in which the id could stand: one, or several when equal upper halves meet a
    /// border.
    pub fn blocks_of(&self, id: u128) -> std::ops::Range<u32> {
        let wanted = upper(id);
        let from = self
            .first_ids
            .partition_point(|first| *first < wanted)
            .saturating_sub(1);
        let to = self.first_ids.partition_point(|first| *first <= wanted);
        let number = |index: usize| u32::try_from(index).expect("blocks of a run");
        number(from)..number(to)
    }

    pub fn blocks(&self) -> u32 {
        u32::try_from(self.first_ids.len()).expect("blocks of a run")
    }
}

/// The entries of a block, or `None` when its length is impossible.
pub fn entries(block: &[u8]) -> Option<impl Iterator<Item = Seen> + '_> {
    let (entries, rest) = block.as_chunks::<ENTRY_BYTES>();
    rest.is_empty().then(|| entries.iter().map(Seen::read))
}

/// Entries of one id in a block, or `None` when its length is impossible.
pub fn find(block: &[u8], id: u128) -> Option<impl Iterator<Item = Seen> + '_> {
    let (entries, rest) = block.as_chunks::<ENTRY_BYTES>();
    let from = entries.partition_point(|entry| Seen::read(entry).id < id);
    let found = entries[from..].iter().map(Seen::read);
    rest.is_empty()
        .then(|| found.take_while(move |seen| seen.id == id))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Life = Life {
        start: WindowStart {
            offset: 7,
            decided_since: 1,
        },
        expires_at: 5,
        written_at: 2,
    };

    fn seen(id: u128) -> Seen {
        Seen {
            id,
            offset: 7,
            timestamp: -3,
            fingerprint: 9,
        }
    }

    #[test]
    fn every_entry_is_found_in_its_block_and_the_filter_lets_it_pass() {
        let ids: Vec<u128> = (0..5000_u128).map(|n| (n << 64) | (n * 7919)).collect();
        let mut builder = Builder::new(0, LIFE, ids.len());
        let mut blocks: Vec<(u32, Vec<u8>)> = ids
            .iter()
            .filter_map(|id| builder.push(&seen(*id)))
            .collect();
        let (last, header) = builder.finish();
        blocks.extend(last);
        assert_eq!(header.blocks() as usize, blocks.len());
        for id in &ids {
            assert!(header.may_hold(*id));
            let hits = header.blocks_of(*id).flat_map(|block| {
                find(&blocks[block as usize].1, *id)
                    .unwrap()
                    .collect::<Vec<_>>()
            });
            assert_eq!(hits.collect::<Vec<_>>(), [seen(*id)]);
        }
        assert_eq!((header.oldest, header.newest, header.life), (-3, -3, LIFE));
    }

    #[test]
    fn equal_upper_halves_across_a_border_are_all_looked_at() {
        let ids: Vec<u128> = (0..1000_u128).map(|n| (5 << 64) | n).collect();
        let mut builder = Builder::new(0, LIFE, ids.len());
        let mut blocks: Vec<Vec<u8>> = Vec::new();
        for id in &ids {
            blocks.extend(builder.push(&seen(*id)).map(|(_, block)| block));
        }
        let (last, header) = builder.finish();
        blocks.extend(last.map(|(_, block)| block));
        for id in &ids {
            let found = header
                .blocks_of(*id)
                .any(|block| find(&blocks[block as usize], *id).unwrap().count() == 1);
            assert!(found, "{id}");
        }
    }

    #[test]
    fn a_block_of_impossible_length_is_noticed() {
        assert!(entries(&[0; ENTRY_BYTES + 1]).is_none());
        assert!(find(&[0; ENTRY_BYTES - 1], 1).is_none());
    }
}
