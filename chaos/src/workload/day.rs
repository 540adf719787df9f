//! One day of payments: some thousands of merchants with a few big ones, every kind and reason, repeats near and far,
//! and at the end a FINISH marker in each partition.

use std::collections::VecDeque;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::model::partition;
use crate::workload::form::{Form, pick};
use crate::workload::poison;
use crate::workload::{EXCLUDED_MERCHANTS, Message, TEST_MERCHANTS};

/// Payments that may still be repeated.
const MEMORY: usize = 4096;
/// One message in this many goes to the key whose total overflows.
const OVERFLOW_EVERY: u64 = 1000;
/// Two of these leave 64 bits.
const LARGE: &str = "4611686018427387904";

/// What a day is made of.
#[derive(Debug, Clone)]
pub struct DayOptions {
    pub seed: u64,
    /// Messages, the FINISH markers aside.
    pub payments: u64,
    pub merchants: usize,
    /// Of the source topic.
    pub partitions: i32,
    /// Nothing but payments that settle.
    pub is_plain: bool,
}

impl DayOptions {
    pub fn new(seed: u64, payments: u64, partitions: i32) -> Self {
        Self {
            seed,
            payments,
            merchants: 3000,
            partitions,
            is_plain: false,
        }
    }
}

/// The messages, one after the other.
pub struct Day {
    options: DayOptions,
    rng: StdRng,
    /// Running sums of the merchants' weights.
    weights: Vec<f64>,
    recent: VecDeque<Message>,
    next: u64,
}

impl Day {
    pub fn new(options: DayOptions) -> Self {
        let mut sum = 0.0;
        let weights = (1..=options.merchants)
            .map(|rank| {
                sum += 1.0 / f64::from(u32::try_from(rank).expect("fewer merchants than 2^32"));
                sum
            })
            .collect();
        Self {
            rng: StdRng::seed_from_u64(options.seed),
            options,
            weights,
            recent: VecDeque::new(),
            next: 0,
        }
    }

    /// How many messages there are in all.
    pub fn total(options: &DayOptions) -> u64 {
        options.payments
            + if options.is_plain {
                0
            } else {
                u64::from(options.partitions.unsigned_abs())
            }
    }

