//! As in the topics, so outside of them: corrupted tables and answers are seen.

use crate::oracle::corruption::breaks;
use crate::oracle::promise::Promise;

#[test]
fn a_missing_row_is_seen() {
    breaks(Promise::Tables, |capture| drop(capture.log_rows.remove(9)));
    breaks(Promise::Tables, |capture| {
        drop(capture.settlement_rows.remove(9));
    });
    breaks(Promise::Tables, |capture| {
        drop(capture.exclusion_rows.remove(9));
    });
    breaks(Promise::Tables, |capture| {
        drop(capture.dead_letter_rows.remove(9));
    });
    breaks(Promise::Tables, |capture| drop(capture.rule_rows.remove(9)));
    breaks(Promise::Tables, |capture| {
        drop(capture.statistics_rows.remove(9));
    });
}

#[test]
fn a_wrong_or_surplus_row_is_seen() {
    breaks(Promise::Tables, |capture| {
        capture.log_rows[9].recorded_at_ms += 1;
    });
    breaks(Promise::Tables, |capture| {
        capture.log_rows[9].payment_id = Some("other".to_owned());
    });
    breaks(Promise::Tables, |capture| {
        capture.log_rows[9].body = Some("{}".to_owned());
    });
    breaks(Promise::Tables, |capture| {
        capture.settlement_rows[9].settlement.amount += 1;
    });
    breaks(Promise::Tables, |capture| {
        capture.settlement_rows[9].payment_micros += 2;
    });
    breaks(Promise::Tables, |capture| {
        capture.exclusion_rows[9].reason = "FINISH".to_owned();
    });
    breaks(Promise::Tables, |capture| {
        capture.dead_letter_rows[9].payload.push(0);
    });
    breaks(Promise::Tables, |capture| {
        capture.rule_rows[9].1.confirm_date = "2025-01-01".to_owned();
    });
    breaks(Promise::Tables, |capture| {
        capture.statistics_rows[9].1.count += 1;
    });
    breaks(Promise::Tables, |capture| {
        let mut extra = capture.log_rows[9].clone();
        extra.place.offset += 1_000_000;
        capture.log_rows.push(extra);
    });
}

#[test]
fn a_wrong_a_missing_and_a_doubled_answer_are_seen() {
    breaks(Promise::Http, |capture| capture.answers[9].1.amount += 1);
    breaks(Promise::Http, |capture| drop(capture.answers.remove(9)));
    breaks(Promise::Http, |capture| {
        let twin = capture.answers[9].clone();
        capture.answers.push(twin);
    });
}
