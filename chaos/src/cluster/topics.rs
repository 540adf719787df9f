//! Topics of a running Kafka: create, describe, delete, ends, and the offsets a group has committed.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::runtime::Runtime;

use crate::cluster::wait;

const LIMIT: Duration = Duration::from_secs(20);

/// A topic to create.
#[derive(Debug, Clone)]
pub struct Topic {
    pub name: String,
    pub partitions: i32,
    pub replication: i32,
    pub config: BTreeMap<String, String>,
}

impl Topic {
    pub fn new(name: &str, partitions: i32) -> Self {
        Self {
            name: name.to_owned(),
            partitions,
            replication: 1,
            config: BTreeMap::new(),
        }
    }

    /// Sets one key of the topic's configuration.
    #[must_use]
    pub fn set(mut self, key: &str, value: &str) -> Self {
        self.config.insert(key.to_owned(), value.to_owned());
        self
    }
}

/// Which records count when an end is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// The last stable offset.
    Committed,
    /// The high watermark.
    Uncommitted,
}

/// An administrator's connection.
pub struct Topics {
    bootstrap: String,
    admin: AdminClient<DefaultClientContext>,
    runtime: Runtime,
    options: AdminOptions,
}

impl Topics {
    pub fn connect(bootstrap: &str) -> Result<Self> {
        let admin =
            AdminClient::from_config(&config(bootstrap)).context("create an admin client")?;
        Ok(Self {
            bootstrap: bootstrap.to_owned(),
            admin,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
            options: AdminOptions::new()
                .operation_timeout(Some(LIMIT))
                .request_timeout(Some(LIMIT)),
        })
    }

