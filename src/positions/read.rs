//! What is known of a partition: its position record, the group's offset, its log.

use std::collections::BTreeMap;
use std::fmt;

use crate::broker::port::{GroupOffsets, Port as _, Reader as _};
use crate::broker::scan::{Isolation, Range};
use crate::broker::{Bounds, Partition, Record, Topic};
use crate::clock;
use crate::codec::stored::{POSITION_KEY, Position, TOUCH_KEY};
use crate::codec::wire::{SettlementJson, StatisticsKey, StatisticsValue};
use crate::domain::rule::RuleKey;
use crate::domain::totals::Totals;
use crate::engine::start::{Facts, Recorded, decide};
use crate::positions::{Error, Session};

/// The newest position record stands near the end of its log, as a rule.
const TAIL: i64 = 1000;

/// One partition of payments or bases.
#[derive(Debug, Clone)]
pub struct Row {
    /// `payments/3`.
    pub place: String,
    /// Of the position record.
    pub position: Option<i64>,
    pub group: Option<i64>,
    pub log: Bounds,
    /// Why `settle run` would refuse it, and what to do.
    pub refusal: Option<String>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |offset: Option<i64>| offset.map_or("none".to_owned(), |it| it.to_string());
        let (position, group) = (known(self.position), known(self.group));
        let Bounds { low, high } = self.log;
        write!(
            f,
            "{}: position {position}, group {group}, log {low} to {high}",
            self.place
        )?;
        match &self.refusal {
            Some(refusal) => write!(f, "\n    refused: {refusal}"),
            None => Ok(()),
        }
    }
}

/// What stands in the changelog of a task.
pub(super) struct Log {
    pub partition: Partition,
    pub bounds: Bounds,
    pub position: Option<Position>,
    /// Committed records of any kind.
    pub is_empty: bool,
}

fn unreadable(place: &str, record: &Record, reason: impl fmt::Display) -> Error {
    let offset = record.offset;
    Error::Refused(format!(
        "{place}: the record at {offset} cannot be read: {reason}"
    ))
}

impl Session {
    /// The changelog of a task, up to its high watermark.
    pub(super) fn changelog(&self, task: Partition) -> Result<Log, Error> {
        let topic = match task.topic {
            Topic::Source => Topic::IngestChangelog,
            _ => Topic::Changelog,
        };
        let partition = Partition::new(topic, task.number);
        let bounds = self.settled_bounds(partition)?;
        let mut log = Log {
            partition,
            bounds,
            position: None,
            is_empty: true,
        };
        let tail = bounds.low.max(bounds.high - TAIL);
        for (from, to) in [(tail, bounds.high), (bounds.low, tail)] {
            if log.position.is_none() {
                self.look_for_position(&mut log, from, to)?;
            }
        }
        Ok(log)
    }

    fn look_for_position(&self, log: &mut Log, from: i64, to: i64) -> Result<(), Error> {
        let place = self.place(log.partition);
        let mut broken = Ok(());
        self.visit(log.partition, from, to, |record| {
            log.is_empty = false;
            if let (Some(POSITION_KEY), Some(value)) = (record.key, record.value) {
                match Position::decode(value) {
                    Ok(position) => log.position = Some(position),
                    Err(error) => broken = Err(unreadable(&place, record, error)),
                }
            }
        })?;
        broken
    }

    /// Bounds of a log in which nothing is undecided.
    fn settled_bounds(&self, partition: Partition) -> Result<Bounds, Error> {
        let bounds = self.reader.bounds(partition)?;
        let stable = self.reader.ends(&[partition], Isolation::Committed)?[0];
        if stable < bounds.high {
            return Err(Error::Refused(format!(
                "{}: a transaction from offset {stable} on has not ended. It ends when it times \
                 out; `kafka-transactions.sh find-hanging` and `abort` end one that does not",
                self.place(partition)
            )));
        }
        Ok(bounds)
    }

    /// Shows the committed records, those aside that say nothing.
    fn visit(
        &self,
        partition: Partition,
        from: i64,
        to: i64,
        mut each: impl FnMut(&Record),
    ) -> Result<(), Error> {
        let range = Range {
            partition,
            from,
            to,
        };
        self.settings
            .scan(Isolation::Committed, &[range], |record, _| {
                if record.key != Some(TOUCH_KEY) {
                    each(record);
                }
            })?;
        Ok(())
    }

    pub(super) fn group(&self, task: Partition) -> Result<Option<i64>, Error> {
        match self.reader.committed(&[task])? {
            GroupOffsets::Stable(offsets) => Ok(offsets[0]),
            GroupOffsets::Undecided(_) => Err(Error::Refused(format!(
                "the group's offset of {} is part of a transaction that has not ended",
                self.place(task)
            ))),
        }
    }

