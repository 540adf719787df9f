//! Asks the owner of a partition. The client of requests between instances; they speak plain
//! HTTP over the network that the instances share.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use bytes::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::timeout;

/// Marks a request that another instance sent on; it is answered here or not at all.
pub(super) const FORWARDED: HeaderName = HeaderName::from_static("settle-forwarded");

const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// From connecting to the last byte of the answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Shorter than the patience of the other side with an idle connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(5);
/// A page of a listing is the largest answer: its keys have at most 100 bytes or so.
const ANSWER_BYTES: usize = 4 * 1024 * 1024;

#[derive(Clone)]
pub(super) struct Forwarder {
    client: Client<HttpConnector, Body>,
    /// Tells the owner who asks.
    instance: HeaderValue,
}

/// What the owner answered.
pub(super) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Forwarder {
    pub(super) fn new(instance: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .build(connector);
        let unnamed = HeaderValue::from_static("another instance");
        Self {
            client,
            instance: HeaderValue::from_str(instance).unwrap_or(unnamed),
        }
    }

    /// The answer of the instance at `address` to `path`; the error says why there is none.
    pub(super) async fn get(
        &self,
        address: &str,
        path: &str,
        authorization: Option<HeaderValue>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder()
            .method(Method::GET)
            .uri(format!("http://{address}{path}"))
            .body(Body::empty())
            .map_err(|error| error.to_string())?;
        let headers = request.headers_mut();
        headers.insert(FORWARDED, self.instance.clone());
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization);
        }
        match timeout(ANSWER_TIMEOUT, self.answer(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs())),
        }
    }

    async fn answer(&self, request: Request<Body>) -> Result<Answer, String> {
        let response = self.client.request(request).await;
        let (parts, body) = response.map_err(|error| chain(&error))?.into_parts();
        let body = to_bytes(Body::new(body), ANSWER_BYTES).await;
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body: body.map_err(|error| error.to_string())?,
        })
    }
}

/// An error with its causes: the client's own text only says which step failed.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
