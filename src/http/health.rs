//! `/livez` and `/readyz`.
//!
//! Alive = every worker's loop turns; no dependency is asked, for a restart would not heal one.
//! Ready = every worker is connected, has its share and has restored it. The database and the rule
//! service are reported and do not gate: without them the sink lags and payments wait, and
//! neither a restart nor another instance would change that.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::clock;
use crate::engine::status::{Phase, Status, Worker};
use crate::http::Services;
use crate::http::routes::App;

/// Longer than the calls to the broker that one turn may wait for, one after the other.
const TURN_LIMIT: Duration = Duration::from_secs(60);

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Check {
    pub ok: bool,
    /// Whether readiness depends on it.
    pub required: bool,
    pub detail: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Checks {
    pub connected: Check,
    pub assigned: Check,
    pub restored: Check,
    pub rules: Check,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sink: Option<Check>,
}

impl Checks {
    pub(super) fn of(services: &Services) -> Self {
        let workers = &services.status.workers;
        let required = |ok, detail| Check {
            ok,
            required: true,
            detail,
        };
        let each = |is: fn(&Worker) -> bool, what: &str| {
            let yes = workers.iter().filter(|worker| is(worker)).count();
            let detail = format!("{yes} of {} workers {what}", workers.len());
            required(yes == workers.len(), detail)
        };
        let (restoring, remaining) = restoring(&services.status);
        let rules = (services.rules)();
        Self {
            connected: each(Worker::is_connected, "connected"),
            assigned: each(Worker::is_assigned, "assigned"),
            restored: required(
                restoring == 0,
                format!("{restoring} partitions restoring, {remaining} records left"),
            ),
            rules: Check {
                ok: !rules.outage,
                required: false,
                detail: rules.problem.unwrap_or_default(),
            },
            sink: services.sink.as_ref().map(|sink| {
                let sink = sink();
                Check {
                    ok: sink.connected,
                    required: false,
                    detail: sink.problem.unwrap_or_default(),
                }
            }),
        }
    }

    fn gates(&self) -> [&Check; 3] {
        [&self.connected, &self.assigned, &self.restored]
    }

    pub(super) fn are_ready(&self) -> bool {
        self.gates().iter().all(|check| check.ok)
    }

    /// What keeps it from being ready, in words.
    fn missing(&self) -> Vec<&str> {
        let failing = self.gates().into_iter().filter(|check| !check.ok);
        failing.map(|check| check.detail.as_str()).collect()
    }
}

fn restoring(status: &Status) -> (usize, i64) {
    let tasks = status.workers.iter().flat_map(|worker| worker.tasks());
    tasks.fold((0, 0), |(partitions, records), (_, task)| {
        match task.phase {
            Phase::Restoring { remaining } => (partitions + 1, records + remaining),
            Phase::Running | Phase::WaitingForRule => (partitions, records),
        }
    })
}

/// Time since the last turn of a worker's loop, or since the start of the process.
pub(super) fn turn_age(worker: &Worker) -> Duration {
    clock::now().saturating_sub(Duration::from_millis(worker.turned_at()))
}

pub(super) fn is_alive(status: &Status) -> bool {
    let mut workers = status.workers.iter();
    workers.all(|worker| turn_age(worker) <= TURN_LIMIT)
}

/// One line for a person: ready, or what is missing; and what is behind.
pub(super) fn summary(services: &Services) -> String {
    let checks = Checks::of(services);
    let mut parts = match checks.missing() {
        missing if missing.is_empty() => vec!["ready".to_owned()],
        missing => vec![format!("not ready: {}", missing.join(", "))],
    };
    let tasks = services
        .status
        .workers
        .iter()
        .flat_map(|worker| worker.tasks());
    let (tasks, lag) = tasks.fold((0, 0), |(tasks, lag), (_, task)| {
        (tasks + 1, lag + task.lag.unwrap_or(0))
    });
    parts.push(format!("{tasks} partitions, {lag} records behind"));
    if !checks.rules.ok {
        parts.push("the rule service is down".to_owned());
    }
    if checks.sink.is_some_and(|sink| !sink.ok) {
        parts.push("PostgreSQL is down".to_owned());
    }
    parts.join("; ")
}

pub(super) async fn live(State(app): State<Arc<App>>) -> Response {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Loop {
        worker: usize,
        turned_millis_ago: u64,
        ok: bool,
    }
    #[derive(Serialize)]
    struct Body {
        alive: bool,
        workers: Vec<Loop>,
    }
    let status = &app.services.status;
    let workers = status.workers.iter().enumerate();
    let workers = workers.map(|(number, worker)| Loop {
        worker: number,
        turned_millis_ago: u64::try_from(turn_age(worker).as_millis()).unwrap_or(u64::MAX),
        ok: turn_age(worker) <= TURN_LIMIT,
    });
    let body = Body {
        alive: is_alive(status),
        workers: workers.collect(),
    };
    (code(body.alive), Json(body)).into_response()
}

pub(super) async fn ready(State(app): State<Arc<App>>) -> Response {
    #[derive(Serialize)]
    struct Body {
        ready: bool,
        checks: Checks,
    }
    let checks = Checks::of(&app.services);
    let ready = checks.are_ready();
    (code(ready), Json(Body { ready, checks })).into_response()
}

fn code(ok: bool) -> StatusCode {
    if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}
