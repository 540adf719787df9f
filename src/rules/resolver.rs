//! Flights: one per key and process, from the first question to the definite answer.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::client::{Client, Trouble};
use super::desk::{Desk, Inbox};
use super::gate::{Change, Gate, Lane, Miss};
use super::retry::Backoff;
use super::status::{Outcome, Status};
use super::{Answer, Error, Options};
use crate::domain::rule::RuleKey;
use crate::failpoint::{self, Point};

/// The process's only way to the rule service. A clone is another handle of the same resolver.
#[derive(Clone)]
pub struct Resolver {
    office: Arc<Office>,
}

impl Resolver {
    /// Makes the client; nothing is asked yet. All questions run on `runtime`.
    pub fn new(options: &Options, runtime: Handle) -> Result<Self, Error> {
        if options.max_concurrent == 0 {
            return Err(Error::NoConcurrency);
        }
        let office = Office {
            client: Client::new(options)?,
            gate: Gate::new(options.max_concurrent),
            status: Arc::new(Status::new(options.on_call)),
            runtime,
            flights: Mutex::new(Flights::default()),
        };
        Ok(Self {
            office: Arc::new(office),
        })
    }

    /// A desk of its own for one worker.
    pub fn subscribe(&self) -> Desk {
        Desk::new(Arc::clone(&self.office))
    }

    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.office.status)
    }
}

/// What all desks share.
pub(super) struct Office {
    client: Client,
    gate: Gate,
    status: Arc<Status>,
    runtime: Handle,
    flights: Mutex<Flights>,
}

#[derive(Default)]
struct Flights {
    by_key: BTreeMap<RuleKey, Flight>,
    /// Tells a flight from a cancelled one of the same key that is still on its way down.
    last_number: u64,
}

struct Flight {
    number: u64,
    task: AbortHandle,
    waiting: Vec<Arc<Inbox>>,
}

impl Office {
    /// Lets `inbox` wait for the key, on the flight under way or on a new one.
    pub(super) fn join(self: &Arc<Self>, key: &RuleKey, inbox: &Arc<Inbox>) {
        let mut flights = self.flights();
        let number = flights.last_number + 1;
        match flights.by_key.entry(key.clone()) {
            Entry::Occupied(flight) => flight.into_mut().waiting.push(Arc::clone(inbox)),
            Entry::Vacant(place) => {
                let flight = Arc::clone(self).fly(key.clone(), number);
                place.insert(Flight {
                    number,
                    task: self.runtime.spawn(flight).abort_handle(),
                    waiting: vec![Arc::clone(inbox)],
                });
                flights.last_number = number;
            }
        }
        self.status.set_waiting(flights.by_key.len());
    }

    /// Takes `inbox` off the flight of the key; a flight nobody waits for ends in the air.
    pub(super) fn leave(&self, key: &RuleKey, inbox: &Arc<Inbox>) {
        let mut flights = self.flights();
        let Some(flight) = flights.by_key.get_mut(key) else {
            return;
        };
        flight.waiting.retain(|other| !Arc::ptr_eq(other, inbox));
        if flight.waiting.is_empty() {
            flight.task.abort();
            flights.by_key.remove(key);
        }
        self.status.set_waiting(flights.by_key.len());
    }

    /// Asks until there is a definite answer.
    async fn fly(self: Arc<Self>, key: RuleKey, number: u64) {
        let mut backoff = Backoff::default();
        loop {
            let lane = if backoff.is_fresh() {
                Lane::Fresh
            } else {
                Lane::Failed
            };
            let pass = self.gate.enter(lane).await;
            let reply = self.ask(&key).await;
            match reply {
                Ok(answer) => {
                    if self.gate.answered() == Change::Opened {
                        self.status.outage_ended();
                    }
                    return self.land(&key, number, &answer);
                }
                Err(trouble) => {
                    let openings = self.gate.openings();
                    self.missed(&key, pass.is_probe());
                    drop(pass);
                    wait(&mut backoff, trouble.retry_after, openings).await;
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
        let change = self.gate.missed(&Miss {
            key,
            probe,
            dice: fastrand::f64(),
        });
        if change == Change::Closed {
            self.status.outage_began();
        }
    }

    /// Hands the answer to everybody who waits for it.
    fn land(&self, key: &RuleKey, number: u64, answer: &Answer) {
        let mut flights = self.flights();
        let mine = flights
            .by_key
            .get(key)
            .is_some_and(|flight| flight.number == number);
        if !mine {
            return;
        }
        let landed = flights.by_key.remove(key);
        self.status.set_waiting(flights.by_key.len());
        for inbox in landed.into_iter().flat_map(|flight| flight.waiting) {
            inbox.put(key.clone(), answer.clone());
        }
    }

    fn flights(&self) -> MutexGuard<'_, Flights> {
        self.flights
            .lock()
            .expect("nothing panics while it is held")
    }
}

/// Waits out the back-off, or less when an outage ends meanwhile; never less than the service
/// asked for.
async fn wait(
    backoff: &mut Backoff,
    retry_after: Option<Duration>,
    mut openings: watch::Receiver<u64>,
) {
    let now = Instant::now();
    let chosen = backoff.next_wait(fastrand::f64());
    let asked_for = retry_after.unwrap_or_default();
    if timeout_at(now + chosen.max(asked_for), openings.changed())
        .await
        .is_ok()
    {
        backoff.reset();
        sleep_until(now + asked_for).await;
    }
}
