//! Payments that wait in the source, and the rules of all their keys in the rules topic.

use std::collections::BTreeSet;

use anyhow::Result;

use crate::cluster::topics::{Topic, Topics};
use crate::interrupt;
use crate::model::payment::{self, Message as Read};
use crate::model::{Rule, outgoing, partition};
use crate::pipeline::Pipeline;
use crate::workload::Message;
use crate::workload::send::{self, SendOptions};

/// Sends the messages and publishes a rule for each of their keys; returns the number of keys.
pub fn fill(pipeline: &Pipeline, messages: impl Iterator<Item = Message>) -> Result<usize> {
    let mut keys = BTreeSet::new();
    let messages = messages.inspect(|message| {
        keys.extend(key_of(message));
    });
    let sending = SendOptions::new(&pipeline.bootstrap(), &pipeline.names.source);
    send::send(&sending, messages, |_| !interrupt::is_asked())?;
    interrupt::check()?;
    publish(pipeline, &keys)?;
    Ok(keys.len())
}

/// Publishes a rule for every key of these messages, without sending them.
pub fn publish_rules(
    pipeline: &Pipeline,
    messages: impl Iterator<Item = Message>,
) -> Result<usize> {
    let keys: BTreeSet<String> = messages.filter_map(|message| key_of(&message)).collect();
    publish(pipeline, &keys)?;
    Ok(keys.len())
}

fn publish(pipeline: &Pipeline, keys: &BTreeSet<String>) -> Result<()> {
    let topic = &pipeline.names.rules;
    let compacted = Topic::new(topic, pipeline.partitions).set("cleanup.policy", "compact");
    Topics::connect(&pipeline.bootstrap())?.create(&[compacted])?;
    let service = pipeline.service();
    let rules = keys.iter().map(|key| {
        let rule = service(key).unwrap_or_else(|| Rule {
            id: format!("rule-of-{key}"),
            payout_date: "2025-06-10".to_owned(),
            confirm_date: "2025-06-09".to_owned(),
        });
        let value = outgoing::rule_record(key, &rule).expect("the key was made of four fields");
        Message {
            key: Some(key.clone().into_bytes()),
            value: Some(value.into_bytes()),
            partition: partition::of(key.as_bytes(), pipeline.partitions),
            intent: "RULE",
        }
    });
    send::send(
        &SendOptions::new(&pipeline.bootstrap(), topic),
        rules,
        |_| !interrupt::is_asked(),
    )?;
    interrupt::check()
}

fn key_of(message: &Message) -> Option<String> {
    match payment::read(&message.record()) {
        Read::Payment(payment) => Some(payment.rule_key()),
        _ => None,
    }
}
