//! What the engine needs of Kafka. Implemented by [`Settings`] over the client
//! library, and by the simulation over a broker in memory.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use crate::broker::classify::Error;
use crate::broker::client::Settings;
use crate::broker::mark::{Mark, Marks};
use crate::broker::native::{Membership, Outgoing};
use crate::broker::scan::{self, Isolation, Range};
use crate::broker::{Bounds, Partition, Record, consumer, group, producer, reader};

/// Makes the clients of a worker, and does what needs none of them.
pub trait Port: Clone + Send + Sized + 'static {
    type Consumer: Consumer + Send + 'static;
    type Reader: Reader;
    type Producer: Producer<Membership = <Self::Consumer as Consumer>::Membership>;

    /// Joins the group and subscribes to payments and bases.
    fn join(&self, worker: usize) -> Result<Self::Consumer, Error>;

    fn reader(&self, name: &str) -> Result<Self::Reader, Error>;

    /// A producer without an epoch: [`Producer::replace`] gives it one.
    fn producer(&self, worker: usize) -> Self::Producer;

    /// One that takes the place of another instance's, to end what that one has left.
    fn successor(&self, transactional_id: &str) -> Self::Producer;

    /// A successor that carries one transaction through the restart of a broker.
    fn steadfast(&self, transactional_id: &str) -> Self::Producer;

    /// Shows the records of these ranges, each with its mark where it has one. Ranges must lie
    /// inside their logs, and below the stable end for committed records.
    fn scan(
        &self,
        isolation: Isolation,
        ranges: &[Range],
        visit: impl FnMut(&Record, Option<Mark>),
    ) -> Result<(), Error>;

    /// Membership of nobody: the broker checks nothing then. Only for offsets that are going to be
    /// aborted.
    fn nobody(&self) -> <Self::Consumer as Consumer>::Membership;

    /// Who is the member of the group that `worker` of this process has been.
    fn holder(&self, worker: usize) -> Result<Holder, Error>;

    /// Runs work that may wait for the broker, and for which nobody waits.
    fn aside(&self, work: impl FnOnce() + Send + 'static);
}

/// Who is the member of a group that this process has been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// This process, by another request of its own; or nobody.
    Us,
    /// The group names the process that was there before this one, whoever has come since.
    Unclear,
    Another,
}

/// A record that is still in the client's fetch buffer.
pub trait Fetched {
    fn record(&self) -> Record<'_>;
}

/// A change of the assignment that waits for the worker's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebalance {
    Assigned(Vec<Partition>),
    Revoked {
        partitions: Vec<Partition>,
        /// The group has given them away already.
        lost: bool,
    },
}

/// What a poll brought.
pub enum Polled<F> {
    Record(F),
    Rebalance(Rebalance),
    Nothing,
}

/// A member of the group.
pub trait Consumer {
    type Fetched<'a>: Fetched
    where
        Self: 'a;
    /// Proof of membership at one moment.
    type Membership;

    /// The next record or change of the assignment; waits for `timeout` at most.
    fn poll(&self, timeout: Duration) -> Result<Polled<Self::Fetched<'_>>, Error>;

    /// Takes assigned partitions over, paused, each at the offset of a record that is there;
    /// [`Consumer::start`] lets their records come.
    fn assign(&self, partitions: &[(Partition, i64)]) -> Result<(), Error>;

    /// Gives revoked partitions up.
    fn unassign(&self, partitions: &[Partition]) -> Result<(), Error>;

    /// Lets records of an assigned partition come, from `offset` on.
    fn start(&self, partition: Partition, offset: i64) -> Result<(), Error>;

    fn pause(&self, partition: Partition) -> Result<(), Error>;

    fn resume(&self, partition: Partition) -> Result<(), Error>;

    /// Where a started partition has come to, control markers included; `None` before its first
    /// record.
    fn position(&self, partition: Partition) -> Result<Option<i64>, Error>;

    /// Proof of membership, for the transaction that is about to be committed.
    fn membership(&self) -> Result<Self::Membership, Error>;
}

/// What a group has committed for some partitions, in their order; `None` where nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupOffsets {
    Stable(Vec<Option<i64>>),
    /// An undecided transaction would change some of them; these are the ones from before it.
    Undecided(Vec<Option<i64>>),
}

/// Reads logs outside the consumer group: changelogs and the source while a task restores, the
/// rules topic for as long as the task lives. Committed records only.
pub trait Reader {
    type Fetched<'a>: Fetched
    where
        Self: 'a;

