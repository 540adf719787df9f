//! The kinds of requests that a rule can name.

/// A request of Kafka's protocol, with its API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i16)]
pub enum Api {
    Produce = 0,
    Fetch = 1,
    Metadata = 3,
    OffsetFetch = 9,
    FindCoordinator = 10,
    JoinGroup = 11,
    Heartbeat = 12,
    SyncGroup = 14,
    InitProducerId = 22,
    AddPartitionsToTxn = 24,
    AddOffsetsToTxn = 25,
    EndTxn = 26,
    TxnOffsetCommit = 28,
}

impl Api {
    /// Whether a request bears this API's key.
    pub(super) fn is(self, key: i16) -> bool {
        self as i16 == key
    }
}
