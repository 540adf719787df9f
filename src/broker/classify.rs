//! What the owner of a failed call must do. Failures are told apart by librdkafka's codes here and
//! nowhere else; who makes a call looks only at the codes that are answers to it, such as a full
//! queue or a topic that exists already.

use std::fmt;

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use thiserror::Error;

use crate::failpoint::Injected;

/// Why the process must end; decides its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Another live process has this process's identity, or something as final.
    Failed,
    /// A promise is broken or would be: do not restart in a loop.
    Broken,
    /// The broker refuses what this service needs.
    NotAllowed(Denial),
}

/// What the broker has refused to let this client do something with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    Login,
    Cluster,
    Topic,
    Group,
    TransactionalId,
}

/// The reaction to a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    /// Nothing has changed and the broker cannot be reached: try again later.
    Wait,
    /// The broker says that a topic or partition is not there: as [`Reaction::Wait`], but not for
    /// ever.
    Missing,
    /// The fate of the open transaction is not known here: replace the producer, which decides
    /// it, and take up every task again from the log.
    Recover,
    /// As [`Reaction::Recover`]; another producer with our transactional id may be alive.
    Fenced,
    /// The group has replaced this static member, and the client is of no use any more: find out
    /// by whom, and join again unless it was another process.
    Rejoin,
    /// A person must act.
    Stop(Stop),
}

/// A failed call to the broker.
#[derive(Debug, Clone, Error)]
#[error("{attempt}: {detail}")]
pub struct Error {
    /// What was tried, as a verb phrase.
    pub attempt: &'static str,
    pub detail: String,
    pub reaction: Reaction,
}

impl Error {
    pub fn new(attempt: &'static str, detail: impl fmt::Display, reaction: Reaction) -> Self {
        Self {
            attempt,
            detail: detail.to_string(),
            reaction,
        }
    }
}

impl Injected for Error {
    fn injected() -> Self {
        Self::new("go on with the transaction", "injected", Reaction::Recover)
    }
}

/// A failure of a transaction call, as the C library reports it.
#[derive(Debug, Clone)]
pub(super) struct TransactionFailure {
    pub(super) code: Code,
    pub(super) text: String,
    pub(super) fatal: bool,
    pub(super) requires_abort: bool,
}

/// Classifies a failed transaction call.
pub(super) fn transaction(attempt: &'static str, failure: &TransactionFailure) -> Error {
    let class = if failure.fatal {
        "fatal"
    } else if failure.requires_abort {
        "abortable"
    } else {
        "retriable"
    };
    let detail = format!("{} ({:?}, {class})", failure.text, failure.code);
    if let Some(denial) = lasting_denial(failure.code) {
        return Error::new(attempt, detail, Reaction::Stop(Stop::NotAllowed(denial)));
    }
    let reaction = match failure.code {
        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => Reaction::Fenced,
        // Taking the transactional id back would fence the process that has our place.
        Code::FencedInstanceId => Reaction::Rejoin,
        // A late request of an earlier transaction has ended this one, which the replacement of
        // suspect producers rules out: part of it may be visible.
        Code::InvalidTransactionalState if failure.requires_abort => Reaction::Stop(Stop::Broken),
        Code::UnsupportedVersion | Code::InvalidTransactionTimeout => Reaction::Stop(Stop::Failed),
        _ => Reaction::Recover,
    };
    Error::new(attempt, detail, reaction)
}

/// Classifies a failed call of a consumer or admin client.
pub(super) fn call(attempt: &'static str, error: &KafkaError) -> Error {
    let reaction = match error.rdkafka_error_code() {
        Some(Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition) => {
            Reaction::Missing
        }
        code => code
            .and_then(lasting_denial)
            .map_or(Reaction::Wait, |denial| {
                Reaction::Stop(Stop::NotAllowed(denial))
            }),
    };
    Error::new(attempt, error, reaction)
}

/// Classifies an error that a poll returned; `None` when polling on is all there is to do.
pub(super) fn poll(error: &KafkaError) -> Option<Error> {
    let fatal = matches!(error, KafkaError::MessageConsumptionFatal(_));
    let code = error.rdkafka_error_code();
    if let Some(denial) = code.and_then(lasting_denial) {
        return Some(Error::new(
            "read from the broker",
            error,
            Reaction::Stop(Stop::NotAllowed(denial)),
        ));
    }
    match code {
        Some(Code::FencedInstanceId) => Some(Error::new(
            "stay in the consumer group",
            "the group has replaced this member",
            Reaction::Rejoin,
        )),
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange) => Some(Error::new(
            "read the next record",
            format!("{error}: the log does not hold it; looking where the log begins and ends"),
            // Whoever takes the tasks up again compares each position with its log, and refuses
            // with the numbers.
            Reaction::Recover,
        )),
        _ if fatal => Some(Error::new(
            "read from the broker",
            error,
            Reaction::Stop(Stop::Failed),
        )),
        _ => None,
    }
}

/// What a failure means to the sink's consumer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Polling {
    /// Passes by itself.
    Weather,
    /// A position is outside its log.
    OutOfRange,
    /// The group has replaced this static member.
    Replaced,
    NotAllowed(Denial),
    /// The consumer is over.
    Fatal,
}

