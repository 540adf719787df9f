//! The fields of one payment, and their JSON.

use rand::Rng;
use rand::rngs::StdRng;

/// A payment whose fields are JSON texts, so that each can be made wrong.
#[derive(Debug, Clone)]
pub struct Form {
    pub channel: String,
    pub action: String,
    /// Names and values inside `data`, in order.
    pub data: Vec<(String, String)>,
}

impl Form {
    /// A payment of this merchant that nothing is wrong with; `merchant` is a JSON string.
    pub fn new(rng: &mut StdRng, merchant: &str, day: &str) -> Self {
        let action_type = pick(
            rng,
            &[
                ("PAYMENT", 80),
                ("CANCEL", 8),
                ("PARTIAL_CANCEL", 7),
                ("FULL_CANCEL", 5),
            ],
        );
        let method = pick(
            rng,
            &[("CARD", 60), ("MONEY", 15), ("PAY", 20), ("POINT", 5)],
        );
        let channel = pick(rng, &[("ONLINE", 70), ("OFFLINE", 30)]);
        let payment_type = pick(rng, &[("ONLINE", 70), ("OFFLINE", 30)]);
        let whole: i64 = rng.random_range(1..5_000) * pick(rng, &[(1, 30), (10, 50), (100, 20)]);
        let amount = if action_type == "PAYMENT" {
            whole * 10
        } else {
            whole * -10
        };
        let mut data = vec![
            ("paymentType".to_owned(), quoted(payment_type)),
            ("amount".to_owned(), amount.to_string()),
        ];
        match rng.random_range(0..10) {
            0 => {}
            1 => data.extend([("payoutDate", "null"), ("confirmDate", "null")].map(owned)),
            _ => data.extend(
                [
                    ("payoutDate", "\"2025-05-28\""),
                    ("confirmDate", "\"2025-05-27\""),
                ]
                .map(owned),
            ),
        }
        data.extend([
            ("merchantNumber".to_owned(), merchant.to_owned()),
            (
                "paymentDate".to_owned(),
                quoted(&format!("{day}T{}", time(rng))),
            ),
            ("paymentActionType".to_owned(), quoted(action_type)),
            ("paymentMethodType".to_owned(), quoted(method)),
        ]);
        if rng.random_range(0..50) == 0 {
            data.push(owned(("testPayment", "false")));
        }
        Self {
            channel: quoted(channel),
            action: quoted("PAYMENT"),
            data,
        }
    }

    /// Gives a field of `data` another JSON text, adding it if need be.
    #[must_use]
    pub fn with(mut self, name: &str, json: &str) -> Self {
        match self.data.iter_mut().find(|(known, _)| known == name) {
            Some((_, value)) => json.clone_into(value),
            None => self.data.push((name.to_owned(), json.to_owned())),
        }
        self
    }

    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.data.retain(|(known, _)| known != name);
        self
    }

    pub fn data_json(&self) -> String {
        let fields: Vec<String> = self
            .data
            .iter()
            .map(|(name, value)| format!("\"{name}\":{value}"))
            .collect();
        format!("{{{}}}", fields.join(","))
    }

    pub fn json(&self) -> String {
        format!(
            "{{\"channel\":{},\"action\":{},\"data\":{}}}",
            self.channel,
            self.action,
            self.data_json()
        )
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}

/// A time of day as Java prints it: seconds and fraction only as far as they are not zero.
fn time(rng: &mut StdRng) -> String {
    let (hour, minute, second) = (
        rng.random_range(0..24),
        rng.random_range(0..60),
        rng.random_range(0..60),
    );
    match rng.random_range(0..20) {
        0 => format!("{hour:02}:{minute:02}"),
        1 => format!("{hour:02}:{minute:02}:{second:02}"),
        2 => format!(
            "{hour:02}:{minute:02}:{second:02}.{:03}",
            rng.random_range(1..1000)
        ),
        3 => format!(
            "{hour:02}:{minute:02}:{second:02}.{:09}",
            rng.random_range(1..1_000_000_000)
        ),
        _ => format!(
            "{hour:02}:{minute:02}:{second:02}.{:06}",
            rng.random_range(1..1_000_000)
        ),
    }
}

/// One of the choices, each as likely as its weight says.
pub fn pick<T: Copy>(rng: &mut StdRng, choices: &[(T, u32)]) -> T {
    let total: u32 = choices.iter().map(|(_, weight)| weight).sum();
    let mut left = rng.random_range(0..total);
    for &(choice, weight) in choices {
        if left < weight {
            return choice;
        }
        left -= weight;
    }
    choices[0].0
}
