//! The consumer group: members and generations, static membership, cooperative rebalances, and
//! committed offsets with those that wait for their transaction's marker.
//!
//! The client's half of the protocol stands here as well, since it runs in the background of the
//! real client: heartbeats, joining, and changes that wait for the worker's answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use settle::broker::Partition;
use settle::broker::port::{Holder, Rebalance};

use crate::world::{Code, Event, World};

pub const SESSION: Duration = Duration::from_secs(6);
const HEARTBEAT: Duration = Duration::from_secs(2);
const SCAN: Duration = Duration::from_millis(500);
/// A round is looked at again while a member has not answered.
const ROUND_AGAIN: Duration = Duration::from_millis(50);

/// A member as the coordinator knows it.
#[derive(Debug)]
pub struct Member {
    pub client: usize,
    pub heard_at: Duration,
    assigned: BTreeSet<Partition>,
}

#[derive(Debug, Default)]
pub struct Group {
    pub generation: i32,
    pub members: BTreeMap<u64, Member>,
    /// The member of each static identity.
    statics: BTreeMap<String, u64>,
    last_member: u64,
    round_wanted: bool,
    partitions: Vec<Partition>,
    pub offsets: BTreeMap<Partition, i64>,
    /// Partitions whose offset somebody has changed from outside, until the next commit.
    pub disturbed: BTreeSet<Partition>,
    /// By producer and number of their transaction. A marker decides all of a producer.
    pub pending: BTreeMap<(u64, u64), BTreeMap<Partition, i64>>,
}

/// A consumer client as its process runs it.
#[derive(Debug)]
pub struct Client {
    pub process: usize,
    pub instance: String,
    pub alive: bool,
    pub member: Option<u64>,
    pub generation: i32,
    /// What it has been given and has not given back, answered or not.
    owned: BTreeSet<Partition>,
    pub changes: VecDeque<Rebalance>,
    /// A change was handed out and not answered yet.
    pub unanswered: bool,
    /// The group has given its static identity to another member.
    pub fenced: bool,
    pub fetches: BTreeMap<Partition, Fetch>,
    /// What the client library no longer reads, whatever it is told.
    pub deaf: BTreeSet<Partition>,
}

/// How a client reads a partition.
#[derive(Debug, Clone, Copy)]
pub struct Fetch {
    pub next: i64,
    pub paused: bool,
    /// The record that was delivered last.
    pub last_read: Option<i64>,
}

/// Membership as a client proves it.
#[derive(Debug, Clone)]
pub struct Membership {
    pub member: u64,
    pub generation: i32,
    pub instance: String,
}

impl Group {
    pub fn new(partitions: Vec<Partition>) -> Self {
        Self {
            partitions,
            ..Self::default()
        }
    }

    /// What the coordinator checks before it takes offsets.
    pub fn check(&self, membership: &Membership) -> Result<(), Code> {
        // A broker checks nothing of who names no member.
        if membership.generation < 0 {
            return Ok(());
        }
        match self.statics.get(&membership.instance) {
            Some(member) if *member != membership.member => return Err(Code::FencedInstance),
            _ => {}
        }
        if !self.members.contains_key(&membership.member) {
            return Err(Code::UnknownMember);
        }
        if membership.generation != self.generation {
            return Err(Code::IllegalGeneration);
        }
        Ok(())
    }

    pub fn has_ownerless(&self) -> bool {
        let owned: usize = self
            .members
            .values()
            .map(|member| member.assigned.len())
            .sum();
        !self.members.is_empty() && owned < self.partitions.len()
    }

    pub fn has_pending(&self, partition: Partition) -> bool {
        let mut pending = self.pending.values();
        pending.any(|offsets| offsets.contains_key(&partition))
    }

    pub fn offsets_of(&self, partitions: &[Partition]) -> Vec<Option<i64>> {
        let offset = |partition| self.offsets.get(partition).copied();
        partitions.iter().map(offset).collect()
    }

    /// The marker of a transaction has reached the offsets. Those of earlier ones that never had
    /// theirs are decided with it.
    pub fn mark(&mut self, producer: u64, transaction: u64, commit: bool) {
        let decided = (producer, 0)..=(producer, transaction);
        let decided: Vec<(u64, u64)> = self.pending.range(decided).map(|(of, _)| *of).collect();
        for of in decided {
            let offsets = self.pending.remove(&of).expect("just found");
            if commit {
                if of.1 == transaction {
                    self.disturbed.retain(|at| !offsets.contains_key(at));
                } else {
                    self.disturbed.extend(offsets.keys());
                }
                self.offsets.extend(offsets);
            }
        }
    }

