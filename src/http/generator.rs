//! Random payments for the demo, and the endpoint that sends them.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::json;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::clock;
use crate::domain::payment::{ActionType, Channel, MethodType};
use crate::http::refusal::Refusal;
use crate::http::routes::App;

pub(super) const PATH: &str = "/api/payment/send/{count}";

/// Payments per request, at most.
const COUNT_MAX: u64 = 1_000_000;
const SEND_TIMEOUT: Duration = Duration::from_secs(120);
const MERCHANTS: u64 = 3000;

/// The value of the message that ends a batch of one channel.
pub const FINISH: &str = r#"{"channel":"ONLINE","action":"FINISH","data":null}"#;

/// Payment id and JSON of the payments to send.
pub type Payments = Box<dyn Iterator<Item = (String, String)> + Send>;

/// Sends the payments and then [`FINISH`] to each partition of the source topic, waits until all
/// are delivered, and returns how many payments were; the error is one line. It may block.
pub type Generator = Arc<dyn Fn(Payments) -> Result<u64, String> + Send + Sync>;

/// `count` random payments of one day. A few merchants have most of them; the same seed gives the
/// same payments.
pub fn payments(count: u64, seed: u64, day: Date) -> impl Iterator<Item = (String, String)> {
    let mut random = Random(seed);
    (0..count).map(move |number| {
        let id = format!("{seed:016x}-{number}");
        let json = payment(&mut random, day);
        (id, json)
    })
}

fn payment(random: &mut Random, day: Date) -> String {
    let channel = random.one_of(Channel::ALL).as_str();
    // Most are plain payments.
    let action = if random.below(10) < 8 {
        ActionType::Payment
    } else {
        *random.one_of(ActionType::ALL)
    };
    let amount = 100 * (1 + random.below(5000)).cast_signed();
    let amount = if action == ActionType::Payment {
        amount
    } else {
        -amount
    };
    // The smaller of two draws, twice, makes low numbers common.
    let merchant = random.below(MERCHANTS).min(random.below(MERCHANTS));
    let merchant = merchant.min(random.below(MERCHANTS));
    let method = random.one_of(MethodType::ALL).as_str();
    let micros = random.below(24 * 60 * 60 * 1_000_000);
    let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut data = json!({
        "paymentType": channel,
        "amount": amount,
        "merchantNumber": format!("merchant-{merchant}"),
        "paymentDate": format!("{day}T{hour:02}:{minute:02}:{second:02}.{fraction:06}"),
        "paymentActionType": action.as_str(),
        "paymentMethodType": method,
    });
    for flag in ["testPayment", "networkCancel", "unconfirmed"] {
        if random.below(200) == 0 {
            data[flag] = true.into();
        }
    }
    json!({"channel": channel, "action": "PAYMENT", "data": data}).to_string()
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; the bias of the remainder does not matter here.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        let index = self.below(all.len() as u64);
        &all[usize::try_from(index).expect("below a length")]
    }
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(count): Path<String>,
) -> Result<Response, Refusal> {
    let bad = Refusal::BadParameter("count", "a whole number from 1 to 1000000");
    let count = count.parse().map_err(|_| bad.clone())?;
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(bad);
    }
    let Some(send) = app.services.generator.clone() else {
        return Err(Refusal::NotFound("there is nothing under this path"));
    };
    let Ok(turn) = Arc::clone(&app.generating).try_acquire_owned() else {
        return Err(Refusal::TooMany("payments are already being sent"));
    };
    let now = clock::wall_millis();
    let failed = |error: &dyn std::fmt::Display| Refusal::Failed(error.to_string());
    let today = Timestamp::from_millisecond(now).map_err(|error| failed(&error))?;
    let today = today.to_zoned(TimeZone::UTC).date();
    let sending = spawn_blocking(move || {
        let sent = send(Box::new(payments(count, now.cast_unsigned(), today)));
        drop(turn);
        sent
    });
    match timeout(SEND_TIMEOUT, sending).await {
        Ok(Ok(Ok(sent))) => Ok(Json(json!({"sent": sent})).into_response()),
        Ok(Ok(Err(error))) => Err(failed(&error)),
        Ok(Err(error)) => Err(failed(&error)),
        Err(_) => Err(Refusal::Unavailable("still sending".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn payments_are_distinct_repeatable_and_of_the_day() {
        let day = jiff::civil::date(2025, 5, 26);
        let all: Vec<_> = payments(2000, 7, day).collect();
        assert_eq!(all, payments(2000, 7, day).collect::<Vec<_>>());
        let ids: BTreeSet<_> = all.iter().map(|(id, _)| id).collect();
        assert_eq!(ids.len(), 2000);
        for (_, json) in &all {
            let value: serde_json::Value = serde_json::from_str(json).unwrap();
            let date = value["data"]["paymentDate"].as_str().unwrap();
            assert_eq!(crate::domain::payment::local_day(date), Some(day));
        }
        for text in ActionType::ALL.iter().map(|action| action.as_str()) {
            let field = format!("\"paymentActionType\":\"{text}\"");
            assert!(all.iter().any(|(_, json)| json.contains(&field)), "{text}");
        }
    }
}
