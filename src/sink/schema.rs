//! The schema `settle`: its migrations, and its repair when tables are gone.
//!
//! Several instances start at once: who finds work takes an advisory lock and looks again.
//! Migrations never lose a row and may run again over their own result, so that a database that
//! lost tables is made whole by running them all; its positions are then forgotten, and the topics
//! fill it again.

use tokio_postgres::{Client, Transaction};

use crate::sink::connection::Error;

/// In order; the version of a schema is the number of migrations it has seen. Add, never change.
const MIGRATIONS: [&str; 1] = [include_str!("migrations/001_tables.sql")];

/// Every table of the newest version.
pub const TABLES: [&str; 7] = [
    "payment_log",
    "settlement",
    "exclusion",
    "dead_letter",
    "payout_rule",
    "statistics",
    "sink_position",
];

/// Held while the schema changes: the bytes of "settle".
const LOCK: i64 = 0x7365_7474_6c65;

/// Brings the schema to this binary's version; afterwards every table exists.
pub async fn prepare(client: &mut Client) -> Result<(), Error> {
    let encoding: String = client.query_one("SHOW server_encoding", &[]).await?.get(0);
    if encoding != "UTF8" {
        return Err(Error::Encoding(encoding));
    }
    loop {
        let found = state(client).await?;
        if found == State::Current {
            return Ok(());
        }
        let transaction = client.transaction().await?;
        transaction
            .execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK])
            .await?;
        step(&transaction).await?;
        transaction.commit().await?;
    }
}

/// One step towards the newest version, as the schema stands under the lock.
async fn step(transaction: &Transaction<'_>) -> Result<(), Error> {
    match state(transaction).await? {
        State::Current => {}
        State::Absent => {
            tracing::info!("creating the schema settle");
            transaction
                .batch_execute(
                    "DO $$ BEGIN
                         -- The owner of a schema made beforehand may not be allowed to create one.
                         IF to_regnamespace('settle') IS NULL THEN CREATE SCHEMA settle; END IF;
                     END $$;
                     CREATE TABLE IF NOT EXISTS settle.schema_version (
                         version integer PRIMARY KEY,
                         applied_at timestamptz NOT NULL DEFAULT now())",
                )
                .await?;
            // Without it the next look would find no version and come here again.
            record(transaction, 0).await?;
        }
        State::Version(version) => {
            let migration = MIGRATIONS[version];
            let next = i32::try_from(version + 1).expect("few migrations");
            tracing::info!(version = next, "migrating the schema settle");
            transaction.batch_execute(migration).await?;
            record(transaction, next).await?;
        }
        State::Damaged(missing) => {
            tracing::error!(
                missing,
                "tables of the schema settle are gone: creating them again, and filling all \
                 tables from the beginning of the topics"
            );
            for migration in MIGRATIONS {
                transaction.batch_execute(migration).await?;
            }
            transaction
                .execute("DELETE FROM settle.sink_position", &[])
                .await?;
        }
    }
    Ok(())
}

async fn record(transaction: &Transaction<'_>, version: i32) -> Result<(), Error> {
    let insert = "INSERT INTO settle.schema_version (version) VALUES ($1) ON CONFLICT DO NOTHING";
    transaction.execute(insert, &[&version]).await?;
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    /// No version is recorded.
    Absent,
    /// Older than this binary: the number of the next migration.
    Version(usize),
    /// The version is right and these tables are missing.
    Damaged(String),
    Current,
}

async fn state(client: &impl tokio_postgres::GenericClient) -> Result<State, Error> {
    let known = "SELECT to_regclass('settle.schema_version') IS NOT NULL";
    if !client.query_one(known, &[]).await?.get::<_, bool>(0) {
        return Ok(State::Absent);
    }
    let version = "SELECT max(version) FROM settle.schema_version";
    let Some(version) = client
        .query_one(version, &[])
        .await?
        .get::<_, Option<i32>>(0)
    else {
        return Ok(State::Absent);
    };
    let version = usize::try_from(version).unwrap_or(0);
    if version > MIGRATIONS.len() {
        return Err(Error::Newer {
            found: version,
            known: MIGRATIONS.len(),
        });
    }
    if version < MIGRATIONS.len() {
        return Ok(State::Version(version));
    }
    let missing = "SELECT string_agg(name, ', ' ORDER BY name) FROM unnest($1::text[]) AS name
                   WHERE to_regclass('settle.' || name) IS NULL";
    let missing: Option<String> = client
        .query_one(missing, &[&TABLES.as_slice()])
        .await?
        .get(0);
    Ok(missing.map_or(State::Current, State::Damaged))
}
