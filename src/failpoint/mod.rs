//! The steps at which a test can have this process die, wait or fail: the one list of them.
//!
//! In a build with the feature `failpoints` a point is armed from outside (`armed.rs`). In every
//! other build, and so in all that ships, reaching one compiles to nothing, and not even the names
//! are there.

#[cfg(feature = "failpoints")]
pub mod armed;

macro_rules! points {
    ($($point:ident = $name:literal,)*) => {
        /// One step; each is reached in one place of the code.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Point {
            $($point,)*
        }

        #[cfg(feature = "failpoints")]
        impl Point {
            /// Every point with the name it is armed by.
            pub const ALL: &[(Self, &str)] = &[$((Self::$point, $name),)*];
        }
    };
}

points! {
    GatherRecord = "gather.record",
    RuleAsk = "rules.ask",
    RuleCallBefore = "rules.call.before",
    RuleCallAfter = "rules.call.after",
    RuleAnswer = "rules.answer",
    RulePublish = "rules.publish",
    StageBegin = "stage.begin",
    StageIngest = "stage.ingest",
    StageSettle = "stage.settle",
    BeginBefore = "begin.before",
    BeginAfter = "begin.after",
    Send = "send.record",
    FlushBefore = "flush.before",
    FlushAfter = "flush.after",
    OffsetsBefore = "offsets.before",
    OffsetsAfter = "offsets.after",
    CommitBefore = "commit.before",
    CommitAfter = "commit.after",
    ApplyIngest = "apply.ingest",
    ApplySettle = "apply.settle",
    ApplyAfter = "apply.after",
    CheckpointBegin = "checkpoint.begin",
    CheckpointWrite = "checkpoint.write",
    CheckpointDone = "checkpoint.done",
    ProducerStandby = "producer.standby",
    ProducerInitBefore = "producer.init.before",
    ProducerInitAfter = "producer.init.after",
    LookOut = "lookout.search",
    RestoreOffsets = "restore.offsets",
    RestoreOpened = "restore.opened",
    RestoreBounds = "restore.bounds",
    RestoreRead = "restore.read",
    RestoreDecided = "restore.decided",
    RestoreWindow = "restore.window",
    RestoreReplay = "restore.replay",
    RestoreRunning = "restore.running",
    RestoreDone = "restore.done",
    AssignedBefore = "assigned.before",
    AssignedAfter = "assigned.after",
    RevokedBefore = "revoked.before",
    RevokedAfter = "revoked.after",
    Lost = "revoked.lost",
    CloseBefore = "close.before",
    CloseSaved = "close.saved",
    FormerBefore = "former.before",
    FormerAfter = "former.after",
    RecoverBefore = "recover.before",
    RecoverAfter = "recover.after",
    FileOpen = "file.open",
    FileOpened = "file.opened",
    AsideBefore = "aside.before",
    AsideAfter = "aside.after",
    SinkStart = "sink.start",
    SinkBegin = "sink.begin",
    SinkMoved = "sink.moved",
    SinkRows = "sink.rows",
    SinkCommitBefore = "sink.commit.before",
    SinkCommitAfter = "sink.commit.after",
    SinkAnswered = "sink.answered",
    ShutdownBegin = "shutdown.begin",
    ShutdownEnd = "shutdown.end",
}

/// An error type of which a failpoint can make a value: the kind that weather brings there.
pub trait Injected {
    fn injected() -> Self;
}

/// Takes up what the environment arms; called once, before anything is reached.
#[inline]
pub fn listen() {
    #[cfg(feature = "failpoints")]
    armed::listen();
}

/// Reaches a step that cannot fail.
#[inline]
pub fn hit(point: Point) {
    #[cfg(feature = "failpoints")]
    armed::reach(point);
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
}

/// Reaches a step that can fail.
#[inline]
pub fn fail<E: Injected>(point: Point) -> Result<(), E> {
    #[cfg(feature = "failpoints")]
    if armed::reach(point) {
        return Err(E::injected());
    }
    #[cfg(not(feature = "failpoints"))]
    let _ = point;
    Ok(())
}
