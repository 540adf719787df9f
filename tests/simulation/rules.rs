//! The rule service as a worker sees it, and another system that publishes rules.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use settle::broker::{Partition, Topic};
use settle::codec::wire::write_rule;
use settle::domain::partition;
use settle::domain::rule::{Rule, RuleKey};
use settle::rules::{Answer, Service};

use crate::log::Payload;
use crate::payments::rule_key;
use crate::port::Sim;
use crate::world::{Event, World};

/// Keys that have no rule at first have one from here on.
const LATE_RULES_AT: Duration = Duration::from_secs(12);

#[derive(Debug, Default)]
pub struct Rules {
    /// Keys of which the service has said that there is no rule.
    pub denied: BTreeSet<String>,
    published: u64,
}

/// What the service says of a key, today.
fn answer(key: &RuleKey, now: Duration) -> Answer {
    let hash = partition::of_key(key.as_str().as_bytes(), 100);
    let has_rule = match hash % 5 {
        0 => false,
        1 => now >= LATE_RULES_AT,
        _ => true,
    };
    if has_rule {
        Answer::Rule(rule(format!("service-{hash}-{key}"), hash))
    } else {
        Answer::NoRule
    }
}

fn rule(rule_id: String, number: i32) -> Rule {
    let day = i8::try_from(number % 28 + 1).expect("a day of a month");
    Rule {
        rule_id,
        payout_date: jiff::civil::date(2025, 7, day),
        confirm_date: jiff::civil::date(2025, 6, day),
    }
}

/// One worker's place at the service. Answers come late, and some not before the end of trouble.
pub struct Desk {
    sim: Sim,
    asked: BTreeMap<RuleKey, Option<Duration>>,
}

impl Desk {
    pub fn new(sim: Sim) -> Self {
        Self {
            sim,
            asked: BTreeMap::new(),
        }
    }
}

impl Service for Desk {
    fn request(&mut self, key: &RuleKey) {
        let mut world = self.sim.world();
        let delay = match world.dice.u32(0..10) {
            0 if !world.healed => None,
            1 | 2 if !world.healed => Some(world.millis(50..4000)),
            _ => Some(world.millis(1..40)),
        };
        let due = delay.map(|delay| world.now + delay);
        self.asked.entry(key.clone()).or_insert(due);
    }

    fn cancel(&mut self, key: &RuleKey) {
        self.asked.remove(key);
    }

    fn take_answers(&mut self) -> Vec<(RuleKey, Answer)> {
        let mut world = self.sim.world();
        let (now, healed) = (world.now, world.healed);
        let is_due = |due: &Option<Duration>| due.map_or(healed, |due| due <= now);
        let due: Vec<RuleKey> = self
            .asked
            .iter()
            .filter(|(_, due)| is_due(due))
            .map(|(key, _)| key.clone())
            .collect();
        let mut answers = Vec::new();
        for key in due {
            self.asked.remove(&key);
            let answer = answer(&key, now);
            if answer == Answer::NoRule {
                world.rules.denied.insert(key.as_str().to_owned());
            }
            answers.push((key, answer));
        }
        answers
    }

    fn in_flight(&self) -> usize {
        self.asked.len()
    }
}

impl World {
    /// Another system writes to the rules topic.
    pub fn publish_rule(&mut self) {
        if self.healed {
            return;
        }
        let pause = self.millis(200..6000);
        self.schedule(pause, Event::Publish);
        if self.is_broker_gone() {
            return;
        }
        let key = rule_key(&mut self.dice);
        match self.dice.u32(0..8) {
            0 => self.append_to_rules(key, None),
            1 => self.append_to_rules(key, Some(b"{\"ruleId\":17}".to_vec())),
            _ => self.publish_rule_of(key),
        }
    }

    /// The same, of this key.
    pub fn publish_rule_of(&mut self, key: String) {
        self.rules.published += 1;
        let number = i32::try_from(self.rules.published).expect("few");
        let parsed = RuleKey::parse(&key).expect("a rule key");
        let mut json = Vec::new();
        let rule = rule(format!("other-{number}"), number);
        write_rule(parsed.fields(), &rule, &mut json);
        self.append_to_rules(key, Some(json));
    }

    fn append_to_rules(&mut self, key: String, value: Option<Vec<u8>>) {
        let partitions = self.partitions(Topic::Rules);
        let number = partition::of_key(key.as_bytes(), partitions);
        let payload = Payload {
            key: Some(key.into_bytes()),
            value,
            headers: Vec::new(),
        };
        self.append(Partition::new(Topic::Rules, number), payload);
    }

    /// How many partitions a topic has.
    pub fn partitions(&self, topic: Topic) -> i32 {
        let count = self.logs.keys().filter(|at| at.topic == topic).count();
        i32::try_from(count).expect("few")
    }
}