    pub(super) fn rows(&self) -> Result<Vec<Row>, Error> {
        self.tasks()
            .into_iter()
            .map(|task| self.row(task))
            .collect()
    }

    fn row(&self, task: Partition) -> Result<Row, Error> {
        let log = self.changelog(task)?;
        let group = self.group(task)?;
        let bounds = self.reader.bounds(task)?;
        let topic = self.settings.topics.of(task.topic);
        let recorded = log.position.as_ref().map(|position| Recorded {
            application_id: &position.application_id,
            topic: &position.topic,
            next: position.next,
        });
        let begins = (log.bounds.low > 0).then(|| {
            let low = log.bounds.low;
            format!("{} begins at {low}", self.place(log.partition))
        });
        let facts = Facts {
            recorded,
            group,
            trace: begins.as_deref(),
            is_undone: false,
            source: bounds,
            ends_in_marker: task.topic == Topic::Bases,
            application_id: &self.settings.application_id,
            topic,
        };
        let refusal = decide(&facts).err().map(|refusal| {
            let advice = refusal.advice(task.topic, topic, task.number);
            format!("{refusal}. {advice}")
        });
        Ok(Row {
            place: self.place(task),
            position: recorded.map(|recorded| recorded.next),
            group,
            log: bounds,
            refusal,
        })
    }

    /// The totals of a bases partition, summed over its settlements. Its statistics must say the
    /// same: what was deleted from either topic is not taken for zero.
    pub(super) fn totals(&self, number: i32) -> Result<BTreeMap<RuleKey, Totals>, Error> {
        let settlements = Partition::new(Topic::Settlements, number);
        let statistics = Partition::new(Topic::Statistics, number);
        let mut summed: BTreeMap<RuleKey, Totals> = BTreeMap::new();
        self.each_whole(settlements, |record| {
            let json = record.value.unwrap_or_default();
            let settlement: SettlementJson =
                serde_json::from_slice(json).map_err(|error| error.to_string())?;
            let key = settlement.rule_key().ok_or("it has no rule key")?;
            let totals = summed.entry(key).or_default();
            *totals = totals.with(settlement.amount).ok_or("the sum overflows")?;
            Ok(())
        })?;
        let mut published: BTreeMap<RuleKey, Totals> = BTreeMap::new();
        self.each_whole(statistics, |record| {
            let parsed = serde_json::from_slice::<StatisticsKey>(record.key.unwrap_or_default());
            let key = parsed.map_err(|error| error.to_string())?;
            let key = key.rule_key().ok_or("its key is no rule key")?;
            let value = serde_json::from_slice(record.value.unwrap_or_default());
            let value: StatisticsValue = value.map_err(|error| error.to_string())?;
            let totals = Totals {
                amount: value.total_amount,
                count: value.count,
            };
            published.insert(key, totals);
            Ok(())
        })?;
        let keys = summed.keys().chain(published.keys());
        let mut differ = keys.filter(|key| summed.get(*key) != published.get(*key));
        if let Some(key) = differ.next() {
            let told = |totals: Option<&Totals>| {
                totals.map_or("nothing".to_owned(), |it| {
                    format!("{} in {} settlements", it.amount, it.count)
                })
            };
            return Err(Error::Refused(format!(
                "{key}: {} sums up to {}, {} says {}; `settle verify` tells what is missing",
                self.place(settlements),
                told(summed.get(key)),
                self.place(statistics),
                told(published.get(key)),
            )));
        }
        Ok(summed)
    }

    /// Shows every committed record of a log that nothing was ever deleted from.
    fn each_whole(
        &self,
        partition: Partition,
        mut each: impl FnMut(&Record) -> Result<(), String>,
    ) -> Result<(), Error> {
        let place = self.place(partition);
        let Bounds { low, high } = self.settled_bounds(partition)?;
        if low > 0 {
            return Err(Error::Refused(format!(
                "{place} begins at {low}: what was deleted is missing from every sum"
            )));
        }
        let mut broken = Ok(());
        self.visit(partition, low, high, |record| {
            if broken.is_ok() {
                broken = each(record).map_err(|reason| unreadable(&place, record, reason));
            }
        })?;
        broken
    }

    /// The end of the duplicate window of a source partition that is processed up to `next`.
    pub(super) fn window_end(&self, task: Partition, next: i64) -> Result<i64, Error> {
        let low = self.reader.bounds(task)?.low;
        let (wall_now, mut end) = (clock::wall_millis(), 0);
        self.visit(task, low, next, |record| {
            end = end.max(record.timestamp.min(wall_now));
        })?;
        Ok(end)
    }
}
