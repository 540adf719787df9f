//! The transactional producer of a worker, with a warm standby.
//!
//! librdkafka repeats unanswered requests in silence, and a late copy of one that ends or changes
//! a transaction takes effect on the *next* transaction of the same epoch (KIP-890 part 2 cures
//! this in clients that speak it; librdkafka does not). So a producer that has seen such a request
//! go without an answer is never used for another transaction: a new client takes the
//! transactional id over, and the new epoch refuses every late copy.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rdkafka::config::ClientConfig;

use crate::broker::classify::{Error, Reaction};
use crate::broker::client::{CALL_TIMEOUT, Settings};
use crate::broker::mark::{MARK_HEADER, Mark};
use crate::broker::native::{Client, Membership, Outgoing};
use crate::broker::{Names, Partition};
use crate::clock;
use crate::failpoint::{self, Point};

/// Longest wait for the records of one transaction to be acknowledged.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

/// How often a full queue is looked at again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

pub struct Producer {
    transactional_id: String,
    config: ClientConfig,
    names: Names,
    client: Option<Client>,
    standby: Option<mpsc::Receiver<Result<Client, Error>>>,
    /// When the last transaction began, as its mark says.
    began: i64,
}

/// Proof that a transaction is committed, and where its records went. Local state advances only
/// with it.
#[derive(Debug)]
pub struct Committed {
    /// Offsets of the records that were sent with a receipt, by receipt number.
    receipts: Vec<i64>,
}

impl Committed {
    /// The offset of the record that was sent with this receipt.
    pub fn offset(&self, receipt: usize) -> i64 {
        let offset = self.receipts.get(receipt).copied().unwrap_or(-1);
        assert!(
            offset >= 0,
            "a committed record has no offset (receipt {receipt})"
        );
        offset
    }
}

/// An open transaction. Dropping it leaves the producer unusable until it is replaced.
pub struct Transaction<'a> {
    producer: &'a mut Producer,
    mark: String,
    /// Partitions that have their marked record.
    marked: BTreeSet<Partition>,
}

impl Producer {
    /// A producer without an epoch: [`Producer::replace`] gives it one.
    pub fn new(settings: &Settings, worker: usize) -> Self {
        let id = settings.transactional_id(worker);
        Self::with(settings.producer(worker), settings, id)
    }

    /// One that takes the place of another instance's, to end what that one has left.
    pub fn successor(settings: &Settings, transactional_id: &str) -> Self {
        let config = settings.successor(transactional_id);
        Self::with(config, settings, transactional_id.to_owned())
    }

    fn with(config: ClientConfig, settings: &Settings, transactional_id: String) -> Self {
        let mut producer = Self {
            transactional_id,
            config,
            names: settings.topics.clone(),
            client: None,
            standby: None,
            began: 0,
        };
        producer.prepare_standby();
        producer
    }

    pub fn transactional_id(&self) -> &str {
        &self.transactional_id
    }

    /// Whether it can take another transaction as it is.
    pub fn is_trusted(&self) -> bool {
        self.client
            .as_ref()
            .is_some_and(|client| !client.is_suspect())
    }

    /// Gives the client up; [`Producer::replace`] makes another.
    pub fn retire(&mut self) {
        if let Some(old) = self.client.take() {
            // Its destruction may wait for the network; the next epoch fences it in any case.
            thread::spawn(move || drop(old));
        }
    }

    /// Takes the transactional id over with a fresh client. Whatever transaction the id had open
    /// is decided when this returns `Ok`, and no earlier request can take effect any more.
    pub fn replace(&mut self) -> Result<(), Error> {
        self.retire();
        if self.standby.is_none() {
            self.prepare_standby();
        }
        let standby = self.standby.take().expect("prepared above");
        let attempt = "connect the producer";
        let client = match standby.recv_timeout(CALL_TIMEOUT) {
            Ok(client) => client?,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.standby = Some(standby);
                return Err(Error::new(
                    attempt,
                    "the broker does not answer",
                    Reaction::Wait,
                ));
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Error::new(
                    attempt,
                    "the connecting thread died",
                    Reaction::Wait,
                ));
            }
        };
        // The next standby warms up while this one works.
        self.prepare_standby();
        failpoint::fail::<Error>(Point::ProducerInitBefore)?;
        initialise(&client)?;
        failpoint::fail::<Error>(Point::ProducerInitAfter)?;
        self.client = Some(client);
        Ok(())
    }

    fn prepare_standby(&mut self) {
        let (sender, receiver) = mpsc::sync_channel(1);
        let (config, names) = (self.config.clone(), self.names.clone());
        thread::spawn(move || {
            let client = Client::new(&config, &names).inspect(|client| {
                client.warm_up(CALL_TIMEOUT);
                failpoint::hit(Point::ProducerStandby);
            });
            // Nobody waits any more when the process ends.
            let _ = sender.send(client);
        });
        self.standby = Some(receiver);
    }

    /// Serves the library's callbacks; cheap, called once per turn.
    pub fn poll(&self) {
        if let Some(client) = &self.client {
            client.poll(Duration::ZERO);
        }
    }

    /// Begins a transaction. The producer must be trusted.
    pub fn begin(&mut self) -> Result<Transaction<'_>, Error> {
        assert!(
            self.is_trusted(),
            "a suspect producer must be replaced before the next begin"
        );
        self.client().begin()?;
        failpoint::fail::<Error>(Point::BeginAfter)?;
        self.began = clock::wall_micros().max(self.began + 1);
        let mark = Mark {
            transactional_id: self.transactional_id.clone(),
            began: self.began,
        };
        Ok(Transaction {
            producer: self,
            mark: mark.to_string(),
            marked: BTreeSet::new(),
        })
    }

    fn client(&self) -> &Client {
        self.client
            .as_ref()
            .expect("a transaction needs an initialised client")
    }
}

