//! Why the service ends, and with which exit code.

use std::time::Duration;

use crate::broker::classify::Denial;
use crate::broker::rights::{self, Purpose, Resource};
use crate::config::Config;
use crate::engine::failure::{Cause, Stopped};
use crate::exit::Exit;
use crate::rules;
use crate::sink;
use crate::tls;
use crate::topics;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Topics(#[from] topics::Error),
    #[error(transparent)]
    State(#[from] crate::state::Error),
    #[error(transparent)]
    Rules(#[from] rules::Error),
    #[error(transparent)]
    Broker(#[from] crate::broker::classify::Error),
    #[error(transparent)]
    Sink(#[from] sink::Error),
    #[error("HTTPS (http.certificate_file, http.key_file, http.ca_file): {0}")]
    Tls(#[from] tls::Error),
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The broker refused something in the middle of the work.
    #[error("{cause}; not allowed: {principal} lacks {missing}")]
    NotAllowed {
        cause: String,
        principal: String,
        /// By name, as far as the cluster tells.
        missing: String,
    },
    #[error("{attempt}: {reason}")]
    Start {
        attempt: &'static str,
        reason: String,
    },
    #[error(
        "not everything had stopped within shutdown.grace ({0:?}); the open transaction is ended by the next start"
    )]
    Grace(Duration),
}

impl Error {
    pub fn exit(&self) -> Exit {
        match self {
            Self::Topics(error) => error.exit(),
            Self::State(_) => Exit::State,
            Self::Rules(_) | Self::Tls(_) | Self::Sink(sink::Error::Database(_)) => {
                Exit::Configuration
            }
            Self::Sink(sink::Error::Lost { .. } | sink::Error::Ahead { .. }) => Exit::BrokenPromise,
            Self::NotAllowed { .. } | Self::Sink(sink::Error::NotAllowed { .. }) => {
                Exit::NotAllowed
            }
            Self::Sink(_) | Self::Broker(_) | Self::Start { .. } | Self::Grace(_) => Exit::Failed,
            Self::Stopped(stopped) => match stopped.cause {
                Cause::Failed => Exit::Failed,
                Cause::PromiseBroken => Exit::BrokenPromise,
                Cause::StateDirectory => Exit::State,
                Cause::NotAllowed(_) => Exit::NotAllowed,
            },
        }
    }
}

pub(super) fn start_error(attempt: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |error| Error::Start {
        attempt,
        reason: error.to_string(),
    }
}

/// Adds to a refusal which rights are missing: the broker's answer does not say it.
pub(super) fn name_missing_rights(config: &Config, error: Error) -> Error {
    let denial = match &error {
        Error::Stopped(Stopped {
            cause: Cause::NotAllowed(denial),
            ..
        })
        | Error::Sink(sink::Error::NotAllowed { denial, .. }) => *denial,
        _ => return error,
    };
    let missing = match denial {
        Denial::Login => vec!["valid credentials in kafka.properties".to_owned()],
        Denial::TransactionalId => rights::needed(config, Purpose::Run)
            .into_iter()
            .filter(|right| matches!(right.resource, Resource::TransactionalIds(_)))
            .map(|right| right.to_string())
            .collect(),
        Denial::Cluster | Denial::Topic | Denial::Group => {
            let mut found = topics::missing_rights(config).unwrap_or_default();
            if found.is_empty() && denial == Denial::Group {
                // Kafka does not tell of a group that may be seen whether it may be joined.
                found = rights::needed(config, Purpose::Run);
                found.retain(|right| matches!(right.resource, Resource::Group(_)));
            }
            found.iter().map(ToString::to_string).collect()
        }
    };
    let missing = match missing.as_slice() {
        [] => "a right that the cluster does not name: compare with `settle acls`".to_owned(),
        rights => rights.join(", "),
    };
    Error::NotAllowed {
        cause: error.to_string(),
        principal: rights::principal_hint(config),
        missing,
    }
}
