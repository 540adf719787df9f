//! The service on a cluster that lets nobody in without TLS and credentials, and nobody do anything without a right;
//! PostgreSQL and HTTP over TLS; and no secret anywhere.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod database;
mod login;
mod rights;
mod secrets;
mod site;
