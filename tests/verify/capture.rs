//! A real run, read once from its topics and tables, to be corrupted in memory and judged.

use std::sync::OnceLock;

use settle::broker::{Partition, Record, Topic};
use settle::config::Postgres;
use settle::sink::read::{Row, Snapshot, Table};
use settle::verify::audit::{Audit, Letter};
use settle::verify::cut::Moment;
use settle::verify::promise::Promise;
use settle::verify::terms::{Counts, Scope, Terms};
use settle::verify::{self, Report};

use crate::inspect::payment;
use crate::line::{Line, PARTITIONS, day};

/// A record of a topic, to keep and to change.
#[derive(Debug, Clone)]
pub struct Stored {
    pub partition: i32,
    pub offset: i64,
    pub timestamp: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Stored {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }

    pub fn replace(&mut self, from: &str, to: &str) {
        let text = self.text();
        assert!(text.contains(from), "{from} in {text}");
        self.value = Some(text.replacen(from, to, 1).into_bytes());
    }

    pub fn header(&mut self, name: &str) -> &mut Vec<u8> {
        let found = self.headers.iter_mut().find(|(key, _)| key == name);
        &mut found.unwrap().1
    }

    fn record(&self, topic: Topic) -> Record<'_> {
        Record {
            partition: Partition::new(topic, self.partition),
            offset: self.offset,
            timestamp: self.timestamp,
            key: self.key.as_deref(),
            value: self.value.as_deref(),
        }
    }
}

/// Everything that a run has committed, at rest.
#[derive(Debug, Clone)]
pub struct Capture {
    pub terms: Terms,
    pub topics: Vec<Vec<Stored>>,
    pub tables: Vec<(Table, Vec<Row>)>,
    pub positions: Vec<(Partition, i64)>,
}

impl Capture {
    pub fn of(&mut self, topic: Topic) -> &mut Vec<Stored> {
        &mut self.topics[topic as usize]
    }

    pub fn rows(&mut self, table: Table) -> &mut Vec<Row> {
        let found = self.tables.iter_mut().find(|(of, _)| *of == table);
        &mut found.unwrap().1
    }

    /// The first record whose value holds this text.
    pub fn find(&mut self, topic: Topic, text: &str) -> usize {
        let records = self.of(topic);
        let found = records
            .iter()
            .position(|stored| stored.text().contains(text));
        found.unwrap_or_else(|| panic!("no record of {topic:?} with {text}"))
    }

    /// Judges it, with everything at rest.
    pub fn judge(&self, scope: Scope) -> Report {
        let count = self.topics[Topic::Source as usize].len() as u64;
        let audit = Audit::new(self.terms.clone(), scope, count).unwrap();
        self.judge_by(audit.resting())
    }

    /// As beside live instances.
    pub fn judge_moving(&self) -> Report {
        let count = self.topics[Topic::Source as usize].len() as u64;
        self.judge_by(Audit::new(self.terms.clone(), Scope::default(), count).unwrap())
    }

    fn judge_by(&self, mut audit: Audit) -> Report {
        audit.with_tables();
        for (partition, next) in &self.positions {
            audit.cut().rows.insert(*partition, *next);
        }
        for (table, rows) in &self.tables {
            for row in rows {
                audit.row(*table, row).unwrap();
            }
        }
        for stored in &self.topics[Topic::Settlements as usize] {
            let end = audit.cut().settled.entry(stored.partition).or_default();
            *end = stored.offset + 1;
        }
        let order = [
            Topic::IngestChangelog,
            Topic::Changelog,
            Topic::Statistics,
            Topic::Settlements,
            Topic::Exclusions,
            Topic::DeadLetter,
            Topic::Rules,
            Topic::Bases,
            Topic::Source,
        ];
        for topic in order {
            for stored in &self.topics[topic as usize] {
                feed(&mut audit, topic, stored);
            }
        }
        audit.judge().unwrap()
    }
}

