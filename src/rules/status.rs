//! What metrics, readiness and the log see of the rule service: outcomes by kind, what is under
//! way, and the last failure in words.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use super::client::Trouble;
use crate::domain::rule::RuleKey;
use crate::lock::lock;

/// At most one log line per kind of failure in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// Why a question got no definite answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// 429.
    TooManyRequests,
    /// 5xx.
    ServerError,
    TimedOut,
    /// Refused, unreachable, name not found, TLS not agreed.
    NotConnected,
    /// The connection ended before the answer did.
    BrokenOff,
    /// 3xx, never followed.
    Redirected,
    /// 4xx other than 404 and 429.
    ClientError,
    /// A status that `docs/contract.md` does not list.
    UnexpectedStatus,
    /// 200 with a body beyond the limit.
    TooLarge,
    /// 200 with a body that is no rule.
    NotARule,
    /// 200 with a rule of another key.
    WrongKey,
}

/// How one question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Rule,
    NoRule,
    Failed(Failure),
}

impl Failure {
    pub const ALL: [Self; 11] = [
        Self::TooManyRequests,
        Self::ServerError,
        Self::TimedOut,
        Self::NotConnected,
        Self::BrokenOff,
        Self::Redirected,
        Self::ClientError,
        Self::UnexpectedStatus,
        Self::TooLarge,
        Self::NotARule,
        Self::WrongKey,
    ];

    /// Does not heal by waiting: the service or `rules.url` is wrong, and a person must act.
    pub fn needs_attention(self) -> bool {
        match self {
            Self::TooManyRequests
            | Self::ServerError
            | Self::TimedOut
            | Self::NotConnected
            | Self::BrokenOff => false,
            Self::Redirected
            | Self::ClientError
            | Self::UnexpectedStatus
            | Self::TooLarge
            | Self::NotARule
            | Self::WrongKey => true,
        }
    }

    /// Name in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::TooManyRequests => "too_many_requests",
            Self::ServerError => "server_error",
            Self::TimedOut => "timed_out",
            Self::NotConnected => "not_connected",
            Self::BrokenOff => "broken_off",
            Self::Redirected => "redirected",
            Self::ClientError => "client_error",
            Self::UnexpectedStatus => "unexpected_status",
            Self::TooLarge => "too_large",
            Self::NotARule => "not_a_rule",
            Self::WrongKey => "wrong_key",
        }
    }
}

impl Outcome {
    /// Every outcome, for metrics that are to exist from the start.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Rule, Self::NoRule]
            .into_iter()
            .chain(Failure::ALL.map(Self::Failed))
    }

    /// Name in metrics and logs.
    pub fn label(self) -> &'static str {
        match self {
            Self::Rule => "rule",
            Self::NoRule => "no_rule",
            Self::Failed(failure) => failure.label(),
        }
    }
}

/// One per process; every field may be read at any time.
#[derive(Debug)]
pub struct Status {
    rules: AtomicU64,
    no_rules: AtomicU64,
    failures: [Tally; Failure::ALL.len()],
    consecutive_failures: AtomicU64,
    on_wire: AtomicUsize,
    waiting: AtomicUsize,
    outage: AtomicBool,
    last_failure: Mutex<Option<String>>,
    on_call: fn(Outcome, Duration),
}

/// One kind of failure: how often, and what of it was not logged yet.
#[derive(Debug, Default)]
struct Tally {
    count: AtomicU64,
    log: Mutex<LogLimit>,
}

/// Lets one line through per interval and counts the ones in between.
#[derive(Debug, Default)]
struct LogLimit {
    last: Option<Instant>,
    suppressed: u64,
}

impl LogLimit {
    /// The number of lines held back since the last one, if a line is due.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + LOG_INTERVAL) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Status {
    pub(super) fn new(on_call: fn(Outcome, Duration)) -> Self {
        Self {
            rules: AtomicU64::new(0),
            no_rules: AtomicU64::new(0),
            failures: Failure::ALL.map(|_| Tally::default()),
            consecutive_failures: AtomicU64::new(0),
            on_wire: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            outage: AtomicBool::new(false),
            last_failure: Mutex::new(None),
            on_call,
        }
    }

    /// Questions that ended so, since the start of the process.
    pub fn calls(&self, outcome: Outcome) -> u64 {
        self.count(outcome).load(Relaxed)
    }

    /// Failures, of whatever key, since the last definite answer.
    pub fn consecutive_failures(&self) -> u64 {
        self.consecutive_failures.load(Relaxed)
    }

    /// Questions on the wire.
    pub fn on_wire(&self) -> usize {
        self.on_wire.load(Relaxed)
    }

    /// Keys without an answer, on the wire or not.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// So many keys failed in a row that only probes are sent.
    pub fn is_outage(&self) -> bool {
        self.outage.load(Relaxed)
    }

    /// The last failure in words, also when it is over.
    pub fn last_failure(&self) -> Option<String> {
        lock(&self.last_failure).clone()
    }

    pub(super) fn set_waiting(&self, keys: usize) {
        self.waiting.store(keys, Relaxed);
    }

    /// Counts one question on the wire until the guard goes.
    pub(super) fn enter_wire(&self) -> OnWire<'_> {
        self.on_wire.fetch_add(1, Relaxed);
        OnWire(&self.on_wire)
    }

    pub(super) fn answered(&self, definite: Outcome, took: Duration) {
        self.count(definite).fetch_add(1, Relaxed);
        self.consecutive_failures.store(0, Relaxed);
        (self.on_call)(definite, took);
    }

    fn count(&self, outcome: Outcome) -> &AtomicU64 {
        match outcome {
            Outcome::Rule => &self.rules,
            Outcome::NoRule => &self.no_rules,
            Outcome::Failed(failure) => &self.failures[failure as usize].count,
        }
    }

    pub(super) fn failed(&self, key: &RuleKey, trouble: &Trouble, took: Duration) {
        let failure = trouble.failure;
        let tally = &self.failures[failure as usize];
        tally.count.fetch_add(1, Relaxed);
        self.consecutive_failures.fetch_add(1, Relaxed);
        *lock(&self.last_failure) = Some(format!("{}: {}", failure.label(), trouble.detail));
        (self.on_call)(Outcome::Failed(failure), took);
        let due = lock(&tally.log).admit(Instant::now());
        if let Some(suppressed) = due {
            log(key, trouble, suppressed);
        }
    }

    pub(super) fn outage_began(&self) {
        self.outage.store(true, Relaxed);
        tracing::warn!(
            "rule service: outage, only probes are sent; payments of unknown rules wait"
        );
    }

    pub(super) fn outage_ended(&self) {
        self.outage.store(false, Relaxed);
        tracing::info!("rule service: answers again, waiting rules are asked");
    }
}

fn log(key: &RuleKey, trouble: &Trouble, suppressed: u64) {
    let (kind, detail, key) = (trouble.failure.label(), &trouble.detail, key.as_str());
    if trouble.failure.needs_attention() {
        tracing::error!(
            kind, error = %detail, key, suppressed,
            "rule service: wrong answer, payments of this key wait until someone corrects it"
        );
    } else {
        tracing::warn!(
            kind, error = %detail, key, suppressed,
            "rule service: no answer, asking again"
        );
    }
}

/// A question that is on the wire.
pub(super) struct OnWire<'a>(&'a AtomicUsize);

impl Drop for OnWire<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
