//! Asks running instances how they are, for the command line.

use axum::http::{HeaderValue, StatusCode};
use futures_util::future::join_all;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::http::forward::{Answer, Forwarder};

/// Asks; one client for as many questions as wanted.
pub struct Asker {
    forwarder: Forwarder,
    authorization: Option<HeaderValue>,
    runtime: Runtime,
}

/// What an instance says about itself.
#[derive(Debug, Clone)]
pub struct Told {
    /// The body of `/readyz`; the error says why there is no answer.
    pub ready: Result<Value, String>,
    /// The body of `/api/status`, which may need the token.
    pub status: Result<Value, String>,
}

impl Asker {
    /// `token` is `http.token`.
    pub fn new(token: Option<&str>) -> Result<Self, std::io::Error> {
        let authorization = token.map(|token| HeaderValue::from_str(&format!("Bearer {token}")));
        let invalid = |error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error);
        Ok(Self {
            forwarder: Forwarder::new("the command line"),
            authorization: authorization.transpose().map_err(invalid)?,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?,
        })
    }

    /// Asks all of these addresses (`host:port`) at once; answers in their order.
    pub fn ask(&self, addresses: &[&str]) -> Vec<Told> {
        let asked = addresses.iter().map(|address| self.ask_one(address));
        self.runtime.block_on(join_all(asked))
    }

    async fn ask_one(&self, address: &str) -> Told {
        let ready = self.forwarder.get(address, "/readyz", None).await;
        let is_there = ready.is_ok();
        let ready = ready.and_then(|answer| match answer.status {
            StatusCode::OK | StatusCode::SERVICE_UNAVAILABLE => json(&answer),
            status => Err(format!("/readyz answers {status}")),
        });
        if !is_there {
            let status = Err("not asked".to_owned());
            return Told { ready, status };
        }
        let authorization = self.authorization.clone();
        let status = self.forwarder.get(address, "/api/status", authorization);
        let status = status.await.and_then(|answer| match answer.status {
            StatusCode::OK => json(&answer),
            StatusCode::UNAUTHORIZED => Err("/api/status needs http.token".to_owned()),
            status => Err(format!("/api/status answers {status}")),
        });
        Told { ready, status }
    }
}

/// Status and body of the answer to `GET path` of the instance at `address`; the error says why there is none.
pub fn get(address: &str, path: &str) -> Result<(u16, String), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let answer = runtime.block_on(Forwarder::new("").get(address, path, None))?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    Ok((answer.status.as_u16(), body))
}

fn json(answer: &Answer) -> Result<Value, String> {
    serde_json::from_slice(&answer.body).map_err(|error| format!("the answer is no JSON: {error}"))
}
