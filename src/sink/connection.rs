//! One connection to PostgreSQL, and what its errors ask for.

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, NoTls, Socket};

use crate::config::{Postgres, TlsMode};
use crate::exit::Exit;
use crate::failpoint::Injected;
use crate::sink::schema;
use crate::sink::statements::Statements;
use crate::tls::{self, Check};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// After this much silence of the peer's kernel a connection counts as lost.
const PEER_TIMEOUT: Duration = Duration::from_secs(15);
/// Watched by the server, so that a statement given up here does not go on there.
const SESSION: &str = "-c statement_timeout=60s -c lock_timeout=10s \
                       -c idle_in_transaction_session_timeout=60s -c timezone=UTC";

/// What the owner of the connection must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// Connect again, look at the positions, go on.
    Retry,
    /// The positions are not where this writer left them: read from where they are.
    Rewind,
    /// The server refuses a value: find it out.
    Refused,
    /// A person must act.
    Stop,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("postgres.url: {0}")]
    Url(String),
    #[error("PostgreSQL: {}", explain(.0))]
    Database(#[from] tokio_postgres::Error),
    #[error("TLS to PostgreSQL: {0}")]
    Tls(#[from] tls::Error),
    #[error("start a runtime: {0}")]
    Runtime(std::io::Error),
    #[error("PostgreSQL did not answer within {0:?}: connection given up")]
    Silent(Duration),
    #[error("the database's encoding is {0}, and must be UTF8: create it with ENCODING 'UTF8'")]
    Encoding(String),
    #[error(
        "the schema settle has version {found}, this binary knows {known}: \
         run the newer binary, or restore the database of this one"
    )]
    Newer { found: usize, known: usize },
    #[error("another writer, or a wiped database, moved the positions")]
    Moved,
}

impl Error {
    pub fn reaction(&self) -> Reaction {
        match self {
            Self::Url(_)
            | Self::Tls(_)
            | Self::Runtime(_)
            | Self::Encoding(_)
            | Self::Newer { .. } => Reaction::Stop,
            Self::Moved => Reaction::Rewind,
            Self::Silent(_) => Reaction::Retry,
            Self::Database(error) => match error.code() {
                Some(code) if refuses_a_value(code) => Reaction::Refused,
                _ => Reaction::Retry,
            },
        }
    }
}

impl Error {
    /// How a command ends that cannot go on without the database.
    pub fn exit(&self) -> Exit {
        match self.reaction() {
            Reaction::Stop => Exit::Configuration,
            Reaction::Retry | Reaction::Rewind | Reaction::Refused => Exit::Unavailable,
        }
    }
}

impl Injected for Error {
    fn injected() -> Self {
        Self::Silent(Duration::ZERO)
    }
}

/// Classes 22 (data exception) and 54 (program limit exceeded).
fn refuses_a_value(code: &SqlState) -> bool {
    code.code().starts_with("22") || code.code().starts_with("54")
}

/// The server's own words; the driver's `Display` stops at "db error".
fn explain(error: &tokio_postgres::Error) -> String {
    if let Some(said) = error.as_db_error() {
        return format!("{} ({})", said.message(), said.code().code());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Where the database is, and how its server proves itself.
#[derive(Clone)]
pub struct Database {
    pub config: Config,
    /// `None` speaks in the clear.
    tls: Option<postgres_native_tls::MakeTlsConnector>,
}

impl Database {
    /// Reads the files that `postgres` names.
    pub fn new(postgres: &Postgres) -> Result<Self, Error> {
        let mut config = parse(postgres.url.expose())?;
        if let Some(password) = &postgres.password {
            config.password(password.expose());
        }
        let (mode, check) = match postgres.tls {
            TlsMode::Disable => (SslMode::Disable, None),
            TlsMode::Prefer => (SslMode::Prefer, Some(Check::Nothing)),
            TlsMode::VerifyCa => (SslMode::Require, Some(Check::Authority)),
            TlsMode::VerifyFull => (SslMode::Require, Some(Check::AuthorityAndHost)),
        };
        config.ssl_mode(mode);
        let connector = check.map(|check| tls::connector(check, postgres.ca_file.as_deref()));
        Ok(Self {
            config,
            tls: connector
                .transpose()?
                .map(postgres_native_tls::MakeTlsConnector::new),
        })
    }
}

/// Parses the URL; says nothing of its password.
fn parse(url: &str) -> Result<Config, Error> {
    let mut config: Config = url
        .parse()
        .map_err(|error: tokio_postgres::Error| Error::Url(explain(&error)))?;
    let options = match config.get_options() {
        Some(own) => format!("{SESSION} {own}"),
        None => SESSION.to_owned(),
    };
    config
        .options(options)
        .keepalives_idle(PEER_TIMEOUT / 3)
        .keepalives_interval(PEER_TIMEOUT / 3)
        .keepalives_retries(2)
        .tcp_user_timeout(PEER_TIMEOUT);
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_TIMEOUT);
    }
    if config.get_application_name().is_none() {
        config.application_name("settle-sink");
    }
    Ok(config)
}

/// A connection whose schema is this binary's. Dropping it closes it at once, whatever is under way.
pub struct Connection {
    pub client: Client,
    pub statements: Statements,
    driver: JoinHandle<()>,
}

impl Connection {
    pub async fn open(database: &Database) -> Result<Self, Error> {
        let deadline = CONNECT_TIMEOUT * 2;
        let (mut client, driver) = tokio::time::timeout(deadline, connect(database))
            .await
            .map_err(|_| Error::Silent(deadline))??;
        let prepared = async {
            schema::prepare(&mut client).await?;
            Statements::prepare(&client).await
        };
        match prepared.await {
            Ok(statements) => Ok(Self {
                client,
                statements,
                driver,
            }),
            Err(error) => {
                driver.abort();
                Err(error)
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

pub(super) async fn connect(database: &Database) -> Result<(Client, JoinHandle<()>), Error> {
    match &database.tls {
        Some(connector) => connect_with(&database.config, connector.clone()).await,
        None => connect_with(&database.config, NoTls).await,
    }
}

async fn connect_with<T>(config: &Config, tls: T) -> Result<(Client, JoinHandle<()>), Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let (client, connection) = config.connect(tls).await?;
    let driver = tokio::spawn(async move {
        // The statement under way gets the error too; what comes while idle is told here alone.
        if let Err(error) = connection.await {
            tracing::debug!(error = explain(&error), "connection to PostgreSQL ended");
        }
    });
    Ok((client, driver))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_url_is_refused_without_telling_its_password() {
        let error = parse("postgres://settle:hunter2@127.0.0.1:notaport/settle").unwrap_err();
        assert_eq!(error.reaction(), Reaction::Stop);
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn limits_are_the_servers_and_options_of_the_url_come_after_them() {
        let config =
            parse("postgres://settle@127.0.0.1/settle?options=-c%20lock_timeout=1s").unwrap();
        let options = config.get_options().unwrap();
        let ours = options.find("lock_timeout=10s").unwrap();
        assert!(ours < options.find("lock_timeout=1s").unwrap());
    }

    #[test]
    fn a_newer_schema_stops_and_another_writer_rewinds() {
        let newer = Error::Newer { found: 2, known: 1 };
        assert_eq!(newer.reaction(), Reaction::Stop);
        assert_eq!(Error::Moved.reaction(), Reaction::Rewind);
    }
}