    /// First offset and high watermark. Asked after the committed offsets were read, the high
    /// watermark lies above every record of every transaction that those offsets belong to.
    fn bounds(&self, partition: Partition) -> Result<Bounds, Error>;

    /// Where these logs end, in their order: at the first undecided record for a reader of
    /// committed records, else at the high watermark.
    fn ends(&self, partitions: &[Partition], isolation: Isolation) -> Result<Vec<i64>, Error>;

    /// The group's committed offsets.
    fn committed(&self, partitions: &[Partition]) -> Result<GroupOffsets, Error>;

    /// The first offset whose record is not older than `timestamp` (milliseconds), or `None` when
    /// all are.
    fn offset_at(&self, partition: Partition, timestamp: i64) -> Result<Option<i64>, Error>;

    /// Begins to read `partition` at `offset`.
    fn start(&mut self, partition: Partition, offset: i64) -> Result<(), Error>;

    /// Stops reading `partition`, if it was read.
    fn stop(&mut self, partition: Partition) -> Result<(), Error>;

    /// The next record of any partition that is read.
    fn poll(&self, timeout: Duration) -> Result<Option<Self::Fetched<'_>>, Error>;

    /// Where reading has come to, control markers included.
    fn position(&self, partition: Partition) -> Result<i64, Error>;

    /// The same of every partition that is read.
    fn places(&self) -> Result<BTreeMap<Partition, i64>, Error>;

    /// Goes on with a new client.
    fn renew(&mut self) -> Result<(), Error>;
}

/// The transactional producer of a worker. Transactions are made of these calls in
/// [`transaction`](crate::broker::transaction) and nowhere else.
pub trait Producer {
    type Membership;

    /// Marks of the transactions that it will begin.
    fn marks(&mut self) -> &mut Marks;

    fn transactional_id(&self) -> &str;

    /// Whether it can take another transaction as it is.
    fn is_trusted(&self) -> bool;

    /// Gives the client up; [`Producer::replace`] makes another.
    fn retire(&mut self);

    /// Takes the transactional id over with a fresh client. Whatever transaction the id had open
    /// is decided when this returns `Ok`, and no earlier request can take effect any more. Ends early
    /// with an error when the process is to end.
    fn replace(&mut self) -> Result<(), Error>;

    /// Serves the library's callbacks; cheap, called once per turn.
    fn poll(&self);

    fn begin(&mut self) -> Result<(), Error>;

    /// Queues a record.
    fn send(&mut self, record: &Outgoing) -> Result<(), Error>;

    /// Waits until everything that was sent is delivered: the offsets of the records that were
    /// sent with a receipt, by receipt number.
    fn deliver(&mut self) -> Result<Vec<i64>, Error>;

    /// Adds source positions (offsets of the next records) to the transaction.
    fn send_offsets(
        &mut self,
        positions: &[(Partition, i64)],
        membership: &Self::Membership,
    ) -> Result<(), Error>;

    /// Commits or aborts. An error may leave the outcome unknown.
    fn end(&mut self, commit: bool) -> Result<(), Error>;
}

/// Kafka, through librdkafka.
impl Port for Settings {
    type Consumer = consumer::Consumer;
    type Reader = reader::Reader;
    type Producer = producer::Producer;

    fn join(&self, worker: usize) -> Result<Self::Consumer, Error> {
        consumer::Consumer::join(self, worker)
    }

    fn reader(&self, name: &str) -> Result<Self::Reader, Error> {
        reader::Reader::new(self, name)
    }

    fn producer(&self, worker: usize) -> Self::Producer {
        producer::Producer::new(self, worker)
    }

    fn successor(&self, transactional_id: &str) -> Self::Producer {
        producer::Producer::successor(self, transactional_id)
    }

    fn steadfast(&self, transactional_id: &str) -> Self::Producer {
        producer::Producer::steadfast(self, transactional_id)
    }

    fn scan(
        &self,
        isolation: Isolation,
        ranges: &[Range],
        visit: impl FnMut(&Record, Option<Mark>),
    ) -> Result<(), Error> {
        scan::scan(self, isolation, ranges, visit)
    }

    fn nobody(&self) -> Membership {
        Membership::nobody(&self.application_id)
    }

    fn holder(&self, worker: usize) -> Result<Holder, Error> {
        group::holder(self, &self.application_id, &worker.to_string())
    }

    fn aside(&self, work: impl FnOnce() + Send + 'static) {
        thread::spawn(work);
    }
}
