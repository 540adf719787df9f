//! One question to the rule service over HTTP. The only place that names reqwest.

use std::error::Error as _;
use std::time::Duration;

use jiff::Timestamp;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, HeaderName, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode, Url};
use serde::Serialize;

use super::status::Failure;
use super::{Answer, Error, Options, retry};
use crate::clock;
use crate::codec::rule::{self, Mismatch};
use crate::codec::wire;
use crate::domain::rule::RuleKey;

/// A rule takes some 250 bytes. More than this is not read at all.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// Why one question got no definite answer.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) failure: Failure,
    /// One line, without anything of the payload.
    pub(super) detail: String,
    /// The service asks not to be asked about this key before that.
    pub(super) retry_after: Option<Duration>,
}

/// The question, fields in the order of `docs/contract.md`. The day stands as its midnight, so the
/// answer belongs to the rule key.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Question<'a> {
    merchant_number: &'a str,
    payment_date: String,
    payment_action_type: &'a str,
    payment_method_type: &'a str,
}

pub(super) struct Client {
    http: reqwest::Client,
    url: Url,
    timeout: Duration,
}

impl Client {
    pub(super) fn new(options: &Options) -> Result<Self, Error> {
        let url = Url::parse(&options.url).map_err(|error| Error::Url {
            reason: error.to_string(),
        })?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::Url {
                reason: format!("scheme `{}`", url.scheme()),
            });
        }
        let http = reqwest::Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(options.max_concurrent)
            .user_agent(concat!("settle/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Error::Client(error.into()))?;
        Ok(Self {
            http,
            url,
            timeout: options.timeout,
        })
    }

    /// Asks once. The time-out spans everything from connect to the last byte of the body.
    pub(super) async fn ask(&self, key: &RuleKey) -> Result<Answer, Trouble> {
        match tokio::time::timeout(self.timeout, self.exchange(key)).await {
            Ok(reply) => reply,
            Err(_elapsed) => Err(Trouble::new(
                Failure::TimedOut,
                format!("no complete answer within {:?}", self.timeout),
            )),
        }
    }

    async fn exchange(&self, key: &RuleKey) -> Result<Answer, Trouble> {
        let question = Question {
            merchant_number: key.merchant(),
            payment_date: wire::midnight(key.day_text()),
            payment_action_type: key.action().as_str(),
            payment_method_type: key.method().as_str(),
        };
        let body = serde_json::to_vec(&question).expect("four strings are always JSON");
        let response = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .body(body)
            .send()
            .await
            .map_err(|error| Trouble::transport(&error))?;
        match response.status() {
            StatusCode::OK => {
                let body = read_body(response).await?;
                rule::read(key, &body)
                    .map(Answer::Rule)
                    .map_err(|mismatch| Trouble::mismatch(&mismatch))
            }
            StatusCode::NOT_FOUND | StatusCode::NO_CONTENT => Ok(Answer::NoRule),
            _ => Err(Trouble::status(&response)),
        }
    }
}

/// The body up to its limit; an announced length beyond it is refused before a byte is read.
async fn read_body(mut response: Response) -> Result<Vec<u8>, Trouble> {
    let announced = text(&response, CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let mut body = Vec::with_capacity(announced.unwrap_or(0_usize).min(BODY_BYTES_MAX));
    if announced.is_some_and(|length| length > BODY_BYTES_MAX) {
        return Err(Trouble::too_large());
    }
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| Trouble::transport(&error))?
    {
        if body.len() + chunk.len() > BODY_BYTES_MAX {
            return Err(Trouble::too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn text(response: &Response, name: HeaderName) -> Option<&str> {
    response.headers().get(name)?.to_str().ok()
}

impl Trouble {
    fn new(failure: Failure, detail: String) -> Self {
        Self {
            failure,
            detail,
            retry_after: None,
        }
    }

    fn too_large() -> Self {
        let detail = format!("the body is larger than {BODY_BYTES_MAX} bytes");
        Self::new(Failure::TooLarge, detail)
    }

    fn mismatch(mismatch: &Mismatch) -> Self {
        let failure = match mismatch {
            Mismatch::OtherKey(_) => Failure::WrongKey,
            Mismatch::Malformed { .. } | Mismatch::Missing(_) | Mismatch::Invalid(_) => {
                Failure::NotARule
            }
        };
        Self::new(failure, format!("the body: {mismatch}"))
    }

    /// The answer of a service that neither gave a rule nor said that there is none.
    fn status(response: &Response) -> Self {
        let status = response.status();
        let failure = match status.as_u16() {
            429 => Failure::TooManyRequests,
            500..=599 => Failure::ServerError,
            300..=399 => Failure::Redirected,
            400..=499 => Failure::ClientError,
            _ => Failure::UnexpectedStatus,
        };
        let now = Timestamp::from_microsecond(clock::wall_micros()).unwrap_or_default();
        let retry_after = text(response, RETRY_AFTER)
            .and_then(|value| retry::retry_after(value, text(response, DATE), now));
        Self {
            failure,
            detail: format!("the service answered {status}"),
            retry_after,
        }
    }

    /// No answer, or only a part of one.
    fn transport(error: &reqwest::Error) -> Self {
        let failure = if error.is_timeout() {
            Failure::TimedOut
        } else if error.is_connect() {
            Failure::NotConnected
        } else {
            Failure::BrokenOff
        };
        let mut detail = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            detail = format!("{detail}: {error}");
            cause = error.source();
        }
        Self::new(failure, detail)
    }
}
