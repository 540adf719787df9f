//! Reads the tables of the service's schema, a block of rows at a time.

use anyhow::{Context, Result};
use tokio_postgres::{Client, NoTls, Row};

use crate::model::outgoing::{Exclusion, Settlement, Totals};
use crate::model::{Place, Rule};
use crate::oracle::ledger::Ledger;
use crate::oracle::tables::{DeadLetterRow, LogRow, SettlementRow};

const BLOCK: i32 = 5000;

const PAYMENT_LOG: &str = "select partition, \"offset\", payment_id, \
    round(extract(epoch from recorded_at) * 1000)::bigint, body::text, raw from settle.payment_log";
const SETTLEMENT: &str = "select payment_id, channel, payment_type, amount, merchant_number, \
    round(extract(epoch from payment_date) * 1000000)::bigint, payment_date::date::text, action_type, method_type, \
    payout_date::text, confirm_date::text, payout_basis, rule_id::text, source_partition, source_offset \
    from settle.settlement";
const EXCLUSION: &str = "select source_partition, source_offset, payment_id, reason, merchant_number, amount, \
    first_partition, first_offset from settle.exclusion";
const DEAD_LETTER: &str = "select source_partition, source_offset, payment_id, reason, detail, payload from settle.dead_letter";
const PAYOUT_RULE: &str =
    "select rule_key, rule_id::text, payout_date::text, confirm_date::text from settle.payout_rule";
const STATISTICS: &str = "select merchant_number, payment_date::text, action_type, method_type, total_amount, count \
    from settle.statistics";

/// A session whose dates and times are printed one way.
pub struct Database {
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl Database {
    pub fn connect(url: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let (client, connection) = runtime
            .block_on(tokio_postgres::connect(url, NoTls))
            .context("connect to PostgreSQL")?;
        runtime.spawn(async {
            // Its error shows in the next query.
            let _ = connection.await;
        });
        runtime
            .block_on(client.batch_execute("set datestyle = 'ISO, YMD'; set timezone = 'UTC'"))
            .context("prepare the session")?;
        Ok(Self { client, runtime })
    }

    /// Where the sink stands: topic, partition, next offset.
    pub fn positions(&self) -> Result<Vec<(String, i32, i64)>> {
        let query = "select topic, partition, next_offset from settle.sink_position";
        let rows = self
            .runtime
            .block_on(self.client.query(query, &[]))
            .context("read sink_position")?;
        rows.iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
            .collect()
    }

    /// Hands all rows of all tables to the ledger.
    pub fn feed(&mut self, ledger: &mut Ledger) -> Result<()> {
        self.each(PAYMENT_LOG, |row| {
            ledger.log_row(&LogRow {
                place: place(row, 0)?,
                payment_id: row.try_get(2)?,
                recorded_at_ms: row.try_get(3)?,
                body: row.try_get(4)?,
                raw: row.try_get(5)?,
            });
            Ok(())
        })?;
        self.each(SETTLEMENT, |row| {
            ledger.settlement_row(&settlement(row)?);
            Ok(())
        })?;
        self.each(EXCLUSION, |row| {
            ledger.exclusion_row(&exclusion(row)?);
            Ok(())
        })?;
        self.each(DEAD_LETTER, |row| {
            ledger.dead_letter_row(&DeadLetterRow {
                source: place(row, 0)?,
                payment_id: row.try_get(2)?,
                reason: row.try_get(3)?,
                detail: row.try_get(4)?,
                payload: row.try_get::<_, Option<Vec<u8>>>(5)?.unwrap_or_default(),
            });
            Ok(())
        })?;
        self.each(PAYOUT_RULE, |row| {
            let rule = Rule {
                id: row.try_get(1)?,
                payout_date: row.try_get(2)?,
                confirm_date: row.try_get(3)?,
            };
            ledger.rule_row(row.try_get(0)?, &rule);
            Ok(())
        })?;
        self.each(STATISTICS, |row| {
            let fields: [&str; 4] = [
                row.try_get(0)?,
                row.try_get(1)?,
                row.try_get(2)?,
                row.try_get(3)?,
            ];
            ledger.statistics_row(
                &fields.join("/"),
                Totals {
                    amount: row.try_get(4)?,
                    count: row.try_get(5)?,
                },
            );
            Ok(())
        })
    }

    fn each(&mut self, query: &str, mut feed: impl FnMut(&Row) -> Result<()>) -> Result<()> {
        self.runtime.block_on(async {
            let transaction = self.client.transaction().await?;
            let portal = transaction
                .bind(query, &[])
                .await
                .with_context(|| format!("run {query}"))?;
            loop {
                let rows = transaction.query_portal(&portal, BLOCK).await?;
                rows.iter()
                    .try_for_each(&mut feed)
                    .with_context(|| format!("read the rows of {query}"))?;
                if rows.len() < usize::try_from(BLOCK)? {
                    return Ok(());
                }
            }
        })
    }
}

fn place(row: &Row, at: usize) -> Result<Place> {
    Ok(Place {
        partition: row.try_get(at)?,
        offset: row.try_get(at + 1)?,
    })
}

fn settlement(row: &Row) -> Result<SettlementRow> {
    Ok(SettlementRow {
        payment_micros: row.try_get(5)?,
        settlement: Settlement {
            payment_id: row.try_get(0)?,
            channel: row.try_get(1)?,
            payment_type: row.try_get(2)?,
            amount: row.try_get(3)?,
            merchant: row.try_get(4)?,
            payment_date: row.try_get(6)?,
            action_type: row.try_get(7)?,
            method_type: row.try_get(8)?,
            payout_date: row.try_get(9)?,
            confirm_date: row.try_get(10)?,
            basis: row.try_get(11)?,
            rule_id: row.try_get(12)?,
            source: place(row, 13)?,
        },
    })
}

fn exclusion(row: &Row) -> Result<Exclusion> {
    let first: (Option<i32>, Option<i64>) = (row.try_get(6)?, row.try_get(7)?);
    Ok(Exclusion {
        source: place(row, 0)?,
        payment_id: row.try_get(2)?,
        reason: row.try_get(3)?,
        merchant: row.try_get(4)?,
        amount: row.try_get(5)?,
        first: first
            .0
            .zip(first.1)
            .map(|(partition, offset)| Place { partition, offset }),
    })
}
