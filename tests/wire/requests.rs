//! Each request of the service meets each fate once.

use std::time::Duration;

use chaos::line::LIMIT;
use chaos::proxy::{Api, Fate, Rule, Side};

use crate::one::One;

const OF_TRANSACTIONS: [Api; 5] = [
    Api::AddPartitionsToTxn,
    Api::Produce,
    Api::AddOffsetsToTxn,
    Api::TxnOffsetCommit,
    Api::EndTxn,
];

/// What an instance sends when it joins the group and takes its tasks up.
const OF_A_START: [Api; 6] = [
    Api::FindCoordinator,
    Api::InitProducerId,
    Api::JoinGroup,
    Api::SyncGroup,
    Api::Heartbeat,
    Api::OffsetFetch,
];

/// Longer than the client waits for an answer.
const LONG: Duration = Duration::from_millis(3500);

#[test]
fn no_request_of_a_transaction_does_harm_whatever_becomes_of_it() {
    let mut one = One::start("each");
    let fates = [
        Fate::Hold(Side::Closed),
        Fate::Hold(Side::Open),
        Fate::Delay(LONG),
        Fate::Duplicate,
        Fate::Drop(Side::Closed),
        Fate::Drop(Side::Reset),
        Fate::Drop(Side::Open),
        Fate::DropAnswer(Side::Closed),
        Fate::DropAnswer(Side::Reset),
        Fate::DropAnswer(Side::Open),
    ];
    for fate in fates {
        for api in OF_TRANSACTIONS {
            let armed = one.arm(api, fate);
            one.pay();
            armed.wait_caught(1, LIMIT).unwrap();
            armed.release();
        }
        one.pay();
        one.check_offset();
    }
    one.prove();
}

#[test]
fn no_request_of_a_start_does_harm_whatever_becomes_of_it() {
    let mut one = One::start("each-start");
    let fates = [
        Fate::Delay(LONG),
        Fate::Drop(Side::Closed),
        Fate::Drop(Side::Reset),
        Fate::DropAnswer(Side::Closed),
        Fate::DropAnswer(Side::Reset),
    ];
    for fate in fates {
        let armed = OF_A_START.map(|api| {
            let rule = Rule::new(api, &one.line.client(0), fate);
            one.line.proxy().arm(rule)
        });
        one.line.instances[0].restart().unwrap();
        one.pay();
        for rule in &armed {
            rule.wait_caught(1, LIMIT).unwrap();
        }
        one.check_offset();
    }
    one.prove();
}
