//! What is gathered for one database transaction: rows and the positions that go with them.

use std::collections::BTreeMap;

use crate::broker::Partition;
use crate::domain::payment::Source;
use crate::domain::rule::Rule;
use crate::sink::rows::{Dead, Excluded, Logged, Row, Settled, Totals, TotalsKey};

const ROWS_MAX: usize = 5000;
const BYTES_MAX: usize = 16 << 20;

/// What one partition adds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Where the database must stand before; `None`: it knows nothing of this partition.
    pub expected: Option<i64>,
    pub next: i64,
    pub rows: Vec<Row>,
    bytes: usize,
}

/// Rows by partition, so that those of a partition that is taken away can be dropped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    pub parts: BTreeMap<Partition, Part>,
    rows: usize,
    bytes: usize,
}

impl Batch {
    /// Adds the record at `offset`, of `bytes`. `expected` counts for the partition's first one.
    pub fn push(
        &mut self,
        partition: Partition,
        expected: Option<i64>,
        offset: i64,
        row: (Option<Row>, usize),
    ) {
        let (row, bytes) = row;
        let part = self.parts.entry(partition).or_insert(Part {
            expected,
            next: offset,
            rows: Vec::new(),
            bytes: 0,
        });
        part.next = offset + 1;
        part.bytes += bytes;
        self.bytes += bytes;
        if let Some(row) = row {
            part.rows.push(row);
            self.rows += 1;
        }
    }

    pub fn drop_partition(&mut self, partition: Partition) {
        if let Some(part) = self.parts.remove(&partition) {
            self.rows -= part.rows.len();
            self.bytes -= part.bytes;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.rows >= ROWS_MAX || self.bytes >= BYTES_MAX
    }

    /// The log rows with a body, for finding out which one the server refuses.
    pub fn payments_mut(&mut self) -> impl Iterator<Item = &mut Logged> {
        let rows = self.parts.values_mut().flat_map(|part| &mut part.rows);
        rows.filter_map(|row| match row {
            Row::Payment(logged) => Some(logged),
            _ => None,
        })
    }
}

/// A batch by table: in the order of the primary key, no key twice.
#[derive(Debug, Default)]
pub struct Tables<'a> {
    pub payments: Vec<&'a Logged>,
    pub settlements: Vec<&'a Settled>,
    pub exclusions: Vec<&'a Excluded>,
    pub dead_letters: Vec<&'a Dead>,
    /// The last word on each key.
    pub rules: BTreeMap<&'a str, Option<&'a Rule>>,
    pub statistics: BTreeMap<&'a TotalsKey, Option<Totals>>,
}

impl<'a> Tables<'a> {
    pub fn of(batch: &'a Batch) -> Self {
        let mut tables = Self::default();
        for row in batch.parts.values().flat_map(|part| &part.rows) {
            match row {
                Row::Payment(row) => tables.payments.push(row),
                Row::Settlement(row) => tables.settlements.push(row),
                Row::Exclusion(row) => tables.exclusions.push(row),
                Row::DeadLetter(row) => tables.dead_letters.push(row),
                Row::Rule(key, rule) => {
                    tables.rules.insert(key.as_str(), rule.as_ref());
                }
                Row::Statistics(key, totals) => {
                    tables.statistics.insert(key, *totals);
                }
            }
        }
        unique(&mut tables.payments, |row| row.place);
        unique(&mut tables.settlements, |row| row.source);
        unique(&mut tables.exclusions, |row| row.source);
        unique(&mut tables.dead_letters, |row| row.source);
        tables
    }
}

/// Sorts, and keeps the first of each key, as the database does for keys it has already.
fn unique<T>(rows: &mut Vec<&T>, key: impl Fn(&T) -> Source) {
    rows.sort_by_key(|row| key(row));
    rows.dedup_by_key(|row| key(row));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Topic;
    use crate::domain::rule::RuleKey;

    const AT: Partition = Partition::new(Topic::Source, 1);
    const OTHER: Partition = Partition::new(Topic::Source, 2);

    fn logged(partition: i32, offset: i64, id: &str) -> Row {
        Row::Payment(Logged {
            place: Source { partition, offset },
            payment_id: Some(id.to_owned()),
            recorded_at: None,
            body: None,
            raw: None,
        })
    }

    fn rule(id: Option<&str>) -> Row {
        let day = jiff::civil::date(2025, 5, 26);
        let key = RuleKey::parse("m/2025-05-26/PAYMENT/MONEY").unwrap();
        let rule = id.map(|id| Rule {
            rule_id: id.to_owned(),
            payout_date: day,
            confirm_date: day,
        });
        Row::Rule(key, rule)
    }

    #[test]
    fn a_key_stands_once_in_a_batch_and_for_rules_the_last_word_counts() {
        let mut batch = Batch::default();
        batch.push(AT, Some(7), 7, (Some(rule(Some("a"))), 1));
        batch.push(AT, Some(7), 8, (Some(rule(None)), 1));
        batch.push(AT, Some(7), 9, (Some(rule(Some("b"))), 1));
        batch.push(OTHER, None, 4, (Some(logged(2, 4, "x")), 1));
        batch.push(OTHER, None, 5, (Some(logged(2, 4, "y")), 1));
        batch.push(OTHER, None, 6, (Some(logged(1, 9, "z")), 1));
        let tables = Tables::of(&batch);
        let ids: Vec<_> = tables
            .payments
            .iter()
            .map(|row| row.payment_id.as_deref())
            .collect();
        assert_eq!(ids, [Some("z"), Some("x")]);
        let rules: Vec<_> = tables
            .rules
            .values()
            .map(|rule| rule.map(|rule| &*rule.rule_id))
            .collect();
        assert_eq!(rules, [Some("b")]);
    }

    #[test]
    fn a_part_goes_from_the_expected_position_past_its_last_record() {
        let mut batch = Batch::default();
        batch.push(AT, Some(3), 5, (Some(logged(1, 5, "x")), 10));
        batch.push(AT, Some(6), 8, (None, 10));
        let part = &batch.parts[&AT];
        assert_eq!((part.expected, part.next, part.rows.len()), (Some(3), 9, 1));
    }

    #[test]
    fn dropping_a_partition_forgets_its_rows_and_their_size() {
        let mut batch = Batch::default();
        batch.push(AT, None, 0, (Some(logged(1, 0, "x")), BYTES_MAX));
        batch.push(OTHER, None, 0, (Some(logged(2, 0, "x")), 1));
        assert!(batch.is_full());
        batch.drop_partition(AT);
        assert!(!batch.is_full() && !batch.is_empty());
        batch.drop_partition(OTHER);
        assert_eq!(batch, Batch::default());
    }
}
