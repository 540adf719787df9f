//! Why a request gets no answer, as JSON.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Seconds after which a client may ask again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The parameter, and what it has to be.
    BadParameter(&'static str, &'static str),
    Unauthorized,
    NotFound(&'static str),
    MethodNotAllowed,
    TooMany(&'static str),
    /// The answer would be there later: a partition restores, moves or its owner is away.
    Unavailable(String),
    /// Reading local state failed; the text is for the log.
    Failed(String),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, error) = match &self {
            Self::BadParameter(name, wanted) => {
                (StatusCode::BAD_REQUEST, format!("{name} must be {wanted}"))
            }
            Self::Unauthorized => (
                StatusCode::UNAUTHORIZED,
                "needs the header Authorization: Bearer <token>".to_owned(),
            ),
            Self::NotFound(what) => (StatusCode::NOT_FOUND, (*what).to_owned()),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "this path takes GET".to_owned(),
            ),
            Self::TooMany(what) => (StatusCode::TOO_MANY_REQUESTS, (*what).to_owned()),
            Self::Unavailable(why) => (StatusCode::SERVICE_UNAVAILABLE, why.clone()),
            Self::Failed(why) => {
                tracing::error!(error = %why, "cannot answer an HTTP request");
                (StatusCode::INTERNAL_SERVER_ERROR, "see the log".to_owned())
            }
        };
        let body = match &self {
            Self::BadParameter(name, _) => json!({"error": error, "parameter": name}),
            _ => json!({"error": error}),
        };
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        match self {
            Self::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            Self::Unavailable(_) | Self::TooMany(_) => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER);
            }
            Self::MethodNotAllowed => {
                headers.insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            }
            Self::BadParameter(..) | Self::NotFound(_) | Self::Failed(_) => {}
        }
        response
    }
}
