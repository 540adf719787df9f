//! `GET /api/aggregation-data`: the totals of one rule key.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use crate::codec::wire::StatisticsValue;
use crate::domain::partition::of_key;
use crate::http::forward::{Answer, FORWARDED};
use crate::http::partition::{POSITION, local, owner, position, read};
use crate::http::query::{Pairs, Parameters};
use crate::http::refusal::Refusal;
use crate::http::routes::App;

pub(super) async fn get(
    State(app): State<Arc<App>>,
    pairs: Pairs,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let key = Parameters::new(pairs)?.rule_key()?;
    let partition = of_key(key.as_str().as_bytes(), app.services.bases_partitions);
    if let Some(source) = local(&app, partition)? {
        let (totals, offset) = read(source, move |source| source.get(key.as_str())).await?;
        let position = HeaderMap::from_iter([(POSITION, position(partition, offset))]);
        return Ok(match totals {
            Some(totals) => (position, Json(StatisticsValue::from(totals))).into_response(),
            None => (position, Refusal::NotFound("no settlements under this key")).into_response(),
        });
    }
    if headers.contains_key(FORWARDED) {
        let elsewhere = format!("partition {partition} is not served here");
        return Err(Refusal::Unavailable(elsewhere));
    }
    let address = owner(&app, partition)?;
    let path = uri.path_and_query().map_or("", |path| path.as_str());
    let authorization = headers.get(header::AUTHORIZATION).cloned();
    match app.forwarder.get(&address, path, authorization).await {
        Ok(answer) => Ok(passed_on(answer)),
        Err(why) => Err(Refusal::Unavailable(format!(
            "the owner of partition {partition}: {why}"
        ))),
    }
}

/// The owner's answer as this instance's own. A failure over there may be over when the client
/// asks again.
fn passed_on(answer: Answer) -> Response {
    let status = if answer.status.is_server_error() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        answer.status
    };
    if status == StatusCode::SERVICE_UNAVAILABLE
        && !answer.headers.contains_key(header::RETRY_AFTER)
    {
        return Refusal::Unavailable("the owner of the key failed".to_owned()).into_response();
    }
    let kept = [header::CONTENT_TYPE, header::RETRY_AFTER, POSITION];
    let headers = kept.into_iter().filter_map(|name| {
        let value = answer.headers.get(&name)?.clone();
        Some((name, value))
    });
    let headers: HeaderMap = headers.collect();
    (status, headers, answer.body).into_response()
}
