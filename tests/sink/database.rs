//! The writer and the schema, without Kafka.

use settle::broker::{Names, Partition, Topic};
use settle::config::Postgres;
use settle::domain::payment::Source;
use settle::sink::batch::Batch;
use settle::sink::connection::{Database, Error, Reaction};
use settle::sink::jsonb;
use settle::sink::rows::{Logged, Row, Totals, TotalsKey};
use settle::sink::writer::Writer;

use crate::proxy::{Cut, Proxy};
use crate::server;

/// A partition of the statistics topic, which these tests fill: a stale writer would show in it.
const AT: Partition = Partition::new(Topic::Statistics, 0);

fn writer(url: &str) -> Writer {
    let names = Topic::ALL.map(|topic| format!("{topic:?}"));
    Writer::new(
        Database::new(&Postgres::at(url)).unwrap(),
        Names::new(names),
    )
}

/// The totals of one key after each of the records `from..to`, and a log row for each.
fn batch(expected: Option<i64>, from: i64, to: i64) -> Batch {
    let mut batch = Batch::default();
    for offset in from..to {
        let key = TotalsKey {
            merchant: "m".to_owned(),
            day: jiff::civil::date(2025, 5, 26),
            action: "PAYMENT".to_owned(),
            method: "CARD".to_owned(),
        };
        let totals = Totals {
            amount: 10 * (offset + 1),
            count: offset + 1,
        };
        let row = Row::Statistics(Box::new(key), Some(totals));
        batch.push(AT, expected, offset, (Some(row), 1));
    }
    batch
}

fn logged(offset: i64, body: &str) -> Row {
    Row::Payment(Logged {
        place: Source {
            partition: 0,
            offset,
        },
        payment_id: None,
        recorded_at: None,
        body: Some(body.to_owned()),
        raw: None,
    })
}

const STATE: &str = "SELECT next_offset, count, total_amount
                     FROM settle.sink_position, settle.statistics";

#[tokio::test]
async fn several_writers_find_no_schema_and_one_makes_it() {
    let url = server::new_database();
    let ready = (0..8).map(|_| async { writer(&url).positions().await });
    for positions in futures_util::future::join_all(ready).await {
        assert!(positions.unwrap().is_empty());
    }
    let client = server::connect(&url).await;
    let versions = "SELECT version, count(*) FROM settle.schema_version GROUP BY 1 ORDER BY 1";
    assert_eq!(server::ask(&client, versions).await, ["0|1", "1|1"]);
    let tables = "SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables
                  WHERE schemaname = 'settle'";
    assert_eq!(
        server::ask(&client, tables).await,
        [
            "dead_letter exclusion payment_log payout_rule schema_version settlement \
          sink_position statistics"
        ]
    );
}

#[tokio::test]
async fn a_schema_of_a_newer_binary_is_refused_with_both_versions() {
    let url = server::new_database();
    writer(&url).positions().await.unwrap();
    let client = server::connect(&url).await;
    let newer = "INSERT INTO settle.schema_version (version) VALUES (4711)";
    client.batch_execute(newer).await.unwrap();
    let error = writer(&url).positions().await.unwrap_err();
    assert_eq!(error.reaction(), Reaction::Stop);
    assert!(error.to_string().contains("4711"), "{error}");
}

#[tokio::test]
async fn a_database_that_lost_a_table_is_made_whole_and_forgets_its_positions() {
    let url = server::new_database();
    let mut writer = writer(&url);
    writer.write(&batch(None, 0, 3)).await.unwrap();
    let client = server::connect(&url).await;
    client
        .batch_execute("DROP TABLE settle.settlement")
        .await
        .unwrap();
    let mut next = crate::database::writer(&url);
    assert!(next.positions().await.unwrap().is_empty());
    next.write(&batch(None, 0, 3)).await.unwrap();
    assert_eq!(server::ask(&client, STATE).await, ["3|3|30"]);
    assert!(
        server::ask(&client, "TABLE settle.settlement")
            .await
            .is_empty()
    );
}

