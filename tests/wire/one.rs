//! One instance behind the proxy and one payment at a time, so that a request can be named by its place.
//!
//! A payment makes two transactions, one after the other: of the ingest and of the settle task. Both write to several
//! partitions and move the offset of one.

use chaos::cluster::instance::InstanceOptions;
use chaos::cluster::topics::Isolation;
use chaos::cluster::wait;
use chaos::line::{Built, LIMIT, Line};
use chaos::proxy::{Armed, Fate, Rule};
use chaos::tail::Tail;
use chaos::workload::Message;
use chaos::workload::day::{Day, DayOptions};
use chaos::workload::send::{self, SendOptions};

use crate::turn::Turn;

pub const BUILT: Built = Built {
    binary: env!("CARGO_BIN_EXE_settle"),
    kept: env!("CARGO_TARGET_TMPDIR"),
};

pub const PARTITIONS: i32 = 2;

/// Of [`One::send_until`].
const PER_SECOND: u32 = 200;
/// More than it needs, so that it ends without them.
const MOST: u64 = 1_000_000;

/// Whether the broker has refused every late request, as the epoch of its sender is over.
pub fn are_refused(codes: &[Option<i16>]) -> bool {
    codes.iter().all(|code| code.is_some_and(|code| code != 0))
}

pub struct One {
    pub line: Line,
    pub tail: Tail,
    sent: u64,
    _turn: Turn,
}

impl One {
    /// Starts the instance and lets it settle a first payment.
    pub fn start(name: &str) -> Self {
        Self::start_with(name, |options| options)
    }

    pub fn start_with(name: &str, change: impl FnOnce(InstanceOptions) -> InstanceOptions) -> Self {
        let turn = Turn::take();
        let mut line = Line::new(name, PARTITIONS, BUILT).unwrap();
        let options = line.options(0).unwrap();
        line.start(change(options)).unwrap();
        let tail = line.tail().unwrap();
        let mut one = Self {
            line,
            tail,
            sent: 0,
            _turn: turn,
        };
        one.pay();
        one
    }

    /// The rule for a request of the producer.
    pub fn arm(&self, api: chaos::proxy::Api, fate: Fate) -> Armed {
        let rule = Rule::new(api, &self.line.producer(0), fate);
        self.line.proxy().arm(rule)
    }

    /// Sends a payment, always to the same partition.
    pub fn send(&mut self) {
        self.sent += 1;
        let id = format!("payment-{}", self.sent);
        let value = format!(
            r#"{{"channel":"ONLINE","action":"PAYMENT","data":{{"paymentType":"ONLINE","amount":{},"merchantNumber":"shop-1","paymentDate":"2025-05-26T14:23:51.123456","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}}}}"#,
            self.sent
        );
        let message = Message {
            key: Some(id.into_bytes()),
            value: Some(value.into_bytes()),
            partition: 0,
            intent: "SETTLED",
        };
        send::send(&self.line.sending(), [message].into_iter(), |_| true).unwrap();
    }

    /// Sends payments of all kinds at a fixed rate until `done`.
    pub fn send_until(&mut self, done: impl Fn() -> bool) {
        let day = Day::new(DayOptions {
            merchants: 100,
            ..DayOptions::new(91, MOST, PARTITIONS)
        });
        let sending = SendOptions {
            per_second: Some(PER_SECOND),
            ..self.line.sending()
        };
        let sent = send::send(&sending, day, |_| !done()).unwrap();
        self.sent += sent.messages;
    }

    /// How many transactions the instances have committed since they were started.
    pub fn committed_transactions(&self) -> u64 {
        let instances = self.line.instances.iter();
        let counts = instances.map(|instance| {
            let metrics = reqwest::blocking::get(format!("{}/metrics", instance.http()));
            let text = metrics.unwrap().text().unwrap();
            let samples = text.lines().filter_map(|line| {
                let (name, value) = line.rsplit_once(' ')?;
                let counts = name.starts_with("settle_transactions_total{")
                    && name.contains("\"committed\"");
                counts.then(|| value.parse::<u64>().unwrap())
            });
            samples.sum::<u64>()
        });
        counts.sum()
    }

    /// Waits until everything that was sent has an outcome that readers of committed records see.
    pub fn settle(&self) {
        let what = format!("the outcome of payment {}", self.sent);
        wait::until(&what, LIMIT, || {
            if let Some(status) = self.line.instances[0].exit_status() {
                anyhow::bail!("the instance ended with {status}");
            }
            Ok((self.tail.seen()?.total() >= self.sent).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.line.tails()));
    }

    pub fn pay(&mut self) {
        self.send();
        self.settle();
    }

    /// The group's offset stands behind the last payment. The transaction that moved it there came before the one that
    /// made the outcome visible, so nothing is waited for.
    pub fn check_offset(&self) {
        let names = &self.line.names;
        let group = &names.application_id;
        let committed = self.line.topics.committed(group, &names.source).unwrap();
        let ends = self.line.topics.ends(&names.source, Isolation::Uncommitted);
        assert_eq!(
            committed[0],
            Some(ends.unwrap()[0]),
            "{}",
            self.line.tails()
        );
    }

    /// Proves everything, that the instance never found the group's offset elsewhere than the log, and that its state
    /// never held what the log does not.
    pub fn prove(&self) {
        let proof = self.line.prove();
        let proof = proof.unwrap_or_else(|error| panic!("{error:#}\n{}", self.line.tails()));
        assert_eq!(proof.sources, self.sent);
        for never in [
            "the group's offset differs",
            "a transaction that its changelog does not",
        ] {
            assert_eq!(self.count_in_log(never), 0, "{never}");
        }
    }

    pub fn count_in_log(&self, text: &str) -> usize {
        self.line.log(0).unwrap().matches(text).count()
    }
}
