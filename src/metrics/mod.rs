//! The one registry of metric names, and what Prometheus scrapes.
//!
//! Counters and histograms are handles that their owners resolve once. Whatever mirrors a status
//! (lag, phases, connections) is [`Observed`] when it is asked for, so a partition that moved to
//! another instance leaves no series behind here.

mod exporter;
mod requests;
mod worker;

use std::sync::LazyLock;
use std::time::Duration;

use ::metrics::{Counter, Histogram};

pub use exporter::{Observed, render, upkeep};
pub use requests::Requests;
pub use worker::{Amounts, Lookup, Outcome, Reaction, Rebalance, Replacement, Worker};

/// One metric: everything that dashboards, rules and documentation may know of it.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    /// Upper bounds of the buckets, rising.
    Histogram(&'static [f64]),
}

impl Kind {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Bytes,
    Records,
    /// Money, in minor units of its currency.
    Minor,
    /// A number of what the name says, a flag or an offset.
    One,
}

macro_rules! registry {
    ($($id:ident: $kind:expr, $unit:ident, $name:literal [$($label:literal),*], $help:literal;)+) => {
        $(
            #[doc = concat!("`", $name, "`")]
            pub static $id: Metric = Metric {
                name: $name,
                kind: $kind,
                unit: Unit::$unit,
                labels: &[$($label),*],
                help: $help,
            };
        )+

        /// Every metric.
        pub static ALL: &[&Metric] = &[$(&$id),+];
    };
}

// No bound is a whole number: `le` labels of whole numbers are spelt differently by different
// versions of Prometheus.
const COMMIT_SECONDS: &[f64] = &[
    0.0015, 0.0025, 0.0045, 0.0075, 0.015, 0.025, 0.045, 0.075, 0.15, 0.25, 0.45, 0.75, 1.5, 2.5,
    4.5, 7.5, 12.5,
];
const END_TO_END_SECONDS: &[f64] = &[
    0.0025, 0.0045, 0.0075, 0.015, 0.025, 0.045, 0.075, 0.1, 0.15, 0.25, 0.45, 0.75, 1.5, 2.5, 4.5,
    7.5, 15.5, 30.5,
];
const RULE_CALL_SECONDS: &[f64] = &[
    0.0025, 0.0075, 0.025, 0.075, 0.15, 0.25, 0.45, 0.75, 1.5, 2.5, 7.5,
];
const CHECKPOINT_SECONDS: &[f64] = &[
    0.0025, 0.0075, 0.025, 0.075, 0.15, 0.25, 0.45, 0.75, 1.5, 2.5, 7.5,
];
const TRANSACTION_RECORDS: &[f64] = &[
    1.5, 10.5, 50.5, 100.5, 500.5, 1000.5, 2500.5, 5000.5, 10000.5, 25000.5,
];

use Kind::{Counter as C, Gauge as G, Histogram as H};

