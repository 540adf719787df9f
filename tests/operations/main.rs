//! What an operator sees: metrics, dashboards, alerts and runbooks name the same things, and each of them shows
//! something in a real run.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(
    clippy::disallowed_methods,
    reason = "tests look at the clock; the service's decisions do not"
)]

mod dashboards;
mod files;
mod generated;
mod layout;
mod lint;
mod live;
mod logs;
mod names;
mod page;
mod prometheus;
mod rules;
mod runbooks;
mod unit;
mod walkthrough;
