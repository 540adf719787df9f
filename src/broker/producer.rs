//! The transactional producer of a worker, with a warm standby.
//!
//! librdkafka repeats unanswered requests in silence, and a late copy of one that ends or changes
//! a transaction takes effect on the *next* transaction of the same epoch (KIP-890 part 2 cures
//! this in clients that speak it; librdkafka does not). So a producer that has seen such a request
//! go without an answer is never used for another transaction: a new client takes the
//! transactional id over, and the new epoch refuses every late copy. The same goes for one whose
//! connection broke: the broker may have died and lost how the last transaction ended, which must
//! be known before the next one writes (docs/kafka.md, section 7).

use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rdkafka::config::ClientConfig;

use crate::broker::classify::{Error, Reaction};
use crate::broker::client::{CALL_TIMEOUT, Settings};
use crate::broker::mark::Marks;
use crate::broker::native::{Client, Membership, Outgoing};
use crate::broker::{Names, Partition};
use crate::broker::{port, wait};
use crate::clock;
use crate::failpoint::{self, Point};

/// How often a flush looks whether the producer has become suspect.
const FLUSH_SLICE: Duration = Duration::from_millis(50);

/// How long a steadfast producer goes on with its transaction: longer than a broker's restart.
const STEADFAST_TIMEOUT: Duration = Duration::from_secs(120);

/// How often a full queue is looked at again.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);

pub struct Producer {
    marks: Marks,
    config: ClientConfig,
    names: Names,
    client: Option<Client>,
    standby: Option<mpsc::Receiver<Result<Client, Error>>>,
    /// Longest wait for the records of one transaction, or for its end.
    timeout: Duration,
    /// Goes on with its transaction although a connection broke.
    is_steadfast: bool,
    stop: Arc<AtomicBool>,
}

impl Producer {
    pub(super) fn new(settings: &Settings, worker: usize) -> Self {
        let id = settings.transactional_id(worker);
        Self::with(settings.producer(worker), settings, id)
    }

    /// One that takes the place of another instance's, to end what that one has left.
    pub(super) fn successor(settings: &Settings, transactional_id: &str) -> Self {
        let config = settings.successor(transactional_id);
        Self::with(config, settings, transactional_id.to_owned())
    }

    /// One of a tool of the operator: only one process holds a tool's transactional id at a time.
    pub fn tool(settings: &Settings, tool: &str) -> Self {
        Self::with(settings.tool(tool), settings, settings.tool_id(tool))
    }

    /// A successor that carries one transaction through the restart of a broker.
    pub(super) fn steadfast(settings: &Settings, transactional_id: &str) -> Self {
        let config = settings.steadfast(transactional_id);
        Self {
            timeout: STEADFAST_TIMEOUT,
            is_steadfast: true,
            ..Self::with(config, settings, transactional_id.to_owned())
        }
    }

    fn with(config: ClientConfig, settings: &Settings, transactional_id: String) -> Self {
        let mut producer = Self {
            marks: Marks::new(transactional_id),
            config,
            names: settings.topics.clone(),
            client: None,
            standby: None,
            timeout: CALL_TIMEOUT,
            is_steadfast: false,
            stop: Arc::clone(&settings.stop),
        };
        producer.prepare_standby();
        producer
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

    /// Whether the open transaction must be given up.
    fn is_in_doubt(&self) -> bool {
        !self.is_steadfast && self.client().is_suspect()
    }

    fn client(&self) -> &Client {
        self.client
            .as_ref()
            .expect("a transaction needs an initialised client")
    }
}

impl port::Producer for Producer {
    type Membership = Membership;

    fn marks(&mut self) -> &mut Marks {
        &mut self.marks
    }

    fn transactional_id(&self) -> &str {
        self.marks.transactional_id()
    }

    fn is_trusted(&self) -> bool {
        self.client
            .as_ref()
            .is_some_and(|client| !client.is_suspect())
    }

    fn retire(&mut self) {
        if let Some(old) = self.client.take() {
            // Its destruction may wait for the network; the next epoch fences it in any case.
            thread::spawn(move || drop(old));
        }
    }

