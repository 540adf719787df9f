//! A rule service on loopback that keeps its questions, and what the tests say about keys and answers.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use jiff::civil::date;
use settle::domain::rule::{Rule, RuleKey};
use settle::rules::{
    Answer, Failure, Options, Outcome, Resolver, Service as _, Status, Subscription,
};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::time::Instant;

/// Longer than any test needs; only a test that fails waits for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub type Reply = Box<dyn Fn(&Question) -> Response + Send + Sync>;

/// What the service was asked.
#[derive(Clone)]
pub struct Question {
    pub at: Instant,
    /// How many questions came before this one.
    pub number: usize,
    pub path: String,
    pub headers: HeaderMap,
    pub body: String,
}

/// A rule service on loopback that keeps its questions.
pub struct Service {
    pub runtime: Runtime,
    pub url: String,
    pub counter: Arc<Counter>,
}

pub struct Counter {
    questions: Mutex<Vec<Question>>,
    open: AtomicUsize,
    pub open_max: AtomicUsize,
    reply: Reply,
}

impl Service {
    pub fn start(reply: impl Fn(&Question) -> Response + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let counter = Arc::new(Counter {
            questions: Mutex::default(),
            open: AtomicUsize::new(0),
            open_max: AtomicUsize::new(0),
            reply: Box::new(reply),
        });
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/payout-rules", listener.local_addr().unwrap());
        let router = Router::new()
            .fallback(any(answer))
            .with_state(Arc::clone(&counter));
        runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            runtime,
            url,
            counter,
        }
    }

    pub fn options(&self) -> Options {
        Options {
            url: self.url.clone(),
            timeout: Duration::from_secs(10),
            max_concurrent: 64,
            on_call: |_, _| {},
        }
    }

    pub fn resolver(&self) -> Resolver {
        Resolver::new(&self.options(), self.runtime.handle().clone()).unwrap()
    }

    pub fn questions(&self) -> Vec<Question> {
        self.counter.questions.lock().unwrap().clone()
    }

    /// How often each body was asked.
    pub fn asked(&self) -> BTreeMap<String, usize> {
        let mut asked = BTreeMap::new();
        for question in self.questions() {
            *asked.entry(question.body).or_insert(0) += 1;
        }
        asked
    }
}

async fn answer(
    State(counter): State<Arc<Counter>>,
    uri: axum::http::Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let open = counter.open.fetch_add(1, SeqCst) + 1;
    counter.open_max.fetch_max(open, SeqCst);
    let question = {
        let mut questions = counter.questions.lock().unwrap();
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
    counter.open.fetch_sub(1, SeqCst);
    (counter.reply)(&question)
}

/// The rule of the question's key, as a service by `docs/contract.md` gives it.
pub fn rule_of(question: &Question) -> Response {
    let dates = r#"{"ruleId":"r-1","payoutDate":"2025-06-10","confirmDate":"2025-06-09","#;
    question.body.replacen('{', dates, 1).into_response()
}

pub fn key(n: usize) -> RuleKey {
    RuleKey::parse(&format!("merchant-{n}/2025-05-26/PAYMENT/MONEY")).unwrap()
}

pub fn rule() -> Answer {
    Answer::Rule(Rule {
        rule_id: "r-1".to_owned(),
        payout_date: date(2025, 6, 10),
        confirm_date: date(2025, 6, 9),
    })
}

/// Waits until `count` answers have come.
pub fn take(subscription: &mut Subscription, count: usize) -> Vec<(RuleKey, Answer)> {
    let mut answers = Vec::new();
    let began = Instant::now();
    while answers.len() < count {
        let waited = began.elapsed();
        assert!(waited < PATIENCE, "{} of {count} answers", answers.len());
        let taken = subscription.take_answers();
        if taken.is_empty() {
            std::thread::sleep(Duration::from_millis(2));
        }
        answers.extend(taken);
    }
    answers
}

pub fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn failed(status: &Status, failure: Failure) -> u64 {
    status.calls(Outcome::Failed(failure))
}

pub fn status_only(code: u16) -> Response {
    StatusCode::from_u16(code).unwrap().into_response()
}
