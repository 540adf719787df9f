//! Where a task goes on: decided from the position in its changelog, which was committed with the
//! outputs, and never from the group's offset alone.

use thiserror::Error;

use crate::broker::{Bounds, Topic};

/// What is known about the position of a task.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Next source offset by the position record, when there is one.
    pub recorded: Option<Recorded<'a>>,
    /// The group's committed offset.
    pub group: Option<i64>,
    /// Outcomes or records that only a task that has run can have written; looked for only where
    /// nobody holds a position.
    pub trace: Option<&'a str>,
    /// It belongs to a position record that the changelog holds and that was aborted: a broker has
    /// lost the marker of the task's first transaction, which was undone then.
    pub is_undone: bool,
    /// Where the source partition begins and ends.
    pub source: Bounds,
    /// Every record of the topic is followed by the marker of its transaction.
    pub ends_in_marker: bool,
    pub application_id: &'a str,
    pub topic: &'a str,
}

/// A position record, or what the local store took over from one.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    pub application_id: &'a str,
    pub topic: &'a str,
    pub next: i64,
}

/// Where to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    pub offset: i64,
    /// The group's offset said something else; the next transaction repairs it.
    pub group_differed: bool,
}

/// Why the task must not go on. A person decides.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error(
        "the changelog holds no position, but the group has committed offset {group}: the \
         changelog was deleted, cut or made anew, and going on would repeat or forget payments"
    )]
    PositionMissing { group: i64 },
    #[error(
        "neither the changelog nor the group holds a position, but {trace}: both were deleted, \
         and a new start would give payments a second outcome"
    )]
    PositionForgotten {
        /// What shows that the task has run before.
        trace: String,
    },
    #[error(
        "the changelog was written by application {found:?}, this is {expected:?} \
         (kafka.application_id)"
    )]
    OtherApplication { found: String, expected: String },
    #[error(
        "the changelog's position belongs to topic {found:?}, the configured one is {expected:?}"
    )]
    OtherTopic { found: String, expected: String },
    #[error(
        "the next record to process is offset {next}, but the log begins at {low}: {} records \
         were deleted before they were processed", low - next
    )]
    RecordsDeleted { next: i64, low: i64 },
    #[error(
        "the next record to process is offset {next}, but the log ends at {high}: the topic was \
         truncated or made anew"
    )]
    LogTooShort { next: i64, high: i64 },
}

impl Refusal {
    /// What the person does about it, for a task of `topic`; every command is one of docs/damage.md.
    pub fn advice(&self, role: Topic, topic: &str, partition: i32) -> String {
        match self {
            Self::PositionMissing { .. } => {
                "Restore the changelog topic; or stop all instances and \
                 run `settle positions rebuild`, which fills it from the settlements and the \
                 group's offsets"
                    .to_owned()
            }
            Self::PositionForgotten { .. } => format!(
                "Stop all instances and say where it goes on: `settle positions set {topic} \
                 {partition}` and an offset, or `kafka-consumer-groups.sh --reset-offsets` for \
                 the whole group and `settle positions rebuild`"
            ),
            Self::OtherApplication { .. } => "Give each application changelogs of its own \
                 (topics.changelog, topics.ingest_changelog), or this one its old name"
                .to_owned(),
            Self::OtherTopic { .. } => {
                "Configure the topic that it belongs to, or changelogs of its own".to_owned()
            }
            Self::LogTooShort { .. } if role == Topic::Source => "Restore the topic: outcomes are \
                 known by partition and offset, so another log under this name cannot be gone on \
                 with. Or begin under another kafka.application_id, with topics and a database of \
                 its own"
                .to_owned(),
            Self::RecordsDeleted { .. } | Self::LogTooShort { .. } => format!(
                "Restore the records; or stop all instances and run `settle positions set {topic} \
                 {partition} earliest`, which gives up what is gone"
            ),
        }
    }
}

