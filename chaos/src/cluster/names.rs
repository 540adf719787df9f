//! Names of topics, consumer group and database of one pipeline, so that several share a cluster.

use std::sync::atomic::{AtomicUsize, Ordering};

use toml::{Table, Value};

static NEXT: AtomicUsize = AtomicUsize::new(1);

/// The names of one pipeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    pub application_id: String,
    pub database: String,
    pub source: String,
    pub bases: String,
    pub rules: String,
    pub settlements: String,
    pub statistics: String,
    pub exclusions: String,
    pub dead_letter: String,
    pub changelog: String,
    pub ingest_changelog: String,
}

impl Names {
    /// The names settle uses when nothing is configured.
    pub fn defaults() -> Self {
        Self::with("", "settle")
    }

    /// The topics that are written to the database.
    pub fn sunk(&self) -> [&String; 6] {
        [
            &self.source,
            &self.rules,
            &self.settlements,
            &self.statistics,
            &self.exclusions,
            &self.dead_letter,
        ]
    }

    /// Names nobody else in this process uses; `prefix` makes them readable.
    pub fn unique(prefix: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let run = std::process::id();
        Self::with(
            &format!("{prefix}-{run}-{number}."),
            &format!("{prefix}-{run}-{number}"),
        )
    }

    fn with(prefix: &str, application_id: &str) -> Self {
        let topic = |name: &str| format!("{prefix}{name}");
        Self {
            application_id: application_id.to_owned(),
            database: application_id.replace('-', "_"),
            source: topic("payments"),
            bases: topic("settlement-bases"),
            rules: topic("payout-rules"),
            settlements: topic("settlements"),
            statistics: topic("settlement-statistics"),
            exclusions: topic("settlement-exclusions"),
            dead_letter: topic("payments-dead-letter"),
            changelog: topic("settlement-changelog"),
            ingest_changelog: topic("settlement-ingest-changelog"),
        }
    }

    /// Each configuration key of `[topics]` that names a topic, with the topic.
    pub fn topics(&self) -> [(&'static str, &str); 9] {
        [
            ("source", &self.source),
            ("bases", &self.bases),
            ("rules", &self.rules),
            ("settlements", &self.settlements),
            ("statistics", &self.statistics),
            ("exclusions", &self.exclusions),
            ("dead_letter", &self.dead_letter),
            ("changelog", &self.changelog),
            ("ingest_changelog", &self.ingest_changelog),
        ]
    }

    /// The table `[topics]` of the configuration.
    pub fn topics_toml(&self) -> Table {
        self.topics()
            .into_iter()
            .map(|(key, topic)| (key.to_owned(), Value::String(topic.to_owned())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_names_share_nothing() {
        let (one, two) = (Names::unique("a"), Names::unique("a"));
        assert_ne!(one.application_id, two.application_id);
        assert_ne!(one.database, two.database);
        for ((key, first), (_, second)) in one.topics().into_iter().zip(two.topics()) {
            assert_ne!(first, second, "{key}");
        }
    }
}
