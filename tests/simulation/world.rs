//! The broker in memory and everything that happens by itself: time, events, trouble.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use settle::broker::group::Members;
use settle::broker::{Partition, Topic};
use settle::clock;

use crate::broker::Broker;
use crate::group::{Client, Group};
use crate::log::{Log, Payload};
use crate::payments::Feed;
use crate::rules::Rules;
use crate::transactions::Transactional;

/// What the broker answers instead of doing what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// A higher epoch of the transactional id is known.
    Fenced,
    /// Markers of the previous transaction are under way.
    Concurrent,
    InvalidTransactionState,
    IllegalGeneration,
    UnknownMember,
    FencedInstance,
    NotCoordinator,
    /// No answer in time.
    TimedOut,
    /// Given up, since the connection broke.
    Broken,
}

/// How likely trouble is: per request, unless it says otherwise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    pub lost_request: f64,
    pub lost_answer: f64,
    /// The request stays on its way and arrives long after it was given up.
    pub held: f64,
    pub slow: f64,
    /// The coordinator of transactions moves.
    pub moved: f64,
    pub crash: f64,
    pub freeze: f64,
    /// Other processes run before the answer is looked at.
    pub interleave: f64,
    /// Per marker.
    pub late_marker: f64,
    /// Per round of the group.
    pub shuffle: f64,
    /// A record of the nemesis: per second.
    pub nemesis: f64,
    /// The client library goes on somewhere behind the next record: per poll.
    pub jump: f64,
    /// The client library delivers the last record once more: per poll.
    pub repeat: f64,
    /// The client library stays with a broker that no longer leads a partition: per record that is read.
    pub deaf: f64,
    /// The broker dies: per second.
    pub broker: f64,
    /// The broker dies: per transaction that is delivered.
    pub broker_in_transaction: f64,
    /// The broker dies right after a transaction was decided: per transaction.
    pub broker_after_end: f64,
    /// The broker dies: per request of a transaction that ends another one again.
    pub broker_in_repair: f64,
}

pub enum Event {
    Join(usize),
    Heartbeat(usize),
    Round,
    Sessions,
    Marker {
        id: String,
        place: Option<Partition>,
        /// Lost with the broker that was to write it, unless it is still that one.
        broker: u64,
    },
    BrokerDies,
    BrokerReturns,
    Timeouts,
    Monitor,
    Late(Box<dyn FnOnce(&mut World) + Send>),
    Feed,
    Publish,
    Start(usize),
    Nemesis,
}

/// A process as the world sees it.
#[derive(Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "any of them can be true with any other"
)]
pub struct Process {
    /// Its number, or that of the process whose identity it has by mistake.
    pub identity: usize,
    /// It has stopped because of another one with its identity: a person must act.
    pub retired: bool,
    pub running: bool,
    pub frozen: bool,
    /// No request of its arrives before this.
    pub cut_until: Duration,
    pub members: Arc<Mutex<Members>>,
    /// The same as it was told last.
    pub told: BTreeSet<String>,
    /// To be killed at its next request.
    pub doomed: bool,
    /// To be told to stop.
    pub leaving: bool,
    /// How often its connections broke.
    pub breaks: u64,
    /// Its connections are broken, and it will notice when it uses them.
    pub breaks_unnoticed: bool,
}

pub struct World {
    pub dice: Rng,
    pub now: Duration,
    pub logs: BTreeMap<Partition, Log>,
    pub transactional: BTreeMap<String, Transactional>,
    /// Transactions in the order in which they were committed.
    pub commits: BTreeMap<u64, u64>,
    pub last_transaction: u64,
    pub coordinator_gone_until: Duration,
    pub broker: Broker,
    /// Transactional ids with a transaction that ends another one again, by process.
    pub repairs: BTreeMap<String, usize>,
    pub group: Group,
    pub clients: Vec<Client>,
    pub processes: Vec<Process>,
    /// The process that has the identity of the first one.
    pub twin: Option<usize>,
    /// Processes whose time to start has come.
    pub starting: BTreeSet<usize>,
    pub faults: Faults,
    pub healed: bool,
    /// How often it was asked for anything.
    pub calls: u64,
    pub rules: Rules,
    pub feed: Feed,
    /// Requests of each kind that met trouble, for the summary.
    pub troubles: BTreeMap<&'static str, u64>,
    events: BTreeMap<(Duration, u64), Event>,
    last_event: u64,
    history: Option<String>,
}

