//! What a restoring task makes of the records of its logs, and what it refuses to take from them.

use crate::broker::{Names, Partition, Record, Topic};
use crate::codec::stored::{POSITION_KEY, Position, TOUCH_KEY, is_same_log, least_length};
use crate::domain::rule::RuleKey;
use crate::engine::failure::Failure;
use crate::engine::fixed::Fixed;
use crate::engine::inbox::Item;
use crate::engine::tasks::{Life, Tasks};
use crate::failpoint::{self, Point};
use crate::state::{self, totals};

/// Hands a record of a log to the task that owns it.
pub(super) fn read_log(tasks: &mut Tasks, record: &Record, fixed: &Fixed) -> Result<(), Failure> {
    let broken = |reason: &str| foreign(record, &fixed.names, reason);
    let number = record.partition.number;
    match record.partition.topic {
        Topic::Source => {
            let until = match tasks.lives.get(&record.partition) {
                Some(Life::Restoring(restore)) => restore.window_until,
                _ => None,
            };
            if until.is_some_and(|until| record.offset < until)
                && let Some(task) = tasks.ingest.get_mut(&number)
            {
                let item = Item {
                    offset: record.offset,
                    timestamp: record.timestamp,
                    key: record.key,
                    value: record.value,
                };
                task.replay(&item, fixed.wall_now)?;
                failpoint::hit(Point::RestoreReplay);
            }
        }
        Topic::IngestChangelog | Topic::Changelog if record.key == Some(TOUCH_KEY) => {}
        Topic::IngestChangelog => {
            let position = ingest_position(record).map_err(|reason| broken(&reason))?;
            let partition = Partition::new(Topic::Source, number);
            if let Some(Life::Restoring(restore)) = tasks.lives.get_mut(&partition) {
                restore.changelog = record.offset + 1;
                restore.position = Some(position);
            }
        }
        Topic::Changelog => {
            if let Some(key) = misplaced(record, fixed) {
                return Err(moved(fixed, record.partition, key));
            }
            if let Some(task) = tasks.settle.get_mut(&number) {
                check_whole(record, &task.store, &fixed.names)?;
                let position = task
                    .read_changelog(record.offset, record.key, record.value)
                    .map_err(|reason| broken(&reason))?;
                let partition = Partition::new(Topic::Bases, number);
                if let Some(position) = position
                    && let Some(Life::Restoring(restore)) = tasks.lives.get_mut(&partition)
                {
                    restore.position = Some(position);
                }
            }
        }
        Topic::Rules => {
            if let Some(task) = tasks.settle.get_mut(&number) {
                task.read_rule(record.offset, record.key, record.value)?;
            }
        }
        other => unreachable!("the reader does not read {other:?}"),
    }
    Ok(())
}

fn ingest_position(record: &Record) -> Result<Position, String> {
    match (record.key, record.value) {
        (Some(POSITION_KEY), Some(value)) => {
            Position::decode(value).map_err(|error| error.to_string())
        }
        _ => Err("it is no position record".to_owned()),
    }
}

/// A position record of totals is of the log that the store was made from, and stands as far behind
/// its beginning as it says.
fn check_whole(record: &Record, store: &totals::Store, names: &Names) -> Result<(), Failure> {
    let value = record.value.filter(|_| record.key == Some(POSITION_KEY));
    let Some(Ok(position)) = value.map(Position::decode) else {
        return Ok(());
    };
    let known = store.positions().transaction;
    if known != 0 && !is_same_log(known, position.transaction) {
        return Err(Failure::State(state::Error::Damaged {
            path: store.path().to_owned(),
            reason: "its changelog was made anew since".to_owned(),
        }));
    }
    let (length, offset) = (least_length(position.transaction), record.offset);
    if offset + 2 < length {
        let (name, number) = (names.of(record.partition.topic), record.partition.number);
        return Err(Failure::Broken(format!(
            "{name}/{number}: the position at {offset} stands for {length} offsets: the changelog \
             was made anew while an instance ran, and totals are missing from it. {}",
            made_anew(name)
        )));
    }
    Ok(())
}

/// The rule key of a changelog record that belongs to another partition.
pub(super) fn misplaced<'a>(record: &Record<'a>, fixed: &Fixed) -> Option<&'a str> {
    let key = std::str::from_utf8(record.key?).ok()?;
    let is_away = RuleKey::parse(key).is_some() && fixed.home_of(key) != record.partition.number;
    is_away.then_some(key)
}

/// Totals stand where the key no longer lives.
pub(super) fn moved(fixed: &Fixed, log: Partition, key: &str) -> Failure {
    let (topic, number) = (fixed.names.of(log.topic), log.number);
    let (count, home) = (fixed.partitions.bases, fixed.home_of(key));
    Failure::Broken(format!(
        "{topic}/{number}: it holds the totals of {key}, which lives in partition {home} of {count}: \
         the number of partitions was changed, and totals would begin anew. Kafka takes no \
         partition away: restore the topics with the number they had (docs/damage.md)"
    ))
}

fn foreign(record: &Record, names: &Names, reason: &str) -> Failure {
    let Partition { topic, number } = record.partition;
    let (name, offset) = (names.of(topic), record.offset);
    Failure::Broken(format!(
        "{name}/{number}: the record at {offset} is none of this service's: {reason}. {}",
        made_anew(name)
    ))
}

/// What to do about a changelog that cannot be read.
pub(super) fn made_anew(topic: &str) -> String {
    format!(
        "Restore the topic; or stop all instances, delete it (`kafka-topics.sh --delete --topic \
         {topic}`), and run `settle positions rebuild`, which fills it from the settlements and the \
         group's offsets"
    )
}