    fn id(&mut self) -> String {
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            self.next,
            self.options.seed & 0xffff,
            self.rng.random_range(0..0x1000),
            self.rng.random_range(0..0x1000),
            self.rng.random_range(0..0x1_0000_0000_0000_u64)
        )
    }

    /// By rank: the first merchants take most of the payments.
    fn merchant(&mut self) -> String {
        let total = self.weights.last().copied().unwrap_or(1.0);
        let at = self.rng.random_range(0.0..total);
        let rank = self.weights.partition_point(|sum| *sum <= at);
        format!("\"merchant-{:04}\"", (rank * 7919) % self.options.merchants)
    }

    fn form(&mut self) -> Form {
        let merchant = self.merchant();
        let day = pick(
            &mut self.rng,
            &[("2025-05-26", 96), ("2025-05-25", 3), ("2025-05-24", 1)],
        );
        Form::new(&mut self.rng, &merchant, day)
    }

    fn message(
        &mut self,
        key: Option<Vec<u8>>,
        value: Option<Vec<u8>>,
        intent: &'static str,
    ) -> Message {
        let partition = match &key {
            Some(key) if !key.is_empty() => partition::of(key, self.options.partitions),
            _ => self.rng.random_range(0..self.options.partitions),
        };
        Message {
            key,
            value,
            partition,
            intent,
        }
    }

    /// A payment that is the first of its id and may be repeated later.
    fn first(&mut self, id: Vec<u8>, json: Vec<u8>, intent: &'static str) -> Message {
        let message = self.message(Some(id), Some(json), intent);
        if self.recent.len() == MEMORY {
            // Old payments make room at random, so that some stay for very long.
            let out = self.rng.random_range(0..MEMORY);
            self.recent.swap_remove_back(out);
        }
        self.recent.push_back(message.clone());
        message
    }

    fn repeat(&mut self) -> Option<Message> {
        let known = self.recent.len();
        let reach = if self.rng.random_bool(0.5) {
            known.min(8)
        } else {
            known
        };
        if reach == 0 {
            return None;
        }
        let index = known - 1 - self.rng.random_range(0..reach);
        let mut message = self.recent[index].clone();
        message.intent = "DUPLICATE";
        if self.rng.random_bool(0.25) {
            message.intent = "DUPLICATE_CONFLICT";
            let value = message.value.get_or_insert_default();
            let text = String::from_utf8_lossy(value).into_owned();
            // The same payment in other bytes, or with another amount.
            let changed = text
                .replacen("\"amount\":", "\"amount\":1", 1)
                .replacen(":1-", ":-1", 1);
            let is_small = message_is_small(&text) && changed != text;
            *value = if is_small && self.rng.random_bool(0.7) {
                changed
            } else {
                text + " "
            }
            .into_bytes();
        }
        Some(message)
    }

    fn excluded(&mut self, intent: &'static str) -> Message {
        let form = self.form();
        let id = self.id().into_bytes();
        let any = |rng: &mut StdRng, names: &[&str]| {
            let name = names[rng.random_range(0..names.len())];
            format!("\"{}\"", name.replace('*', "desk-3"))
        };
        let form = match intent {
            "TEST_PAYMENT" if self.rng.random_bool(0.5) => form.with("testPayment", "true"),
            "TEST_PAYMENT" => {
                let merchant = any(&mut self.rng, &TEST_MERCHANTS);
                form.with("merchantNumber", &merchant)
            }
            "NON_SETTLEMENT_MERCHANT" => {
                let merchant = any(&mut self.rng, &EXCLUDED_MERCHANTS);
                form.with("merchantNumber", &merchant)
                    .with("unconfirmed", "true")
            }
            "NETWORK_CANCEL" => form.with("networkCancel", "true"),
            _ => form.with("unconfirmed", "true"),
        };
        self.first(id, form.json().into_bytes(), intent)
    }

    fn no_data(&mut self) -> Message {
        let key = self.rng.random_bool(0.8).then(|| self.id().into_bytes());
        let value = match self.rng.random_range(0..3) {
            0 => None,
            1 => Some(&br#"{"channel":"OFFLINE","action":"PAYMENT"}"#[..]),
            _ => Some(&br#"{"channel":"ONLINE","action":"PAYMENT","data":null}"#[..]),
        };
        self.message(key, value.map(<[u8]>::to_vec), "NO_DATA")
    }

    fn overflowing(&mut self) -> Message {
        let id = self.id().into_bytes();
        let form = self.form().with("merchantNumber", "\"merchant-overflow\"");
        let day = "\"2025-05-26T12:00:00\"";
        let sign = pick(&mut self.rng, &[("", 3), ("-", 1)]);
        let form = form
            .with("amount", &format!("{sign}{LARGE}"))
            .with("paymentDate", day)
            .with("paymentActionType", "\"PAYMENT\"")
            .with("paymentMethodType", "\"CARD\"");
        self.first(id, form.json().into_bytes(), "LARGE_AMOUNT")
    }

    fn finish(&mut self, partition: i32) -> Message {
        let channel = if partition % 2 == 0 {
            "ONLINE"
        } else {
            "OFFLINE"
        };
        let data = pick(&mut self.rng, &[("", 1), (",\"data\":null", 1)]);
        let value = format!("{{\"channel\":\"{channel}\",\"action\":\"FINISH\"{data}}}");
        let key = self
            .rng
            .random_bool(0.5)
            .then(|| format!("finish-{partition}").into_bytes());
        Message {
            key,
            value: Some(value.into_bytes()),
            partition,
            intent: "FINISH",
        }
    }

    fn make(&mut self) -> Message {
        if self.options.is_plain {
            let (id, form) = (self.id().into_bytes(), self.form());
            return self.message(Some(id), Some(form.json().into_bytes()), "SETTLED");
        }
        if self.next % OVERFLOW_EVERY == OVERFLOW_EVERY / 8 {
            return self.overflowing();
        }
        match self.rng.random_range(0..1000) {
            0..20 => {
                if let Some(message) = self.repeat() {
                    return message;
                }
            }
            20..25 => return self.excluded("TEST_PAYMENT"),
            25..35 => return self.excluded("NON_SETTLEMENT_MERCHANT"),
            35..40 => return self.excluded("NETWORK_CANCEL"),
            40..45 => return self.excluded("UNCONFIRMED"),
            45..48 => return self.no_data(),
            48..58 => {
                let (id, form) = (self.id(), self.form());
                let (key, value, reason) = poison::poison(&mut self.rng, &id, form);
                return self.message(key, Some(value), reason);
            }
            58..78 => {
                let (id, form) = (self.id(), self.form());
                let (id, json) = poison::oddity(&mut self.rng, &id, form);
                return self.first(id, json, "SETTLED");
            }
            _ => {}
        }
        let (id, form) = (self.id().into_bytes(), self.form());
        self.first(id, form.json().into_bytes(), "SETTLED")
    }
}

/// Whether one more digit leaves the amount in 64 bits.
fn message_is_small(json: &str) -> bool {
    !json.contains(LARGE)
}

impl Iterator for Day {
    type Item = Message;

    fn next(&mut self) -> Option<Message> {
        let number = self.next;
        self.next += 1;
        if number < self.options.payments {
            return Some(self.make());
        }
        let partition = i32::try_from(number - self.options.payments).ok()?;
        (!self.options.is_plain && partition < self.options.partitions)
            .then(|| self.finish(partition))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Contract;
    use crate::model::payment::{self, Message as Read};

    fn contract() -> Contract {
        Contract {
            excluded_merchants: EXCLUDED_MERCHANTS.map(str::to_owned).to_vec(),
            test_merchants: TEST_MERCHANTS.map(str::to_owned).to_vec(),
            ..Contract::default()
        }
    }

    #[test]
    fn each_message_is_what_it_is_meant_to_be() {
        let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
        for message in Day::new(DayOptions::new(7, 60_000, 6)) {
            let read = payment::read(&message.record());
            let shown = || {
                String::from_utf8_lossy(message.value.as_deref().unwrap_or_default()).into_owned()
            };
            match (message.intent, &read) {
                ("SETTLED" | "LARGE_AMOUNT", Read::Payment(payment)) => {
                    assert_eq!(payment.exclusion(&contract()), None, "{}", shown());
                }
                ("DUPLICATE" | "DUPLICATE_CONFLICT", Read::Payment(_)) => {}
                (intent, Read::Payment(payment)) => {
                    assert_eq!(payment.exclusion(&contract()), Some(intent), "{}", shown());
                }
                (intent, Read::Excluded(reason) | Read::Dead(reason)) => {
                    assert_eq!(intent, *reason, "{}", shown());
                }
            }
            *seen.entry(message.intent).or_default() += 1;
        }
        assert_eq!(seen.values().sum::<u64>(), 60_006);
        assert_eq!(seen["FINISH"], 6);
        assert_eq!(seen.len(), 15, "{seen:?}");
    }

    #[test]
    fn the_same_seed_makes_the_same_day() {
        let day = || Day::new(DayOptions::new(3, 2000, 4));
        assert!(day().eq(day()));
        assert!(!day().eq(Day::new(DayOptions::new(4, 2000, 4))));
    }
}
