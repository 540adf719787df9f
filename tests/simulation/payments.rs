//! What upstream writes to the source topic: payments, repeats of them, and what is none.

use std::time::Duration;

use fastrand::Rng;
use settle::broker::{Partition, Topic};

use crate::log::Payload;
use crate::world::{Event, World};

const ACTIONS: [&str; 2] = ["PAYMENT", "CANCEL"];
const METHODS: [&str; 2] = ["MONEY", "CARD"];
const DAYS: [&str; 2] = ["2025-05-26", "2025-05-27"];
/// Its totals leave 64 bits with the second payment.
const GREEDY: &str = "greedy";
pub const TEST_MERCHANT: &str = "test-1";
pub const EXCLUDED_MERCHANT: &str = "own-7";

#[derive(Debug, Default)]
pub struct Feed {
    /// Records still to come.
    pub left: u32,
    sent: Vec<(Partition, Payload)>,
}

/// The key of a merchant that settles.
pub fn rule_key(dice: &mut Rng) -> String {
    let merchant = format!("merchant-{}", dice.u32(0..4));
    let day = DAYS[dice.usize(0..DAYS.len())];
    let action = ACTIONS[dice.usize(0..ACTIONS.len())];
    let method = METHODS[dice.usize(0..METHODS.len())];
    format!("{merchant}/{day}/{action}/{method}")
}

fn payment(dice: &mut Rng) -> String {
    let key = rule_key(dice);
    let mut parts = key.split('/');
    let mut part = || parts.next().expect("a rule key has four parts");
    let (mut merchant, day, action, method) = (part(), part(), part(), part());
    let mut amount = dice.i64(-5000..100_000);
    let mut flag = "";
    match dice.u32(0..30) {
        0 => merchant = TEST_MERCHANT,
        1 => merchant = EXCLUDED_MERCHANT,
        2 => flag = ",\"testPayment\":true",
        3 => flag = ",\"networkCancel\":true",
        4 => flag = ",\"unconfirmed\":true",
        5 | 6 => {
            merchant = GREEDY;
            amount = i64::MAX / 2 + 1;
        }
        _ => {}
    }
    let channel = if dice.bool() { "ONLINE" } else { "OFFLINE" };
    format!(
        "{{\"channel\":\"{channel}\",\"action\":\"PAYMENT\",\"data\":{{\"paymentType\":\"ONLINE\",\
         \"amount\":{amount},\"merchantNumber\":\"{merchant}\",\"paymentDate\":\"{day}T14:23\",\
         \"paymentActionType\":\"{action}\",\"paymentMethodType\":\"{method}\"{flag}}}}}"
    )
}

impl World {
    /// Upstream sends a few records.
    pub fn feed_payments(&mut self) {
        if self.feed.left == 0 {
            return;
        }
        let pause = if self.dice.u32(0..20) == 0 {
            Duration::from_millis(1500)
        } else {
            self.millis(1..200)
        };
        self.schedule(pause, Event::Feed);
        if self.is_broker_gone() {
            return;
        }
        for _ in 0..self.dice.u32(1..5).min(self.feed.left) {
            self.feed.left -= 1;
            let (partition, payload) = self.source_record();
            self.feed.sent.push((partition, payload.clone()));
            self.append(partition, payload);
        }
    }

    fn source_record(&mut self) -> (Partition, Payload) {
        let partitions = self.partitions(Topic::Source);
        let dice = &mut self.dice;
        let repeated = (!self.feed.sent.is_empty() && dice.u32(0..6) == 0).then(|| {
            let place = dice.usize(0..self.feed.sent.len());
            self.feed.sent[place].clone()
        });
        if let Some((partition, mut payload)) = repeated {
            if dice.u32(0..4) == 0 {
                payload.value = Some(payment(dice).into_bytes());
            }
            return (partition, payload);
        }
        let number = self.feed.sent.len();
        let mut key = Some(format!("payment-{number}").into_bytes());
        let value = match dice.u32(0..40) {
            0 => None,
            1 => {
                key = None;
                Some("{\"channel\":\"ONLINE\",\"action\":\"FINISH\"}".to_owned())
            }
            2 => Some("{\"channel\":".to_owned()),
            3 => Some("{\"channel\":\"ONLINE\",\"action\":\"PAYMENT\",\"data\":{}}".to_owned()),
            4 => {
                key = None;
                Some(payment(dice))
            }
            _ => Some(payment(dice)),
        };
        let payload = Payload {
            key,
            value: value.map(String::into_bytes),
            headers: Vec::new(),
        };
        let partition = Partition::new(Topic::Source, dice.i32(0..partitions));
        (partition, payload)
    }
}
