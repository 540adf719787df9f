//! Rules: which requests are interfered with, and how; and the book of those that were.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;

use crate::cluster::wait;
use crate::proxy::api::Api;
use crate::proxy::frame::Request;

/// What the client sees of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It stays open and silent.
    Open,
    /// It is closed in order (FIN).
    Closed,
    /// It is reset (RST).
    Reset,
}

/// What befalls a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is kept until it is released, and everything behind it on its connection with it; then it reaches the broker.
    Hold(Side),
    /// It reaches the broker so much later.
    Delay(Duration),
    /// It reaches the broker twice, the client sees one answer.
    Duplicate,
    /// It never reaches the broker.
    Drop(Side),
    /// It reaches the broker, and its answer never the client.
    DropAnswer(Side),
    /// For [`Api::Metadata`]: the answer names no broker, as that of a broker that was fenced while it stood still.
    NameNoBroker,
    /// For [`Api::Fetch`]: the answer comes after a moment and has nothing of any partition, as if nothing were there.
    FetchNothing,
}

/// Which requests meet a fate.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Any request when `None`.
    api: Option<Api>,
    /// Contained in the client id.
    client: String,
    skip: usize,
    times: usize,
    every: usize,
    fate: Fate,
    release_before: Vec<(Api, usize)>,
}

impl Rule {
    /// The next request of this kind from a client whose id contains `client`, once.
    pub fn new(api: Api, client: &str, fate: Fate) -> Self {
        Self {
            api: Some(api),
            client: client.to_owned(),
            skip: 0,
            times: 1,
            every: 1,
            fate,
            release_before: Vec::new(),
        }
    }

    /// Every request from a client whose id contains `client`.
    pub fn all(client: &str, fate: Fate) -> Self {
        Self {
            api: None,
            ..Self::new(Api::Produce, client, fate).times(usize::MAX)
        }
    }

    /// So many matching requests pass first.
    #[must_use]
    pub fn skip(self, skip: usize) -> Self {
        Self { skip, ..self }
    }

    /// So many requests meet the fate.
    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { times, ..self }
    }

    /// Only each so-many-th matching request meets the fate.
    #[must_use]
    pub fn every(self, every: usize) -> Self {
        Self { every, ..self }
    }

    /// The first request that is held is released by the first of these points, the second by the second, and so on
    /// around: right before the client's next request of that kind, so many others skipped, reaches the broker.
    #[must_use]
    pub fn release_before(self, points: &[(Api, usize)]) -> Self {
        Self {
            release_before: points.to_vec(),
            ..self
        }
    }

    fn matches(&self, request: &Request) -> bool {
        self.api.is_none_or(|api| api.is(request.key)) && request.client.contains(&self.client)
    }
}

/// How far a request has come that a rule has caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Held,
    /// On its way to the broker, or dropped before it.
    Released,
    /// The broker has answered, with this error code where the proxy can read it.
    Answered(Option<i16>),
}

/// A request that a rule has caught.
#[derive(Debug)]
pub(super) struct Caught {
    client: String,
    stage: watch::Sender<Stage>,
    /// Its transaction was ended while it was held.
    is_late: AtomicBool,
}

impl Caught {
    fn new(client: &str, stage: Stage) -> Arc<Self> {
        Arc::new(Self {
            client: client.to_owned(),
            stage: watch::Sender::new(stage),
            is_late: AtomicBool::new(false),
        })
    }

    pub(super) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    pub(super) fn release(&self) {
        self.stage.send_if_modified(|stage| {
            let is_held = *stage == Stage::Held;
            if is_held {
                *stage = Stage::Released;
            }
            is_held
        });
    }

    pub(super) fn answered(&self, error: Option<i16>) {
        self.stage.send_replace(Stage::Answered(error));
    }

    pub(super) async fn wait(&self, until: impl FnMut(&Stage) -> bool) {
        // The sender is this very object.
        let _ = self.stage.subscribe().wait_for(until).await;
    }
}

/// A rule in force, and what it has caught. Dropping it takes the rule back and releases what it holds.
#[derive(Debug)]
pub struct Armed {
    id: u64,
    book: Arc<Book>,
}

impl Armed {
    /// How far each request that was caught has come, in the order in which they came.
    pub fn stages(&self) -> Vec<Stage> {
        let inner = self.book.lock();
        let caught = inner.rules[&self.id].caught.iter();
        caught.map(|caught| caught.stage()).collect()
    }

    /// The error codes of the answers to requests that arrived when their transaction had been ended.
    pub fn late_answers(&self) -> Vec<Option<i16>> {
        let inner = self.book.lock();
        let caught = inner.rules[&self.id].caught.iter();
        let late = caught.filter(|caught| caught.is_late.load(Ordering::SeqCst));
        let codes = late.filter_map(|caught| match caught.stage() {
            Stage::Answered(code) => Some(code),
            _ => None,
        });
        codes.collect()
    }

