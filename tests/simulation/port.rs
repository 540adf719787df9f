//! The engine's port to the broker in memory: clients that behave like librdkafka where it
//! matters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use settle::broker::classify::{Error, Reaction};
use settle::broker::mark::{MARK_HEADER, Mark};
use settle::broker::port::{self, GroupOffsets, Holder, Polled, Port};
use settle::broker::scan::{Isolation, Range};
use settle::broker::{Bounds, Partition, Record};

use crate::group::{Fetch, Membership};
use crate::log::{Entry, Log};
pub use crate::network::Sim;
use crate::network::{CALL_TIMEOUT, Request};
use crate::producer::Producer;
use crate::world::{Code, World, transactional_id};

/// What a poll costs, so that time goes on however it is called.
const POLL_COST: Duration = Duration::from_micros(20);
/// Offsets that are not stable after so long are given as they are.
const STABLE_TIMEOUT: Duration = Duration::from_secs(2);
const BACKOFF: Duration = Duration::from_millis(100);

pub const ASK: Request = Request {
    name: "a question",
    timeout: CALL_TIMEOUT,
    backoff: BACKOFF,
    to_coordinator: false,
    breaks: None,
};

fn waiting(attempt: &'static str, code: Code) -> Error {
    Error::new(attempt, format!("{code:?}"), Reaction::Wait)
}

impl Sim {
    /// The static identity in the group.
    fn instance(&self) -> String {
        format!("i{}-0", self.world().processes[self.process].identity)
    }
}

impl Port for Sim {
    type Consumer = Consumer;
    type Reader = Reader;
    type Producer = Producer;

    fn join(&self, _worker: usize) -> Result<Consumer, Error> {
        let instance = self.instance();
        let client = self.world().subscribe(self.process, instance);
        Ok(Consumer {
            sim: self.clone(),
            client,
        })
    }

    fn reader(&self, _name: &str) -> Result<Reader, Error> {
        Ok(Reader {
            sim: self.clone(),
            started: Mutex::default(),
            deaf: Mutex::default(),
        })
    }

    fn producer(&self, _worker: usize) -> Producer {
        let id = transactional_id(self.world().processes[self.process].identity);
        Producer::new(self.clone(), &id)
    }

    fn successor(&self, transactional_id: &str) -> Producer {
        assert!(
            !self.shared.was_member(transactional_id),
            "{transactional_id} is taken over, and was a member of the group"
        );
        Producer::new(self.clone(), transactional_id)
    }

    fn steadfast(&self, transactional_id: &str) -> Producer {
        Producer::steadfast(self.clone(), transactional_id)
    }

    fn nobody(&self) -> Membership {
        Membership {
            member: u64::MAX,
            generation: -1,
            instance: String::new(),
        }
    }

    fn scan(
        &self,
        isolation: Isolation,
        ranges: &[Range],
        mut visit: impl FnMut(&Record, Option<Mark>),
    ) -> Result<(), Error> {
        self.call(ASK, &mut false, |_| Ok(()))
            .map_err(|code| waiting("look at a part of a log", code))?;
        let mut shown = Vec::new();
        {
            let world = self.world();
            for range in ranges {
                let log = &world.logs[&range.partition];
                let inside = log.records().filter(|(offset, _)| {
                    let is_seen = isolation == Isolation::Uncommitted || log.is_committed(*offset);
                    is_seen && (range.from..range.to).contains(offset)
                });
                shown.extend(inside.map(|(offset, entry)| Fetched {
                    partition: range.partition,
                    offset,
                    entry: Arc::clone(entry),
                }));
            }
        }
        for fetched in shown {
            let mut headers = fetched.entry.payload.headers.iter();
            let header = headers.find(|(name, _)| name == MARK_HEADER);
            let mark = header.and_then(|(_, text)| Mark::parse(text.as_bytes()));
            visit(&port::Fetched::record(&fetched), mark);
        }
        Ok(())
    }

    fn holder(&self, _worker: usize) -> Result<Holder, Error> {
        let (process, instance) = (self.process, self.instance());
        let holder = move |world: &mut World| Ok(world.holder(&instance, process));
        self.call(ASK, &mut false, holder)
            .map_err(|code| waiting("describe the consumer group", code))
    }

