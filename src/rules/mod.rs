//! Payout rules from the rule service: each missing key is asked once at a time, off the worker's
//! thread, until there is a definite answer.
//!
//! A worker asks through its [`Subscription`] and never waits: [`Service::request`] starts a call on
//! the runtime or joins the one already under way anywhere in this process, and
//! [`Service::take_answers`] hands over what has come. Only "this is the rule" and "there is no
//! rule" are answers. Whatever else happens (the service is down, slow, redirects, refuses, answers
//! nonsense or for another key) is counted, reported and asked again for ever, so default dates
//! never come from a failure. The way out of a call nobody needs any more is [`Service::cancel`].
//!
//! - `client`: one question over HTTP; the only place that names reqwest
//! - `retry`: how long a key waits before it is asked again
//! - `breaker`: the circuit breaker: how many questions may be on the wire, and how few during an
//!   outage
//! - `resolver`, `subscription`: calls, one per key, and who waits for them
//! - `status`: what metrics, readiness and the log see

mod breaker;
mod client;
mod resolver;
mod retry;
mod status;
mod subscription;

use std::time::Duration;

use crate::domain::rule::{Rule, RuleKey};

pub use resolver::Resolver;
pub use status::{Failure, Outcome, Status};
pub use subscription::Subscription;

/// What the rule service definitely said about one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Rule(Rule),
    /// The service knows the question and has no rule: default dates are right.
    NoRule,
}

/// The rule service as one worker sees it. Nothing here waits. Implemented by [`Subscription`]
/// and by the simulation.
pub trait Service: Send {
    /// Sees to it that an answer for the key will be taken here. Nothing new happens while the
    /// key is under way or its answer has not been taken yet.
    fn request(&mut self, key: &RuleKey);

    /// This worker needs the key no longer: no answer for it will be taken, and if nobody else
    /// waits for it, it is not asked again.
    fn cancel(&mut self, key: &RuleKey);

    /// Every answer that has come since the last time.
    fn take_answers(&mut self) -> Vec<(RuleKey, Answer)>;

    /// Keys whose answers have not been taken.
    fn in_flight(&self) -> usize;
}

/// Where the rule service is and how hard it may be asked.
#[derive(Debug, Clone)]
pub struct Options {
    /// Absolute `http` or `https` address that takes the `POST`s. Called as it stands: proxies of
    /// the environment are not used.
    pub url: String,
    /// One question from connect to the last byte of the answer.
    pub timeout: Duration,
    /// Questions on the wire at once, over all workers.
    pub max_concurrent: usize,
    /// Called once for each question that got an outcome, on a thread of the runtime.
    pub on_call: fn(Outcome, Duration),
}

/// Why no resolver could be made. A person must act: configuration or TLS set-up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("rules.url is not an http or https address: {reason}")]
    Url { reason: String },
    #[error("rules.max_concurrent must be at least 1")]
    NoConcurrency,
    #[error("create the HTTP client of the rule service")]
    Client(#[source] Box<dyn std::error::Error + Send + Sync>),
}