registry! {
    RECORDS: C, Records, "settle_records_total" ["outcome", "reason"],
        "Committed outcomes: settlements, exclusions and dead letters, with the reason of the latter two.";
    AMOUNT: C, Minor, "settle_amount_total" ["outcome", "sign"],
        "Committed money, as absolute amounts in minor units: of settlements, of exclusions whose amount is known, and of dead letters whose total would overflow.";
    CONSUMED: C, Records, "settle_consumed_records_total" ["kind"],
        "Input records of committed transactions: of the source topic for ingest, of bases for settle.";
    BASES: C, Records, "settle_bases_total" [],
        "Committed bases: payments that passed ingest on their way to be settled.";
    DUPLICATE_CHECKS: C, Records, "settle_duplicate_checks_total" [],
        "Payment ids that were looked up in the duplicate window.";
    TRANSACTIONS: C, One, "settle_transactions_total" ["worker", "result"],
        "Ended transactions: committed, or ended by the producer that replaced the one that began them.";
    TRANSACTION_SENT: H(TRANSACTION_RECORDS), Records, "settle_transaction_records" [],
        "Records sent per committed transaction.";
    COMMIT_DURATION: H(COMMIT_SECONDS), Seconds, "settle_commit_duration_seconds" [],
        "From begin to the return of commit, of committed transactions.";
    END_TO_END: H(END_TO_END_SECONDS), Seconds, "settle_end_to_end_seconds" [],
        "From the timestamp of the payment's record to the commit of its settlement.";
    PRODUCER_REPLACEMENTS: C, One, "settle_producer_replacements_total" ["worker", "cause"],
        "New transactional producers: at start, after an error, or because a request went unanswered.";
    REBALANCES: C, One, "settle_rebalances_total" ["worker", "kind"],
        "Calls of the group to take on or give up partitions.";
    HANGING: C, One, "settle_hanging_transactions_total" ["ended"],
        "Transactions of this service whose markers a broker had lost, and how they were ended again: committed or aborted.";
    FAILURES: C, One, "settle_failures_total" ["worker", "reaction"],
        "Failures of a turn of the loop, by what was done about them.";
    IN_DOUBT: G, Seconds, "settle_transaction_in_doubt_seconds" ["worker"],
        "Time since a failure left open what became of the last transaction, 0 when it is known.";
    RULE_LOOKUPS: C, One, "settle_rule_lookups_total" ["result"],
        "Payout rules needed: known here, asked of the rule service, or known to be absent.";
    POSITIONS_REPAIRED: C, One, "settle_positions_repaired_total" [],
        "Partitions whose group offset disagreed with the committed position record.";
    RULES_IGNORED: C, Records, "settle_rules_ignored_total" [],
        "Records of the rules topic that are no rule and were passed over.";
    RESTORE_READ: C, Records, "settle_restore_records_total" [],
        "Records read by restoring tasks.";
    RESTORES: C, One, "settle_restores_total" [],
        "Tasks that finished reading their state back from the log.";
    CHECKPOINT_DURATION: H(CHECKPOINT_SECONDS), Seconds, "settle_state_checkpoint_duration_seconds" [],
        "Time to make the state of a task durable.";
    LAG: G, Records, "settle_lag_records" ["kind", "partition"],
        "Records between the committed position of a task and the stable end of its source partition.";
    STABLE_GAP: G, Records, "settle_stable_offset_gap_records" ["kind", "partition"],
        "Records of the source partition behind its stable offset: of transactions that nobody has ended.";
    STABLE_STUCK: G, Seconds, "settle_stable_offset_stuck_seconds" ["kind", "partition"],
        "Time for which the stable offset has stood still although records lie behind it.";
    OLDEST: G, Seconds, "settle_oldest_unsettled_seconds" ["kind", "partition"],
        "Age of the oldest payment that the task holds, or, where it lags behind its source, of the last one it dealt with; 0 when there is nothing to do.";
    WAITING: G, Records, "settle_waiting_records" ["partition"],
        "Payments held back by one whose payout rule is not known yet, that one included.";
    WAITING_AMOUNT: G, Minor, "settle_waiting_amount" ["partition"],
        "Sum of the amounts of the payments that are held back, in minor units.";
    WITHOUT_OWNER: G, One, "settle_partitions_without_owner" [],
        "Partitions of the bases topic that no instance is known to own.";
    POSITION: G, One, "settle_position_offset" ["kind", "partition"],
        "Next offset of the source partition that is not committed yet.";
    RESTORE_REMAINING: G, Records, "settle_restore_remaining_records" ["kind", "partition"],
        "Records that a restoring task has still to read, 0 when it runs.";
    TASK_PHASE: G, One, "settle_task_phase" ["kind", "partition", "phase"],
        "1 for the phase that the task is in.";
    WORKER_CONNECTED: G, One, "settle_worker_connected" ["worker"],
        "1 when the worker has its producer and the broker answers.";
    WORKER_ASSIGNED: G, One, "settle_worker_assigned" ["worker"],
        "1 when the group has given the worker its share of partitions.";
    WORKER_TURN_AGE: G, Seconds, "settle_worker_turn_age_seconds" ["worker"],
        "Time since the last turn of the worker's loop.";
    READY: G, One, "settle_ready" [],
        "1 when every check of /readyz passes.";
    SINK_CONNECTED: G, One, "settle_sink_connected" [],
        "1 when PostgreSQL answers.";
    SINK_LAG: G, Records, "settle_sink_lag_records" ["topic", "partition"],
        "Records between the position in the database and the stable end of the partition.";
    SINK_COMMITS: C, One, "settle_sink_commits_total" [],
        "Committed database transactions.";
    SINK_REWINDS: C, One, "settle_sink_rewinds_total" [],
        "Times that the positions in the database were not where this sink had left them.";
    SINK_UNREADABLE: C, Records, "settle_sink_unreadable_total" [],
        "Committed records that are no row and were passed over.";
    SINK_LOST: C, Records, "settle_sink_lost_total" [],
        "Source records that retention deleted before they were written to the database.";
    SINK_ROWS: C, One, "settle_sink_rows_total" ["table"],
        "Rows committed to PostgreSQL.";
    RULE_CALLS: C, One, "settle_rule_calls_total" ["result"],
        "Calls of the rule service by their result.";
    RULE_CALL_DURATION: H(RULE_CALL_SECONDS), Seconds, "settle_rule_call_duration_seconds" [],
        "Time that one call of the rule service took, whatever its result.";
    RULES_IN_FLIGHT: G, One, "settle_rules_in_flight" [],
        "Rule keys whose answer is being waited for.";
    RULES_OUTAGE: G, One, "settle_rules_outage" [],
        "1 while so many calls of the rule service fail that only probes are sent.";
    STATE_BYTES: G, Bytes, "settle_state_bytes" [],
        "Size of the files in the state directory.";
    STATE_FREE: G, Bytes, "settle_state_filesystem_free_bytes" [],
        "Space left for this process on the file system of the state directory.";
    STATE_TOTAL: G, Bytes, "settle_state_filesystem_size_bytes" [],
        "Size of the file system of the state directory.";
    HTTP_REQUESTS: C, One, "settle_http_requests_total" ["route", "code"],
        "Answered HTTP requests; a streamed answer counts when it begins.";
    BUILD: G, One, "settle_build_info" ["version"],
        "1, labelled with the version that runs.";
    PROCESS_CPU: C, Seconds, "process_cpu_seconds_total" [],
        "User and system CPU time of the process, in whole seconds.";
    PROCESS_RESIDENT: G, Bytes, "process_resident_memory_bytes" [],
        "Resident memory of the process.";
    PROCESS_VIRTUAL: G, Bytes, "process_virtual_memory_bytes" [],
        "Virtual memory of the process.";
    PROCESS_VIRTUAL_MAX: G, Bytes, "process_virtual_memory_max_bytes" [],
        "How much virtual memory the process may have, 0 when there is no limit.";
    PROCESS_THREADS: G, One, "process_threads" [],
        "Threads of the process.";
    PROCESS_OPEN_FDS: G, One, "process_open_fds" [],
        "Open file descriptors of the process.";
    PROCESS_MAX_FDS: G, One, "process_max_fds" [],
        "How many file descriptors the process may open, 0 when there is no limit.";
    PROCESS_START: G, Seconds, "process_start_time_seconds" [],
        "When the process started, seconds since the epoch.";
}