    fn aside(&self, work: impl FnOnce() + Send + 'static) {
        self.shared.put_aside(self.process, Box::new(work));
    }
}

/// A record that was read.
pub struct Fetched {
    partition: Partition,
    offset: i64,
    entry: Arc<Entry>,
}

impl port::Fetched for Fetched {
    fn record(&self) -> Record<'_> {
        Record {
            partition: self.partition,
            offset: self.offset,
            timestamp: self.entry.timestamp,
            key: self.entry.payload.key.as_deref(),
            value: self.entry.payload.value.as_deref(),
        }
    }
}

/// Reads on in one of these places, a different one each time.
fn fetch<'a>(
    world: &mut World,
    places: impl Iterator<Item = (Partition, &'a mut i64)>,
) -> Option<Fetched> {
    let mut ready = Vec::new();
    for (partition, next) in places {
        let log = &world.logs[&partition];
        match log.next_committed(*next) {
            Some((offset, entry)) => ready.push((partition, next, offset, entry)),
            // Past markers and what was aborted.
            None => *next = (*next).max(log.stable()),
        }
    }
    if ready.is_empty() {
        return None;
    }
    let (partition, next, offset, entry) = ready.swap_remove(world.dice.usize(0..ready.len()));
    *next = offset + 1;
    Some(Fetched {
        partition,
        offset,
        entry,
    })
}

/// Now and then a consumer passes over records: as far as its log goes, or a part of that. What
/// could as well be the markers of a few transactions is no jump.
fn jump(world: &mut World, fetches: &mut BTreeMap<Partition, Fetch>) {
    if !world.chance(world.faults.jump) {
        return;
    }
    let far = |(partition, fetch): &(&Partition, &mut Fetch)| {
        !fetch.paused
            && fetch.last_read.is_some()
            && world.logs[*partition].stable() > fetch.next + MARKERS
    };
    let mut places: Vec<(&Partition, &mut Fetch)> = fetches.iter_mut().filter(far).collect();
    if places.is_empty() {
        return;
    }
    let index = world.dice.usize(0..places.len());
    let (partition, fetch) = places.swap_remove(index);
    let end = world.logs[partition].stable();
    let from = fetch.next;
    fetch.next = if world.dice.bool() {
        end
    } else {
        world.dice.i64(from + MARKERS + 1..=end)
    };
    let to = fetch.next;
    world.trouble("jump", || format!("{partition:?} from {from} to {to}"));
}

/// Now and then a consumer goes back to the record that it has delivered last, as librdkafka can when a rebalance falls
/// between that and its note of it.
fn repeat(world: &mut World, fetches: &mut BTreeMap<Partition, Fetch>) {
    if !world.chance(world.faults.repeat) {
        return;
    }
    let mut places: Vec<(&Partition, &mut Fetch, i64)> = fetches
        .iter_mut()
        .filter(|(_, fetch)| !fetch.paused)
        .filter_map(|(partition, fetch)| fetch.last_read.map(|last| (partition, fetch, last)))
        .collect();
    if places.is_empty() {
        return;
    }
    let index = world.dice.usize(0..places.len());
    let (partition, fetch, at) = places.swap_remove(index);
    fetch.next = at;
    world.trouble("repeat", || format!("{partition:?}/{at}"));
}

/// This record is the last one that the client reads there.
fn go_deaf(world: &mut World, deaf: &mut BTreeSet<Partition>, last: &Fetched) {
    if world.chance(world.faults.deaf) {
        deaf.insert(last.partition);
        let (partition, offset) = (last.partition, last.offset);
        world.trouble("deaf", || format!("{partition:?} behind {offset}"));
    }
}

/// A gap that long is not looked into.
const MARKERS: i64 = 16;

pub struct Consumer {
    sim: Sim,
    client: usize,
}

