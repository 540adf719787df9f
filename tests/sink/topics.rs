//! The whole sink: topics in, tables out, and what may happen on the way.

use std::time::Duration;

use chaos::cluster::{postgres, wait};
use settle::config::Postgres;
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

use crate::feed::{EVERYTHING, Feed, Record, STATISTICS_KEY};
use crate::proxy::{Cut, Proxy};
use crate::server::{self, Server};

const LIMIT: Duration = Duration::from_secs(60);

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
}

/// Asks until the answer is the expected one; no answer at all is as good as another one.
fn until(url: &str, query: &str, expected: &[String]) {
    let runtime = runtime();
    let mut last = Vec::new();
    let reached = wait::until("the expected rows", LIMIT, || {
        last = runtime.block_on(async {
            let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await else {
                return vec!["no connection".to_owned()];
            };
            tokio::spawn(connection);
            match client.simple_query(query).await {
                Ok(_) => server::ask(&client, query).await,
                Err(error) => vec![error.to_string()],
            }
        });
        Ok((last == expected).then_some(()))
    });
    assert!(reached.is_ok(), "{last:?} instead of {expected:?}");
}

fn execute(url: &str, statements: &str) {
    postgres::execute(url, statements).unwrap();
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one record of each kind, and its row"
)]
fn every_topic_fills_its_table_with_committed_records_only() {
    let feed = Feed::new();
    let names = feed.names.clone();
    let record = |topic, key, value| Record {
        topic,
        partition: 0,
        key,
        value,
        headers: &[],
    };
    let payment = |key, value| record(names.source.as_str(), key, value);
    feed.commit(&[
        payment(Some(&b"p-0"[..]), Some(&b"{\"a\": 1.50}"[..])),
        payment(None, None),
        payment(Some(b"a\0b"), Some(b"\xff")),
    ]);
    feed.abort(&[payment(Some(b"never"), Some(b"{}"))]);
    feed.commit(&[payment(Some(b"\xff"), Some(b"\"\\u0000\""))]);

    let settlement = br#"{"paymentId":"p-0","channel":"ONLINE","paymentType":"OFFLINE","amount":-12500,"merchantNumber":"m","paymentDate":"2025-05-26T14:23:51.123456789","paymentActionType":"CANCEL","paymentMethodType":"MONEY","payoutDate":"2025-06-10","confirmDate":"2025-06-09","payoutBasis":"DEFAULT","ruleId":null,"source":{"partition":0,"offset":0}}"#;
    let exclusion = br#"{"paymentId":null,"reason":"NO_DATA","source":{"partition":0,"offset":1},"merchantNumber":null,"amount":null}"#;
    let rule = |id: &str| {
        format!(
            r#"{{"ruleId":"{id}","payoutDate":"2025-06-10","confirmDate":"2025-06-09","merchantNumber":"m","paymentDate":"2025-05-26T00:00:00","paymentActionType":"PAYMENT","paymentMethodType":"CARD"}}"#
        )
    };
    let (old, new, key) = (rule("old"), rule("new"), &b"m/2025-05-26/PAYMENT/CARD"[..]);
    let total = |value| {
        record(
            names.statistics.as_str(),
            Some(STATISTICS_KEY.as_bytes()),
            Some(value),
        )
    };
    let dead = Record {
        headers: &[
            ("settle-reason", "NOT_UTF8"),
            ("settle-detail", "byte 0"),
            ("settle-source", "payments/0/2"),
        ],
        ..record(&names.dead_letter, Some(b"a\0b"), Some(b"\xff"))
    };
    feed.commit(&[
        record(&names.settlements, Some(b"p-0"), Some(settlement)),
        record(&names.settlements, Some(b"touch"), Some(b"no settlement")),
        record(&names.settlements, None, None),
        record(&names.exclusions, None, Some(exclusion)),
        dead,
        record(&names.rules, Some(key), Some(old.as_bytes())),
        record(
            &names.rules,
            Some(b"m/2025-05-27/PAYMENT/CARD"),
            Some(old.as_bytes()),
        ),
        record(&names.rules, Some(key), None),
        record(&names.rules, Some(key), Some(new.as_bytes())),
        total(&br#"{"totalAmount":5,"count":1}"#[..]),
        total(br#"{"totalAmount":-7,"count":2}"#),
    ]);

    let url = server::new_database();
    let sink = feed.sink(&url);
    let expect = |query: &str, rows: &[&str]| {
        let rows: Vec<String> = rows.iter().map(|row| (*row).to_owned()).collect();
        until(&url, query, &rows);
    };
    expect(
        "SELECT partition, \"offset\", payment_id, body, raw,
                recorded_at BETWEEN now() - interval '1 hour' AND now()
         FROM settle.payment_log ORDER BY 2",
        &[
            "0|0|p-0|{\"a\": 1.50}|-|t",
            "0|1|-|-|-|t",
            "0|2|-|-|\\xff|t",
            "0|6|-|-|\\x225c753030303022|t",
        ],
    );
    expect(
        "TABLE settle.settlement",
        &[
            "p-0|ONLINE|OFFLINE|-12500|m|2025-05-26 14:23:51.123456|CANCEL|MONEY|2025-06-10|2025-06-09|DEFAULT|-|0|0",
        ],
    );
    expect("TABLE settle.exclusion", &["0|1|-|NO_DATA|-|-|-|-"]);
    expect("TABLE settle.dead_letter", &["0|2|-|NOT_UTF8|byte 0|\\xff"]);
    expect(
        "TABLE settle.payout_rule",
        &["m/2025-05-26/PAYMENT/CARD|new|2025-06-10|2025-06-09"],
    );
    expect(
        "TABLE settle.statistics",
        &["m|2025-05-26|PAYMENT|CARD|-7|2"],
    );
    let status = sink.status();
    assert_eq!(status.unreadable(), 2);
    assert!(status.is_connected() && status.problem().is_none());
    wait::until("a lag of nothing", LIMIT, || {
        let partitions = status.partitions();
        let done = partitions
            .values()
            .all(|partition| partition.lag == Some(0));
        Ok((partitions.len() == 12 && done).then_some(()))
    })
    .unwrap();
    sink.stop();
    sink.join().unwrap();
}

#[test]
fn a_database_killed_under_load_neither_loses_nor_doubles_a_row() {
    let server = Server::start();
    let url = server.postgres.url();
    let mut feed = Feed::new();
    let sink = feed.sink(&url);
    for round in 0..60 {
        feed.payments(100);
        if round % 20 == 10 {
            server.postgres.kill();
        }
        if round % 20 == 15 {
            server.postgres.restart().unwrap();
        }
    }
    until(&url, EVERYTHING, &feed.expected());
    sink.stop();
    sink.join().unwrap();
}

#[test]
fn connections_cut_around_commit_neither_lose_nor_double_a_row() {
    let url = server::new_database();
    let runtime = runtime();
    let port = url
        .rsplit_once(':')
        .unwrap()
        .1
        .split_once('/')
        .unwrap()
        .0
        .to_owned();
    let cuts = |commit: usize| [Some(Cut::After), None, Some(Cut::Before), None][commit % 4];
    let proxy = runtime.block_on(Proxy::start(port.parse().unwrap(), cuts));
    let mut feed = Feed::new();
    let sink = feed.sink(&url.replace(&port, &proxy.port.to_string()));
    for _ in 0..40 {
        feed.payments(100);
    }
    until(&url, EVERYTHING, &feed.expected());
    // Two are the schema's, and every other one after those is cut.
    wait::until("eight commits", LIMIT, || {
        feed.payments(100);
        until(&url, EVERYTHING, &feed.expected());
        Ok((proxy.commits() >= 8).then_some(()))
    })
    .unwrap();
    sink.stop();
    sink.join().unwrap();
}

#[test]
fn a_wiped_database_is_filled_again_while_running_and_between_runs() {
    let url = server::new_database();
    let mut feed = Feed::new();
    let sink = feed.sink(&url);
    feed.payments(500);
    until(&url, EVERYTHING, &feed.expected());
    execute(&url, "DROP SCHEMA settle CASCADE");
    until(&url, EVERYTHING, &feed.expected());
    execute(
        &url,
        "TRUNCATE settle.payment_log, settle.settlement, settle.statistics, settle.sink_position",
    );
    feed.payments(500);
    until(&url, EVERYTHING, &feed.expected());
    assert!(sink.status().rewinds() > 0);
    sink.stop();
    sink.join().unwrap();

    execute(&url, "DROP TABLE settle.settlement");
    feed.payments(500);
    let sink = feed.sink(&url);
    until(&url, EVERYTHING, &feed.expected());
    sink.stop();
    sink.join().unwrap();
}

#[test]
fn two_sinks_that_both_believe_to_own_every_partition_write_each_record_once() {
    let url = server::new_database();
    let mut feed = Feed::new();
    let sinks = ["one", "other"].map(|group| {
        let mut settings = feed.settings("sink-0");
        settings.application_id = format!("{}-{group}", settings.application_id);
        settle::sink::spawn(settings, &Postgres::at(&url)).unwrap()
    });
    for _ in 0..60 {
        feed.payments(100);
    }
    until(&url, EVERYTHING, &feed.expected());
    let mut sent = 6000;
    wait::until("a race that one of them loses", LIMIT, || {
        if sinks.iter().any(|sink| sink.status().rewinds() > 0) {
            return Ok(Some(()));
        }
        feed.payments(100);
        sent += 100;
        until(&url, EVERYTHING, &feed.expected());
        Ok(None)
    })
    .unwrap();
    let written = || -> u64 {
        let rows = sinks
            .iter()
            .flat_map(|sink| sink.status().rows().collect::<Vec<_>>());
        let rows = rows.filter(|(table, _)| *table == "payment_log");
        rows.map(|(_, rows)| rows).sum()
    };
    // Rows are counted a moment after they can be seen.
    wait::until("all rows counted", LIMIT, || {
        Ok((written() >= sent).then_some(()))
    })
    .unwrap();
    assert_eq!(written(), sent);
    for sink in sinks {
        sink.stop();
        sink.join().unwrap();
    }
}

#[test]
fn partitions_move_between_instances_without_a_row_lost_or_doubled() {
    let url = server::new_database();
    let mut feed = Feed::new();
    let first = settle::sink::spawn(feed.settings("sink-0"), &Postgres::at(&url)).unwrap();
    feed.payments(500);
    until(&url, EVERYTHING, &feed.expected());
    let second = settle::sink::spawn(feed.settings("sink-1"), &Postgres::at(&url)).unwrap();
    let status = second.status();
    wait::until("a share for the second", LIMIT, || {
        feed.payments(20);
        Ok((!status.partitions().is_empty()).then_some(()))
    })
    .unwrap();
    feed.payments(500);
    until(&url, EVERYTHING, &feed.expected());
    first.stop();
    first.join().unwrap();
    wait::until("everything for the second", LIMIT, || {
        feed.payments(20);
        Ok((status.partitions().len() == 12).then_some(()))
    })
    .unwrap();
    until(&url, EVERYTHING, &feed.expected());
    second.stop();
    second.join().unwrap();
}

#[test]
fn a_database_that_does_not_answer_costs_the_sink_neither_its_group_nor_its_memory() {
    let server = Server::start();
    let url = server.postgres.url();
    let mut feed = Feed::new();
    let sink = feed.sink(&url);
    feed.payments(500);
    until(&url, EVERYTHING, &feed.expected());
    server.postgres.pause();
    for _ in 0..10 {
        feed.payments(2000);
    }
    // Longer than max.poll.interval.ms of these tests: who does not poll is put out of the group.
    std::thread::sleep(Duration::from_secs(8));
    assert_eq!(sink.status().problem(), None);
    assert_eq!(sink.status().partitions().len(), 12);
    server.postgres.resume();
    until(&url, EVERYTHING, &feed.expected());
    assert_eq!(sink.status().problem(), None);
    sink.stop();
    sink.join().unwrap();
}

#[test]
fn a_newer_schema_stops_the_sink_and_says_why() {
    let url = server::new_database();
    let feed = Feed::new();
    execute(
        &url,
        "CREATE SCHEMA settle; CREATE TABLE settle.schema_version (version int PRIMARY KEY);
         INSERT INTO settle.schema_version VALUES (4711)",
    );
    let sink = feed.sink(&url);
    wait::until("the end of the sink", LIMIT, || {
        Ok(sink.is_finished().then_some(()))
    })
    .unwrap();
    assert!(sink.join().unwrap_err().to_string().contains("4711"));
}