/// Decides where a task goes on, or refuses.
pub fn decide(facts: &Facts) -> Result<Start, Refusal> {
    let Some(recorded) = facts.recorded else {
        return match (facts.group, facts.trace) {
            (Some(group), _) if !facts.is_undone => Err(Refusal::PositionMissing { group }),
            (None, Some(trace)) => Err(Refusal::PositionForgotten {
                trace: trace.to_owned(),
            }),
            _ => Ok(Start {
                offset: facts.source.low,
                group_differed: facts.group.is_some(),
            }),
        };
    };
    let owned = |text: &str| text.to_owned();
    if recorded.application_id != facts.application_id {
        return Err(Refusal::OtherApplication {
            found: owned(recorded.application_id),
            expected: owned(facts.application_id),
        });
    }
    if recorded.topic != facts.topic {
        return Err(Refusal::OtherTopic {
            found: owned(recorded.topic),
            expected: owned(facts.topic),
        });
    }
    let (next, Bounds { low, high }) = (recorded.next, facts.source);
    // With a record at `next` the log would end behind its marker, too.
    let only_marker_deleted = facts.ends_in_marker && low == next + 1 && high == low;
    if only_marker_deleted {
        return Ok(Start {
            offset: low,
            group_differed: facts.group != Some(next),
        });
    }
    if next < low {
        return Err(Refusal::RecordsDeleted { next, low });
    }
    if next > high {
        return Err(Refusal::LogTooShort { next, high });
    }
    Ok(Start {
        offset: next,
        group_differed: facts.group != Some(next),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { low: 10, high: 100 };

    fn facts(next: Option<i64>, group: Option<i64>) -> Facts<'static> {
        let recorded = next.map(|next| Recorded {
            application_id: "settle",
            topic: "payments",
            next,
        });
        Facts {
            recorded,
            group,
            trace: None,
            is_undone: false,
            source: BOUNDS,
            ends_in_marker: false,
            application_id: "settle",
            topic: "payments",
        }
    }

    #[test]
    fn the_recorded_position_decides_and_a_different_group_offset_is_told() {
        let start = |offset, group_differed| {
            Ok(Start {
                offset,
                group_differed,
            })
        };
        assert_eq!(decide(&facts(Some(50), Some(50))), start(50, false));
        assert_eq!(decide(&facts(Some(50), Some(40))), start(50, true));
        assert_eq!(decide(&facts(Some(50), Some(60))), start(50, true));
        assert_eq!(decide(&facts(Some(50), None)), start(50, true));
        assert_eq!(decide(&facts(Some(100), Some(100))), start(100, false));
    }

    #[test]
    fn a_task_that_never_ran_begins_at_the_first_record() {
        let expected = Start {
            offset: 10,
            group_differed: false,
        };
        assert_eq!(decide(&facts(None, None)), Ok(expected));
    }

    #[test]
    fn a_task_whose_first_transaction_was_undone_begins_at_the_first_record() {
        let mut undone = facts(None, Some(17));
        undone.is_undone = true;
        let expected = Start {
            offset: 10,
            group_differed: true,
        };
        assert_eq!(decide(&undone), Ok(expected));
    }

    #[test]
    fn a_marker_that_was_deleted_with_everything_before_it_is_no_loss() {
        let mut of_bases = Facts {
            source: Bounds { low: 51, high: 51 },
            ends_in_marker: true,
            ..facts(Some(50), Some(50))
        };
        let start = Start {
            offset: 51,
            group_differed: false,
        };
        assert_eq!(decide(&of_bases), Ok(start));
        // The last record of a partition of payments may stand there.
        of_bases.ends_in_marker = false;
        let refused = Err(Refusal::RecordsDeleted { next: 50, low: 51 });
        assert_eq!(decide(&of_bases), refused);
        // A base and its marker.
        of_bases.ends_in_marker = true;
        of_bases.source = Bounds { low: 52, high: 52 };
        let refused = Err(Refusal::RecordsDeleted { next: 50, low: 52 });
        assert_eq!(decide(&of_bases), refused);
    }

    #[test]
    fn what_cannot_be_explained_is_refused() {
        assert_eq!(
            decide(&facts(None, Some(7))),
            Err(Refusal::PositionMissing { group: 7 })
        );
        let mut forgotten = facts(None, None);
        forgotten.trace = Some("settlements/0 holds outcomes");
        assert!(matches!(
            decide(&forgotten),
            Err(Refusal::PositionForgotten { .. })
        ));
        assert_eq!(
            decide(&facts(Some(9), Some(9))),
            Err(Refusal::RecordsDeleted { next: 9, low: 10 })
        );
        assert_eq!(
            decide(&facts(Some(101), Some(101))),
            Err(Refusal::LogTooShort {
                next: 101,
                high: 100
            })
        );
        let mut other = facts(Some(50), Some(50));
        other.application_id = "other";
        assert!(matches!(
            decide(&other),
            Err(Refusal::OtherApplication { .. })
        ));
        let mut other = facts(Some(50), Some(50));
        other.topic = "other";
        assert!(matches!(decide(&other), Err(Refusal::OtherTopic { .. })));
    }
}
