//! A day of everything comes out as `docs/contract.md` says.

use chaos::oracle::ledger::Kind;
use chaos::workload::send::{self, SendOptions, Transactions};

use crate::line::{Line, count, day};

const PAYMENTS: u64 = 6000;

const REASONS: [&str; 14] = [
    "FINISH",
    "NO_DATA",
    "DUPLICATE",
    "DUPLICATE_CONFLICT",
    "TEST_PAYMENT",
    "NON_SETTLEMENT_MERCHANT",
    "NETWORK_CANCEL",
    "UNCONFIRMED",
    "MISSING_KEY",
    "NOT_UTF8",
    "NOT_JSON",
    "MISSING_FIELD",
    "INVALID_VALUE",
    "AMOUNT_OVERFLOW",
];

/// One half comes plainly, the other in transactions of which some are aborted and sent again.
fn a_day_with_everything(instances: usize) {
    let mut line = Line::new("day").with_database();
    for index in 0..instances {
        let options = line.options(index).set("pipeline.workers", 2);
        line.launch(options);
    }
    line.wait_ready();
    let mut messages = day(11, PAYMENTS);
    line.send(messages.by_ref().take(3000));
    let transactional = SendOptions {
        transactions: Some(Transactions {
            id: format!("{}-source", line.names.application_id),
            size: 150,
            abort_every: 3,
        }),
        ..line.sending()
    };
    let sent = send::send(&transactional, messages, |_| true).unwrap();
    assert!(sent.aborted_transactions > 3);

    let proof = line.prove();
    for reason in REASONS {
        assert!(count(&proof, reason) > 0, "no {reason}: {:?}", proof.tally);
    }
    let outcomes: u64 = proof.tally.values().sum();
    assert_eq!(outcomes, proof.sources);
    for kind in [Kind::Settlement, Kind::Exclusion, Kind::DeadLetter] {
        assert!(proof.tally.keys().any(|(found, _)| *found == kind));
    }
    for index in 0..instances {
        line.terminate(index);
    }
}

#[test]
fn one_instance_with_two_workers_gives_every_record_of_a_day_its_one_outcome() {
    a_day_with_everything(1);
}

#[test]
fn two_instances_with_two_workers_give_every_record_of_a_day_its_one_outcome() {
    a_day_with_everything(2);
}