    /// Balanced shares: everybody keeps what it has up to its share, unless `anew`.
    fn target(&self, anew: Option<&mut fastrand::Rng>) -> BTreeMap<Partition, u64> {
        let members: Vec<u64> = self.members.keys().copied().collect();
        let share = self.partitions.len().div_ceil(members.len());
        let mut count: BTreeMap<u64, usize> = BTreeMap::new();
        let mut target = BTreeMap::new();
        if let Some(dice) = anew {
            let mut shuffled = self.partitions.clone();
            dice.shuffle(&mut shuffled);
            for (place, partition) in shuffled.into_iter().enumerate() {
                target.insert(partition, members[place % members.len()]);
            }
            return target;
        }
        for (id, member) in &self.members {
            for partition in member.assigned.iter().take(share) {
                target.insert(*partition, *id);
                *count.entry(*id).or_default() += 1;
            }
        }
        for partition in &self.partitions {
            if !target.contains_key(partition) {
                let least = members
                    .iter()
                    .min_by_key(|id| (count.get(*id).copied().unwrap_or(0), **id))
                    .expect("a round has members");
                *count.entry(*least).or_default() += 1;
                target.insert(*partition, *least);
            }
        }
        target
    }
}

impl World {
    /// A new client subscribes: it joins in the background.
    pub fn subscribe(&mut self, process: usize, instance: String) -> usize {
        let client = self.clients.len();
        self.clients.push(Client {
            process,
            instance,
            alive: true,
            member: None,
            generation: -1,
            owned: BTreeSet::new(),
            changes: VecDeque::new(),
            unanswered: false,
            fenced: false,
            fetches: BTreeMap::new(),
            deaf: BTreeSet::new(),
        });
        let delay = self.millis(1..60);
        self.schedule(delay, Event::Join(client));
        self.schedule(HEARTBEAT, Event::Heartbeat(client));
        client
    }

    /// The client's request to join, or to join again.
    pub fn join(&mut self, client: usize) {
        let (process, member) = (self.clients[client].process, self.clients[client].member);
        if !self.clients[client].alive || self.clients[client].fenced || member.is_some() {
            return;
        }
        if !self.is_reachable(process) || !self.clients[client].owned.is_empty() {
            let again = self.millis(100..500);
            self.schedule(again, Event::Join(client));
            return;
        }
        self.group.last_member += 1;
        let id = self.group.last_member;
        let instance = self.clients[client].instance.clone();
        let heard_at = self.now;
        let predecessor = self.group.statics.insert(instance, id);
        let predecessor = predecessor.and_then(|old| self.group.members.remove(&old));
        self.clients[client].member = Some(id);
        self.clients[client].generation = self.group.generation;
        if let Some(old) = predecessor {
            self.note(|| format!("client {client} takes the static place of {}", old.client));
            let assigned: Vec<Partition> = old.assigned.iter().copied().collect();
            self.group.members.insert(
                id,
                Member {
                    client,
                    heard_at,
                    assigned: old.assigned,
                },
            );
            self.give(client, assigned);
            return;
        }
        self.note(|| format!("client {client} joins as member {id}"));
        self.group.members.insert(
            id,
            Member {
                client,
                heard_at,
                assigned: BTreeSet::new(),
            },
        );
        self.want_round();
    }

    fn give(&mut self, client: usize, partitions: Vec<Partition>) {
        let client = &mut self.clients[client];
        client.owned.extend(partitions.iter().copied());
        client.changes.push_back(Rebalance::Assigned(partitions));
    }

    pub fn want_round(&mut self) {
        if !self.group.round_wanted {
            self.group.round_wanted = true;
            let delay = self.millis(5..200);
            self.schedule(delay, Event::Round);
        }
    }

    /// All members have joined again, or one of them keeps the others waiting.
    pub fn round(&mut self) {
        let is_ready = |member: &Member| {
            let client = &self.clients[member.client];
            let answered = client.changes.is_empty() && !client.unanswered;
            answered && client.alive && self.is_reachable(client.process)
        };
        if !self.group.members.values().all(is_ready) {
            self.schedule(ROUND_AGAIN, Event::Round);
            return;
        }
        self.group.round_wanted = false;
        if self.group.members.is_empty() {
            return;
        }
        self.group.generation += 1;
        let generation = self.group.generation;
        let anew = self.chance(self.faults.shuffle);
        let mut dice = self.dice.fork();
        let target = self.group.target(anew.then_some(&mut dice));
        let mut changes = Vec::new();
        let taken: BTreeSet<Partition> = self
            .group
            .members
            .values()
            .flat_map(|member| member.assigned.iter().copied())
            .collect();
        for (id, member) in &mut self.group.members {
            let is_mine = |partition: &Partition| target.get(partition) == Some(id);
            let lost: Vec<_> = member.assigned.iter().copied().collect();
            let lost: Vec<_> = lost.into_iter().filter(|at| !is_mine(at)).collect();
            let new: Vec<_> = target.keys().copied().filter(is_mine).collect();
            let new: Vec<_> = new.into_iter().filter(|at| !taken.contains(at)).collect();
            if lost.is_empty() {
                member.assigned.extend(new.iter().copied());
            }
            changes.push((member.client, lost, new));
        }
        for (client, lost, new) in changes {
            self.clients[client].generation = generation;
            if !lost.is_empty() {
                let change = Rebalance::Revoked {
                    partitions: lost,
                    lost: false,
                };
                self.clients[client].changes.push_back(change);
            } else if !new.is_empty() {
                self.give(client, new);
            }
        }
        self.note(|| format!("generation {generation}: {target:?}"));
    }