impl World {
    pub fn new(seed: u64, sizes: &BTreeMap<Topic, i32>, keeps_history: bool) -> Self {
        let partitions = |topic: Topic| {
            let count = sizes[&topic];
            (0..count).map(move |number| Partition::new(topic, number))
        };
        let logs = Topic::ALL
            .into_iter()
            .flat_map(partitions)
            .map(|partition| (partition, Log::default()));
        let consumed = [Topic::Source, Topic::Bases].into_iter();
        let mut world = Self {
            dice: Rng::with_seed(seed),
            now: Duration::from_secs(1),
            logs: logs.collect(),
            transactional: BTreeMap::new(),
            commits: BTreeMap::new(),
            last_transaction: 0,
            coordinator_gone_until: Duration::ZERO,
            broker: Broker::default(),
            repairs: BTreeMap::new(),
            group: Group::new(consumed.flat_map(partitions).collect()),
            clients: Vec::new(),
            processes: Vec::new(),
            twin: None,
            starting: BTreeSet::new(),
            faults: Faults::default(),
            healed: false,
            calls: 0,
            rules: Rules::default(),
            feed: Feed::default(),
            troubles: BTreeMap::new(),
            events: BTreeMap::new(),
            last_event: 0,
            history: keeps_history.then(String::new),
        };
        clock::simulate(world.now);
        for event in [
            Event::Sessions,
            Event::Timeouts,
            Event::Monitor,
            Event::Feed,
            Event::Publish,
            Event::Nemesis,
        ] {
            world.schedule(Duration::from_millis(10), event);
        }
        world
    }

    /// Adds a line to the history, when one is kept.
    pub fn note(&mut self, line: impl FnOnce() -> String) {
        if let Some(history) = &mut self.history {
            let now = self.now.as_micros();
            writeln!(history, "{now:>10} {}", line()).expect("writing to memory");
        }
    }

    pub fn history(&self) -> &str {
        self.history.as_deref().unwrap_or_default()
    }

    /// Counts a trouble that happened and notes it.
    pub fn trouble(&mut self, kind: &'static str, detail: impl FnOnce() -> String) {
        *self.troubles.entry(kind).or_default() += 1;
        self.note(|| format!("{kind}: {}", detail()));
    }

    pub fn chance(&mut self, likelihood: f64) -> bool {
        likelihood > 0.0 && self.dice.f64() < likelihood
    }

    pub fn millis(&mut self, range: Range<u64>) -> Duration {
        let micros = self.dice.u64(range.start * 1000..range.end * 1000);
        Duration::from_micros(micros)
    }

    pub fn wall_millis(&self) -> i64 {
        clock::simulate(self.now);
        clock::wall_millis()
    }

    pub fn schedule(&mut self, delay: Duration, event: Event) {
        self.last_event += 1;
        self.events
            .insert((self.now + delay, self.last_event), event);
    }

    pub fn next_event_at(&self) -> Duration {
        let (at, _) = self.events.keys().next().expect("the scans go on for ever");
        *at
    }

    /// Lets time pass, with everything that happens in it.
    pub fn advance(&mut self, duration: Duration) {
        self.advance_to(self.now + duration);
    }

    pub fn advance_to(&mut self, until: Duration) {
        while let Some(entry) = self.events.first_entry() {
            let at = entry.key().0;
            if at > until {
                break;
            }
            let event = entry.remove();
            self.now = self.now.max(at);
            clock::simulate(self.now);
            self.happen(event);
        }
        self.now = self.now.max(until);
        clock::simulate(self.now);
    }