    fn replace(&mut self) -> Result<(), Error> {
        self.retire();
        if self.standby.is_none() {
            self.prepare_standby();
        }
        let standby = self.standby.take().expect("prepared above");
        let client = match wait::receive(&self.stop, &standby, CALL_TIMEOUT) {
            Ok(client) => client?,
            Err(error) => {
                if error == RecvTimeoutError::Timeout {
                    self.standby = Some(standby);
                }
                let detail = match error {
                    RecvTimeoutError::Timeout => "the broker does not answer",
                    RecvTimeoutError::Disconnected => "the connecting thread died",
                };
                return Err(Error::new("connect the producer", detail, Reaction::Wait));
            }
        };
        // The next standby warms up while this one works.
        self.prepare_standby();
        failpoint::fail::<Error>(Point::ProducerInitBefore)?;
        let initialised = wait::call(&self.stop, move || initialise(&client).map(|()| client));
        let attempt = "take over the transactional id";
        let client = initialised.unwrap_or_else(|| Err(wait::given_up(attempt)))?;
        failpoint::fail::<Error>(Point::ProducerInitAfter)?;
        self.client = Some(client);
        Ok(())
    }

    fn poll(&self) {
        if let Some(client) = &self.client {
            client.poll(Duration::ZERO);
        }
    }

    fn begin(&mut self) -> Result<(), Error> {
        self.client().begin()
    }

    fn send(&mut self, record: &Outgoing) -> Result<(), Error> {
        let client = self.client();
        if client.send(record)? {
            return Ok(());
        }
        let deadline = clock::now() + self.timeout;
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

    fn deliver(&mut self) -> Result<Vec<i64>, Error> {
        let client = self.client();
        let deadline = clock::now() + self.timeout;
        while !client.flush(FLUSH_SLICE)? {
            if clock::now() >= deadline {
                return Err(client.undelivered("not every record was acknowledged in time".into()));
            }
            if self.is_in_doubt() {
                break;
            }
        }
        if self.is_in_doubt() {
            return Err(client.undelivered("a connection to a broker broke".into()));
        }
        Ok(client.take_receipts())
    }

    fn send_offsets(
        &mut self,
        positions: &[(Partition, i64)],
        membership: &Membership,
    ) -> Result<(), Error> {
        let offsets: Vec<_> = positions
            .iter()
            .map(|(partition, next)| {
                let name = self.names.of(partition.topic);
                let name = CString::new(name).expect("topic names are checked");
                (name, partition.number, *next)
            })
            .collect();
        self.client()
            .send_offsets(&offsets, membership, CALL_TIMEOUT)
    }

    fn end(&mut self, commit: bool) -> Result<(), Error> {
        if commit {
            self.client().commit(self.timeout)
        } else {
            self.client().abort(self.timeout)
        }
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::broker::port::Producer as _;
    use crate::config::Config;

    const STOP_AFTER: Duration = Duration::from_millis(500);

    #[test]
    fn a_replacement_ends_when_the_process_is_to_end_and_no_broker_answers() {
        // Connections are made, and nothing is ever said.
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let servers = (
            "SETTLE_KAFKA__BOOTSTRAP_SERVERS".to_owned(),
            silent.local_addr().unwrap().to_string(),
        );
        let config = Config::load(None, [servers].into_iter()).unwrap();
        let settings = Settings::new(&config);
        let mut producer = Producer::new(&settings, 0);
        let stop = Arc::clone(&settings.stop);
        let began = clock::now();
        thread::spawn(move || {
            thread::sleep(STOP_AFTER);
            stop.store(true, Ordering::Relaxed);
        });
        producer.replace().unwrap_err();
        let took = clock::now().saturating_sub(began);
        assert!(took >= STOP_AFTER && took < CALL_TIMEOUT, "{took:?}");
        producer.replace().unwrap_err();
        assert!(clock::now().saturating_sub(began) < CALL_TIMEOUT);
    }
}
