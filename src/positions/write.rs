//! Writes positions, each in a transaction with the totals and the group's offset.

use std::collections::BTreeMap;

use crate::broker::native::Outgoing;
use crate::broker::port::{Port as _, Producer as _, Reader as _};
use crate::broker::producer::Producer;
use crate::broker::transaction::Transaction;
use crate::broker::{Bounds, Partition, Topic};
use crate::clock;
use crate::codec::stored::{POSITION_KEY, Position, WindowStart, next_length, write_totals};
use crate::domain::rule::RuleKey;
use crate::domain::totals::Totals;
use crate::positions::read::Log;
use crate::positions::{Change, Error, Session, Target};

impl Session {
    fn producer(&self) -> Result<Producer, Error> {
        let mut producer = Producer::tool(&self.settings, "positions");
        producer.replace()?;
        Ok(producer)
    }

    pub(super) fn set(&self, topic: &str, number: i32, target: Target) -> Result<Change, Error> {
        let refused = |text: String| Err(Error::Refused(text));
        let mut tasks = self.tasks().into_iter();
        let names = &self.settings.topics;
        let Some(task) = tasks.find(|task| names.of(task.topic) == topic && task.number == number)
        else {
            let (source, bases) = (names.of(Topic::Source), names.of(Topic::Bases));
            return refused(format!(
                "{topic}/{number} is no partition of {source} or {bases}"
            ));
        };
        let place = self.place(task);
        let log = self.changelog(task)?;
        let Bounds { low, high } = self.reader.bounds(task)?;
        let next = match target {
            Target::Earliest => low,
            Target::Offset(offset) => offset,
        };
        if !(low..=high).contains(&next) {
            return refused(format!(
                "{place}: the log holds {low} to {high}, not {next}"
            ));
        }
        self.refuse_rest(&log)?;
        let Some(position) = log.position else {
            return self.create(&mut self.producer()?, task, log.partition, next);
        };
        let application = &self.settings.application_id;
        if (&*position.application_id, &*position.topic) != (application, topic) {
            return refused(format!(
                "{place}: the position is that of {} in application {}",
                position.topic, position.application_id
            ));
        }
        let before = position.next;
        let is_anew = before > high;
        if is_anew && task.topic == Topic::Source {
            return refused(format!(
                "{place}: the position is {before}, the log ends at {high}: outcomes are known by \
                 partition and offset, so another log cannot be gone on with"
            ));
        }
        if next < before && !is_anew {
            return refused(format!(
                "{place}: what lies between {next} and {before} has its outcomes already"
            ));
        }
        let position = Position { next, ..position };
        self.write(
            &mut self.producer()?,
            (task, log.partition),
            position,
            &BTreeMap::new(),
        )?;
        Ok(Change {
            place,
            before: Some(before),
            next,
            keys: 0,
        })
    }

    pub(super) fn rebuild(
        &self,
        mut each: impl FnMut(&Change),
        mut unknown: impl FnMut(&str),
    ) -> Result<(), Error> {
        let mut producer = None;
        for task in self.tasks() {
            let log = self.changelog(task)?;
            self.refuse_rest(&log)?;
            if log.position.is_some() {
                continue;
            }
            let Some(next) = self.group(task)? else {
                // It has never run, or `run` tells that it has.
                unknown(&self.place(task));
                continue;
            };
            let producer = match &mut producer {
                Some(producer) => producer,
                none => none.insert(self.producer()?),
            };
            each(&self.create(producer, task, log.partition, next)?);
        }
        Ok(())
    }

    /// Writes the position of a partition that has none, with its totals.
    fn create(
        &self,
        producer: &mut Producer,
        task: Partition,
        changelog: Partition,
        next: i64,
    ) -> Result<Change, Error> {
        // Nobody knows any more which payments were remembered: all that are there.
        let window = WindowStart::default();
        let (time, totals) = if task.topic == Topic::Source {
            (self.window_end(task, next)?, BTreeMap::new())
        } else {
            (0, self.totals(task.number)?)
        };
        let position = Position {
            application_id: self.settings.application_id.clone(),
            topic: self.settings.topics.of(task.topic).to_owned(),
            next,
            time,
            window,
            transactional_id: String::new(),
            transaction: 0,
        };
        self.write(producer, (task, changelog), position, &totals)?;
        Ok(Change {
            place: self.place(task),
            before: None,
            next,
            keys: totals.len(),
        })
    }

    /// A changelog of which a part is left, or that something else has written to, cannot be
    /// completed: what is left would be read as well.
    fn refuse_rest(&self, log: &Log) -> Result<(), Error> {
        let is_cut = log.bounds.low > 0 && log.partition.topic == Topic::Changelog;
        if is_cut || (log.position.is_none() && !log.is_empty) {
            let topic = self.settings.topics.of(log.partition.topic);
            let Bounds { low, high } = log.bounds;
            return Err(Error::Refused(format!(
                "{} still holds {low} to {high}: delete the topic first (`kafka-topics.sh \
                 --delete --topic {topic}`), this command creates it again",
                self.place(log.partition)
            )));
        }
        Ok(())
    }

    fn write(
        &self,
        producer: &mut Producer,
        (task, changelog): (Partition, Partition),
        mut position: Position,
        totals: &BTreeMap<RuleKey, Totals>,
    ) -> Result<(), Error> {
        producer
            .transactional_id()
            .clone_into(&mut position.transactional_id);
        position.transaction = if task.topic == Topic::Source {
            position.transaction + 1
        } else {
            next_length(position.transaction, totals.len() + 1, clock::wall_millis())
        };
        if !producer.is_trusted() {
            producer.replace()?;
        }
        let mut transaction = Transaction::begin(producer)?;
        let mut send = |key: &[u8], value: &[u8]| {
            transaction.send(&Outgoing {
                partition: changelog,
                key: Some(key),
                value: Some(value),
                headers: &[],
                receipt: None,
            })
        };
        for (key, totals) in totals {
            let mut value = Vec::new();
            write_totals(*totals, &mut value);
            send(key.as_str().as_bytes(), &value)?;
        }
        // Last, as a task writes it.
        send(POSITION_KEY, &position.encode())?;
        let places = [(task, position.next)];
        transaction.commit(&places, || Ok(self.settings.nobody()))?;
        Ok(())
    }
}
