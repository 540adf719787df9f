//! Laws of the plan.

use std::collections::BTreeMap;

use super::plan;
use super::policy::settings;
use crate::broker::Topic;
use crate::broker::admin::Existing;
use crate::config::Config;

fn config() -> Config {
    Config::load(None, std::iter::empty()).unwrap()
}

/// A cluster on which every topic is as the plan would create it.
fn complete(config: &Config) -> BTreeMap<String, Existing> {
    let created = |role: Topic| Existing {
        partitions: config.topics.partitions,
        replication_factor: config.topics.replication_factor,
        settings: settings(role, config, None),
    };
    Topic::ALL
        .map(|role| (role.name_in(&config.topics).to_owned(), created(role)))
        .into()
}

fn changed(topic: &str, setting: &str, value: &str) -> super::Plan {
    let config = config();
    let mut existing = complete(&config);
    existing
        .get_mut(topic)
        .unwrap()
        .settings
        .insert(setting.to_owned(), value.to_owned());
    plan(&config, &existing)
}

#[test]
fn on_an_empty_cluster_every_topic_is_created() {
    let plan = plan(&config(), &BTreeMap::new());
    assert_eq!(plan.create.len(), Topic::ALL.len());
    assert!(plan.violations.is_empty() && plan.warnings.is_empty() && plan.keep.is_empty());
    assert!(
        plan.create
            .iter()
            .all(|topic| topic.partitions == 4 && topic.replication_factor == 1)
    );
}

#[test]
fn what_was_created_needs_nothing_more() {
    let config = config();
    let plan = plan(&config, &complete(&config));
    assert_eq!((plan.create.len(), plan.keep.len()), (0, Topic::ALL.len()));
    assert!(
        plan.violations.is_empty() && plan.warnings.is_empty(),
        "{plan}"
    );
}

#[test]
fn topics_are_created_with_the_policy_of_their_role() {
    let config = config();
    let of = |role: Topic, name: &str| {
        settings(role, &config, None)
            .get(name)
            .cloned()
            .unwrap_or_default()
    };
    assert_eq!(of(Topic::Bases, "message.timestamp.type"), "LogAppendTime");
    assert_eq!(of(Topic::Bases, "retention.ms"), "604800000");
    assert_eq!(of(Topic::Source, "retention.ms"), "691200000");
    assert_eq!(of(Topic::DeadLetter, "max.message.bytes"), "1064972");
    for role in [
        Topic::Rules,
        Topic::Statistics,
        Topic::Changelog,
        Topic::IngestChangelog,
    ] {
        assert_eq!(of(role, "cleanup.policy"), "compact", "{role:?}");
    }
    for role in [Topic::Settlements, Topic::Exclusions, Topic::DeadLetter] {
        assert_eq!(of(role, "cleanup.policy"), "delete", "{role:?}");
        assert_eq!(of(role, "retention.ms"), "-1", "{role:?}");
    }
}

#[test]
fn three_copies_need_two_in_step() {
    let mut config = config();
    config.topics.replication_factor = 3;
    assert!(
        Topic::ALL
            .iter()
            .all(|role| settings(*role, &config, None)["min.insync.replicas"] == "2")
    );
}

#[test]
fn the_dead_letter_topic_has_room_for_the_largest_message_of_the_source() {
    let config = config();
    let mut existing = complete(&config);
    existing
        .get_mut("payments")
        .unwrap()
        .settings
        .insert("max.message.bytes".into(), "5000000".into());
    assert!(
        plan(&config, &existing).warnings[0]
            .starts_with("payments-dead-letter: max.message.bytes is 1064972")
    );
    existing.remove("payments-dead-letter");
    assert_eq!(
        plan(&config, &existing).create[0].settings["max.message.bytes"],
        "5016384"
    );
}

