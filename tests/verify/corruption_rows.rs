//! Each corruption of the tables of a real run breaks the promise about PostgreSQL, and no other.

use settle::sink::read::{Key, Row, Table};
use settle::verify::promise::Promise;

use crate::capture::breaks;

const DATABASE: &[Promise] = &[Promise::Database];

#[test]
fn a_missing_row_of_any_table_is_seen() {
    for table in Table::ALL {
        breaks(DATABASE, "the row of", |capture| {
            capture.rows(table).remove(3);
        });
    }
}

#[test]
fn a_row_too_much_of_any_table_is_seen() {
    for table in Table::ALL {
        breaks(DATABASE, "the row of", |capture| {
            let mut extra = capture.rows(table)[3].clone();
            extra.key = match extra.key {
                Key::Place(partition, _) => Key::Place(partition, 1_000_000),
                Key::RuleKey(_) => Key::RuleKey("nobody/2025-05-26/PAYMENT/CARD".to_owned()),
            };
            capture.rows(table).push(extra);
        });
    }
}

#[test]
fn a_different_row_of_any_table_is_seen() {
    for table in Table::ALL {
        breaks(DATABASE, "the row of", |capture| {
            let row = &mut capture.rows(table)[3];
            let change = |row: &mut Row, column: usize| {
                row.texts[column] = row.texts[column].take().map(|text| format!("{text}1"));
            };
            change(row, usize::from(table != Table::PayoutRule));
        });
    }
}

#[test]
fn a_different_body_and_different_bytes_are_seen() {
    breaks(DATABASE, "PaymentLog", |capture| {
        let rows = capture.rows(Table::PaymentLog);
        let row = rows.iter_mut().find(|row| row.texts[2].is_some()).unwrap();
        let body = row.texts[2].as_mut().unwrap();
        *body = body.replacen("\"amount\": ", "\"amount\": 1", 1);
    });
    for table in [Table::PaymentLog, Table::DeadLetter] {
        breaks(DATABASE, "the row of", |capture| {
            let rows = capture.rows(table);
            let row = rows.iter_mut().find(|row| row.bytes.is_some()).unwrap();
            row.bytes.as_mut().unwrap().push(b'!');
        });
    }
}
