//! Every statement of the sink, one per table: whole columns as arrays, one plan each.
//!
//! Logs keep the row they have: what comes again for a key is the same record. Rules and
//! statistics take the newest value, never an increment.

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Statement, Transaction};

use crate::domain::payment::Source;
use crate::failpoint::{self, Point};
use crate::sink::batch::Tables;
use crate::sink::connection::Error;
use crate::sink::rows::{Dead, Excluded, Logged, Settled, Totals, TotalsKey};

const PAYMENT_LOG: &str = r#"INSERT INTO settle.payment_log
    (partition, "offset", payment_id, recorded_at, body, raw)
    SELECT a, b, c, d, e::jsonb, f FROM unnest($1, $2, $3, $4, $5, $6) AS x(a, b, c, d, e, f)
    ON CONFLICT DO NOTHING"#;

const SETTLEMENT: &str = "INSERT INTO settle.settlement
    (source_partition, source_offset, payment_id, channel, payment_type, amount, merchant_number,
     payment_date, action_type, method_type, payout_date, confirm_date, payout_basis, rule_id)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
    ON CONFLICT DO NOTHING";

const EXCLUSION: &str = "INSERT INTO settle.exclusion
    (source_partition, source_offset, payment_id, reason, merchant_number, amount,
     first_partition, first_offset)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT DO NOTHING";

const DEAD_LETTER: &str = "INSERT INTO settle.dead_letter
    (source_partition, source_offset, payment_id, reason, detail, payload)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6)
    ON CONFLICT DO NOTHING";

const RULE: &str = "INSERT INTO settle.payout_rule (rule_key, rule_id, payout_date, confirm_date)
    SELECT * FROM unnest($1, $2, $3, $4)
    ON CONFLICT (rule_key) DO UPDATE SET rule_id = excluded.rule_id,
        payout_date = excluded.payout_date, confirm_date = excluded.confirm_date";

const RULE_GONE: &str = "DELETE FROM settle.payout_rule WHERE rule_key = ANY($1)";

const STATISTICS: &str = "INSERT INTO settle.statistics
    (merchant_number, payment_date, action_type, method_type, total_amount, count)
    SELECT * FROM unnest($1, $2, $3, $4, $5, $6)
    ON CONFLICT (merchant_number, payment_date, action_type, method_type)
    DO UPDATE SET total_amount = excluded.total_amount, count = excluded.count";

const STATISTICS_GONE: &str = "DELETE FROM settle.statistics s
    USING unnest($1, $2, $3, $4) AS x(a, b, c, d)
    WHERE s.merchant_number = a AND s.payment_date = b AND s.action_type = c AND s.method_type = d";

const ADVANCE: &str = "UPDATE settle.sink_position s SET next_offset = d
    FROM unnest($1, $2, $3, $4) AS x(a, b, c, d)
    WHERE s.topic = a AND s.partition = b AND s.next_offset = c";

const ENTER: &str = "INSERT INTO settle.sink_position (topic, partition, next_offset)
    SELECT * FROM unnest($1, $2, $3)
    ON CONFLICT DO NOTHING";

const POSITIONS: &str =
    "SELECT topic, partition, next_offset FROM settle.sink_position WHERE topic = ANY($1)";

/// Prepared on one connection.
pub struct Statements {
    payment_log: Statement,
    settlement: Statement,
    exclusion: Statement,
    dead_letter: Statement,
    rule: Statement,
    rule_gone: Statement,
    statistics: Statement,
    statistics_gone: Statement,
    /// Topics, partitions, expected offsets, new offsets.
    pub advance: Statement,
    /// Topics, partitions, offsets.
    pub enter: Statement,
    /// Topics.
    pub positions: Statement,
}

