//! Which path is answered by what, and what holds for all of them: the token, a time limit, a
//! count per route and status.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use subtle::ConstantTimeEq;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::http::forward::Forwarder;
use crate::http::refusal::Refusal;
use crate::http::{Services, all, generator, health, key, page, partition, status};
use crate::metrics::Requests;

/// Until an answer begins. The generator has a limit of its own.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What is answered without a token: probes and scrapers have none. Nor has who opens the page,
/// which asks for it.
const OPEN: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// What is counted from the start. A path that stands under none of them counts as the last one.
const ROUTES: [&str; 10] = [
    "/",
    "/api/aggregation-data",
    "/api/aggregation-data/all",
    "/api/status",
    "/livez",
    "/readyz",
    "/metrics",
    partition::PATH,
    generator::PATH,
    OTHER,
];
const OTHER: &str = "other";

/// What all requests share.
pub(super) struct App {
    pub services: Services,
    pub forwarder: Forwarder,
    /// One generator run at a time.
    pub generating: Arc<Semaphore>,
    requests: Requests,
}

pub(super) fn router(services: Services) -> Router {
    let app = Arc::new(App {
        forwarder: Forwarder::new(&services.instance, services.tls.as_ref()),
        generating: Arc::new(Semaphore::new(1)),
        requests: Requests::new(&ROUTES),
        services,
    });
    let mut router = Router::new()
        .route("/", get(page::html))
        .route("/page.css", get(page::css))
        .route("/page.js", get(page::js))
        .route("/page.svg", get(page::svg))
        .route("/api/aggregation-data", get(key::get))
        .route("/api/aggregation-data/all", get(all::get))
        .route(partition::PATH, get(partition::get))
        .route("/api/status", get(status::get))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(status::metrics))
        .layer(from_fn(limited));
    if app.services.generator.is_some() {
        router = router.route(generator::PATH, get(generator::get));
    }
    router
        .fallback(async || Refusal::NotFound("there is nothing under this path"))
        .method_not_allowed_fallback(async || Refusal::MethodNotAllowed)
        .layer(from_fn_with_state(Arc::clone(&app), authorized))
        .layer(from_fn_with_state(Arc::clone(&app), counted))
        .with_state(app)
}

async fn counted(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let route = route.as_ref().map_or(OTHER, MatchedPath::as_str);
    app.requests.answered(route, response.status().as_u16());
    response
}

async fn limited(request: Request, next: Next) -> Response {
    match timeout(ANSWER_TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Refusal::Unavailable("no answer in time".to_owned()).into_response(),
    }
}

async fn authorized(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(token) = &app.services.token else {
        return next.run(request).await;
    };
    let path = request.uri().path();
    if OPEN.contains(&path) || page::PATHS.contains(&path) {
        return next.run(request).await;
    }
    let given = request.headers().get(header::AUTHORIZATION);
    let given = given.and_then(|value| bearer(value.as_bytes()));
    // How long the comparison takes tells nothing but the token's length.
    let matches = given.is_some_and(|given| bool::from(given.ct_eq(token.as_bytes())));
    if matches {
        next.run(request).await
    } else {
        Refusal::Unauthorized.into_response()
    }
}

/// The token of `Bearer <token>`; the scheme is taken in any case.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}
