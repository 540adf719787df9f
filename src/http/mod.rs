//! HTTP: queries over committed totals, answered by any instance for every key; health,
//! metrics and status; a page that shows them; the generator of the demo. The only place that names axum.
//!
//! Nothing here touches a task: totals come from [`Views`], all else from [`Status`] and the
//! snapshots that the owners of sink and rules hand out. What another instance owns is asked of
//! that instance, once: a forwarded request is never forwarded again.

mod all;
pub mod ask;
mod connections;
mod forward;
pub mod generator;
mod health;
mod key;
mod page;
mod partition;
mod query;
mod refusal;
mod routes;
mod server;
mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_native_tls::{TlsAcceptor, TlsConnector};

use crate::config::HttpTls;
use crate::engine::status::Status;
use crate::state::directory::Space;
use crate::state::view::Views;
use crate::tls::{self, Check};

pub use generator::Generator;

/// What a closure reports at the moment it is asked.
pub type Probe<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// Everything that requests are answered from.
#[derive(Clone)]
pub struct Services {
    /// `kafka.instance_id`.
    pub instance: String,
    /// Where other instances reach this one; never forwarded to.
    pub advertise: String,
    pub views: Views,
    pub status: Status,
    /// Partitions of the source topic.
    pub source_partitions: i32,
    /// Partitions of the bases topic.
    pub bases_partitions: i32,
    /// Of the source topic; for people only.
    pub source_owners: Owners,
    /// Of the bases topic.
    pub owners: Owners,
    /// After so long without an answer the group may have given the partitions to others
    /// (`session.timeout.ms`).
    pub session_timeout: Duration,
    /// When set, everything but health and metrics needs it.
    pub token: Option<String>,
    /// `None` speaks in the clear.
    pub tls: Option<Tls>,
    pub generator: Option<Generator>,
    /// `None` runs without a database.
    pub sink: Option<Probe<Sink>>,
    pub rules: Probe<Rules>,
    pub disk: Probe<Space>,
}

/// HTTPS: what this server shows, and whom it believes when it asks other instances.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

impl Tls {
    /// Reads the files.
    pub fn new(files: &HttpTls) -> Result<Self, tls::Error> {
        Self::checking(Check::AuthorityAndHost, files)
    }

    /// For questions to the server of this machine, which its certificate does not name.
    pub fn of_this_machine(files: &HttpTls) -> Result<Self, tls::Error> {
        Self::checking(Check::Nothing, files)
    }

    fn checking(check: Check, files: &HttpTls) -> Result<Self, tls::Error> {
        let acceptor = tls::acceptor(&files.certificate_file, &files.key_file)?;
        let connector = tls::connector(check, files.ca_file.as_deref())?;
        Ok(Self {
            acceptor: acceptor.into(),
            connector: connector.into(),
        })
    }
}

/// How far the database is.
#[derive(Debug, Clone, Default)]
pub struct Sink {
    pub connected: bool,
    /// Rows committed since the start of the process, by table.
    pub rows: BTreeMap<String, u64>,
    /// Records between the position in the database and the end, by topic and partition.
    pub lag: BTreeMap<(String, i32), i64>,
    /// Database transactions committed since the start of the process.
    pub commits: u64,
    /// How often the positions in the database were not where this sink had left them.
    pub rewinds: u64,
    /// Records that are no row.
    pub unreadable: u64,
    /// Source records that were deleted before they were written.
    pub lost: u64,
    /// The last trouble, in one line.
    pub problem: Option<String>,
}

/// How the rule service answers.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// Calls since the start of the process, by result; every result is there from the start.
    pub calls: BTreeMap<&'static str, u64>,
    /// Keys whose answer is being waited for.
    pub in_flight: u64,
    /// So many calls failed in a row that the service counts as down.
    pub outage: bool,
    /// The last trouble, in one line.
    pub problem: Option<String>,
}

/// Which instance owns a partition, as the consumer group says: its advertised address. Cheap to
/// clone.
#[derive(Debug, Clone, Default)]
pub struct Owners(Arc<RwLock<Answer>>);

#[derive(Debug, Default)]
struct Answer {
    /// Process clock when the group was asked.
    asked_at: Option<Duration>,
    owners: BTreeMap<i32, String>,
}

impl Owners {
    /// Replaces what was known before by the answer to a question of `asked_at` (process clock).
    pub fn set(&self, asked_at: Duration, owners: BTreeMap<i32, String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Answer {
            asked_at: Some(asked_at),
            owners,
        };
    }

    pub fn of(&self, partition: i32) -> Option<String> {
        let answer = self.0.read().unwrap_or_else(PoisonError::into_inner);
        answer.owners.get(&partition).cloned()
    }

    /// Process clock when the group was asked for the last time; `None` before its first answer.
    pub fn asked_at(&self) -> Option<Duration> {
        let answer = self.0.read().unwrap_or_else(PoisonError::into_inner);
        answer.asked_at
    }
}

/// One line for a person: ready, or what is missing; and what is behind.
pub fn summary(services: &Services) -> String {
    health::summary(services)
}

/// Answers requests until `shutdown` is ready, then lets the ones under way end within seconds.
pub async fn serve(listener: TcpListener, services: Services, shutdown: impl Future<Output = ()>) {
    let acceptor = services.tls.as_ref().map(|tls| tls.acceptor.clone());
    let router = routes::router(services);
    server::run(listener, (router, acceptor), shutdown).await;
}
