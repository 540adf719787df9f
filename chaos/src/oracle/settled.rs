//! When a run has come to rest: every source record has its outcome and the database has caught up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::cluster::Cluster;
use crate::cluster::instance::Instance;
use crate::cluster::names::Names;
use crate::interrupt;
use crate::oracle::database::Database;
use crate::topics_reader;

const LIMIT: Duration = Duration::from_secs(30);
const STEP: Duration = Duration::from_millis(100);
/// A reader that is this far behind is not asked whether only control records are left.
const NEAR: i64 = 10_000;

/// What a run is, seen from outside.
#[derive(Debug, Clone)]
pub struct Run {
    pub bootstrap: String,
    pub names: Names,
    /// None when it runs without a database.
    pub postgres: Option<String>,
    /// `host:port` of each instance's HTTP.
    pub instances: Vec<String>,
}

impl Run {
    /// A pipeline on this cluster, with the instances that can be asked.
    pub fn new<'a>(
        cluster: &Cluster,
        names: &Names,
        instances: impl IntoIterator<Item = &'a Instance>,
    ) -> Self {
        let postgres = cluster.postgres.as_ref();
        let instances = instances.into_iter();
        Self {
            bootstrap: cluster.kafka.bootstrap(),
            names: names.clone(),
            postgres: postgres.map(|postgres| postgres.url_of(&names.database)),
            instances: instances
                .map(|instance| instance.address().to_string())
                .collect(),
        }
    }
}

/// How far a run is from rest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Behind {
    /// Offsets the group has yet to commit on the source and on the bases.
    pub group: i64,
    /// Offsets the database has yet to take, over all topics.
    pub database: i64,
}

impl Behind {
    pub fn is_settled(&self) -> bool {
        *self == Self::default()
    }
}

/// Waits until nothing is on its way, at most for `deadline`. A broker that has just come back may
/// not know the answers yet.
pub fn wait_settled(run: &Run, deadline: Duration) -> Result<()> {
    let watch = Watch::new(run)?;
    let start = Instant::now();
    loop {
        interrupt::check()?;
        let behind = watch.behind();
        if behind.as_ref().is_ok_and(Behind::is_settled) {
            return Ok(());
        }
        if start.elapsed() > deadline {
            bail!("not at rest after {deadline:?}: {behind:?}");
        }
        std::thread::sleep(STEP);
    }
}

/// Looks at positions from outside, again and again.
pub struct Watch<'a> {
    run: &'a Run,
    group: BaseConsumer,
}

impl<'a> Watch<'a> {
    pub fn new(run: &'a Run) -> Result<Self> {
        Ok(Self {
            run,
            group: topics_reader::committed_consumer(&run.bootstrap, &run.names.application_id)?,
        })
    }

    pub fn behind(&self) -> Result<Behind> {
        let names = &self.run.names;
        let mut behind = Behind::default();
        for topic in [&names.source, &names.bases] {
            behind.group += self.left(topic, &self.committed(topic)?)?;
        }
        if let Some(url) = &self.run.postgres {
            behind.database = self.database_behind(url)?;
        }
        Ok(behind)
    }

    fn database_behind(&self, url: &str) -> Result<i64> {
        let names = &self.run.names;
        let mut positions: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
        for (topic, partition, next) in Database::connect(url)?.positions()? {
            positions.entry(topic).or_default().insert(partition, next);
        }
        let none = BTreeMap::new();
        let mut behind = 0;
        for topic in names.sunk() {
            behind += self.left(topic, positions.get(topic.as_str()).unwrap_or(&none))?;
        }
        Ok(behind)
    }

    fn committed(&self, topic: &str) -> Result<BTreeMap<i32, i64>> {
        let mut list = TopicPartitionList::new();
        list.add_partition_range(topic, 0, topics_reader::partitions(&self.group, topic)? - 1);
        let committed = self
            .group
            .committed_offsets(list, LIMIT)
            .with_context(|| format!("offsets of {topic}"))?;
        let mut offsets = BTreeMap::new();
        for element in committed.elements() {
            element
                .error()
                .with_context(|| format!("offset of {topic}/{}", element.partition()))?;
            if let Offset::Offset(offset) = element.offset() {
                offsets.insert(element.partition(), offset);
            }
        }
        Ok(offsets)
    }

    /// Offsets between the positions and the ends; zero when only control records and aborted ones are left there.
    fn left(&self, topic: &str, positions: &BTreeMap<i32, i64>) -> Result<i64> {
        let mut left = 0;
        let mut near = TopicPartitionList::new();
        for (partition, &(low, high)) in
            (0_i32..).zip(&topics_reader::bounds(&self.run.bootstrap, topic)?)
        {
            let at = positions.get(&partition).copied().unwrap_or(low).max(low);
            left += high - at;
            if at < high {
                near.add_partition_offset(topic, partition, Offset::Offset(at))?;
            }
        }
        if left == 0 || left > NEAR || self.holds_records(&near)? {
            Ok(left)
        } else {
            Ok(0)
        }
    }

    /// Whether there is a committed record at or after these positions, or one that may still be.
    fn holds_records(&self, positions: &TopicPartitionList) -> Result<bool> {
        let consumer = topics_reader::committed_consumer(&self.run.bootstrap, "none")?;
        for element in positions.elements() {
            let high = topics_reader::bounds(&self.run.bootstrap, element.topic())?;
            let stable = consumer
                .fetch_watermarks(element.topic(), element.partition(), LIMIT)?
                .1;
            if stable < high[usize::try_from(element.partition())?].1 {
                return Ok(true);
            }
        }
        consumer.assign(positions)?;
        let mut open = positions.count();
        while open > 0 {
            match consumer.poll(LIMIT) {
                Some(Ok(message)) => {
                    // Read to be certain that it is a record, not for what it says.
                    let _ = message.offset();
                    return Ok(true);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                Some(Err(error)) if topics_reader::is_weather(&error) => {}
                Some(Err(error)) => bail!("look behind the committed positions: {error}"),
                None => bail!("the ends of the partitions do not answer"),
            }
        }
        Ok(false)
    }
}
