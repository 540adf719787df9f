//! The whole service on a real Kafka and a real PostgreSQL: driven and faulted from outside, and proved from the raw
//! input by code that shares nothing with it.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the clock; the service's decisions do not"
)]

// For what mends the client library (build.rs), of which this test makes clients too.
use settle as _;

#[cfg(feature = "failpoints")]
mod crash;
mod database;
mod http;
mod kills;
mod letters;
mod life;
mod line;
mod metrics;
mod money;
mod moving;
mod outcomes;
mod payments;
mod refusals;
mod restart;
mod rules;
mod standstill;
mod state;
mod syscalls;
mod turn;
