//! Request coalescing: one call per key and process, from the first question to the definite
//! answer, whoever waits for it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::breaker::{Attempt, Change, CircuitBreaker, Miss};
use super::client::{Client, Trouble};
use super::retry::Backoff;
use super::status::{Outcome, Status};
use super::subscription::{Inbox, Subscription};
use super::{Answer, Error, Options};
use crate::domain::rule::RuleKey;
use crate::failpoint::{self, Point};
use crate::lock::lock;

/// The process's only way to the rule service. A clone is another handle of the same resolver.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

impl Resolver {
    /// Makes the client; nothing is asked yet. All questions run on `runtime`.
    pub fn new(options: &Options, runtime: Handle) -> Result<Self, Error> {
        if options.max_concurrent == 0 {
            return Err(Error::NoConcurrency);
        }
        let shared = Shared {
            client: Client::new(options)?,
            breaker: CircuitBreaker::new(options.max_concurrent),
            status: Arc::new(Status::new(options.on_call)),
            runtime,
            calls: Mutex::new(Calls::default()),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// A subscription of its own for one worker.
    pub fn subscribe(&self) -> Subscription {
        Subscription::new(Arc::clone(&self.shared))
    }

    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.shared.status)
    }
}

/// What all subscriptions share.
pub(super) struct Shared {
    client: Client,
    breaker: CircuitBreaker,
    status: Arc<Status>,
    runtime: Handle,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    by_key: BTreeMap<RuleKey, Call>,
    /// Tells a call from a cancelled one of the same key that has not ended yet.
    last_number: u64,
}

struct Call {
    number: u64,
    task: AbortHandle,
    waiting: Vec<Arc<Inbox>>,
}

impl Shared {
    /// Lets `inbox` wait for the key, on the call under way or on a new one.
    pub(super) fn join(self: &Arc<Self>, key: &RuleKey, inbox: &Arc<Inbox>) {
        let mut calls = self.calls();
        let number = calls.last_number + 1;
        match calls.by_key.entry(key.clone()) {
            Entry::Occupied(call) => call.into_mut().waiting.push(Arc::clone(inbox)),
            Entry::Vacant(place) => {
                let asking = Arc::clone(self).ask_until_answered(key.clone(), number);
                place.insert(Call {
                    number,
                    task: self.runtime.spawn(asking).abort_handle(),
                    waiting: vec![Arc::clone(inbox)],
                });
                calls.last_number = number;
            }
        }
        self.status.set_waiting(calls.by_key.len());
    }

    /// Takes `inbox` off the call of the key; a call nobody waits for is aborted.
    pub(super) fn leave(&self, key: &RuleKey, inbox: &Arc<Inbox>) {
        let mut calls = self.calls();
        let Some(call) = calls.by_key.get_mut(key) else {
            return;
        };
        call.waiting.retain(|other| !Arc::ptr_eq(other, inbox));
        if call.waiting.is_empty() {
            call.task.abort();
            calls.by_key.remove(key);
        }
        self.status.set_waiting(calls.by_key.len());
    }

    async fn ask_until_answered(self: Arc<Self>, key: RuleKey, number: u64) {
        let mut backoff = Backoff::default();
        loop {
            let attempt = if backoff.is_fresh() {
                Attempt::First
            } else {
                Attempt::Repeated
            };
            let permit = self.breaker.permit(attempt).await;
            let reply = self.ask(&key).await;
            match reply {
                Ok(answer) => {
                    if self.breaker.answered() == Change::Closed {
                        self.status.outage_ended();
                    }
                    return self.deliver(&key, number, &answer);
                }
                Err(trouble) => {
                    let closings = self.breaker.closings();
                    self.missed(&key, permit.is_probe());
                    drop(permit);
                    wait(&mut backoff, trouble.retry_after, closings).await;
                }
            }
        }
    }

    /// One question, counted.
    async fn ask(&self, key: &RuleKey) -> Result<Answer, Trouble> {
        let on_wire = self.status.enter_wire();
        let began = Instant::now();
        failpoint::hit(Point::RuleCallBefore);
        let reply = self.client.ask(key).await;
        failpoint::hit(Point::RuleCallAfter);
        let took = began.elapsed();
        drop(on_wire);
        match &reply {
            Ok(Answer::Rule(_)) => self.status.answered(Outcome::Rule, took),
            Ok(Answer::NoRule) => self.status.answered(Outcome::NoRule, took),
            Err(trouble) => self.status.failed(key, trouble, took),
        }
        reply
    }

    fn missed(&self, key: &RuleKey, probe: bool) {
        let change = self.breaker.missed(&Miss {
            key,
            probe,
            dice: fastrand::f64(),
        });
        if change == Change::Opened {
            self.status.outage_began();
        }
    }

    /// Hands the answer to everybody who waits for it.
    fn deliver(&self, key: &RuleKey, number: u64, answer: &Answer) {
        let mut calls = self.calls();
        let mine = calls
            .by_key
            .get(key)
            .is_some_and(|call| call.number == number);
        if !mine {
            return;
        }
        let call = calls.by_key.remove(key);
        self.status.set_waiting(calls.by_key.len());
        for inbox in call.into_iter().flat_map(|call| call.waiting) {
            inbox.put(key.clone(), answer.clone());
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        lock(&self.calls)
    }
}

/// Waits out the back-off, or less when an outage ends meanwhile; never less than the service
/// asked for.
async fn wait(
    backoff: &mut Backoff,
    retry_after: Option<Duration>,
    mut closings: watch::Receiver<u64>,
) {
    let now = Instant::now();
    let chosen = backoff.next_wait(fastrand::f64());
    let asked_for = retry_after.unwrap_or_default();
    if timeout_at(now + chosen.max(asked_for), closings.changed())
        .await
        .is_ok()
    {
        backoff.reset();
        sleep_until(now + asked_for).await;
    }
}