impl Statements {
    pub async fn prepare(client: &Client) -> Result<Self, Error> {
        const INT: Type = Type::INT4_ARRAY;
        const BIG: Type = Type::INT8_ARRAY;
        const TEXT: Type = Type::TEXT_ARRAY;
        const DATE: Type = Type::DATE_ARRAY;
        const BYTES: Type = Type::BYTEA_ARRAY;
        const TIME: Type = Type::TIMESTAMP_ARRAY;
        const INSTANT: Type = Type::TIMESTAMPTZ_ARRAY;
        let prepare = |sql, types: &'static [Type]| client.prepare_typed(sql, types);
        Ok(Self {
            payment_log: prepare(PAYMENT_LOG, &[INT, BIG, TEXT, INSTANT, TEXT, BYTES]).await?,
            settlement: prepare(
                SETTLEMENT,
                &[
                    INT, BIG, TEXT, TEXT, TEXT, BIG, TEXT, TIME, TEXT, TEXT, DATE, DATE, TEXT, TEXT,
                ],
            )
            .await?,
            exclusion: prepare(EXCLUSION, &[INT, BIG, TEXT, TEXT, TEXT, BIG, INT, BIG]).await?,
            dead_letter: prepare(DEAD_LETTER, &[INT, BIG, TEXT, TEXT, TEXT, BYTES]).await?,
            rule: prepare(RULE, &[TEXT, TEXT, DATE, DATE]).await?,
            rule_gone: prepare(RULE_GONE, &[TEXT]).await?,
            statistics: prepare(STATISTICS, &[TEXT, DATE, TEXT, TEXT, BIG, BIG]).await?,
            statistics_gone: prepare(STATISTICS_GONE, &[TEXT, DATE, TEXT, TEXT]).await?,
            advance: prepare(ADVANCE, &[TEXT, INT, BIG, BIG]).await?,
            enter: prepare(ENTER, &[TEXT, INT, BIG]).await?,
            positions: prepare(POSITIONS, &[TEXT]).await?,
        })
    }

    /// Writes every table; how many rows each of [`Written`]'s tables took.
    pub async fn write(
        &self,
        transaction: &Transaction<'_>,
        tables: &Tables<'_>,
    ) -> Result<Written, Error> {
        let to = Table { transaction };
        Ok(Written([
            to.payments(&self.payment_log, &tables.payments).await?,
            to.settlements(&self.settlement, &tables.settlements)
                .await?,
            to.exclusions(&self.exclusion, &tables.exclusions).await?,
            to.dead_letters(&self.dead_letter, &tables.dead_letters)
                .await?,
            self.rules(to, tables).await?,
            self.totals(to, tables).await?,
        ]))
    }

    async fn rules(&self, to: Table<'_>, tables: &Tables<'_>) -> Result<u64, Error> {
        failpoint::fail::<Error>(Point::SinkRows)?;
        let rules = &tables.rules;
        let newest: Vec<_> = rules
            .iter()
            .filter_map(|(key, rule)| Some((*key, (*rule)?)))
            .collect();
        let gone: Vec<&str> = rules
            .iter()
            .filter(|(_, rule)| rule.is_none())
            .map(|(key, _)| *key)
            .collect();
        let written = to
            .write(
                &self.rule,
                newest.len(),
                &[
                    &column(&newest, |(key, _)| *key),
                    &column(&newest, |(_, rule)| rule.rule_id.as_str()),
                    &column(&newest, |(_, rule)| rule.payout_date),
                    &column(&newest, |(_, rule)| rule.confirm_date),
                ],
            )
            .await?;
        Ok(written + to.write(&self.rule_gone, gone.len(), &[&gone]).await?)
    }

    async fn totals(&self, to: Table<'_>, tables: &Tables<'_>) -> Result<u64, Error> {
        let all = &tables.statistics;
        let newest: Vec<(&TotalsKey, Totals)> = all
            .iter()
            .filter_map(|(key, totals)| Some((*key, (*totals)?)))
            .collect();
        let gone: Vec<&TotalsKey> = all
            .iter()
            .filter(|(_, totals)| totals.is_none())
            .map(|(key, _)| *key)
            .collect();
        let written = to
            .write(
                &self.statistics,
                newest.len(),
                &[
                    &column(&newest, |(key, _)| key.merchant.as_str()),
                    &column(&newest, |(key, _)| key.day),
                    &column(&newest, |(key, _)| key.action.as_str()),
                    &column(&newest, |(key, _)| key.method.as_str()),
                    &column(&newest, |(_, totals)| totals.amount),
                    &column(&newest, |(_, totals)| totals.count),
                ],
            )
            .await?;
        let columns: [&(dyn ToSql + Sync); 4] = [
            &column(&gone, |key| key.merchant.as_str()),
            &column(&gone, |key| key.day),
            &column(&gone, |key| key.action.as_str()),
            &column(&gone, |key| key.method.as_str()),
        ];
        Ok(written
            + to.write(&self.statistics_gone, gone.len(), &columns)
                .await?)
    }
}

