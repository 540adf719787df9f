//! The resolver against a real HTTP server: every row of the contract's table of answers, one
//! flight per key, outages, and bodies nobody should read.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::StreamExt as _;
use futures_util::stream;
use jiff::civil::date;
use settle::domain::rule::{Rule, RuleKey};
use settle::rules::{Answer, Desk, Error, Failure, Options, Outcome, Resolver, Status};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// Longer than any test needs; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

type Reply = Box<dyn Fn(&Question) -> Response + Send + Sync>;

/// What the service was asked.
#[derive(Clone)]
struct Question {
    at: Instant,
    /// How many questions came before this one.
    number: usize,
    path: String,
    headers: HeaderMap,
    body: String,
}

/// A rule service on loopback that keeps its questions.
struct Service {
    runtime: Runtime,
    url: String,
    desk: Arc<Counter>,
}

struct Counter {
    questions: Mutex<Vec<Question>>,
    open: AtomicUsize,
    open_max: AtomicUsize,
    reply: Reply,
}

impl Service {
    fn start(reply: impl Fn(&Question) -> Response + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let desk = Arc::new(Counter {
            questions: Mutex::default(),
            open: AtomicUsize::new(0),
            open_max: AtomicUsize::new(0),
            reply: Box::new(reply),
        });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/payout-rules", listener.local_addr().unwrap());
        let router = Router::new()
            .fallback(any(answer))
            .with_state(Arc::clone(&desk));
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { runtime, url, desk }
    }

    fn options(&self) -> Options {
        Options {
            url: self.url.clone(),
            timeout: Duration::from_secs(10),
            max_concurrent: 64,
            on_call: |_, _| {},
        }
    }

    fn resolver(&self) -> Resolver {
        Resolver::new(&self.options(), self.runtime.handle().clone()).unwrap()
    }

    fn questions(&self) -> Vec<Question> {
        self.desk.questions.lock().unwrap().clone()
    }

    /// How often each body was asked.
    fn asked(&self) -> BTreeMap<String, usize> {
        let mut asked = BTreeMap::new();
        for question in self.questions() {
            *asked.entry(question.body).or_insert(0) += 1;
        }
        asked
    }
}

async fn answer(
    State(desk): State<Arc<Counter>>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let open = desk.open.fetch_add(1, SeqCst) + 1;
    desk.open_max.fetch_max(open, SeqCst);
    let question = {
        let mut questions = desk.questions.lock().unwrap();
        let question = Question {
            at: Instant::now(),
            number: questions.len(),
            path: uri.path().to_owned(),
            headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        };
        questions.push(question.clone());
        question
    };
    // Gives the other questions of a burst the time to arrive before this one is answered.
    tokio::task::yield_now().await;
    desk.open.fetch_sub(1, SeqCst);
    (desk.reply)(&question)
}

/// The rule of the question's key, as the service of the contract gives it.
fn rule_of(question: &Question) -> Response {
    let dates = r#"{"ruleId":"r-1","payoutDate":"2025-06-10","confirmDate":"2025-06-09","#;
    question.body.replacen('{', dates, 1).into_response()
}

fn key(n: usize) -> RuleKey {
    RuleKey::parse(&format!("merchant-{n}/2025-05-26/PAYMENT/MONEY")).unwrap()
}

fn rule() -> Answer {
    Answer::Rule(Rule {
        rule_id: "r-1".to_owned(),
        payout_date: date(2025, 6, 10),
        confirm_date: date(2025, 6, 9),
    })
}

/// Waits until `count` answers have landed.
fn take(desk: &mut Desk, count: usize) -> Vec<(RuleKey, Answer)> {
    let mut answers = Vec::new();
    while answers.len() < count {
        assert!(desk.wait(PATIENCE), "{} of {count} answers", answers.len());
        answers.extend(desk.take_answers());
    }
    answers
}

fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn failed(status: &Status, failure: Failure) -> u64 {
    status.calls(Outcome::Failed(failure))
}

/// A service whose first answer is `first` and whose later ones are right: the key must be asked
/// again, and the first answer counted as `failure`.
fn retried(
    failure: Failure,
    first: impl Fn(&Question) -> Response + Send + Sync + 'static,
) -> Service {
    let service = Service::start(move |question| match question.number {
        0 => first(question),
        _ => rule_of(question),
    });
    let resolver = Resolver::new(
        &Options {
            timeout: Duration::from_secs(1),
            ..service.options()
        },
        service.runtime.handle().clone(),
    )
    .unwrap();
    let mut desk = resolver.subscribe();
    desk.request(&key(1));
    assert_eq!(take(&mut desk, 1), [(key(1), rule())], "{failure:?}");
    let status = resolver.status();
    assert_eq!(failed(&status, failure), 1, "{:?}", status.last_failure());
    assert_eq!(status.calls(Outcome::Rule), 1);
    assert_eq!(status.consecutive_failures(), 0);
    assert!(status.last_failure().unwrap().starts_with(failure.label()));
    assert_eq!(service.questions().len(), 2, "{failure:?}");
    service
}