    /// Creates topics that do not exist and returns when clients see them.
    pub fn create(&self, topics: &[Topic]) -> Result<()> {
        let new: Vec<NewTopic<'_>> = topics.iter().map(new_topic).collect();
        let results = self
            .runtime
            .block_on(self.admin.create_topics(&new, &self.options))
            .context("create topics")?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => bail!("create the topic {name}: {code}"),
            }
        }
        for topic in topics {
            self.await_partitions(&topic.name, topic.partitions)?;
        }
        Ok(())
    }

    /// Deletes topics; those that do not exist are fine.
    pub fn delete(&self, names: &[&str]) -> Result<()> {
        let results = self
            .runtime
            .block_on(self.admin.delete_topics(names, &self.options))
            .context("delete topics")?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition)) => {}
                Err((name, code)) => bail!("delete the topic {name}: {code}"),
            }
        }
        Ok(())
    }

    /// Deletes the records of a partition below `before`, as `kafka-delete-records.sh` does. The topic must have a
    /// `cleanup.policy` with `delete`.
    pub fn delete_records(&self, name: &str, partition: i32, before: i64) -> Result<()> {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(name, partition, Offset::Offset(before))?;
        let what = || format!("delete the records of {name}/{partition} below {before}");
        let deleted = self
            .runtime
            .block_on(self.admin.delete_records(&list, &self.options))
            .with_context(what)?;
        for element in deleted.elements() {
            element.error().with_context(what)?;
        }
        Ok(())
    }

    /// Sets one key of a topic's configuration; all others get their defaults.
    pub fn configure(&self, name: &str, key: &str, value: &str) -> Result<()> {
        let change = AlterConfig::new(ResourceSpecifier::Topic(name)).set(key, value);
        let results = self
            .runtime
            .block_on(self.admin.alter_configs([&change], &self.options))
            .with_context(|| format!("configure {name}"))?;
        for result in results {
            result.map_err(|(_, code)| anyhow!("set {key} of {name}: {code}"))?;
        }
        Ok(())
    }

    /// Adds partitions to a topic and returns when clients see them.
    pub fn grow(&self, name: &str, partitions: i32) -> Result<()> {
        let count = usize::try_from(partitions)?;
        let results = self
            .runtime
            .block_on(
                self.admin
                    .create_partitions([&NewPartitions::new(name, count)], &self.options),
            )
            .with_context(|| format!("add partitions to {name}"))?;
        for result in results {
            result.map_err(|(_, code)| anyhow!("add partitions to {name}: {code}"))?;
        }
        wait::until(&format!("{partitions} partitions of {name}"), LIMIT, || {
            Ok((self.partitions(name)? == Some(partitions)).then_some(()))
        })
    }

    /// The number of partitions; `None` when there is no such topic.
    pub fn partitions(&self, name: &str) -> Result<Option<i32>> {
        let metadata = self
            .admin
            .inner()
            .fetch_metadata(Some(name), LIMIT)
            .with_context(|| format!("read the metadata of {name}"))?;
        let topic = metadata
            .topics()
            .first()
            .context("metadata without the topic")?;
        Ok(match (topic.error(), topic.partitions().len()) {
            (Some(_), _) | (None, 0) => None,
            (None, count) => Some(i32::try_from(count).context("count partitions")?),
        })
    }

    /// The configuration of a topic, defaults included.
    pub fn config(&self, name: &str) -> Result<BTreeMap<String, String>> {
        let resource = ResourceSpecifier::Topic(name);
        let mut described = self
            .runtime
            .block_on(self.admin.describe_configs([&resource], &self.options))
            .with_context(|| format!("describe {name}"))?;
        let topic = described
            .pop()
            .context("an answer without the topic")?
            .map_err(|code| anyhow!("describe {name}: {code}"))?;
        Ok(topic
            .entries
            .into_iter()
            .filter_map(|entry| Some((entry.name, entry.value?)))
            .collect())
    }

    /// The first offset of each partition.
    pub fn starts(&self, name: &str) -> Result<Vec<i64>> {
        Ok(self
            .bounds(name, Isolation::Uncommitted)?
            .into_iter()
            .map(|(low, _)| low)
            .collect())
    }

    /// The end of each partition: the offset of the next record.
    pub fn ends(&self, name: &str, isolation: Isolation) -> Result<Vec<i64>> {
        Ok(self
            .bounds(name, isolation)?
            .into_iter()
            .map(|(_, high)| high)
            .collect())
    }

    /// The offsets `group` has committed for a topic, stable ones; `None` where it has none.
    pub fn committed(&self, group: &str, name: &str) -> Result<Vec<Option<i64>>> {
        let count = self
            .partitions(name)?
            .with_context(|| format!("no topic {name}"))?;
        let consumer: BaseConsumer = config(&self.bootstrap)
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .create()?;
        let mut list = TopicPartitionList::new();
        list.add_partition_range(name, 0, count - 1);
        // The first request for a group makes Kafka create the topic of its coordinator.
        let committed = wait::until(
            &format!("a coordinator for {group}"),
            LIMIT,
            || match consumer.committed_offsets(list.clone(), LIMIT) {
                Ok(committed) => Ok(Some(committed)),
                Err(error) if is_moving(&error) => Ok(None),
                Err(error) => Err(error).with_context(|| format!("read the offsets of {group}")),
            },
        )?;
        committed
            .elements()
            .iter()
            .map(|element| {
                element.error()?;
                Ok(match element.offset() {
                    Offset::Offset(offset) => Some(offset),
                    _ => None,
                })
            })
            .collect()
    }

    fn bounds(&self, name: &str, isolation: Isolation) -> Result<Vec<(i64, i64)>> {
        let count = self
            .partitions(name)?
            .with_context(|| format!("no topic {name}"))?;
        let level = match isolation {
            Isolation::Committed => "read_committed",
            Isolation::Uncommitted => "read_uncommitted",
        };
        let consumer: BaseConsumer = config(&self.bootstrap)
            .set("isolation.level", level)
            .create()?;
        (0..count)
            .map(|partition| {
                consumer
                    .fetch_watermarks(name, partition, LIMIT)
                    .with_context(|| format!("read the ends of {name}/{partition}"))
            })
            .collect()
    }

    /// Until every partition is known and its leader answers for it.
    fn await_partitions(&self, name: &str, partitions: i32) -> Result<()> {
        wait::until(&format!("the creation of {name}"), LIMIT, || {
            Ok(match self.partitions(name)? {
                Some(count) if count != partitions => {
                    bail!("the topic {name} has {count} partitions instead of {partitions}")
                }
                Some(_) => self.ends(name, Isolation::Committed).is_ok().then_some(()),
                None => None,
            })
        })
    }
}

/// Whether the group's coordinator is being found or loaded.
fn is_moving(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
        )
    )
}

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap);
    config
}

fn new_topic(topic: &Topic) -> NewTopic<'_> {
    let mut new = NewTopic::new(
        &topic.name,
        topic.partitions,
        TopicReplication::Fixed(topic.replication),
    );
    for (key, value) in &topic.config {
        new = new.set(key, value);
    }
    new
}