#[tokio::test]
async fn a_schema_dropped_under_a_connection_is_made_again() {
    let url = server::new_database();
    let mut writer = writer(&url);
    writer.write(&batch(None, 0, 3)).await.unwrap();
    let client = server::connect(&url).await;
    client
        .batch_execute("DROP SCHEMA settle CASCADE")
        .await
        .unwrap();
    let error = writer.write(&batch(Some(3), 3, 5)).await.unwrap_err();
    assert_eq!(error.reaction(), Reaction::Retry);
    assert!(matches!(
        writer.write(&batch(Some(3), 3, 5)).await,
        Err(Error::Moved)
    ));
    assert!(writer.positions().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_writer_that_was_overtaken_writes_nothing() {
    let url = server::new_database();
    let (mut zombie, mut owner) = (writer(&url), writer(&url));
    zombie.write(&batch(None, 0, 4)).await.unwrap();
    owner.write(&batch(Some(4), 4, 9)).await.unwrap();
    for stale in [
        batch(Some(4), 4, 6),
        batch(None, 0, 2),
        batch(Some(12), 12, 14),
    ] {
        assert!(matches!(zombie.write(&stale).await, Err(Error::Moved)));
    }
    let client = server::connect(&url).await;
    assert_eq!(server::ask(&client, STATE).await, ["9|9|90"]);
    assert_eq!(zombie.positions().await.unwrap()[&AT], 9);
    zombie.write(&batch(Some(9), 9, 10)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_racing_writers_never_leave_totals_that_are_not_those_of_the_position() {
    const END: i64 = 1500;
    let url = server::new_database();
    let race = |step: i64| {
        let url = url.clone();
        tokio::spawn(async move {
            let mut writer = writer(&url);
            let (mut believed, mut lost) = (None, 0);
            loop {
                let from = believed.unwrap_or(0);
                if from == END {
                    return lost;
                }
                let to = (from + step).min(END);
                match writer.write(&batch(believed, from, to)).await {
                    Ok(_) => believed = Some(to),
                    Err(error) if error.reaction() == Reaction::Rewind => {
                        lost += 1;
                        believed = writer.positions().await.unwrap().get(&AT).copied();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        })
    };
    let racers = [race(3), race(5)];
    let client = server::connect(&url).await;
    let mut looks = 0;
    while racers.iter().any(|racer| !racer.is_finished()) {
        let there = "SELECT to_regclass('settle.sink_position') IS NOT NULL";
        if server::ask(&client, there).await == ["t"] {
            let torn = format!("SELECT * FROM ({STATE}) AS s WHERE next_offset <> count");
            assert!(server::ask(&client, &torn).await.is_empty());
            looks += 1;
        }
    }
    let mut lost = 0;
    for racer in racers {
        lost += racer.await.unwrap();
    }
    assert!(lost > 0 && looks > 0, "no race: {lost} lost, {looks} looks");
    assert_eq!(server::ask(&client, STATE).await, ["1500|1500|15000"]);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_found_in_the_positions() {
    let url = server::new_database();
    writer(&url).positions().await.unwrap();
    let port = Database::new(&Postgres::at(&url))
        .unwrap()
        .config
        .get_ports()[0];
    let cuts = |commit| {
        [Some(Cut::After), Some(Cut::Before), None]
            .get(commit)
            .copied()
            .flatten()
    };
    let proxy = Proxy::start(port, cuts).await;
    let mut writer = writer(&url.replace(&port.to_string(), &proxy.port.to_string()));

    let first = batch(None, 0, 3);
    let error = writer.write(&first).await.unwrap_err();
    assert_eq!(error.reaction(), Reaction::Retry);
    // It was committed: writing it again must not happen.
    assert!(matches!(writer.write(&first).await, Err(Error::Moved)));
    assert_eq!(writer.positions().await.unwrap()[&AT], 3);

    let second = batch(Some(3), 3, 5);
    let error = writer.write(&second).await.unwrap_err();
    assert_eq!(error.reaction(), Reaction::Retry);
    // It was not committed: writing it again is right.
    writer.write(&second).await.unwrap();
    let client = server::connect(&url).await;
    assert_eq!(server::ask(&client, STATE).await, ["5|5|50"]);
    assert_eq!(proxy.commits(), 3);
}

#[tokio::test]
async fn a_body_that_only_the_server_refuses_goes_to_raw_and_takes_no_other_with_it() {
    let url = server::new_database();
    let mut writer = writer(&url);
    let source = Partition::new(Topic::Source, 0);
    let mut batch = Batch::default();
    for (offset, body) in [(0, "{\"a\":1}"), (1, "\"\\u0000\""), (2, "[2]")] {
        batch.push(source, None, offset, (Some(logged(offset, body)), 1));
    }
    let error = writer.write(&batch).await.unwrap_err();
    assert_eq!(error.reaction(), Reaction::Refused);
    assert_eq!(writer.find_refused(&mut batch).await.unwrap(), 1);
    writer.write(&batch).await.unwrap();
    let client = server::connect(&url).await;
    let rows = "SELECT body, convert_from(raw, 'UTF8') FROM settle.payment_log ORDER BY \"offset\"";
    let expected = ["{\"a\": 1}|-", "-|\"\\u0000\"", "[2]|-"];
    assert_eq!(server::ask(&client, rows).await, expected);
}

/// Asks the server for every text: what is accepted here it must take, and the other way round.
#[tokio::test]
async fn the_scanner_and_the_server_agree_on_what_jsonb_takes() {
    let client = server::connect(&server::new_database()).await;
    let mut disagreements = Vec::new();
    let mut taken = 0;
    for text in texts() {
        let server = client
            .query_one("SELECT $1::text::jsonb IS NULL", &[&text])
            .await;
        let ours = jsonb::text(text.as_bytes()).is_some();
        taken += usize::from(ours);
        if server.is_ok() != ours {
            disagreements.push((text, ours));
        }
    }
    assert_eq!(disagreements, []);
    assert!(taken > 300, "{taken}");
}

/// Hand-picked numbers and strings, and random strings of JSON's own pieces.
#[expect(clippy::too_many_lines, reason = "most of it is a list")]
fn texts() -> Vec<String> {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"b\":",
        "1",
        "0",
        "-",
        ".",
        "e",
        "E+",
        "5",
        "true",
        "null",
        "false",
        " ",
        "\n",
        "\\u0041",
        "\\ud83d",
        "\\ude00",
        "\\u0000",
        "\\n",
        "\\x",
        "\"\\ud83d\\ude00\"",
        "\t",
        "\u{7f}",
        "é",
        "1e5",
        "[1,2]",
        "{\"a\":[]}",
        "\u{1f}",
    ];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % 1_000_003).unwrap() % bound
    };
    let mut texts: Vec<String> = (0..20_000)
        .map(|_| {
            let count = 1 + random(7);
            let text: String = (0..count).map(|_| pieces[random(pieces.len())]).collect();
            match random(4) {
                0 => format!("[{text}]"),
                1 => format!("\"{text}\""),
                2 => format!("{{\"k\":{text}}}"),
                _ => text,
            }
        })
        .collect();
    for exponent in [
        -16_390_i64,
        -16_384,
        -16_383,
        -1,
        0,
        131_070,
        131_071,
        131_072,
        131_080,
        2_000_000,
    ] {
        for mantissa in [
            "0", "-0", "1", "10", "0.1", "0.0001", "0.000", "123.456", "-9",
        ] {
            texts.push(format!("{mantissa}e{exponent}"));
        }
    }
    texts.push("9".repeat(131_072));
    texts.push("9".repeat(131_073));
    texts.push(format!("0.{}", "9".repeat(16_383)));
    texts.push(format!("0.{}", "9".repeat(16_384)));
    texts.push(format!("{}1{}", "{\"a\":".repeat(1000), "}".repeat(1000)));
    texts
}
