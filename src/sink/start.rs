//! Where to read a partition from, given what the database has and what the log still holds.

use crate::broker::Topic;
use crate::broker::sink_consumer::Readable;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    At(i64),
    /// The source topic's owner lets records go: read on behind the gap `from..to`.
    Gap {
        from: i64,
        to: i64,
    },
    /// A topic that keeps everything has lost `from..to`.
    Lost {
        from: i64,
        to: i64,
    },
    /// The log ends before the position: it was truncated or created anew.
    Ahead {
        position: i64,
        end: i64,
    },
}

/// A partition that the database knows nothing of is read from the beginning.
pub fn start(topic: Topic, position: Option<i64>, log: Readable) -> Start {
    let Some(position) = position else {
        return Start::At(log.first);
    };
    let (from, to) = (position, log.first);
    if position > log.stable {
        let end = log.stable;
        Start::Ahead { position, end }
    } else if position >= log.first {
        Start::At(position)
    } else {
        match topic {
            Topic::Source => Start::Gap { from, to },
            // Compaction leaves gaps wherever it likes.
            Topic::Rules | Topic::Statistics | Topic::Changelog | Topic::IngestChangelog => {
                Start::At(to)
            }
            Topic::Settlements | Topic::Exclusions | Topic::DeadLetter | Topic::Bases => {
                Start::Lost { from, to }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: Readable = Readable {
        first: 10,
        stable: 20,
    };

    #[test]
    fn a_partition_unknown_to_the_database_is_read_from_the_beginning_of_its_log() {
        assert_eq!(start(Topic::Settlements, None, LOG), Start::At(10));
    }

    #[test]
    fn a_position_inside_the_log_is_where_reading_goes_on() {
        for position in [10, 15, 20] {
            assert_eq!(
                start(Topic::Source, Some(position), LOG),
                Start::At(position)
            );
        }
    }

    #[test]
    fn records_lost_before_they_were_written_stop_the_sink_where_nothing_may_be_lost() {
        assert_eq!(
            start(Topic::Source, Some(9), LOG),
            Start::Gap { from: 9, to: 10 }
        );
        assert_eq!(start(Topic::Statistics, Some(9), LOG), Start::At(10));
        assert_eq!(start(Topic::Rules, Some(9), LOG), Start::At(10));
        for topic in [Topic::Settlements, Topic::Exclusions, Topic::DeadLetter] {
            assert_eq!(start(topic, Some(9), LOG), Start::Lost { from: 9, to: 10 });
        }
    }

    #[test]
    fn a_position_behind_the_end_of_the_log_is_told() {
        let ahead = Start::Ahead {
            position: 21,
            end: 20,
        };
        assert_eq!(start(Topic::Rules, Some(21), LOG), ahead);
    }
}
