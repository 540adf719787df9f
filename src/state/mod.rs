//! Local state: what a task has committed so far, on disk and in memory. The only place that
//! names redb.
//!
//! Files lag the log and never lead it: they are written after the Kafka commit. What lies between
//! the file and the log is in memory while the process lives and is read again from the log after
//! a crash. Files are never repaired in place: a damaged one is set aside and rebuilt.

pub mod directory;
pub mod file;
pub mod ids;
pub mod look;
mod pending;
pub mod run;
pub mod seen;
pub mod totals;
pub mod view;

use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use crate::failpoint::Injected;

#[derive(Debug, Error)]
pub enum Error {
    /// The file does not hold what was written: set it aside and rebuild from the log.
    #[error("{path}: damaged: {reason}")]
    Damaged { path: PathBuf, reason: String },
    /// The directory cannot be used: a person must act.
    #[error("{path}: {attempt}: {reason} (state.directory)")]
    Unusable {
        path: PathBuf,
        attempt: &'static str,
        reason: String,
    },
    /// A former owner in this process has not closed the file yet: try again.
    #[error("{path}: still open in this process")]
    Busy { path: PathBuf },
}

impl Injected for Error {
    fn injected() -> Self {
        Self::unusable("state file", "use the state file", "injected")
    }
}

impl Error {
    fn unusable(
        path: impl Into<PathBuf>,
        attempt: &'static str,
        reason: impl fmt::Display,
    ) -> Self {
        Self::Unusable {
            path: path.into(),
            attempt,
            reason: reason.to_string(),
        }
    }
}