static RULE_CALLED: LazyLock<Histogram> = LazyLock::new(|| RULE_CALL_DURATION.histogram(&[]));
static ENDED_AGAIN: LazyLock<[Counter; 2]> =
    LazyLock::new(|| ["aborted", "committed"].map(|ended| HANGING.counter(&[ended])));
static RULE_IGNORED: LazyLock<Counter> = LazyLock::new(|| RULES_IGNORED.counter(&[]));

/// Makes the recorder of the process the one that all handles are resolved from, and the series
/// that belong to no worker exist.
pub fn install() {
    LazyLock::force(&RULE_CALLED);
    LazyLock::force(&RULE_IGNORED);
    LazyLock::force(&ENDED_AGAIN);
}

/// One call of the rule service has ended, whatever its result.
pub fn rule_called(took: Duration) {
    RULE_CALLED.record(took);
}

/// A transaction whose markers were lost was ended again.
pub fn transaction_ended_again(committed: bool) {
    ENDED_AGAIN[usize::from(committed)].increment(1);
}

/// One record of the rules topic was passed over.
pub fn rule_ignored() {
    RULE_IGNORED.increment(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for metric in ALL {
            let name = metric.name;
            assert!(name.starts_with("settle_") || name.starts_with("process_"));
            assert_eq!(
                name.ends_with("_total"),
                metric.kind == Kind::Counter,
                "{name}"
            );
            let base = name.trim_end_matches("_total");
            assert_eq!(
                base.ends_with("_seconds"),
                metric.unit == Unit::Seconds,
                "{name}"
            );
            assert_eq!(
                base.ends_with("_bytes"),
                metric.unit == Unit::Bytes,
                "{name}"
            );
            assert_eq!(ALL.iter().filter(|other| other.name == name).count(), 1);
        }
    }

    #[test]
    fn buckets_rise_and_no_bound_is_a_whole_number() {
        for metric in ALL {
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(bounds.is_sorted(), "{}", metric.name);
                assert!(
                    bounds.iter().all(|bound| bound.fract() != 0.0),
                    "{}",
                    metric.name
                );
            }
        }
    }
}
