//! The whole proof on a real Kafka and a real PostgreSQL, which the reference has filled.

use std::collections::BTreeSet;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tokio_postgres::NoTls;
use tokio_postgres::types::ToSql;

use crate::cluster::names::Names;
use crate::cluster::shared;
use crate::cluster::topics::{Topic as NewTopic, Topics};
use crate::model::{Contract, outgoing};
use crate::oracle::promise::Promise;
use crate::oracle::reference::{self, Capture, Stored, Topic};
use crate::oracle::settled::{self, Run};
use crate::oracle::{Proof, prove};
use crate::topics_reader;
use crate::workload::day::{Day, DayOptions};
use crate::workload::send::{self, SendOptions, Transactions};
use crate::workload::{EXCLUDED_MERCHANTS, TEST_MERCHANTS};

const LIMIT: Duration = Duration::from_secs(30);
const SCHEMA: &str = "create schema settle;
    create table settle.payment_log (partition int, \"offset\" bigint, payment_id text, recorded_at timestamptz,
        body jsonb, raw bytea);
    create table settle.settlement (payment_id text, channel text, payment_type text, amount bigint,
        merchant_number text, payment_date timestamp, action_type text, method_type text, payout_date date,
        confirm_date date, payout_basis text, rule_id text, source_partition int, source_offset bigint);
    create table settle.exclusion (source_partition int, source_offset bigint, payment_id text, reason text,
        merchant_number text, amount bigint, first_partition int, first_offset bigint);
    create table settle.dead_letter (source_partition int, source_offset bigint, payment_id text, reason text,
        detail text, payload bytea);
    create table settle.payout_rule (rule_key text, rule_id text, payout_date date, confirm_date date);
    create table settle.statistics (merchant_number text, payment_date date, action_type text, method_type text,
        total_amount bigint, count bigint);
    create table settle.sink_position (topic text, partition int, next_offset bigint)";

#[test]
fn a_perfect_run_on_real_parts_is_proven_and_its_flaws_are_found() {
    let cluster = shared::cluster().unwrap();
    let names = Names::unique("oracle");
    let contract = Contract {
        source_topic: names.source.clone(),
        excluded_merchants: EXCLUDED_MERCHANTS.map(str::to_owned).to_vec(),
        test_merchants: TEST_MERCHANTS.map(str::to_owned).to_vec(),
        ..Contract::default()
    };
    cluster.postgres().create_database(&names.database).unwrap();
    let run = Run {
        bootstrap: cluster.kafka.bootstrap(),
        postgres: Some(cluster.postgres().url_of(&names.database)),
        names,
        instances: Vec::new(),
    };
    create_topics(&run);
    let capture = reference::settle(&contract, send_the_day(&run));
    publish(&run, &capture);
    let database = Sql::connect(&run);
    database.fill(&run, &capture);
    commit_group(&run, 0);
    settled::wait_settled(&run, LIMIT).unwrap();

    let proof = prove(&run, &contract, &reference::service).unwrap();
    let examples = |proof: &Proof| {
        let all = proof.findings.all().iter();
        all.flat_map(|finding| finding.examples.clone())
            .collect::<Vec<_>>()
    };
    assert!(proof.findings.hold(), "{:#?}", examples(&proof));
    assert_eq!(proof.tally.values().sum::<u64>(), proof.sources);

    database.execute(
        "delete from settle.settlement where source_offset = 20",
        &[],
    );
    let proof = prove(&run, &contract, &reference::service).unwrap();
    assert_eq!(
        proof.findings.broken(),
        [Promise::Tables],
        "{:#?}",
        examples(&proof)
    );

    commit_group(&run, 3);
    assert!(settled::wait_settled(&run, Duration::from_millis(500)).is_err());
    let proof = prove(&run, &contract, &reference::service).unwrap();
    assert_eq!(proof.findings.broken(), [Promise::AtRest, Promise::Tables]);
}

fn create_topics(run: &Run) {
    let topics: Vec<NewTopic> = run
        .names
        .topics()
        .into_iter()
        .map(|(key, name)| {
            let partitions = match key {
                "dead_letter" => reference::SHAPE.dead_letters,
                "exclusions" => reference::SHAPE.exclusions,
                _ => reference::SHAPE.keyed,
            };
            NewTopic::new(name, partitions)
        })
        .collect();
    Topics::connect(&run.bootstrap)
        .unwrap()
        .create(&topics)
        .unwrap();
}

/// Sends a day in transactions, some of them aborted, and reads it back as it is stored.
fn send_the_day(run: &Run) -> Topic {
    let options = SendOptions {
        transactions: Some(Transactions {
            id: format!("{}-sender", run.names.application_id),
            size: 100,
            abort_every: 3,
        }),
        ..SendOptions::new(&run.bootstrap, &run.names.source)
    };
    let day = DayOptions {
        merchants: 30,
        ..DayOptions::new(21, 1000, reference::SHAPE.keyed)
    };
    let sent = send::send(&options, Day::new(day), |_| true).unwrap();
    assert!(sent.aborted_transactions > 2);
    let mut source = Topic::default();
    topics_reader::read(&run.bootstrap, &run.names.source, |record| {
        source.records.push(Stored {
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: Vec::new(),
        });
    })
    .unwrap();
    assert_eq!(
        source.records.len(),
        usize::try_from(sent.messages).unwrap()
    );
    source
}

