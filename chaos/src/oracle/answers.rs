//! Asks the instances over HTTP for what the topics say.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use reqwest::StatusCode;
use reqwest::blocking::{Client, RequestBuilder, Response};
use reqwest::header::RETRY_AFTER;

use crate::model::json::Json;
use crate::model::outgoing::{self, Totals};
use crate::oracle::ledger::Ledger;
use crate::oracle::promise::Promise;

/// Keys that are asked one by one.
const SINGLE: usize = 50;
const LIMIT: Duration = Duration::from_secs(60);

/// Asks, again after as long as the answer says while a partition is being restored.
fn ask(request: &RequestBuilder) -> Result<Response> {
    let start = Instant::now();
    loop {
        let request = request.try_clone().context("a request without a body")?;
        let response = request.send()?;
        let wait = response.headers().get(RETRY_AFTER);
        let is_restoring = response.status() == StatusCode::SERVICE_UNAVAILABLE;
        let (true, Some(wait)) = (is_restoring && start.elapsed() < LIMIT, wait) else {
            return Ok(response);
        };
        thread::sleep(Duration::from_secs(wait.to_str()?.parse()?));
    }
}

/// Asks the first instance for all keys, and every instance for some of them.
pub fn feed(addresses: &[String], ledger: &mut Ledger) -> Result<()> {
    let client = Client::builder().timeout(LIMIT).no_proxy().build()?;
    let first = addresses.first().context("no instance to ask")?;
    let response = ask(&client.get(format!("http://{first}/api/aggregation-data/all")))?;
    ensure!(
        response.status().is_success(),
        "{first} answers {} for all keys",
        response.status()
    );
    let text = response.text().context("read the answer for all keys")?;
    let Some(Json::Array(entries)) = Json::read(&text) else {
        ledger.findings().check(Promise::Http, false, || {
            "the answer for all keys is no JSON array".to_owned()
        });
        return Ok(());
    };
    for entry in &entries {
        let key = entry.get("key").and_then(outgoing::statistics_rule_key);
        let totals = entry.get("value").and_then(Totals::read);
        match key.zip(totals) {
            Some((key, totals)) => ledger.answer(&key, totals),
            None => ledger.findings().check(Promise::Http, false, || {
                format!("an entry is no statistics: {entry:?}")
            }),
        }
    }
    ledger.close_answers();
    let some: Vec<_> = ledger
        .largest(usize::MAX)
        .into_iter()
        .rev()
        .take(SINGLE / 2)
        .collect();
    let some = some.into_iter().chain(ledger.largest(SINGLE / 2));
    for (index, (name, totals)) in some.enumerate() {
        let address = &addresses[index % addresses.len()];
        single(&client, address, &name, totals, ledger)?;
    }
    Ok(())
}

fn single(
    client: &Client,
    address: &str,
    name: &str,
    totals: Totals,
    ledger: &mut Ledger,
) -> Result<()> {
    let [merchant, day, action, method] =
        outgoing::fields(name).context("a key has four fields")?;
    let query = [
        ("merchantNumber", merchant),
        ("paymentDateDailyStr", day),
        ("actionTypeStr", action),
        ("methodTypeStr", method),
    ];
    let request = client.get(format!("http://{address}/api/aggregation-data"));
    let response = ask(&request.query(&query))?;
    let status = response.status();
    let text = response.text()?;
    ledger.findings().check(
        Promise::Http,
        status.is_success() && text == totals.render(),
        || format!("{address} answers {status} {text} for {name}, the topic says {totals}"),
    );
    Ok(())
}