    /// Who has the place of a static identity that `process` believes to have.
    pub fn holder(&self, instance: &str, process: usize) -> Holder {
        let member = self.group.statics.get(instance);
        let member = member.and_then(|member| self.group.members.get(member));
        match member {
            Some(member) if self.clients[member.client].process != process => Holder::Another,
            _ => Holder::Us,
        }
    }

    /// The worker gives partitions back.
    pub fn give_back(&mut self, client: usize, partitions: &[Partition]) {
        for partition in partitions {
            self.clients[client].owned.remove(partition);
            self.clients[client].fetches.remove(partition);
        }
        self.clients[client].unanswered = false;
        let Some(id) = self.clients[client].member else {
            let delay = self.millis(1..100);
            self.schedule(delay, Event::Join(client));
            return;
        };
        if let Some(member) = self.group.members.get_mut(&id) {
            for partition in partitions {
                member.assigned.remove(partition);
            }
            self.want_round();
        }
    }

    /// The members of the group as they stand, for people.
    pub fn members(&self) -> String {
        let wanted = self.group.round_wanted;
        let members = self.group.members.iter().map(|(id, member)| {
            let client = &self.clients[member.client];
            format!(
                "member {id} of client {} (process {}, alive {}, fenced {}, unanswered {}, changes {:?}): {:?}",
                member.client, client.process, client.alive, client.fenced, client.unanswered, client.changes, member.assigned
            )
        });
        let members = members.collect::<Vec<_>>().join("; ");
        format!("round wanted {wanted}; {members}")
    }

    /// A person resets an offset of the group, or it expires.
    pub fn disturb_offset(&mut self) {
        // What is wrong already is not made wrong in another way.
        let known = self.group.offsets.keys().copied();
        let known: Vec<Partition> = known
            .filter(|at| !self.group.disturbed.contains(at))
            .collect();
        if known.is_empty() || self.is_broker_gone() {
            return;
        }
        let partition = known[self.dice.usize(0..known.len())];
        let high = self.logs[&partition].high();
        let offset = self.dice.bool().then(|| self.dice.i64(0..=high));
        self.trouble("offset disturbed", || format!("{partition:?}: {offset:?}"));
        match offset {
            Some(offset) => self.group.offsets.insert(partition, offset),
            None => self.group.offsets.remove(&partition),
        };
        self.group.disturbed.insert(partition);
    }

    pub fn heartbeat(&mut self, client: usize) {
        if !self.clients[client].alive {
            return;
        }
        self.schedule(HEARTBEAT, Event::Heartbeat(client));
        let process = self.clients[client].process;
        let Some(id) = self.clients[client].member else {
            return;
        };
        if !self.is_reachable(process) {
            return;
        }
        if let Some(member) = self.group.members.get_mut(&id) {
            member.heard_at = self.now;
            return;
        }
        let instance = &self.clients[client].instance;
        if self.group.statics.contains_key(instance) {
            self.note(|| format!("client {client} is replaced in its static place"));
            self.clients[client].fenced = true;
            return;
        }
        self.note(|| format!("client {client} has lost its membership"));
        self.clients[client].member = None;
        let owned: Vec<Partition> = self.clients[client].owned.iter().copied().collect();
        if owned.is_empty() {
            let delay = self.millis(1..100);
            self.schedule(delay, Event::Join(client));
            return;
        }
        let change = Rebalance::Revoked {
            partitions: owned,
            lost: true,
        };
        self.clients[client].changes.push_back(change);
    }

    /// Members that have not been heard of for too long are out.
    pub fn expire_sessions(&mut self) {
        self.schedule(SCAN, Event::Sessions);
        if self.is_broker_gone() {
            return;
        }
        let now = self.now;
        let silent: Vec<u64> = self
            .group
            .members
            .iter()
            .filter(|(_, member)| now > member.heard_at + SESSION)
            .map(|(id, _)| *id)
            .collect();
        for id in silent {
            self.note(|| format!("the session of member {id} is over"));
            self.group.members.remove(&id);
            self.group.statics.retain(|_, member| *member != id);
            self.want_round();
        }
    }

    /// Another member takes the static place of this client: a repeated request to join.
    pub fn fence_member(&mut self, client: usize) {
        let Some(old) = self.clients[client].member else {
            return;
        };
        self.group.last_member += 1;
        let id = self.group.last_member;
        if let Some(member) = self.group.members.remove(&old) {
            self.group.members.insert(id, member);
            let instance = self.clients[client].instance.clone();
            self.group.statics.insert(instance, id);
            self.note(|| format!("member {old} is replaced by its own repeated request"));
        }
    }
}
