//! The topics of one pipeline, written as the service writes them: in transactions.

use std::sync::Arc;
use std::time::Duration;

use chaos::cluster::names::Names;
use chaos::cluster::shared;
use chaos::cluster::topics::{Topic, Topics};
use rdkafka::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use settle::broker::client::Settings;
use settle::config::Postgres;
use settle::sink::{Handle, spawn};

pub const PARTITIONS: i32 = 2;
const LIMIT: Duration = Duration::from_secs(20);

/// One record for one of the topics.
pub struct Record<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, &'a str)],
}

pub struct Feed {
    pub names: Names,
    producer: ThreadedProducer<rdkafka::producer::DefaultProducerContext>,
    sent: i64,
}

impl Feed {
    pub fn new() -> Self {
        let names = Names::unique("sink");
        let bootstrap = shared::cluster().unwrap().kafka.bootstrap();
        let topics = names.topics().map(|(_, name)| Topic::new(name, PARTITIONS));
        Topics::connect(&bootstrap)
            .unwrap()
            .create(&topics)
            .unwrap();
        let producer: ThreadedProducer<_> = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("transactional.id", &names.application_id)
            .create()
            .unwrap();
        producer.init_transactions(LIMIT).unwrap();
        Self {
            names,
            producer,
            sent: 0,
        }
    }

    pub fn commit(&self, records: &[Record]) {
        self.send(records);
        self.producer.commit_transaction(LIMIT).unwrap();
    }

    /// Records that nobody may ever see.
    pub fn abort(&self, records: &[Record]) {
        self.send(records);
        self.producer.flush(LIMIT).unwrap();
        self.producer.abort_transaction(LIMIT).unwrap();
    }

    fn send(&self, records: &[Record]) {
        self.producer.begin_transaction().unwrap();
        for record in records {
            let mut headers = OwnedHeaders::new();
            for &(key, value) in record.headers {
                headers = headers.insert(Header {
                    key,
                    value: Some(value),
                });
            }
            let mut out: BaseRecord<[u8], [u8]> = BaseRecord::to(record.topic)
                .partition(record.partition)
                .headers(headers);
            out.key = record.key;
            out.payload = record.value;
            self.producer.send(out).map_err(|(error, _)| error).unwrap();
        }
    }

    /// `count` payments with their settlements, and the total after the last of them: one
    /// transaction. Offsets of the settlements' sources are counted from 0, over both partitions.
    pub fn payments(&mut self, count: i64) {
        let numbers: Vec<i64> = (self.sent..self.sent + count).collect();
        let texts: Vec<(String, String, String)> = numbers.iter().map(|&at| texts(at)).collect();
        self.sent += count;
        let total = total(self.sent);
        let mut records = vec![Record {
            topic: &self.names.statistics,
            partition: 0,
            key: Some(STATISTICS_KEY.as_bytes()),
            value: Some(total.as_bytes()),
            headers: &[],
        }];
        for (&number, (id, payment, settlement)) in numbers.iter().zip(&texts) {
            let partition = i32::try_from(number % i64::from(PARTITIONS)).unwrap();
            let record = |topic, value| Record {
                topic,
                partition,
                key: Some(id.as_bytes()),
                value: Some(value),
                headers: &[],
            };
            records.push(record(&self.names.source, payment.as_bytes()));
            records.push(record(&self.names.settlements, settlement.as_bytes()));
        }
        self.commit(&records);
    }

    /// What [`EVERYTHING`] must say when all payments are in the database.
    pub fn expected(&self) -> Vec<String> {
        let sent = self.sent;
        let sum = sent * (sent - 1) / 2;
        vec![format!("{sent}|{sent}|{sent}|{sum}|{sent}")]
    }

    pub fn settings(&self, instance: &str) -> Settings {
        let names = &self.names;
        let topics = [
            &names.source,
            &names.bases,
            &names.rules,
            &names.settlements,
            &names.statistics,
            &names.exclusions,
            &names.dead_letter,
            &names.changelog,
            &names.ingest_changelog,
        ];
        let properties = [
            ("session.timeout.ms", "6000"),
            ("max.poll.interval.ms", "6000"),
        ];
        Settings {
            bootstrap_servers: shared::cluster().unwrap().kafka.bootstrap(),
            application_id: names.application_id.clone(),
            instance_id: instance.to_owned(),
            advertise: String::new(),
            properties: properties
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into_iter()
                .collect(),
            topics: settle::broker::Names::new(topics.map(Clone::clone)),
            batch_bytes_max: usize::MAX,
            first_seen: Arc::default(),
            stop: Arc::default(),
        }
    }

    pub fn sink(&self, url: &str) -> Handle {
        spawn(self.settings("sink-0"), &Postgres::at(url)).unwrap()
    }
}

/// Rows of the log, distinct payments in it, settlements, their sum, and the total published last.
pub const EVERYTHING: &str = "SELECT
    (SELECT count(*) FROM settle.payment_log),
    (SELECT count(DISTINCT payment_id) FROM settle.payment_log),
    (SELECT count(*) FROM settle.settlement),
    (SELECT coalesce(sum(amount), 0) FROM settle.settlement),
    (SELECT count FROM settle.statistics)";

pub const STATISTICS_KEY: &str = r#"{"merchantNumber":"m","paymentDateDaily":"2025-05-26","paymentActionType":"PAYMENT","paymentMethodType":"CARD"}"#;

fn total(count: i64) -> String {
    format!(
        r#"{{"totalAmount":{},"count":{count}}}"#,
        count * (count - 1) / 2
    )
}

fn texts(number: i64) -> (String, String, String) {
    let id = format!("p-{number}");
    let settlement = format!(
        r#"{{"paymentId":"{id}","channel":"ONLINE","paymentType":"ONLINE","amount":{number},"merchantNumber":"m","paymentDate":"2025-05-26T14:23","paymentActionType":"PAYMENT","paymentMethodType":"CARD","payoutDate":"2025-06-10","confirmDate":"2025-06-09","payoutBasis":"RULE","ruleId":"r","source":{{"partition":0,"offset":{number}}}}}"#
    );
    (id, format!(r#"{{"number":{number}}}"#), settlement)
}
