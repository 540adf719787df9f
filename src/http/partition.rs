//! Reads of one partition of totals, here or at its owner, and the endpoint by which instances
//! read each other's.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;

use crate::clock;
use crate::domain::rule::RuleKey;
use crate::domain::totals::Totals;
use crate::http::query::{Filter, Pairs, Parameters};
use crate::http::refusal::Refusal;
use crate::http::routes::App;
use crate::state::view::{Error, Served, Source};

/// `<partition>/<offset of the next base>`: the answer contains every base before it.
pub(super) const POSITION: HeaderName = HeaderName::from_static("settle-position");
/// Where instances ask each other for pages.
pub(super) const PATH: &str = "/internal/totals";

/// How many keys one page looks at.
pub(super) const PAGE: usize = 1000;

/// Matching keys of one partition, in key order.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Page {
    /// Rule key, amount, count.
    pub entries: VecDeque<(String, i64, u64)>,
    /// The key behind which the next page starts, unless this is the last.
    pub more: Option<String>,
    /// Offset of the next base.
    pub position: i64,
}

pub(super) fn position(partition: i32, offset: i64) -> HeaderValue {
    HeaderValue::from_str(&format!("{partition}/{offset}")).expect("digits and a slash")
}

/// The source of a partition that is served here; `None` when another instance owns it. A process
/// that was frozen or cut off learns late that it has lost a partition: totals that another one has
/// gone on with are not answered.
pub(super) fn local(app: &App, partition: i32) -> Result<Option<Arc<dyn Source>>, Refusal> {
    let services = &app.services;
    match services.views.of_since(partition) {
        Some((Served::Ready(source), since)) => {
            let Some(asked_at) = services.owners.asked_at() else {
                return Ok(Some(source));
            };
            if clock::now().saturating_sub(asked_at) > services.session_timeout {
                return Err(Refusal::Unavailable(format!(
                    "the consumer group does not answer: another instance may own partition \
                     {partition}"
                )));
            }
            let owner = services.owners.of(partition);
            let is_lost = owner.is_some_and(|owner| owner != services.advertise);
            Ok((!is_lost || asked_at < since).then_some(source))
        }
        Some((Served::Restoring, _)) => Err(Refusal::Unavailable(format!(
            "partition {partition} is restoring"
        ))),
        None => Ok(None),
    }
}

/// The address of the other instance that owns a partition.
pub(super) fn owner(app: &App, partition: i32) -> Result<String, Refusal> {
    let owner = app.services.owners.of(partition);
    owner
        .filter(|address| *address != app.services.advertise)
        .ok_or_else(|| Refusal::Unavailable(format!("partition {partition} has no owner yet")))
}

/// Reads a source away from the threads that serve connections: it may wait for a disk.
pub(super) async fn read<T: Send + 'static>(
    source: Arc<dyn Source>,
    read: impl FnOnce(&dyn Source) -> Result<T, Error> + Send + 'static,
) -> Result<T, Refusal> {
    match spawn_blocking(move || read(source.as_ref())).await {
        Ok(result) => result.map_err(|error| Refusal::Failed(error.to_string())),
        Err(error) => Err(Refusal::Failed(error.to_string())),
    }
}

/// One page of a source: looks at up to `scan` keys behind `after`.
fn page_of(
    source: &dyn Source,
    filter: &Filter,
    after: Option<&str>,
    scan: usize,
) -> Result<Page, Error> {
    let prefix = filter.prefix();
    // The prefix is no key itself: starting behind it leaves nothing out.
    let start = after.unwrap_or_default().max(prefix.as_str());
    let start = Some(start).filter(|start| !start.is_empty());
    let (keys, position) = source.page(start, scan)?;
    let mut more = (keys.len() == scan).then(|| keys.last().map(|(key, _)| key.clone()));
    if keys.iter().any(|(key, _)| !key.starts_with(&prefix)) {
        more = None;
    }
    let entry = |(key, totals): (String, Totals)| (key, totals.amount, totals.count);
    let entries = keys
        .into_iter()
        .filter(|(key, _)| key.starts_with(&prefix) && filter.matches(key))
        .map(entry)
        .collect();
    Ok(Page {
        entries,
        more: more.flatten(),
        position,
    })
}

