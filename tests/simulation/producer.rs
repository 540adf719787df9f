//! The transactional producer of the simulation: repeats in silence what was not answered, with
//! the old epoch, and knows which requests those were.

use std::collections::BTreeMap;
use std::time::Duration;

use settle::broker::Partition;
use settle::broker::classify::{Error, Reaction, Stop};
use settle::broker::mark::Marks;
use settle::broker::native::Outgoing;
use settle::broker::port;
use settle::codec::stored::TOUCH_KEY;

use crate::group::Membership;
use crate::log::Payload;
use crate::network::{CALL_TIMEOUT, Request, Sim};
use crate::port::ASK;
use crate::transactions::{Holder, TIMEOUT};
use crate::world::{Code, World};

const fn transactional(name: &'static str, backoff_millis: u64) -> Request {
    Request {
        name,
        timeout: CALL_TIMEOUT,
        backoff: Duration::from_millis(backoff_millis),
        to_coordinator: true,
        breaks: None,
    }
}

type Queued = (Payload, Option<usize>);

fn is_touch((payload, _): &Queued) -> bool {
    payload.key.as_deref() == Some(TOUCH_KEY) && payload.value.is_none()
}

pub struct Producer {
    sim: Sim,
    marks: Marks,
    holder: Option<Holder>,
    /// A deciding request had no answer since the client was made.
    is_suspect: bool,
    /// How often the connections of the process had broken when it was initialised.
    breaks: u64,
    queue: BTreeMap<Partition, Vec<Queued>>,
    batches: u64,
    /// Carries a transaction through the death of the broker.
    is_steadfast: bool,
}

/// Longest wait of a steadfast producer for a call, and the time-out of its transactions.
const STEADFAST: Duration = Duration::from_secs(120);
const STEADFAST_TRANSACTION: Duration = Duration::from_secs(300);

impl Producer {
    pub fn new(sim: Sim, transactional_id: &str) -> Self {
        Self {
            sim,
            marks: Marks::new(transactional_id.to_owned()),
            holder: None,
            is_suspect: false,
            breaks: 0,
            queue: BTreeMap::new(),
            batches: 0,
            is_steadfast: false,
        }
    }

    pub fn steadfast(sim: Sim, transactional_id: &str) -> Self {
        Self {
            is_steadfast: true,
            ..Self::new(sim, transactional_id)
        }
    }

    /// A request of an open transaction.
    fn inside(&self, request: Request) -> Request {
        if self.is_steadfast {
            return Request {
                timeout: STEADFAST,
                ..request
            };
        }
        Request {
            breaks: Some(self.breaks),
            ..request
        }
    }

    fn is_in_doubt(&self) -> bool {
        !self.is_steadfast && self.is_broken()
    }

    fn is_broken(&self) -> bool {
        self.sim.world().processes[self.sim.process].breaks != self.breaks
    }

    /// A moment at which the broker may die.
    fn tempt(&self, likelihood: f64) {
        let mut world = self.sim.world();
        if world.chance(likelihood) {
            world.kill_broker();
        }
    }

    fn holder(&self) -> Holder {
        self.holder.clone().expect("a transaction needs an epoch")
    }

    fn add(&mut self, partitions: Vec<Partition>) -> Result<(), Code> {
        let holder = self.holder();
        let request = if partitions.is_empty() {
            transactional("AddOffsetsToTxn", 100)
        } else {
            transactional("AddPartitionsToTxn", 100)
        };
        let request = self.inside(request);
        let execute = move |world: &mut World| world.add(&holder, &partitions);
        self.sim.call(request, &mut self.is_suspect, execute)
    }

    fn produce(&mut self, partition: Partition, queued: Vec<Queued>) -> Result<Receipts, Code> {
        let (payloads, receipts): (Vec<_>, Vec<_>) = queued.into_iter().unzip();
        self.batches += 1;
        let (holder, batch) = (self.holder(), self.batches);
        let request = Request {
            name: "Produce",
            to_coordinator: false,
            ..self.inside(ASK)
        };
        let execute = move |world: &mut World| world.produce(&holder, partition, batch, &payloads);
        let base = self.sim.call(request, &mut false, execute)?;
        let wanted = receipts.into_iter().zip(base..);
        Ok(wanted
            .filter_map(|(receipt, offset)| Some((receipt?, offset)))
            .collect())
    }
}

/// Offsets by receipt number.
type Receipts = Vec<(usize, i64)>;

impl port::Producer for Producer {
    type Membership = Membership;

    fn marks(&mut self) -> &mut Marks {
        &mut self.marks
    }

    fn transactional_id(&self) -> &str {
        self.marks.transactional_id()
    }

    fn is_trusted(&self) -> bool {
        self.holder.is_some() && !self.is_suspect && !self.is_broken()
    }

    fn retire(&mut self) {
        self.holder = None;
    }

