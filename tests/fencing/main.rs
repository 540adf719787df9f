//! Owners that have lost what they own and do not know it yet: stopped processes, stalled workers, doubled identities,
//! partitions that change hands all the time. On a real Kafka, proved from the raw input by code that shares nothing
//! with the service.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the clock; the service's decisions do not"
)]

mod flow;
mod identity;
mod membership;
mod storm;
#[path = "../pipeline/turn.rs"]
mod turn;
mod zombies;
