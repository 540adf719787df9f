//! `/`: a page for people, with the script and the style that it needs. It holds no numbers: the
//! script asks `/metrics` and `/api/status` for them, with the token where one is wanted.
//!
//! The three are part of the program. Their policy lets the browser load nothing else, run nothing
//! that stands in the page, and talk to this instance only.

use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};

/// What is answered without a token.
pub(super) const PATHS: [&str; 4] = ["/", "/page.css", "/page.js", "/page.svg"];

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'";

const HEADERS: [(HeaderName, &str); 4] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    // The next version's script must meet the next version's page.
    (header::CACHE_CONTROL, "no-cache"),
];

fn asset(kind: &'static str, text: &'static str) -> Response {
    (HEADERS, [(header::CONTENT_TYPE, kind)], text).into_response()
}

pub(super) async fn html() -> Response {
    asset("text/html; charset=utf-8", include_str!("assets/page.html"))
}

pub(super) async fn css() -> Response {
    asset("text/css; charset=utf-8", include_str!("assets/page.css"))
}

pub(super) async fn js() -> Response {
    asset(
        "text/javascript; charset=utf-8",
        include_str!("assets/page.js"),
    )
}

pub(super) async fn svg() -> Response {
    asset("image/svg+xml", include_str!("assets/page.svg"))
}
