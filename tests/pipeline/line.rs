//! A pipeline of these tests: [`chaos::line`] with PostgreSQL where it is wanted, straight to the broker, in its turn.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use chaos::cluster::instance::{Instance, InstanceOptions};
use chaos::cluster::{ClusterOptions, shared};
use chaos::line::{self, Built};
use chaos::model::Record;
use chaos::oracle::Proof;
use chaos::tail::Tail;
use chaos::workload::Message;
use chaos::workload::day::{Day, DayOptions};
use chaos::workload::send::{self, Sent};

use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::turn::Turn;

pub use chaos::line::LIMIT;

/// `shutdown.grace`, and what the kernel needs.
pub const GRACE: Duration = Duration::from_secs(11);

pub const PARTITIONS: i32 = 4;

const BUILT: Built = Built {
    binary: env!("CARGO_BIN_EXE_settle"),
    kept: env!("CARGO_TARGET_TMPDIR"),
};

/// The parts of one test. Instances are killed, and topics deleted, when it is dropped.
pub struct Line {
    line: line::Line,
    #[allow(dead_code, reason = "held; read by tests that rest")]
    turn: Option<Turn>,
}

impl Line {
    /// A pipeline without instances. It has no database unless [`Line::with_database`] gives it one.
    pub fn new(name: &str) -> Self {
        let turn = Turn::take();
        let options = ClusterOptions {
            without_postgres: false,
            ..line::cluster_options()
        };
        let cluster = shared::cluster_of(&options).unwrap();
        Self {
            line: line::Line::on(cluster, name, PARTITIONS, BUILT).unwrap(),
            turn: Some(turn),
        }
    }

    /// A database of its own on the shared server.
    pub fn with_database(mut self) -> Self {
        self.create_database().unwrap();
        self
    }

    /// The options of an instance, to be changed before it starts.
    pub fn options(&self, index: usize) -> InstanceOptions {
        self.line.options_at(index, self.bootstrap()).unwrap()
    }

    /// Starts an instance with these options and returns its place among the instances.
    pub fn launch(&mut self, options: InstanceOptions) -> usize {
        self.instances.push(Instance::start(options).unwrap());
        self.instances.len() - 1
    }

    /// Starts so many instances and returns when they are ready.
    pub fn start(&mut self, count: usize) {
        for _ in 0..count {
            let options = self.options(self.instances.len());
            self.launch(options);
        }
        self.wait_ready();
    }

    /// Waits until every instance is ready; none has ended.
    pub fn wait_ready(&self) {
        for instance in &self.instances {
            instance.wait_ready(LIMIT).unwrap();
        }
    }

    /// Starts an instance again on its directory and returns when it is ready.
    pub fn restart(&mut self, index: usize) {
        self.line.restart(index).unwrap();
    }

    /// SIGTERM; it ends cleanly and in time.
    pub fn terminate(&self, index: usize) {
        let instance = &self.instances[index];
        let status = instance.terminate(GRACE).unwrap();
        assert_eq!(status.code(), Some(0), "{}", instance.tail());
    }

    /// Waits for something long while nothing of this pipeline needs a core: others get its turn.
    #[allow(
        dead_code,
        reason = "not every test that includes this file waits so long"
    )]
    pub fn rest<T>(&mut self, wait: impl FnOnce(&Self) -> T) -> T {
        self.turn = None;
        let waited = wait(self);
        self.turn = Some(Turn::take());
        waited
    }

    /// Everything an instance has logged.
    pub fn log(&self, index: usize) -> String {
        self.line.log(index).unwrap()
    }

    /// Sends as fast as the broker takes them.
    pub fn send(&self, messages: impl IntoIterator<Item = Message>) -> Sent {
        send::send(&self.sending(), messages.into_iter(), |_| true).unwrap()
    }

    /// Counts outcomes from now on.
    pub fn tail(&self) -> Tail {
        self.line.tail().unwrap()
    }

    /// Waits until every payment has its outcome and the database has everything.
    pub fn settle(&self) {
        self.line.settle().unwrap();
    }

    /// Waits for rest, and proves from the raw input that every promise holds.
    pub fn prove(&self) -> Proof {
        self.line.prove().unwrap()
    }

    /// Every committed record of a topic.
    pub fn read(&self, topic: &str, feed: impl FnMut(&Record)) {
        self.line.read(topic, feed).unwrap();
    }

    /// Writes one record, as another system would.
    pub fn produce(&self, topic: &str, partition: i32, key: &str, value: Option<&str>) {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", self.bootstrap())
            .set("acks", "all")
            .create()
            .unwrap();
        let record = BaseRecord::<str, str>::to(topic)
            .partition(partition)
            .key(key);
        let record = match value {
            Some(value) => record.payload(value),
            None => record,
        };
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(LIMIT).unwrap();
    }
}

impl Deref for Line {
    type Target = line::Line;

    fn deref(&self) -> &line::Line {
        &self.line
    }
}

impl DerefMut for Line {
    fn deref_mut(&mut self) -> &mut line::Line {
        &mut self.line
    }
}

/// A day of payments of every kind.
pub fn day(seed: u64, payments: u64) -> Day {
    Day::new(DayOptions {
        merchants: 400,
        ..DayOptions::new(seed, payments, PARTITIONS)
    })
}

/// The same without anything wrong, and few keys.
pub fn plain(seed: u64, payments: u64) -> Day {
    Day::new(DayOptions {
        merchants: 100,
        is_plain: true,
        ..DayOptions::new(seed, payments, PARTITIONS)
    })
}

/// How many outcomes of this kind and reason the proof has counted.
pub fn count(proof: &Proof, reason: &str) -> u64 {
    proof
        .tally
        .iter()
        .filter(|((_, found), _)| found == reason)
        .map(|(_, count)| count)
        .sum()
}
