//! What brings the service to each of its failpoints.

use settle::failpoint::Point;

/// What has to happen for a point to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// Payments; as often as one likes.
    Load,
    /// A start; several times in one life.
    Start,
    /// A start; once in a life.
    Life,
    /// A start on an empty directory, so that there is something to read.
    Empty,
    /// The same, once for each partition.
    EmptyLife,
    /// A start on damaged files.
    Damage,
    /// A failed transaction; once in a life.
    Failure,
    /// SIGTERM; several times in one end.
    End,
    /// SIGTERM; once.
    LastStep,
    /// Another instance that joins.
    Join,
    /// The group gives the partitions away while this instance is frozen.
    Freeze,
    /// The end of another instance whose partitions come here.
    Takeover,
}

/// Complete by construction: a new point has no place here until it is given one.
pub fn by(point: Point) -> By {
    use Point as P;
    match point {
        P::GatherRecord
        | P::RuleAsk
        | P::RuleCallBefore
        | P::RuleCallAfter
        | P::RuleAnswer
        | P::RulePublish
        | P::StageBegin
        | P::StageIngest
        | P::StageSettle
        | P::BeginBefore
        | P::BeginAfter
        | P::Send
        | P::FlushBefore
        | P::FlushAfter
        | P::OffsetsBefore
        | P::OffsetsAfter
        | P::CommitBefore
        | P::CommitAfter
        | P::ApplyIngest
        | P::ApplySettle
        | P::ApplyAfter
        | P::CheckpointBegin
        | P::CheckpointWrite
        | P::CheckpointDone
        | P::SinkBegin
        | P::SinkMoved
        | P::SinkRows
        | P::SinkCommitBefore
        | P::SinkCommitAfter
        | P::SinkAnswered => By::Load,
        P::RestoreOpened
        | P::RestoreBounds
        | P::RestoreDecided
        | P::RestoreRunning
        | P::RestoreDone
        | P::FileOpen
        | P::FileOpened
        | P::SinkStart => By::Start,
        P::ProducerStandby
        | P::ProducerInitBefore
        | P::ProducerInitAfter
        | P::LookOut
        | P::RestoreOffsets
        | P::AssignedBefore
        | P::AssignedAfter => By::Life,
        P::RestoreRead | P::RestoreReplay => By::Empty,
        P::RestoreWindow => By::EmptyLife,
        P::AsideBefore | P::AsideAfter => By::Damage,
        P::RecoverBefore | P::RecoverAfter => By::Failure,
        P::CloseBefore | P::CloseSaved => By::End,
        P::ShutdownBegin | P::ShutdownEnd => By::LastStep,
        P::RevokedBefore | P::RevokedAfter => By::Join,
        P::Lost => By::Freeze,
        P::FormerBefore | P::FormerAfter => By::Takeover,
    }
}

/// All points that are reached in one of these ways.
pub fn reached(ways: &[By]) -> Vec<Point> {
    let points: Vec<Point> = Point::ALL
        .iter()
        .map(|(point, _)| *point)
        .filter(|point| ways.contains(&by(*point)))
        .collect();
    assert!(!points.is_empty(), "{ways:?}");
    points
}