fn status_only(code: u16) -> Response {
    StatusCode::from_u16(code).unwrap().into_response()
}

#[test]
fn a_rule_lands_and_the_question_has_the_fields_of_the_contract_in_order() {
    let service = Service::start(rule_of);
    let resolver = service.resolver();
    let mut desk = resolver.subscribe();
    desk.request(&key(1));
    assert_eq!(desk.in_flight(), 1);
    assert_eq!(take(&mut desk, 1), [(key(1), rule())]);
    assert_eq!(desk.in_flight(), 0);
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
        let mut desk = resolver.subscribe();
        desk.request(&key(1));
        assert_eq!(take(&mut desk, 1), [(key(1), Answer::NoRule)]);
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
    retried(Failure::TimedOut, |_| {
        Body::from_stream(stream::pending::<Result<Bytes, String>>()).into_response()
    });
}

#[test]
fn a_body_that_drips_for_ever_ends_by_the_time_out() {
    retried(Failure::TimedOut, |_| {
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

#[test]
fn a_hundred_requests_of_many_desks_are_one_call() {
    let (release, held) = std::sync::mpsc::channel::<()>();
    let held = Mutex::new(held);
    let service = Service::start(move |question| {
        held.lock().unwrap().recv().unwrap();
        rule_of(question)
    });
    let resolver = service.resolver();
    let mut desks: Vec<Desk> = (0..10).map(|_| resolver.subscribe()).collect();
    for _ in 0..10 {
        for desk in &mut desks {
            desk.request(&key(1));
        }
    }
    assert_eq!(resolver.status().waiting(), 1);
    until("the question arrives", || resolver.status().on_wire() == 1);
    release.send(()).unwrap();
    for desk in &mut desks {
        assert_eq!(take(desk, 1), [(key(1), rule())]);
        assert!(desk.take_answers().is_empty());
    }
    assert_eq!(service.questions().len(), 1);
    assert_eq!(resolver.status().waiting(), 0);
}

#[test]
fn a_key_can_be_asked_again_after_its_answer_was_taken() {
    let service = Service::start(|_| status_only(404));
    let mut desk = service.resolver().subscribe();
    for _ in 0..3 {
        desk.request(&key(1));
        assert_eq!(take(&mut desk, 1), [(key(1), Answer::NoRule)]);
    }
    assert_eq!(service.questions().len(), 3);
}

#[test]
fn a_cancelled_key_is_asked_no_more_and_leaves_no_answer() {
    let service = Service::start(|question| {
        if question.body.contains("merchant-1\"") {
            status_only(503)
        } else {
            rule_of(question)
        }
    });
    let resolver = service.resolver();
    let mut desk = resolver.subscribe();
    desk.request(&key(1));
    until("the first failure", || {
        failed(&resolver.status(), Failure::ServerError) > 0
    });
    desk.cancel(&key(1));
    assert_eq!((desk.in_flight(), resolver.status().waiting()), (0, 0));
    let asked = service.questions().len();
    // Longer than the first waits of the back-off: a flight still in the air would have asked.
    std::thread::sleep(Duration::from_millis(700));
    assert!(
        service.questions().len() <= asked + 1,
        "one may have been on the wire"
    );
    desk.request(&key(2));
    assert_eq!(take(&mut desk, 1), [(key(2), rule())]);
    until("the wire is empty", || resolver.status().on_wire() == 0);
}

#[test]
fn a_cancelled_key_lands_for_the_others() {
    let healthy = Arc::new(AtomicUsize::new(0));
    let switch = Arc::clone(&healthy);
    let service = Service::start(move |question| match switch.load(SeqCst) {
        0 => status_only(503),
        _ => rule_of(question),
    });
    let resolver = service.resolver();
    let (mut stays, mut leaves) = (resolver.subscribe(), resolver.subscribe());
    stays.request(&key(1));
    leaves.request(&key(1));
    leaves.cancel(&key(1));
    healthy.store(1, SeqCst);
    assert_eq!(take(&mut stays, 1), [(key(1), rule())]);
    assert!(leaves.take_answers().is_empty());
}

#[test]
fn an_answer_that_landed_before_its_cancellation_is_not_taken() {
    let service = Service::start(rule_of);
    let mut desk = service.resolver().subscribe();
    desk.request(&key(1));
    assert!(desk.wait(PATIENCE));
    desk.cancel(&key(1));
    assert!(desk.take_answers().is_empty());
    desk.request(&key(1));
    assert_eq!(take(&mut desk, 1), [(key(1), rule())]);
}

#[test]
fn a_desk_that_goes_takes_its_flights_along() {
    let service = Service::start(|_| status_only(503));
    let resolver = service.resolver();
    let mut desk = resolver.subscribe();
    (0..20).for_each(|n| desk.request(&key(n)));
    assert_eq!(resolver.status().waiting(), 20);
    drop(desk);
    assert_eq!(resolver.status().waiting(), 0);
    until("the wire is empty", || resolver.status().on_wire() == 0);
}

#[test]
fn no_more_questions_are_on_the_wire_than_allowed() {
    let service = Service::start(rule_of);
    let options = Options {
        max_concurrent: 4,
        ..service.options()
    };
    let resolver = Resolver::new(&options, service.runtime.handle().clone()).unwrap();
    let mut desk = resolver.subscribe();
    (0..500).for_each(|n| desk.request(&key(n)));
    assert_eq!(take(&mut desk, 500).len(), 500);
    let open_max = service.desk.open_max.load(SeqCst);
    assert!((1..=4).contains(&open_max), "{open_max}");
}

#[test]
fn an_outage_is_probed_and_recovery_asks_each_key_once() {
    const KEYS: usize = 2000;
    let healthy = Arc::new(AtomicUsize::new(0));
    let switch = Arc::clone(&healthy);
    let service = Service::start(move |question| match switch.load(SeqCst) {
        0 => status_only(503),
        _ => rule_of(question),
    });
    let options = Options {
        max_concurrent: 16,
        ..service.options()
    };
    let resolver = Resolver::new(&options, service.runtime.handle().clone()).unwrap();
    let mut desk = resolver.subscribe();
    (0..KEYS).for_each(|n| desk.request(&key(n)));
    let status = resolver.status();
    until("the outage is noticed", || status.is_outage());
    until("probes go on", || status.consecutive_failures() >= 30);
    let during = service.questions().len();
    assert!(during < 60, "{during} questions");
    healthy.store(1, SeqCst);
    let answers = take(&mut desk, KEYS);
    assert!(answers.iter().all(|(_, answer)| *answer == rule()));
    assert!(!status.is_outage());
    assert_eq!(status.calls(Outcome::Rule), KEYS as u64);
    assert_eq!(service.asked().len(), KEYS);
    assert_eq!((status.waiting(), status.on_wire()), (0, 0));
}

#[test]
fn a_key_the_service_cannot_answer_does_not_hold_up_the_others() {
    let service = Service::start(|question| {
        if question.body.contains("merchant-0\"") {
            status_only(500)
        } else {
            rule_of(question)
        }
    });
    let resolver = service.resolver();
    let mut desk = resolver.subscribe();
    (0..300).for_each(|n| desk.request(&key(n)));
    let answers = take(&mut desk, 299);
    assert!(answers.iter().all(|(answered, _)| *answered != key(0)));
    assert_eq!(desk.in_flight(), 1);
    assert!(!resolver.status().is_outage());
}

#[test]
fn a_service_that_starts_later_is_found() {
    let runtime = Runtime::new().unwrap();
    let place = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = place.local_addr().unwrap();
    drop(place);
    let options = Options {
        url: format!("http://{address}/payout-rules"),
        timeout: Duration::from_secs(5),
        max_concurrent: 2,
        on_call: |_, _| {},
    };
    let resolver = Resolver::new(&options, runtime.handle().clone()).unwrap();
    let mut desk = resolver.subscribe();
    desk.request(&key(1));
    let status = resolver.status();
    until("refused", || failed(&status, Failure::NotConnected) > 0);
    let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
    let router = Router::new().fallback(|| async { StatusCode::NOT_FOUND });
    runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
    assert_eq!(take(&mut desk, 1), [(key(1), Answer::NoRule)]);
}

#[test]
fn every_call_is_reported_with_its_outcome() {
    static RULES: AtomicUsize = AtomicUsize::new(0);
    static FAILURES: AtomicUsize = AtomicUsize::new(0);
    let service = Service::start(|question| match question.number {
        0 => status_only(503),
        _ => rule_of(question),
    });
    let options = Options {
        on_call: |outcome, _took| {
            let count = match outcome {
                Outcome::Failed(_) => &FAILURES,
                Outcome::Rule | Outcome::NoRule => &RULES,
            };
            count.fetch_add(1, SeqCst);
        },
        ..service.options()
    };
    let resolver = Resolver::new(&options, service.runtime.handle().clone()).unwrap();
    let mut desk = resolver.subscribe();
    desk.request(&key(1));
    take(&mut desk, 1);
    assert_eq!((FAILURES.load(SeqCst), RULES.load(SeqCst)), (1, 1));
}

#[test]
fn outcomes_have_different_names() {
    let labels: std::collections::BTreeSet<_> = Outcome::all().map(Outcome::label).collect();
    assert_eq!(labels.len(), Outcome::all().count());
}

#[test]
fn options_that_cannot_work_are_refused() {
    let service = Service::start(rule_of);
    for url in [
        "",
        "payout-rules",
        "127.0.0.1:8090/payout-rules",
        "ftp://127.0.0.1/",
    ] {
        let options = Options {
            url: url.to_owned(),
            ..service.options()
        };
        let refused = Resolver::new(&options, service.runtime.handle().clone());
        assert!(matches!(refused.err(), Some(Error::Url { .. })), "{url}");
    }
    let options = Options {
        max_concurrent: 0,
        ..service.options()
    };
    let refused = Resolver::new(&options, service.runtime.handle().clone());
    assert!(matches!(refused.err(), Some(Error::NoConcurrency)));
}
