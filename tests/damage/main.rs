//! Damage that no crash does: changelogs that were deleted, cut or made anew, offsets of the group that were lost or
//! set, records that retention took, partitions that were added, transactions of others that nobody ends, state files
//! and disks. On a real Kafka with the real binary. Each case ends repaired from the log, or refused with an exit code,
//! the numbers, and a command that is run here and resolves it (docs/damage.md).
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

// For what mends the client library (build.rs), of which this test makes clients too.
use settle as _;

mod changelogs;
mod groups;
mod hanging;
#[path = "../pipeline/line.rs"]
#[expect(dead_code, reason = "the tests of the pipeline need more of it")]
mod line;
mod operator;
mod partitions;
mod parts;
mod retention;
#[cfg(feature = "failpoints")]
mod stalls;
mod state;
#[path = "../pipeline/turn.rs"]
mod turn;