/// One page of a partition, wherever it is served now.
pub(super) async fn page(
    app: &App,
    partition: i32,
    filter: &Filter,
    (after, scan): (Option<String>, usize),
    authorization: Option<HeaderValue>,
) -> Result<Page, Refusal> {
    if let Some(source) = local(app, partition)? {
        let filter = filter.clone();
        return read(source, move |source| {
            page_of(source, &filter, after.as_deref(), scan)
        })
        .await;
    }
    let address = owner(app, partition)?;
    let query = filter.page_query(partition, after.as_deref(), scan);
    let path = format!("{PATH}?{query}");
    let answer = app.forwarder.get(&address, &path, authorization).await;
    let refused =
        |why: String| Refusal::Unavailable(format!("the owner of partition {partition}: {why}"));
    let answer = answer.map_err(refused)?;
    if answer.status != StatusCode::OK {
        return Err(refused(answer.status.to_string()));
    }
    serde_json::from_slice(&answer.body).map_err(|error| refused(error.to_string()))
}

/// `GET /internal/totals`: one page of a partition that is served here, for another instance.
pub(super) async fn get(State(app): State<Arc<App>>, pairs: Pairs) -> Result<Response, Refusal> {
    let parameters = Parameters::new(pairs)?;
    let partition = parameters.partition()?;
    let filter = parameters.filter()?;
    let after = parameters.after()?;
    let scan = parameters.scan()?.unwrap_or(PAGE).min(PAGE);
    let Some(source) = local(&app, partition)? else {
        let elsewhere = format!("partition {partition} is not served here");
        return Err(Refusal::Unavailable(elsewhere));
    };
    let page = read(source, move |source| {
        let after = after.as_ref().map(RuleKey::as_str);
        page_of(source, &filter, after, scan)
    })
    .await?;
    let headers = HeaderMap::from_iter([(POSITION, position(partition, page.position))]);
    Ok((headers, Json(page)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Vec<&'static str>);

    impl Source for Fixed {
        fn get(&self, _: &str) -> Result<(Option<Totals>, i64), Error> {
            Ok((None, 7))
        }

        fn page(
            &self,
            after: Option<&str>,
            limit: usize,
        ) -> Result<(Vec<(String, Totals)>, i64), Error> {
            let after = after.unwrap_or_default();
            let keys = self.0.iter().filter(|key| **key > after).take(limit);
            let keys = keys.map(|key| ((*key).to_owned(), Totals::default()));
            Ok((keys.collect(), 7))
        }
    }

    fn walk(filter: &Filter, scan: usize) -> (Vec<String>, usize) {
        let source = Fixed(vec![
            "a/2025-05-26/CANCEL/CARD",
            "a/2025-05-26/PAYMENT/CARD",
            "a/2025-05-27/PAYMENT/CARD",
            "ab/2025-05-26/PAYMENT/CARD",
            "b/2025-05-26/PAYMENT/CARD",
        ]);
        let (mut found, mut pages, mut after) = (Vec::new(), 0, None::<String>);
        loop {
            let page = page_of(&source, filter, after.as_deref(), scan).unwrap();
            found.extend(page.entries.into_iter().map(|(key, ..)| key));
            pages += 1;
            match page.more {
                Some(more) => after = Some(more),
                None => return (found, pages),
            }
        }
    }

    #[test]
    fn pages_of_any_size_give_the_same_keys_in_order() {
        let none = Filter::default();
        let whole = walk(&none, 100).0;
        assert_eq!(whole.len(), 5);
        for scan in 1..6 {
            assert_eq!(walk(&none, scan).0, whole, "{scan}");
        }
    }

    #[test]
    fn a_filter_gives_what_matches_and_stops_behind_its_merchant() {
        let merchant = Filter {
            merchant: Some("a".into()),
            day: None,
        };
        let (found, pages) = walk(&merchant, 4);
        assert_eq!((found.len(), pages), (3, 1));
        let day = Filter {
            merchant: None,
            day: Some("2025-05-27".into()),
        };
        assert_eq!(walk(&day, 1).0, ["a/2025-05-27/PAYMENT/CARD"]);
        let both = Filter {
            merchant: Some("a".into()),
            day: Some("2025-05-26".into()),
        };
        assert_eq!(walk(&both, 2).0.len(), 2);
    }
}