    /// Waits until so many requests were caught.
    pub fn wait_caught(&self, count: usize, limit: Duration) -> Result<()> {
        wait::until(&self.what("to be caught"), limit, || {
            Ok((self.stages().len() >= count).then_some(()))
        })
    }

    /// Waits until the broker has answered everything that was caught, at least one request; the error codes.
    pub fn wait_answered(&self, limit: Duration) -> Result<Vec<Option<i16>>> {
        let answers = || {
            let codes = self.stages().into_iter().map(|stage| match stage {
                Stage::Answered(code) => Some(code),
                _ => None,
            });
            codes.collect::<Option<Vec<_>>>()
        };
        wait::until(&self.what("to be answered"), limit, || {
            Ok(answers().filter(|codes| !codes.is_empty()))
        })
        .with_context(|| format!("{:?}", self.stages()))
    }

    /// Releases what is held, and catches nothing more.
    pub fn release(&self) {
        let mut inner = self.book.lock();
        if let Some(entry) = inner.rules.get_mut(&self.id) {
            entry.rule.times = 0;
            entry.caught.iter().for_each(|caught| caught.release());
        }
    }

    /// Releases what is held right before the next request of this kind from the same client reaches the broker, `skip`
    /// others left alone.
    pub fn release_before(&self, api: Api, skip: usize) {
        let mut inner = self.book.lock();
        let held = inner.rules[&self.id].caught.clone();
        let releases = held.into_iter().map(|caught| Release { api, skip, caught });
        inner.releases.extend(releases);
    }

    fn what(&self, done: &str) -> String {
        let inner = self.book.lock();
        let rule = &inner.rules[&self.id].rule;
        format!("a request of {:?} from {} {done}", rule.api, rule.client)
    }
}

impl Drop for Armed {
    fn drop(&mut self) {
        self.release();
        self.book.lock().rules.remove(&self.id);
    }
}

#[derive(Debug)]
struct Entry {
    rule: Rule,
    seen: usize,
    caught: Vec<Arc<Caught>>,
}

impl Entry {
    /// Counts a matching request and says whether it meets the fate.
    fn catches(&mut self) -> bool {
        self.seen += 1;
        let behind = self.seen.checked_sub(self.rule.skip + 1);
        self.caught.len() < self.rule.times
            && behind.is_some_and(|behind| behind.is_multiple_of(self.rule.every))
    }
}

/// A held request and the request it is to arrive before.
#[derive(Debug)]
struct Release {
    api: Api,
    skip: usize,
    caught: Arc<Caught>,
}

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    rules: BTreeMap<u64, Entry>,
    releases: Vec<Release>,
}

/// All rules in force; connections ask it about each request.
#[derive(Debug, Default)]
pub(super) struct Book(Mutex<Inner>);

impl Book {
    pub(super) fn arm(self: &Arc<Self>, rule: Rule) -> Armed {
        let mut inner = self.lock();
        inner.next += 1;
        let id = inner.next;
        let entry = Entry {
            rule,
            seen: 0,
            caught: Vec::new(),
        };
        inner.rules.insert(id, entry);
        Armed {
            id,
            book: Arc::clone(self),
        }
    }

    /// Held requests that are to arrive right before this one.
    pub(super) fn due_before(&self, request: &Request) -> Vec<Arc<Caught>> {
        let mut inner = self.lock();
        let mut due = Vec::new();
        inner.releases.retain_mut(|release| {
            let is_it = release.api.is(request.key) && request.client == release.caught.client;
            if is_it && release.skip == 0 {
                due.push(Arc::clone(&release.caught));
                return false;
            }
            release.skip -= usize::from(is_it);
            true
        });
        due
    }

    /// What befalls this request.
    pub(super) fn fate_of(&self, request: &Request) -> Option<(Fate, Arc<Caught>)> {
        let mut inner = self.lock();
        let inner = &mut *inner;
        let mut met = None;
        for entry in inner.rules.values_mut() {
            if !entry.rule.matches(request) || !entry.catches() || met.is_some() {
                continue;
            }
            let fate = entry.rule.fate;
            let stage = match fate {
                Fate::Hold(_) => Stage::Held,
                _ => Stage::Released,
            };
            let caught = Caught::new(&request.client, stage);
            let points = &entry.rule.release_before;
            if let Some((api, skip)) = points.get(entry.caught.len() % points.len().max(1)) {
                inner.releases.push(Release {
                    api: *api,
                    skip: *skip,
                    caught: Arc::clone(&caught),
                });
            }
            entry.caught.push(Arc::clone(&caught));
            met = Some((fate, caught));
        }
        met
    }

    /// A transaction of this client was ended: what is held of it will arrive late.
    pub(super) fn ended(&self, client: &str) {
        let inner = self.lock();
        let caught = inner.rules.values().flat_map(|entry| &entry.caught);
        for caught in caught.filter(|caught| caught.client == client) {
            if caught.stage() == Stage::Held {
                caught.is_late.store(true, Ordering::SeqCst);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