    fn replace(&mut self) -> Result<(), Error> {
        self.retire();
        let id = self.marks.transactional_id().to_owned();
        let request = transactional("InitProducerId", 500);
        let timeout = if self.is_steadfast {
            STEADFAST_TRANSACTION
        } else {
            TIMEOUT
        };
        let process = self.sim.process;
        let execute = move |world: &mut World| {
            // As with the death of the process: whoever takes the id over aborts the repair, and
            // tears what it repairs (docs/kafka.md, section 7). Left out here for the same reason.
            let owner = world.repairs.get(&id).copied();
            if owner.is_some_and(|owner| owner != process && world.is_mending(owner)) {
                return Err(Code::Concurrent);
            }
            world.initialise(&id, timeout)
        };
        self.breaks = self.sim.world().processes[self.sim.process].breaks;
        let holder = self.sim.call(request, &mut false, execute);
        let attempt = "take over the transactional id";
        let failed = |code| Error::new(attempt, format!("{code:?}"), Reaction::Recover);
        self.holder = Some(holder.map_err(failed)?);
        self.is_suspect = false;
        Ok(())
    }

    fn poll(&self) {}

    fn begin(&mut self) -> Result<(), Error> {
        self.queue.clear();
        Ok(())
    }

    fn send(&mut self, record: &Outgoing) -> Result<(), Error> {
        let headers = record.headers.iter();
        let payload = Payload {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers
                .map(|(name, text)| ((*name).to_owned(), text.clone()))
                .collect(),
        };
        let queued = self.queue.entry(record.partition).or_default();
        queued.push((payload, record.receipt));
        Ok(())
    }

    fn deliver(&mut self) -> Result<Vec<i64>, Error> {
        let failed = |code| {
            let detail = format!("records were refused or not acknowledged: {code:?}");
            let reaction = match code {
                Code::Fenced => Reaction::Fenced,
                _ => Reaction::Recover,
            };
            Error::new("deliver the transaction's records", detail, reaction)
        };
        let mut queue: Vec<(Partition, Vec<Queued>)> =
            std::mem::take(&mut self.queue).into_iter().collect();
        let is_repair = queue.iter().flat_map(|(_, queued)| queued).any(is_touch);
        let faults = self.sim.world().faults;
        let danger = if is_repair {
            let mut world = self.sim.world();
            let id = self.marks.transactional_id().to_owned();
            world.repairs.insert(id, self.sim.process);
            faults.broker_in_repair
        } else {
            faults.broker_in_transaction / 3.0
        };
        self.sim.world().dice.shuffle(&mut queue);
        // Partitions are added as their first records are sent, some of them later than others.
        let cut = self.sim.world().dice.usize(0..=queue.len());
        let rest = queue.split_off(cut);
        let mut found = Vec::new();
        for part in [queue, rest] {
            if part.is_empty() {
                continue;
            }
            let partitions = part.iter().map(|(partition, _)| *partition).collect();
            self.add(partitions).map_err(failed)?;
            for (partition, queued) in part {
                self.tempt(danger);
                found.extend(self.produce(partition, queued).map_err(failed)?);
            }
        }
        self.tempt(danger);
        if self.is_in_doubt() {
            return Err(failed(Code::Broken));
        }
        found.sort_unstable();
        Ok(found.into_iter().map(|(_, offset)| offset).collect())
    }

    fn send_offsets(
        &mut self,
        positions: &[(Partition, i64)],
        membership: &Membership,
    ) -> Result<(), Error> {
        let failed = |code| {
            let reaction = match code {
                Code::Fenced => Reaction::Fenced,
                Code::FencedInstance => Reaction::Rejoin,
                Code::InvalidTransactionState => Reaction::Stop(Stop::Broken),
                _ => Reaction::Recover,
            };
            let attempt = "add the source positions to the transaction";
            Error::new(attempt, format!("{code:?}"), reaction)
        };
        self.add(Vec::new()).map_err(failed)?;
        let holder = self.holder();
        let (positions, membership) = (positions.to_vec(), membership.clone());
        let execute = move |world: &mut World| world.put_offsets(&holder, &positions, &membership);
        let request = Request {
            to_coordinator: false,
            ..transactional("TxnOffsetCommit", 500)
        };
        self.sim
            .call(request, &mut self.is_suspect, execute)
            .map_err(failed)
    }

    fn end(&mut self, commit: bool) -> Result<(), Error> {
        let holder = self.holder();
        let execute = move |world: &mut World| world.end(&holder, commit);
        let mut request = transactional("EndTxn", 100);
        if self.is_steadfast {
            request.timeout = STEADFAST;
        }
        self.sim
            .call(request, &mut self.is_suspect, execute)
            .map_err(|code| {
                let reaction = match code {
                    Code::Fenced => Reaction::Fenced,
                    _ => Reaction::Recover,
                };
                Error::new("end the transaction", format!("{code:?}"), reaction)
            })
    }
}