impl Consumer {
    fn fetch(&self, world: &mut World) -> Option<Fetched> {
        if !world.is_reachable(self.sim.process) {
            return None;
        }
        let mut fetches = std::mem::take(&mut world.clients[self.client].fetches);
        jump(world, &mut fetches);
        repeat(world, &mut fetches);
        let mut deaf = std::mem::take(&mut world.clients[self.client].deaf);
        let places = fetches
            .iter_mut()
            .filter(|(partition, fetch)| !fetch.paused && !deaf.contains(partition));
        let places = places.map(|(partition, fetch)| (*partition, &mut fetch.next));
        let fetched = fetch(world, places);
        if let Some(fetched) = &fetched
            && let Some(fetch) = fetches.get_mut(&fetched.partition)
        {
            fetch.last_read = Some(fetched.offset);
            go_deaf(world, &mut deaf, fetched);
        }
        world.clients[self.client].fetches = fetches;
        world.clients[self.client].deaf = deaf;
        fetched
    }
}

impl port::Consumer for Consumer {
    type Fetched<'a> = Fetched;
    type Membership = Membership;

    fn poll(&self, timeout: Duration) -> Result<Polled<Fetched>, Error> {
        if timeout > Duration::ZERO {
            self.sim.pass();
        }
        let mut world = self.sim.world();
        world.advance(POLL_COST);
        let deadline = world.now + timeout;
        loop {
            let client = &mut world.clients[self.client];
            if client.fenced {
                let detail = "the group has replaced this member";
                return Err(Error::new(
                    "stay in the consumer group",
                    detail,
                    Reaction::Rejoin,
                ));
            }
            if !client.unanswered
                && let Some(change) = client.changes.pop_front()
            {
                client.unanswered = true;
                return Ok(Polled::Rebalance(change));
            }
            if let Some(fetched) = self.fetch(&mut world) {
                return Ok(Polled::Record(fetched));
            }
            if world.now >= deadline {
                return Ok(Polled::Nothing);
            }
            let next = world.next_event_at().min(deadline);
            world.advance_to(next);
        }
    }

    fn assign(&self, partitions: &[(Partition, i64)]) -> Result<(), Error> {
        let mut world = self.sim.world();
        let client = &mut world.clients[self.client];
        client.unanswered = false;
        for (partition, next) in partitions {
            let fetch = Fetch {
                next: *next,
                paused: true,
                last_read: None,
            };
            client.fetches.insert(*partition, fetch);
        }
        Ok(())
    }

    fn unassign(&self, partitions: &[Partition]) -> Result<(), Error> {
        self.sim.world().give_back(self.client, partitions);
        Ok(())
    }

    fn start(&self, partition: Partition, offset: i64) -> Result<(), Error> {
        let mut world = self.sim.world();
        let fetches = &mut world.clients[self.client].fetches;
        let fetch = fetches
            .get_mut(&partition)
            .ok_or_else(|| waiting("seek to the position of a task", Code::UnknownMember))?;
        *fetch = Fetch {
            next: offset,
            paused: false,
            last_read: None,
        };
        Ok(())
    }

    fn pause(&self, partition: Partition) -> Result<(), Error> {
        let mut world = self.sim.world();
        let fetches = &mut world.clients[self.client].fetches;
        if let Some(fetch) = fetches.get_mut(&partition) {
            fetch.paused = true;
        }
        Ok(())
    }

    fn resume(&self, partition: Partition) -> Result<(), Error> {
        let mut world = self.sim.world();
        let fetches = &mut world.clients[self.client].fetches;
        if let Some(fetch) = fetches.get_mut(&partition) {
            fetch.paused = false;
        }
        Ok(())
    }

    fn position(&self, partition: Partition) -> Result<Option<i64>, Error> {
        let world = self.sim.world();
        let fetch = world.clients[self.client].fetches.get(&partition);
        Ok(fetch
            .filter(|fetch| fetch.last_read.is_some())
            .map(|fetch| fetch.next))
    }

    fn membership(&self) -> Result<Membership, Error> {
        let world = self.sim.world();
        let client = &world.clients[self.client];
        let member = client.member.ok_or_else(|| {
            let detail = "the consumer is no member of its group at the moment";
            Error::new("prove membership of the group", detail, Reaction::Recover)
        })?;
        Ok(Membership {
            member,
            generation: client.generation,
            instance: client.instance.clone(),
        })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.sim.shared.world().clients[self.client].alive = false;
    }
}