fn publish(run: &Run, capture: &Capture) {
    let names = &run.names;
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &run.bootstrap)
        .set("transactional.id", &names.application_id)
        .create()
        .unwrap();
    producer.init_transactions(LIMIT).unwrap();
    for (topic, content) in [
        (&names.rules, &capture.rules),
        (&names.bases, &capture.bases),
        (&names.settlements, &capture.settlements),
        (&names.exclusions, &capture.exclusions),
        (&names.dead_letter, &capture.dead_letters),
        (&names.statistics, &capture.statistics),
    ] {
        producer.begin_transaction().unwrap();
        let mut seen = BTreeSet::new();
        for stored in &content.records {
            // One value of a key in each transaction.
            if topic == &names.statistics && !seen.insert(&stored.key) {
                producer.flush(LIMIT).unwrap();
                producer.commit_transaction(LIMIT).unwrap();
                producer.begin_transaction().unwrap();
                seen = BTreeSet::from([&stored.key]);
            }
            send_stored(&producer, topic, stored);
        }
        producer.flush(LIMIT).unwrap();
        producer.commit_transaction(LIMIT).unwrap();
    }
}

fn send_stored(producer: &BaseProducer, topic: &str, stored: &Stored) {
    let headers = stored
        .headers
        .iter()
        .fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        });
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic)
        .partition(stored.partition)
        .headers(headers);
    if let Some(key) = &stored.key {
        record = record.key(key);
    }
    if let Some(value) = &stored.value {
        record = record.payload(value);
    }
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.poll(Duration::ZERO);
}

/// Commits what the group has read: the last record of each partition less `missing`, not the control record after it.
fn commit_group(run: &Run, missing: i64) {
    let names = &run.names;
    let consumer =
        topics_reader::committed_consumer(&run.bootstrap, &names.application_id).unwrap();
    let mut list = TopicPartitionList::new();
    for topic in [&names.source, &names.bases] {
        for (partition, (_, high)) in
            (0..).zip(topics_reader::bounds(&run.bootstrap, topic).unwrap())
        {
            let next = Offset::Offset(high - 1 - missing);
            list.add_partition_offset(topic, partition, next).unwrap();
        }
    }
    consumer.commit(&list, CommitMode::Sync).unwrap();
}

struct Sql {
    client: tokio_postgres::Client,
    runtime: tokio::runtime::Runtime,
}

impl Sql {
    fn connect(run: &Run) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let url = run.postgres.as_deref().unwrap();
        let (client, connection) = runtime
            .block_on(tokio_postgres::connect(url, NoTls))
            .unwrap();
        runtime.spawn(connection);
        runtime.block_on(client.batch_execute(SCHEMA)).unwrap();
        Self { client, runtime }
    }

    fn execute(&self, statement: &str, values: &[&(dyn ToSql + Sync)]) {
        self.runtime
            .block_on(self.client.execute(statement, values))
            .unwrap();
    }

    fn fill(&self, run: &Run, capture: &Capture) {
        self.runtime
            .block_on(self.client.batch_execute("begin"))
            .unwrap();
        self.fill_outcomes(capture);
        for row in &capture.log_rows {
            self.execute(
                "insert into settle.payment_log
                 values ($1, $2, $3, to_timestamp($4::bigint / 1000.0::numeric), $5::text::jsonb, $6)",
                &[&row.place.partition, &row.place.offset, &row.payment_id, &row.recorded_at_ms, &row.body, &row.raw],
            );
        }
        for (key, rule) in &capture.rule_rows {
            self.execute(
                "insert into settle.payout_rule values ($1, $2, $3::text::date, $4::text::date)",
                &[key, &rule.id, &rule.payout_date, &rule.confirm_date],
            );
        }
        for (key, totals) in &capture.statistics_rows {
            let [merchant, day, action, method] = outgoing::fields(key).unwrap();
            self.execute(
                "insert into settle.statistics values ($1, $2::text::date, $3, $4, $5, $6)",
                &[
                    &merchant,
                    &day,
                    &action,
                    &method,
                    &totals.amount,
                    &totals.count,
                ],
            );
        }
        let names = &run.names;
        for topic in names.sunk() {
            for (partition, (_, high)) in
                (0_i32..).zip(topics_reader::bounds(&run.bootstrap, topic).unwrap())
            {
                self.execute(
                    "insert into settle.sink_position values ($1, $2, $3)",
                    &[topic, &partition, &high],
                );
            }
        }
        self.runtime
            .block_on(self.client.batch_execute("commit"))
            .unwrap();
    }

    fn fill_outcomes(&self, capture: &Capture) {
        for row in &capture.settlement_rows {
            let s = &row.settlement;
            self.execute(
                "insert into settle.settlement values ($1, $2, $3, $4, $5, $6::text::timestamp, $7, $8,
                 $9::text::date, $10::text::date, $11, $12, $13, $14)",
                &[
                    &s.payment_id, &s.channel, &s.payment_type, &s.amount, &s.merchant, &s.payment_date, &s.action_type,
                    &s.method_type, &s.payout_date, &s.confirm_date, &s.basis, &s.rule_id, &s.source.partition,
                    &s.source.offset,
                ],
            );
        }
        for e in &capture.exclusion_rows {
            let first = (
                e.first.map(|place| place.partition),
                e.first.map(|place| place.offset),
            );
            self.execute(
                "insert into settle.exclusion values ($1, $2, $3, $4, $5, $6, $7, $8)",
                &[
                    &e.source.partition,
                    &e.source.offset,
                    &e.payment_id,
                    &e.reason,
                    &e.merchant,
                    &e.amount,
                    &first.0,
                    &first.1,
                ],
            );
        }
        for row in &capture.dead_letter_rows {
            self.execute(
                "insert into settle.dead_letter values ($1, $2, $3, $4, $5, $6)",
                &[
                    &row.source.partition,
                    &row.source.offset,
                    &row.payment_id,
                    &row.reason,
                    &row.detail,
                    &row.payload,
                ],
            );
        }
    }
}
