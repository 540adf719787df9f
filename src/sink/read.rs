//! Reads the tables as they were at one moment, for a comparison with the topics. Writes nothing
//! and needs no schema to be there.

use futures_util::{StreamExt, pin_mut};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

use crate::config::Postgres;
use crate::sink::connection::{self, Database, Error};

/// What a row is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Key {
    /// Partition and offset of the source.
    Place(i32, i64),
    RuleKey(String),
}

/// A row with its columns as text, the one of bytes aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub key: Key,
    pub texts: Vec<Option<String>>,
    pub bytes: Option<Vec<u8>>,
}

const SETTLEMENT: &str = "SELECT source_partition, source_offset, ARRAY[payment_id, channel, \
    payment_type, amount::text, merchant_number, \
    to_char(payment_date, 'YYYY-MM-DD\"T\"HH24:MI:SS.US'), action_type, method_type, \
    to_char(payout_date, 'YYYY-MM-DD'), to_char(confirm_date, 'YYYY-MM-DD'), payout_basis, \
    rule_id], NULL::bytea FROM settle.settlement";
const EXCLUSION: &str = "SELECT source_partition, source_offset, ARRAY[payment_id, reason, \
    merchant_number, amount::text, first_partition::text, first_offset::text], NULL::bytea \
    FROM settle.exclusion";
const DEAD_LETTER: &str = "SELECT source_partition, source_offset, ARRAY[payment_id, reason, \
    detail], payload FROM settle.dead_letter";
const PAYMENT_LOG: &str = "SELECT partition, \"offset\", ARRAY[payment_id, \
    coalesce((extract(epoch FROM recorded_at) * 1000)::bigint, 0)::text, body::text], raw \
    FROM settle.payment_log";
const PAYOUT_RULE: &str = "SELECT rule_key, ARRAY[rule_id, to_char(payout_date, 'YYYY-MM-DD'), \
    to_char(confirm_date, 'YYYY-MM-DD')] FROM settle.payout_rule";
const STATISTICS: &str = "SELECT merchant_number || '/' || to_char(payment_date, 'YYYY-MM-DD') \
    || '/' || action_type || '/' || method_type, ARRAY[total_amount::text, count::text] \
    FROM settle.statistics";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    Settlement,
    Exclusion,
    DeadLetter,
    PaymentLog,
    PayoutRule,
    Statistics,
}

impl Table {
    pub const ALL: [Self; 6] = [
        Self::Settlement,
        Self::Exclusion,
        Self::DeadLetter,
        Self::PaymentLog,
        Self::PayoutRule,
        Self::Statistics,
    ];

    const fn query(self) -> &'static str {
        match self {
            Self::Settlement => SETTLEMENT,
            Self::Exclusion => EXCLUSION,
            Self::DeadLetter => DEAD_LETTER,
            Self::PaymentLog => PAYMENT_LOG,
            Self::PayoutRule => PAYOUT_RULE,
            Self::Statistics => STATISTICS,
        }
    }

    /// Whether a row stands for a source record, and not for a rule key.
    pub const fn has_places(self) -> bool {
        !matches!(self, Self::PayoutRule | Self::Statistics)
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::Settlement => "settlement",
            Self::Exclusion => "exclusion",
            Self::DeadLetter => "dead_letter",
            Self::PaymentLog => "payment_log",
            Self::PayoutRule => "payout_rule",
            Self::Statistics => "statistics",
        }
    }

    /// Names of the texts of a row.
    pub const fn columns(self) -> &'static [&'static str] {
        match self {
            Self::Settlement => &[
                "payment_id",
                "channel",
                "payment_type",
                "amount",
                "merchant_number",
                "payment_date",
                "action_type",
                "method_type",
                "payout_date",
                "confirm_date",
                "payout_basis",
                "rule_id",
            ],
            Self::Exclusion => &[
                "payment_id",
                "reason",
                "merchant_number",
                "amount",
                "first_partition",
                "first_offset",
            ],
            Self::DeadLetter => &["payment_id", "reason", "detail"],
            Self::PaymentLog => &["payment_id", "recorded_at_millis", "body"],
            Self::PayoutRule => &["rule_id", "payout_date", "confirm_date"],
            Self::Statistics => &["total_amount", "count"],
        }
    }
}

/// The tables at the moment it was taken. The snapshot ends with this value.
pub struct Snapshot {
    runtime: Runtime,
    client: Client,
    driver: JoinHandle<()>,
    /// Whether the schema has been made.
    has_tables: bool,
}

impl Snapshot {
    pub fn take(postgres: &Postgres) -> Result<Self, Error> {
        let database = Database::new(postgres)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(Error::Runtime)?;
        let (client, driver) = runtime.block_on(connection::connect(&database))?;
        let has_tables = runtime.block_on(async {
            client
                .batch_execute(
                    "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
                     SET LOCAL statement_timeout = 0; \
                     SET LOCAL idle_in_transaction_session_timeout = 0",
                )
                .await?;
            let known = "SELECT to_regclass('settle.sink_position') IS NOT NULL";
            client.query_one(known, &[]).await?.try_get::<_, bool>(0)
        })?;
        Ok(Self {
            runtime,
            client,
            driver,
            has_tables,
        })
    }

    /// Topic, partition and the next offset to write.
    pub fn positions(&self) -> Result<Vec<(String, i32, i64)>, Error> {
        if !self.has_tables {
            return Ok(Vec::new());
        }
        let query = "SELECT topic, partition, next_offset FROM settle.sink_position";
        let rows = self.runtime.block_on(self.client.query(query, &[]))?;
        let positions = rows
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)));
        positions.collect()
    }

    /// The row of one source record, if there is one.
    pub fn rows_at(&self, table: Table, partition: i32, offset: i64) -> Result<Vec<Row>, Error> {
        if !self.has_tables {
            return Ok(Vec::new());
        }
        let (all, columns) = (table.query(), "(partition, at, texts, bytes)");
        let query =
            format!("SELECT * FROM ({all}) AS found{columns} WHERE partition = $1 AND at = $2");
        let rows = self
            .runtime
            .block_on(self.client.query(&query, &[&partition, &offset]))?;
        rows.iter().map(|row| Ok(read(table, row)?)).collect()
    }

    /// Hands every row to `each`, one at a time.
    pub fn rows<E: From<Error>>(
        &self,
        table: Table,
        mut each: impl FnMut(Row) -> Result<(), E>,
    ) -> Result<(), E> {
        if !self.has_tables {
            return Ok(());
        }
        self.runtime.block_on(async {
            let none: [&(dyn tokio_postgres::types::ToSql + Sync); 0] = [];
            let rows = self.client.query_raw(table.query(), none).await;
            let rows = rows.map_err(Error::from)?;
            pin_mut!(rows);
            while let Some(row) = rows.next().await {
                let row = row.map_err(Error::from)?;
                each(read(table, &row).map_err(Error::from)?)?;
            }
            Ok(())
        })
    }
}

fn read(table: Table, row: &tokio_postgres::Row) -> Result<Row, tokio_postgres::Error> {
    if table.has_places() {
        return Ok(Row {
            key: Key::Place(row.try_get(0)?, row.try_get(1)?),
            texts: row.try_get(2)?,
            bytes: row.try_get(3)?,
        });
    }
    Ok(Row {
        key: Key::RuleKey(row.try_get(0)?),
        texts: row.try_get(1)?,
        bytes: None,
    })
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