#[test]
fn the_ingest_changelog_has_as_many_partitions_as_the_source() {
    let config = config();
    let mut existing = complete(&config);
    existing.get_mut("payments").unwrap().partitions = 12;
    let violations = plan(&config, &existing).violations;
    assert_eq!(
        violations,
        [
            "settlement-ingest-changelog: has 4 partitions and must have 12, as many as payments; \
             add them: `kafka-topics.sh --alter --topic settlement-ingest-changelog --partitions 12`"
        ]
    );
    existing.remove("settlement-ingest-changelog");
    assert_eq!(plan(&config, &existing).create[0].partitions, 12);
}

#[test]
fn topics_that_share_rule_keys_have_the_same_number_of_partitions() {
    let config = config();
    // The one that differs is named, with the first of the others.
    for (name, other) in [
        ("settlement-bases", "payout-rules"),
        ("payout-rules", "settlement-bases"),
        ("settlements", "settlement-bases"),
        ("settlement-statistics", "settlement-bases"),
        ("settlement-changelog", "settlement-bases"),
    ] {
        let mut existing = complete(&config);
        existing.get_mut(name).unwrap().partitions = 5;
        let violations = plan(&config, &existing).violations;
        let wrong = format!("{name}: has 5 partitions and must have 4, as many as {other}; ");
        assert!(
            violations.len() == 1 && violations[0].starts_with(&wrong),
            "{violations:?}"
        );
    }
}

#[test]
fn a_missing_topic_gets_the_partitions_of_those_it_must_match() {
    let config = config();
    let mut existing = complete(&config);
    for topic in existing.values_mut() {
        topic.partitions = 8;
    }
    existing.remove("settlements");
    existing.remove("settlement-exclusions");
    let plan = plan(&config, &existing);
    assert!(plan.violations.is_empty(), "{plan}");
    let counts: Vec<_> = plan
        .create
        .iter()
        .map(|topic| (topic.name.as_str(), topic.partitions))
        .collect();
    assert_eq!(counts, [("settlements", 8), ("settlement-exclusions", 4)]);
}

#[test]
fn exclusions_and_dead_letters_may_have_any_number_of_partitions() {
    let config = config();
    let mut existing = complete(&config);
    existing
        .get_mut("settlement-exclusions")
        .unwrap()
        .partitions = 1;
    existing.get_mut("payments-dead-letter").unwrap().partitions = 9;
    assert!(plan(&config, &existing).violations.is_empty());
}

#[test]
fn a_policy_that_loses_state_is_a_violation() {
    for topic in ["settlement-changelog", "settlement-ingest-changelog"] {
        let config = config();
        let mut existing = complete(&config);
        let settings = &mut existing.get_mut(topic).unwrap().settings;
        settings.insert("cleanup.policy".into(), "compact,delete".into());
        settings.insert("retention.ms".into(), "604800000".into());
        let violations = plan(&config, &existing).violations;
        assert_eq!(violations.len(), 1, "{topic}");
        assert!(
            violations[0].starts_with(&format!("{topic}: ")),
            "{violations:?}"
        );
    }
}

#[test]
fn a_policy_that_loses_payments_is_a_violation() {
    for topic in [
        "payments",
        "settlement-bases",
        "settlements",
        "settlement-exclusions",
        "payments-dead-letter",
    ] {
        assert_eq!(
            changed(topic, "cleanup.policy", "compact").violations.len(),
            1,
            "{topic}"
        );
    }
}

#[test]
fn what_only_may_hurt_is_a_warning() {
    for (topic, setting, value) in [
        ("payments", "retention.ms", "3600000"),
        ("settlement-bases", "retention.ms", "3600000"),
        ("settlement-bases", "retention.bytes", "1000"),
        ("settlement-bases", "message.timestamp.type", "CreateTime"),
        ("payout-rules", "cleanup.policy", "delete"),
        ("settlements", "retention.ms", "604800000"),
        ("payments-dead-letter", "max.message.bytes", "1000"),
    ] {
        let plan = changed(topic, setting, value);
        assert!(plan.violations.is_empty(), "{plan}");
        assert_eq!(plan.warnings.len(), 1, "{plan}");
    }
}