/// Rows taken, in the order of [`Written::TABLES`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written(pub [u64; 6]);

impl Written {
    pub const TABLES: [&str; 6] = [
        "payment_log",
        "settlement",
        "exclusion",
        "dead_letter",
        "payout_rule",
        "statistics",
    ];
}

#[derive(Clone, Copy)]
struct Table<'a> {
    transaction: &'a Transaction<'a>,
}

impl Table<'_> {
    async fn write(
        self,
        statement: &Statement,
        rows: usize,
        columns: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, Error> {
        if rows == 0 {
            return Ok(0);
        }
        Ok(self.transaction.execute(statement, columns).await?)
    }

    async fn payments(self, statement: &Statement, rows: &[&Logged]) -> Result<u64, Error> {
        let columns: [&(dyn ToSql + Sync); 6] = [
            &column(rows, |row| row.place.partition),
            &column(rows, |row| row.place.offset),
            &column(rows, |row| row.payment_id.as_deref()),
            &column::<_, Option<Timestamp>>(rows, |row| row.recorded_at),
            &column(rows, |row| row.body.as_deref()),
            &column(rows, |row| row.raw.as_deref()),
        ];
        self.write(statement, rows.len(), &columns).await
    }

    async fn settlements(self, statement: &Statement, rows: &[&Settled]) -> Result<u64, Error> {
        let columns: [&(dyn ToSql + Sync); 14] = [
            &column(rows, |row| row.source.partition),
            &column(rows, |row| row.source.offset),
            &column(rows, |row| row.payment_id.as_str()),
            &column(rows, |row| row.channel.as_str()),
            &column(rows, |row| row.payment_type.as_str()),
            &column(rows, |row| row.amount),
            &column(rows, |row| row.merchant.as_str()),
            &column::<_, DateTime>(rows, |row| row.payment_date),
            &column(rows, |row| row.action.as_str()),
            &column(rows, |row| row.method.as_str()),
            &column::<_, Date>(rows, |row| row.payout_date),
            &column::<_, Date>(rows, |row| row.confirm_date),
            &column(rows, |row| row.basis.as_str()),
            &column(rows, |row| row.rule_id.as_deref()),
        ];
        self.write(statement, rows.len(), &columns).await
    }

    async fn exclusions(self, statement: &Statement, rows: &[&Excluded]) -> Result<u64, Error> {
        let columns: [&(dyn ToSql + Sync); 8] = [
            &column(rows, |row| row.source.partition),
            &column(rows, |row| row.source.offset),
            &column(rows, |row| row.payment_id.as_deref()),
            &column(rows, |row| row.reason.as_str()),
            &column(rows, |row| row.merchant.as_deref()),
            &column(rows, |row| row.amount),
            &column(rows, |row| {
                row.first.map(|Source { partition, .. }| partition)
            }),
            &column(rows, |row| row.first.map(|Source { offset, .. }| offset)),
        ];
        self.write(statement, rows.len(), &columns).await
    }

    async fn dead_letters(self, statement: &Statement, rows: &[&Dead]) -> Result<u64, Error> {
        let columns: [&(dyn ToSql + Sync); 6] = [
            &column(rows, |row| row.source.partition),
            &column(rows, |row| row.source.offset),
            &column(rows, |row| row.payment_id.as_deref()),
            &column(rows, |row| row.reason.as_str()),
            &column(rows, |row| row.detail.as_str()),
            &column(rows, |row| row.payload.as_deref()),
        ];
        self.write(statement, rows.len(), &columns).await
    }
}

fn column<'a, R, V>(rows: &'a [R], value: impl Fn(&'a R) -> V) -> Vec<V> {
    rows.iter().map(value).collect()
}
