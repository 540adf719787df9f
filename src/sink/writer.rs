//! Batches into the database, each in one transaction with its positions.
//!
//! **The fence.** A transaction begins by moving the positions of its batch from where this writer
//! believes them to be. A row that is not there, or elsewhere, was moved by another writer, by a
//! commit of our own whose answer was lost, or by someone who wiped the database: nothing is
//! written then, and the positions are read again. So of two writers that hold the same records
//! one writes them, whatever either believes about who owns the partition.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::{IsolationLevel, Transaction};

use crate::broker::{Names, Partition};
use crate::failpoint::{self, Point};
use crate::sink::batch::{Batch, Part, Tables};
use crate::sink::connection::{Connection, Database, Error, Reaction};
use crate::sink::rows::TOPICS;
use crate::sink::statements::{Statements, Written};

/// Longer than the server's own limits: when it expires the server is not there any more.
const SILENCE_MAX: Duration = Duration::from_secs(90);

/// Where the database stands.
pub type Positions = BTreeMap<Partition, i64>;

/// Owns the connection. After an error whose reaction is not [`Reaction::Rewind`] it is gone, and
/// the next call opens another one.
pub struct Writer {
    database: Database,
    topics: Names,
    connection: Option<Connection>,
}

impl Writer {
    pub fn new(database: Database, topics: Names) -> Self {
        Self {
            database,
            topics,
            connection: None,
        }
    }

    /// Writes the batch and moves its positions, or does neither. [`Error::Moved`]: the positions
    /// are not those the batch expects. A connection lost leaves it open which of the two happened.
    pub async fn write(&mut self, batch: &Batch) -> Result<Written, Error> {
        self.limited(async |connection, topics| write(connection, topics, batch).await)
            .await
    }

    pub async fn positions(&mut self) -> Result<Positions, Error> {
        self.limited(async |connection, topics| positions(connection, topics).await)
            .await
    }

    /// Marks the bodies that the server refuses, asking for one after the other; how many.
    pub async fn find_refused(&mut self, batch: &mut Batch) -> Result<usize, Error> {
        self.limited(async |connection, _| {
            let mut refused = 0;
            for logged in batch.payments_mut().filter(|row| row.body.is_some()) {
                let ask = "SELECT $1::text::jsonb IS NULL";
                let answer = connection.client.query_one(ask, &[&logged.body]).await;
                match answer.map_err(Error::from) {
                    Ok(_) => {}
                    Err(error) if error.reaction() == Reaction::Refused => {
                        logged.refuse_body();
                        refused += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
            Ok(refused)
        })
        .await
    }

    /// An answer that does not come costs the connection, so that nothing is left under way on it.
    async fn limited<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut Connection, &Names) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut connection = match self.connection.take() {
            Some(connection) if !connection.client.is_closed() => connection,
            _ => Connection::open(&self.database).await?,
        };
        let outcome = tokio::time::timeout(SILENCE_MAX, work(&mut connection, &self.topics)).await;
        let outcome = outcome.unwrap_or(Err(Error::Silent(SILENCE_MAX)));
        let keep = match &outcome {
            Ok(_) => true,
            Err(error) => matches!(error.reaction(), Reaction::Rewind),
        };
        if keep {
            self.connection = Some(connection);
        }
        outcome
    }
}

async fn write(
    connection: &mut Connection,
    topics: &Names,
    batch: &Batch,
) -> Result<Written, Error> {
    let transaction = connection
        .client
        .build_transaction()
        .isolation_level(IsolationLevel::ReadCommitted)
        .start()
        .await?;
    failpoint::fail::<Error>(Point::SinkBegin)?;
    let statements = &connection.statements;
    if !move_positions(&transaction, statements, topics, batch).await? {
        transaction.rollback().await?;
        return Err(Error::Moved);
    }
    failpoint::fail::<Error>(Point::SinkMoved)?;
    let written = statements.write(&transaction, &Tables::of(batch)).await?;
    failpoint::fail::<Error>(Point::SinkCommitBefore)?;
    transaction.commit().await?;
    failpoint::fail::<Error>(Point::SinkCommitAfter)?;
    Ok(written)
}

/// Whether every position stood where its part expects it.
async fn move_positions(
    transaction: &Transaction<'_>,
    statements: &Statements,
    topics: &Names,
    batch: &Batch,
) -> Result<bool, Error> {
    let parts = || batch.parts.iter();
    let known: Vec<(&Partition, &Part, i64)> = parts()
        .filter_map(|(at, part)| Some((at, part, part.expected?)))
        .collect();
    let new: Vec<(&Partition, &Part)> = parts()
        .filter(|(_, part)| part.expected.is_none())
        .collect();
    let mut moved = 0;
    if !known.is_empty() {
        let names: Vec<&str> = known.iter().map(|(at, ..)| topics.of(at.topic)).collect();
        let numbers: Vec<i32> = known.iter().map(|(at, ..)| at.number).collect();
        let expected: Vec<i64> = known.iter().map(|(.., expected)| *expected).collect();
        let next: Vec<i64> = known.iter().map(|(_, part, _)| part.next).collect();
        moved += transaction
            .execute(&statements.advance, &[&names, &numbers, &expected, &next])
            .await?;
    }
    if !new.is_empty() {
        let names: Vec<&str> = new.iter().map(|(at, _)| topics.of(at.topic)).collect();
        let numbers: Vec<i32> = new.iter().map(|(at, _)| at.number).collect();
        let next: Vec<i64> = new.iter().map(|(_, part)| part.next).collect();
        moved += transaction
            .execute(&statements.enter, &[&names, &numbers, &next])
            .await?;
    }
    Ok(usize::try_from(moved) == Ok(batch.parts.len()))
}

async fn positions(connection: &mut Connection, topics: &Names) -> Result<Positions, Error> {
    let names = TOPICS.map(|topic| topics.of(topic));
    let rows = connection
        .client
        .query(&connection.statements.positions, &[&names.as_slice()])
        .await?;
    let positions = rows.iter().filter_map(|row| {
        let topic = topics.role(row.get(0))?;
        Some((Partition::new(topic, row.get(1)), row.get(2)))
    });
    Ok(positions.collect())
}