pub struct Reader {
    sim: Sim,
    /// Where each started partition has come to.
    started: Mutex<BTreeMap<Partition, i64>>,
    deaf: Mutex<BTreeSet<Partition>>,
}

impl Reader {
    fn started(&self) -> MutexGuard<'_, BTreeMap<Partition, i64>> {
        self.started.lock().expect("one thread")
    }

    fn ask<T>(
        &self,
        attempt: &'static str,
        question: impl Fn(&mut World) -> T + Clone + Send + 'static,
    ) -> Result<T, Error> {
        self.sim
            .call(ASK, &mut false, move |world| Ok(question(world)))
            .map_err(|code| waiting(attempt, code))
    }
}

impl port::Reader for Reader {
    type Fetched<'a> = Fetched;

    fn bounds(&self, partition: Partition) -> Result<Bounds, Error> {
        self.ask("read the end of a log", move |world| Bounds {
            low: 0,
            high: world.logs[&partition].high(),
        })
    }

    fn ends(&self, partitions: &[Partition], isolation: Isolation) -> Result<Vec<i64>, Error> {
        let asked = partitions.to_vec();
        self.ask("read the ends of logs", move |world| {
            let logs = asked.iter().map(|partition| &world.logs[partition]);
            let end = |log: &Log| match isolation {
                Isolation::Committed => log.stable(),
                Isolation::Uncommitted => log.high(),
            };
            logs.map(end).collect()
        })
    }

    fn committed(&self, partitions: &[Partition]) -> Result<GroupOffsets, Error> {
        let asked = partitions.to_vec();
        let stable = move |world: &mut World| {
            if asked.iter().any(|at| world.group.has_pending(*at)) {
                return Err(Code::Concurrent);
            }
            Ok(world.group.offsets_of(&asked))
        };
        let request = Request {
            timeout: STABLE_TIMEOUT,
            ..ASK
        };
        if let Ok(offsets) = self.sim.call(request, &mut false, stable) {
            return Ok(GroupOffsets::Stable(offsets));
        }
        let asked = partitions.to_vec();
        let question = move |world: &mut World| world.group.offsets_of(&asked);
        let offsets = self.ask("read the committed offsets", question)?;
        Ok(GroupOffsets::Undecided(offsets))
    }

    fn offset_at(&self, partition: Partition, timestamp: i64) -> Result<Option<i64>, Error> {
        self.ask("find the start of the duplicate window", move |world| {
            let mut records = world.logs[&partition].records();
            let found = records.find(|(_, entry)| entry.timestamp >= timestamp);
            found.map(|(offset, _)| offset)
        })
    }

    fn start(&mut self, partition: Partition, offset: i64) -> Result<(), Error> {
        self.ask("start to read a log", |_| ())?;
        self.started().insert(partition, offset);
        Ok(())
    }

    fn stop(&mut self, partition: Partition) -> Result<(), Error> {
        self.started().remove(&partition);
        Ok(())
    }

    fn poll(&self, timeout: Duration) -> Result<Option<Fetched>, Error> {
        let mut world = self.sim.world();
        world.advance(POLL_COST);
        let deadline = world.now + timeout;
        loop {
            if world.is_reachable(self.sim.process) {
                let mut started = self.started();
                let mut deaf = self.deaf.lock().expect("one thread");
                let places = started.iter_mut().map(|(at, next)| (*at, next));
                let places = places.filter(|(at, _)| !deaf.contains(at));
                if let Some(fetched) = fetch(&mut world, places) {
                    go_deaf(&mut world, &mut deaf, &fetched);
                    return Ok(Some(fetched));
                }
            }
            if world.now >= deadline {
                return Ok(None);
            }
            let next = world.next_event_at().min(deadline);
            world.advance_to(next);
        }
    }

    fn position(&self, partition: Partition) -> Result<i64, Error> {
        Ok(self.started().get(&partition).copied().unwrap_or(0))
    }

    fn places(&self) -> Result<BTreeMap<Partition, i64>, Error> {
        Ok(self.started().clone())
    }

    fn renew(&mut self) -> Result<(), Error> {
        self.deaf.lock().expect("one thread").clear();
        Ok(())
    }
}
