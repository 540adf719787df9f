//! What may be judged beside live instances: where the logs stood, and when.
//!
//! Transactions end while the logs are read, so no single moment is seen. Everything is judged
//! between two: *before*, the positions that were committed when reading began, and *after*, the
//! positions when the last output had been read. An end of a log is its high watermark, and a log
//! is read until its reader has passed it: so every record of every transaction that an earlier
//! look has shown is read, whatever markers were still under way. In this order:
//!
//! 1. the database in one snapshot: rows and positions;
//! 2. the stable ends of the settlements;
//! 3. the ingest changelog (positions before), the changelog (positions before, totals) and the
//!    statistics, up to their ends; the group's offsets;
//! 4. settlements, exclusions and dead letters, up to their ends; then rules and bases, so that
//!    every rule and base of a settlement that was read is there;
//! 5. the group's offsets again, and the rest of both changelogs (positions after);
//! 6. the source up to the positions after, or to those of the database, which may be further.
//!
//! A source record below *before* must have its outcome or be on its way; one at or above *after*
//! must have none; between them it may have one, and then the right one. A base below *before*
//! must have its settlement. A total is judged by its count: it must be the sum of so many
//! settlements of its key, and the last one must count at least those below the ends of step 2.
//! A row below the database's positions must be there, one at or above them must not. At rest the
//! moments are one, and nothing stays unjudged.

use std::collections::BTreeMap;

use crate::broker::{Partition, Topic};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    Before,
    After,
}

/// Next offsets of the source and of the bases, by partition.
#[derive(Debug, Clone, Default)]
pub struct Positions {
    pub source: BTreeMap<i32, i64>,
    pub bases: BTreeMap<i32, i64>,
}

#[derive(Debug, Clone, Default)]
pub struct Cut {
    pub before: Positions,
    pub after: Positions,
    /// Where the settlements ended for sure before the totals were read.
    pub settled: BTreeMap<i32, i64>,
    /// First offsets that the logs still hold.
    pub low: BTreeMap<Partition, i64>,
    /// The last place of the rules topic where compaction may have removed a record.
    pub rules_compacted: BTreeMap<i32, i64>,
    /// The database's positions, when there is one.
    pub rows: BTreeMap<Partition, i64>,
}

impl Cut {
    pub(super) fn moved(&mut self, moment: Moment, log: Partition, next: i64) {
        let moments = match moment {
            Moment::Before => vec![&mut self.before, &mut self.after],
            Moment::After => vec![&mut self.after],
        };
        for positions in moments {
            let of_topic = match log.topic {
                Topic::IngestChangelog => &mut positions.source,
                _ => &mut positions.bases,
            };
            of_topic.insert(log.number, next);
        }
    }

    pub fn low_of(&self, topic: Topic, number: i32) -> i64 {
        let low = self.low.get(&Partition::new(topic, number));
        low.copied().unwrap_or(0)
    }

    pub(super) fn has_row(&self, topic: Topic, number: i32, offset: i64) -> bool {
        let next = self.rows.get(&Partition::new(topic, number));
        next.is_some_and(|next| offset < *next)
    }
}

pub(super) fn of(positions: &BTreeMap<i32, i64>, partition: i32) -> i64 {
    positions.get(&partition).copied().unwrap_or(0)
}
