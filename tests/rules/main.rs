//! The resolver against a real HTTP server: every row of the table of answers in
//! `docs/contract.md`, one call per key, outages, and bodies nobody should read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod calls;
mod service;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt as _;
use futures_util::stream;
use settle::rules::{Answer, Failure, Options, Outcome, Resolver, Service as _};

use service::{Question, Service, failed, key, rule, rule_of, status_only, take};

/// A service whose first answer is `first` and whose later ones are right: the key must be asked
/// again, and the first answer counted as `failure`.
fn retried(
    failure: Failure,
    first: impl Fn(&Question) -> Response + Send + Sync + 'static,
) -> Service {
    let (service, resolver) = asked_again(LONG, failure, first);
    let status = resolver.status();
    assert_eq!(failed(&status, failure), 1, "{:?}", status.last_failure());
    assert_eq!(service.questions().len(), 2, "{failure:?}");
    service
}

/// The same for an answer that has no end; a right one, too, may not come in so little time.
fn timed_out(first: impl Fn(&Question) -> Response + Send + Sync + 'static) {
    let (_service, resolver) = asked_again(SHORT, Failure::TimedOut, first);
    assert!(failed(&resolver.status(), Failure::TimedOut) >= 1);
}

/// More than a stall of the machine takes.
const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_secs(1);

fn asked_again(
    timeout: Duration,
    failure: Failure,
    first: impl Fn(&Question) -> Response + Send + Sync + 'static,
) -> (Service, Resolver) {
    let service = Service::start(move |question| match question.number {
        0 => first(question),
        _ => rule_of(question),
    });
    let resolver = Resolver::new(
        &Options {
            timeout,
            ..service.options()
        },
        service.runtime.handle().clone(),
    )
    .unwrap();
    let mut subscription = resolver.subscribe();
    subscription.request(&key(1));
    assert_eq!(
        take(&mut subscription, 1),
        [(key(1), rule())],
        "{failure:?}"
    );
    let status = resolver.status();
    assert_eq!(status.calls(Outcome::Rule), 1);
    assert_eq!(status.consecutive_failures(), 0);
    assert!(status.last_failure().unwrap().starts_with(failure.label()));
    (service, resolver)
}

#[test]
fn a_rule_is_taken_and_the_question_has_the_fields_of_the_contract_in_order() {
    let service = Service::start(rule_of);
    let resolver = service.resolver();
    let mut subscription = resolver.subscribe();
    subscription.request(&key(1));
    assert_eq!(subscription.in_flight(), 1);
    assert_eq!(take(&mut subscription, 1), [(key(1), rule())]);
    assert_eq!(subscription.in_flight(), 0);
    let questions = service.questions();
    assert_eq!(questions[0].path, "/payout-rules");
    assert_eq!(questions[0].headers["content-type"], "application/json");
    assert_eq!(
        questions[0].body,
        r#"{"merchantNumber":"merchant-1","paymentDate":"2025-05-26T00:00:00","paymentActionType":"PAYMENT","paymentMethodType":"MONEY"}"#
    );
    assert_eq!(resolver.status().calls(Outcome::Rule), 1);
}

#[test]
fn not_found_and_no_content_are_definite() {
    for code in [404, 204] {
        let service = Service::start(move |_| status_only(code));
        let resolver = service.resolver();
        let mut subscription = resolver.subscribe();
        subscription.request(&key(1));
        assert_eq!(take(&mut subscription, 1), [(key(1), Answer::NoRule)]);
        assert_eq!(service.questions().len(), 1);
        assert_eq!(resolver.status().calls(Outcome::NoRule), 1);
    }
}

#[test]
fn a_service_in_trouble_is_asked_again() {
    for code in [500, 502, 503, 504, 599] {
        retried(Failure::ServerError, move |_| status_only(code));
    }
    retried(Failure::TooManyRequests, |_| status_only(429));
}

#[test]
fn a_refusal_is_asked_again_and_marked_for_a_person() {
    for code in [400, 401, 403, 405, 408, 410, 422] {
        retried(Failure::ClientError, move |_| status_only(code));
    }
    for code in [201, 202, 206] {
        retried(Failure::UnexpectedStatus, move |question| {
            let status = StatusCode::from_u16(code).unwrap();
            (status, rule_of(question)).into_response()
        });
    }
    assert!(Failure::ClientError.needs_attention() && !Failure::ServerError.needs_attention());
}

#[test]
fn a_redirect_is_never_followed() {
    for code in [301, 302, 303, 307, 308] {
        let service = retried(Failure::Redirected, move |_| {
            let status = StatusCode::from_u16(code).unwrap();
            (status, [("location", "/elsewhere")]).into_response()
        });
        let followed = |question: &Question| question.path != "/payout-rules";
        assert!(!service.questions().iter().any(followed));
    }
}

#[test]
fn a_body_that_is_no_rule_is_not_taken() {
    for body in [
        "",
        "{}",
        "[]",
        "null",
        "<html>sorry</html>",
        r#"{"ruleId":"r-1""#,
    ] {
        retried(Failure::NotARule, move |_| body.into_response());
    }
}

#[test]
fn a_rule_of_another_key_is_not_taken() {
    for (old, new) in [
        ("merchant-1", "merchant-2"),
        ("05-26T", "05-27T"),
        ("PAYMENT\"", "CANCEL\""),
        ("MONEY", "CARD"),
    ] {
        retried(Failure::WrongKey, move |question| {
            let body = question.body.replace(old, new);
            rule_of(&Question {
                body,
                ..question.clone()
            })
        });
    }
}

#[test]
fn an_answer_that_breaks_off_or_never_comes_is_asked_again() {
    retried(Failure::BrokenOff, |_| {
        let broken = stream::iter([Ok(r#"{"ruleId":"#), Err("cut")]);
        Body::from_stream(broken).into_response()
    });
    timed_out(|_| Body::from_stream(stream::pending::<Result<Bytes, String>>()).into_response());
}

#[test]
fn a_body_that_drips_for_ever_ends_by_the_time_out() {
    timed_out(|_| {
        let drip = stream::repeat(()).then(|()| async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            Ok::<_, String>(" ")
        });
        Body::from_stream(drip).into_response()
    });
}

#[test]
fn a_body_of_ten_megabytes_is_refused_after_the_first_of_it() {
    static SENT: AtomicUsize = AtomicUsize::new(0);
    const CHUNK: usize = 16 * 1024;
    const CHUNKS: usize = 10 * 1024 * 1024 / CHUNK;
    let huge = || {
        stream::iter(0..CHUNKS).map(|_| {
            SENT.fetch_add(CHUNK, SeqCst);
            Ok::<_, String>(Bytes::from(vec![b' '; CHUNK]))
        })
    };
    retried(Failure::TooLarge, move |_| {
        Body::from_stream(huge()).into_response()
    });
    assert!(
        SENT.load(SeqCst) < CHUNK * CHUNKS,
        "the rest was never read"
    );
    retried(Failure::TooLarge, move |_| {
        let length = (CHUNK * CHUNKS).to_string();
        ([("content-length", length)], Body::from_stream(huge())).into_response()
    });
}

#[test]
fn retry_after_is_waited_out() {
    for code in [429, 503] {
        let failure = match code {
            429 => Failure::TooManyRequests,
            _ => Failure::ServerError,
        };
        let service = retried(failure, move |_| {
            let status = StatusCode::from_u16(code).unwrap();
            (status, [("retry-after", "1")]).into_response()
        });
        let questions = service.questions();
        assert!(questions[1].at - questions[0].at >= Duration::from_secs(1));
    }
}