/// Classifies a failure of the sink's consumer.
pub(super) fn polling(error: &KafkaError) -> Polling {
    if let Some(denial) = error.rdkafka_error_code().and_then(lasting_denial) {
        return Polling::NotAllowed(denial);
    }
    match error {
        KafkaError::MessageConsumptionFatal(Code::FencedInstanceId) => Polling::Replaced,
        KafkaError::MessageConsumptionFatal(_)
        | KafkaError::ClientConfig(..)
        | KafkaError::ClientCreation(_) => Polling::Fatal,
        KafkaError::MessageConsumption(Code::AutoOffsetReset | Code::OffsetOutOfRange) => {
            Polling::OutOfRange
        }
        _ => Polling::Weather,
    }
}

/// What a failure means to who describes or creates topics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Administration {
    NotAllowed,
    /// No broker answers, or none takes the credentials.
    Unreachable,
    /// What was asked for can never be.
    Invalid,
    Refused,
}

/// Classifies a failed request of an administrator.
pub(super) fn administration(code: Code) -> Administration {
    match code {
        Code::TopicAuthorizationFailed | Code::ClusterAuthorizationFailed => {
            Administration::NotAllowed
        }
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::OperationTimedOut
        | Code::RequestTimedOut
        | Code::Resolve
        | Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::SSL => Administration::Unreachable,
        Code::InvalidReplicationFactor
        | Code::InvalidPartitions
        | Code::InvalidConfig
        | Code::InvalidTopic
        | Code::PolicyViolation => Administration::Invalid,
        _ => Administration::Refused,
    }
}

/// What the broker says that this client may not do anything with, if it says so.
pub(super) fn denial(code: Code) -> Option<Denial> {
    match code {
        Code::TopicAuthorizationFailed => Some(Denial::Topic),
        Code::GroupAuthorizationFailed => Some(Denial::Group),
        Code::ClusterAuthorizationFailed => Some(Denial::Cluster),
        Code::TransactionalIdAuthorizationFailed => Some(Denial::TransactionalId),
        Code::SaslAuthenticationFailed | Code::Authentication => Some(Denial::Login),
        _ => None,
    }
}

/// The same of a client that was let in once. librdkafka also calls it a refused login when the
/// connection breaks before the answer (SASL handshake), so that is waited out: the start has
/// told whether name and password are right.
fn lasting_denial(code: Code) -> Option<Denial> {
    denial(code).filter(|denial| *denial != Denial::Login)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_breaks_while_it_logs_in_is_waited_out() {
        for code in [Code::Authentication, Code::SaslAuthenticationFailed] {
            let error = KafkaError::MessageConsumption(code);
            assert!(poll(&error).is_none(), "{code:?}");
            assert_eq!(polling(&error), Polling::Weather);
            assert_eq!(call("read", &error).reaction, Reaction::Wait);
            assert_eq!(reaction(code, false, false), Reaction::Recover);
            assert_eq!(denial(code), Some(Denial::Login), "at the start");
        }
    }

    fn reaction(code: Code, fatal: bool, requires_abort: bool) -> Reaction {
        let failure = TransactionFailure {
            code,
            text: String::new(),
            fatal,
            requires_abort,
        };
        transaction("commit", &failure).reaction
    }

    #[test]
    fn each_class_of_transaction_failure_has_its_reaction() {
        assert_eq!(reaction(Code::Fenced, true, false), Reaction::Fenced);
        assert_eq!(
            reaction(Code::OperationTimedOut, false, false),
            Reaction::Recover
        );
        assert_eq!(
            reaction(Code::IllegalGeneration, false, true),
            Reaction::Recover
        );
        assert_eq!(
            reaction(Code::InvalidTransactionalState, false, true),
            Reaction::Stop(Stop::Broken)
        );
        assert_eq!(
            reaction(Code::InvalidTransactionalState, true, false),
            Reaction::Recover
        );
        assert_eq!(
            reaction(Code::TransactionalIdAuthorizationFailed, true, false),
            Reaction::Stop(Stop::NotAllowed(Denial::TransactionalId))
        );
    }

    #[test]
    fn a_broker_that_is_down_is_waited_for_and_a_refusal_is_not() {
        let down = KafkaError::MetadataFetch(Code::BrokerTransportFailure);
        assert_eq!(call("fetch", &down).reaction, Reaction::Wait);
        let gone = KafkaError::MetadataFetch(Code::UnknownTopicOrPartition);
        assert_eq!(call("fetch", &gone).reaction, Reaction::Missing);
        let refused = KafkaError::MetadataFetch(Code::TopicAuthorizationFailed);
        assert_eq!(
            call("fetch", &refused).reaction,
            Reaction::Stop(Stop::NotAllowed(Denial::Topic))
        );
        assert!(
            poll(&KafkaError::MessageConsumption(
                Code::BrokerTransportFailure
            ))
            .is_none()
        );
        let fenced = KafkaError::MessageConsumptionFatal(Code::FencedInstanceId);
        assert!(poll(&fenced).is_some_and(|error| error.reaction == Reaction::Rejoin));
    }
}
