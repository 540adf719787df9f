//! What queries may ask of the tasks of this process: committed totals only.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use thiserror::Error;

use crate::clock;
use crate::domain::totals::Totals;

#[derive(Debug, Error)]
#[error("read local state: {0}")]
pub struct Error(pub String);

/// One partition's committed totals, readable from any thread.
pub trait Source: Send + Sync {
    /// The totals of a rule key, and the offset of the next base.
    fn get(&self, rule_key: &str) -> Result<(Option<Totals>, i64), Error>;

    /// Up to `limit` keys after `after` (exclusive) in key order, and the offset of the next base.
    fn page(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<(String, Totals)>, i64), Error>;
}

/// How a partition of the bases topic is served here.
#[derive(Clone)]
pub enum Served {
    Restoring,
    Ready(Arc<dyn Source>),
}

/// The partitions of the bases topic that this process owns. Cheap to clone.
#[derive(Clone, Default)]
pub struct Views {
    /// Each with the process clock when that was last said of it.
    partitions: Arc<RwLock<BTreeMap<i32, (Served, Duration)>>>,
}

impl Views {
    /// How `partition` is served here; `None` when another instance owns it.
    pub fn of(&self, partition: i32) -> Option<Served> {
        self.of_since(partition).map(|(served, _)| served)
    }

    /// The same, and since when (process clock).
    pub fn of_since(&self, partition: i32) -> Option<(Served, Duration)> {
        let partitions = self
            .partitions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.get(&partition).cloned()
    }

    /// All partitions that are served here.
    pub fn all(&self) -> BTreeMap<i32, Served> {
        let partitions = self
            .partitions
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let served = |(number, (served, _)): (&i32, &(Served, Duration))| (*number, served.clone());
        partitions.iter().map(served).collect()
    }

    pub fn serve(&self, partition: i32, served: Served) {
        let mut partitions = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.insert(partition, (served, clock::now()));
    }

    pub fn withdraw(&self, partition: i32) {
        let mut partitions = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.remove(&partition);
    }
}