    /// Takes over the time that the engine has slept on its own.
    pub fn catch_up(&mut self) {
        let slept_until = clock::now();
        if slept_until > self.now {
            self.advance_to(slept_until);
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Join(client) => self.join(client),
            Event::Heartbeat(client) => self.heartbeat(client),
            Event::Round => self.round(),
            Event::Sessions => self.expire_sessions(),
            Event::Marker { id, place, broker } => {
                if broker == self.broker.deaths {
                    self.mark(&id, place);
                }
            }
            Event::BrokerDies => self.kill_broker(),
            Event::BrokerReturns => self.return_broker(),
            Event::Timeouts => self.expire_transactions(),
            Event::Monitor => self.monitor(),
            Event::Late(request) => request(self),
            Event::Feed => self.feed_payments(),
            Event::Publish => self.publish_rule(),
            Event::Start(process) => {
                self.starting.insert(process);
            }
            Event::Nemesis => self.nemesis(),
        }
    }

    pub fn is_reachable(&self, process: usize) -> bool {
        let process = &self.processes[process];
        let is_up = process.running && !process.frozen && self.now >= process.cut_until;
        is_up && !self.is_broker_gone()
    }

    /// Whether the process shares its identity with another.
    pub fn is_twin(&self, process: usize) -> bool {
        self.twin
            .is_some_and(|twin| process == 0 || process == twin)
    }

    pub fn twin_is_retired(&self) -> bool {
        self.twin.is_none_or(|twin| self.processes[twin].retired)
    }

    /// Two processes that still share one identity, neither of which has stopped because of it.
    pub fn has_duel(&self) -> bool {
        self.twin.is_some() && !self.processes[0].retired && !self.twin_is_retired()
    }

    /// Tells every process who is a member of the group, and has it balanced again when a partition
    /// has no owner, as `broker/ownerless.rs` does.
    fn monitor(&mut self) {
        self.schedule(Duration::from_secs(1), Event::Monitor);
        if self.group.has_ownerless() {
            self.want_round();
        }
        let members = self.group.members.values();
        let ids: BTreeSet<String> = members
            .map(|member| self.clients[member.client].process)
            .map(|process| transactional_id(self.processes[process].identity))
            .collect();
        for number in 0..self.processes.len() {
            if self.is_reachable(number) {
                self.processes[number].told.clone_from(&ids);
                let mut members = self.processes[number].members.lock().expect("one thread");
                *members = Members {
                    asked_at: Some(self.now),
                    transactional_ids: ids.clone(),
                };
            }
        }
    }

    pub fn append(&mut self, partition: Partition, payload: Payload) -> i64 {
        let timestamp = self.wall_millis();
        let log = self.logs.get_mut(&partition).expect("a known partition");
        log.append(payload, timestamp)
    }

    /// Trouble that no request starts.
    fn nemesis(&mut self) {
        self.schedule(Duration::from_secs(1), Event::Nemesis);
        if self.chance(self.faults.broker) {
            self.kill_broker();
        }
        if !self.chance(self.faults.nemesis) {
            return;
        }
        let number = self.dice.usize(0..self.processes.len());
        match self.dice.u32(0..7) {
            0 => {
                let duration = self.millis(100..12_000);
                self.processes[number].cut_until = self.now + duration;
                self.trouble("cut off", || format!("process {number} for {duration:?}"));
            }
            1 => {
                self.processes[number].doomed = true;
                self.trouble("kill", || format!("process {number}"));
            }
            2 => {
                self.processes[number].leaving = true;
                self.trouble("stop", || format!("process {number}"));
            }
            3 => {
                let duration = self.millis(50..3000);
                self.coordinator_gone_until = self.now + duration;
                self.trouble("coordinator gone", || format!("for {duration:?}"));
            }
            4 => {
                self.trouble("rebalance", String::new);
                self.want_round();
            }
            5 => self.disturb_offset(),
            _ => {
                let mut clients = self.clients.iter();
                let found = clients.rposition(|client| client.process == number && client.alive);
                if let Some(client) = found {
                    self.trouble("repeated join", || format!("client {client}"));
                    self.fence_member(client);
                }
            }
        }
    }
}

/// The transactional id of the one worker of a process.
pub fn transactional_id(identity: usize) -> String {
    format!("settle:i{identity}-0")
}