fn feed(audit: &mut Audit, topic: Topic, stored: &Stored) {
    let record = stored.record(topic);
    let header = |name: &str| {
        let found = stored.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_slice())
    };
    match topic {
        Topic::IngestChangelog => audit.position(&record, Moment::Before),
        Topic::Changelog => audit.changelog(&record, Moment::Before).unwrap(),
        Topic::Statistics => audit.statistics(&record).unwrap(),
        Topic::Settlements => audit.settlement(&record).unwrap(),
        Topic::Exclusions => audit.exclusion(&record).unwrap(),
        Topic::DeadLetter => audit
            .letter(&Letter {
                record,
                reason: header("settle-reason"),
                detail: header("settle-detail"),
                source: header("settle-source"),
                truncated: header("settle-truncated"),
            })
            .unwrap(),
        Topic::Rules => audit.rule(&record).unwrap(),
        Topic::Bases => audit.base(&record).unwrap(),
        Topic::Source => {
            // Read up to the position, as everything is.
            let end = audit.cut().after.source.get(&record.partition.number);
            if end.is_some_and(|end| record.offset < *end) {
                audit.source(&record).unwrap();
            }
        }
    }
}

/// A day of payments of every kind, settled by a real instance.
pub fn perfect() -> Capture {
    static RUN: OnceLock<Capture> = OnceLock::new();
    RUN.get_or_init(run).clone()
}

fn run() -> Capture {
    let mut line = Line::new("verified").with_database();
    line.start(1);
    // A sum overflows in this order only.
    for id in ["the most", "too much"] {
        line.send([payment(id, i64::MAX)]);
        line.settle();
    }
    line.send(day(71, 6000));
    line.prove();
    let names = line.names.clone();
    let topics = Topic::ALL.map(|topic| {
        let name = match topic {
            Topic::Source => &names.source,
            Topic::Bases => &names.bases,
            Topic::Rules => &names.rules,
            Topic::Settlements => &names.settlements,
            Topic::Statistics => &names.statistics,
            Topic::Exclusions => &names.exclusions,
            Topic::DeadLetter => &names.dead_letter,
            Topic::Changelog => &names.changelog,
            Topic::IngestChangelog => &names.ingest_changelog,
        };
        read(&line, name)
    });
    let snapshot = Snapshot::take(&Postgres::at(line.database.as_ref().unwrap())).unwrap();
    let tables = Table::ALL.map(|table| {
        let mut rows = Vec::new();
        let keep = |row| {
            rows.push(row);
            Ok::<(), verify::Error>(())
        };
        snapshot.rows(table, keep).unwrap();
        (table, rows)
    });
    let role = |name: &str| {
        let sunk = [
            (&names.source, Topic::Source),
            (&names.rules, Topic::Rules),
            (&names.settlements, Topic::Settlements),
            (&names.statistics, Topic::Statistics),
            (&names.exclusions, Topic::Exclusions),
            (&names.dead_letter, Topic::DeadLetter),
        ];
        sunk.into_iter()
            .find(|(topic, _)| *topic == name)
            .unwrap()
            .1
    };
    let positions = snapshot.positions().unwrap().into_iter();
    Capture {
        terms: Terms {
            source_topic: names.source.clone(),
            window_millis: 7 * 24 * 3_600_000,
            merchants: line.contract.excluded_merchants.clone(),
            test_merchants: line.contract.test_merchants.clone(),
            default_payout_days: 2,
            rule_lead_millis: 70_000,
            partitions: Counts {
                source: PARTITIONS,
                keyed: PARTITIONS,
                exclusions: PARTITIONS,
                letters: PARTITIONS,
            },
        },
        topics: topics.into(),
        tables: tables.into(),
        positions: positions
            .map(|(name, number, next)| (Partition::new(role(&name), number), next))
            .collect(),
    }
}

fn read(line: &Line, name: &str) -> Vec<Stored> {
    let mut records = Vec::new();
    line.read(name, |record| {
        let headers = record.headers.iter().map(|(key, value)| {
            let value = value.unwrap_or_default().to_vec();
            ((*key).to_owned(), value)
        });
        records.push(Stored {
            partition: record.partition,
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: headers.collect(),
        });
    });
    records.sort_by_key(|stored| (stored.partition, stored.offset));
    records
}

/// Corrupts the run; exactly these promises must be broken, and an example must say so.
pub fn breaks(promises: &[Promise], example: &str, corrupt: impl FnOnce(&mut Capture)) {
    let mut capture = perfect();
    corrupt(&mut capture);
    let report = capture.judge(Scope::default());
    let text = report.text();
    assert_eq!(report.findings.broken(), promises, "{text}");
    assert!(text.contains(example), "{example} in {text}");
}