/// `init_transactions`; asked again while the predecessor's markers are under way.
fn initialise(client: &Client) -> Result<(), Error> {
    let deadline = clock::now() + CALL_TIMEOUT;
    loop {
        match client.initialise(CALL_TIMEOUT) {
            Ok(()) => return Ok(()),
            Err(error) if error.reaction == Reaction::Recover && clock::now() < deadline => {
                tracing::debug!(%error, "asking again");
                client.poll(Duration::from_millis(20));
            }
            Err(error) => return Err(error),
        }
    }
}

impl Transaction<'_> {
    pub fn send(&mut self, record: &Outgoing) -> Result<(), Error> {
        failpoint::fail::<Error>(Point::Send)?;
        if self.marked.insert(record.partition) {
            let mut headers = record.headers.to_vec();
            headers.push((MARK_HEADER, self.mark.clone()));
            return self.queue(&Outgoing {
                headers: &headers,
                ..*record
            });
        }
        self.queue(record)
    }

    fn queue(&self, record: &Outgoing) -> Result<(), Error> {
        let client = self.producer.client();
        if client.send(record)? {
            return Ok(());
        }
        let deadline = clock::now() + FLUSH_TIMEOUT;
        while clock::now() < deadline {
            client.poll(QUEUE_FULL_PAUSE);
            if client.send(record)? {
                return Ok(());
            }
        }
        Err(Error::new(
            "queue a record",
            "the queue stayed full",
            Reaction::Recover,
        ))
    }

    /// Delivers what was sent, adds the source positions and commits, in the order that the
    /// broker is quickest with: offsets before the flush, or a commit with undelivered records,
    /// cost about 100 ms each.
    ///
    /// `membership` is fetched after the flush, freshly, with no poll in between.
    pub fn commit(
        self,
        positions: &[(Partition, i64)],
        membership: impl FnOnce() -> Result<Membership, Error>,
    ) -> Result<Committed, Error> {
        failpoint::fail::<Error>(Point::FlushBefore)?;
        self.producer.client().flush(FLUSH_TIMEOUT)?;
        failpoint::fail::<Error>(Point::FlushAfter)?;
        let receipts = self.producer.client().take_receipts();
        failpoint::fail::<Error>(Point::OffsetsBefore)?;
        self.send_offsets(positions, &membership()?)?;
        failpoint::fail::<Error>(Point::OffsetsAfter)?;
        failpoint::fail::<Error>(Point::CommitBefore)?;
        self.producer.client().commit(CALL_TIMEOUT)?;
        failpoint::fail::<Error>(Point::CommitAfter)?;
        Ok(Committed { receipts })
    }

    /// Ends it with the same outcome as an earlier transaction of this id whose markers a broker
    /// has lost: its marker is the first that these partitions get, and decides both.
    pub fn end_like(self, was_committed: bool) -> Result<(), Error> {
        let client = self.producer.client();
        client.flush(FLUSH_TIMEOUT)?;
        if was_committed {
            client.commit(CALL_TIMEOUT)
        } else {
            client.abort(CALL_TIMEOUT)
        }
    }

    /// Takes back offsets of the group that an earlier transaction of this id has left undecided.
    pub fn withdraw_offsets(
        self,
        positions: &[(Partition, i64)],
        membership: &Membership,
    ) -> Result<(), Error> {
        self.send_offsets(positions, membership)?;
        self.producer.client().abort(CALL_TIMEOUT)
    }

    fn send_offsets(
        &self,
        positions: &[(Partition, i64)],
        membership: &Membership,
    ) -> Result<(), Error> {
        let offsets: Vec<_> = positions
            .iter()
            .map(|(partition, next)| {
                let name = self.producer.names.of(partition.topic);
                let name = CString::new(name).expect("topic names are checked");
                (name, partition.number, *next)
            })
            .collect();
        let client = self.producer.client();
        client.send_offsets(&offsets, membership, CALL_TIMEOUT)
    }
}
