//! Many transactions, of which every other one has a request that arrives in a later one.

use chaos::cluster::instance::Instance;
use chaos::line::LIMIT;
use chaos::proxy::{Api, Armed, Fate, Rule, Side};

use crate::one::{One, are_refused};

const LATE: usize = 100;
const TRANSACTIONS: u64 = 200;

#[test]
fn two_hundred_transactions_with_a_hundred_late_requests_are_all_whole() {
    let mut one = One::start("run");
    let options = one.line.options(1).unwrap();
    one.line.instances.push(Instance::start(options).unwrap());
    one.line.wait_ready().unwrap();
    let any = format!("|{}-", one.line.names.application_id);
    // A request that is held is repeated at once, and the repetition is the next of its kind. When that is held, too, the
    // first one is released in its own transaction: it is not late.
    let ends = Rule::new(Api::EndTxn, &any, Fate::Hold(Side::Closed));
    let ends = ends.times(usize::MAX).every(5).release_before(&[
        (Api::Produce, 1),
        (Api::TxnOffsetCommit, 0),
        (Api::Produce, 0),
        (Api::AddOffsetsToTxn, 0),
        (Api::EndTxn, 1),
    ]);
    let offsets = Rule::new(Api::TxnOffsetCommit, &any, Fate::Hold(Side::Reset));
    // The first two to end a transaction may be those of the one that the offsets belong to.
    let offsets = offsets.times(usize::MAX).every(5).release_before(&[
        (Api::EndTxn, 2),
        (Api::TxnOffsetCommit, 1),
        (Api::EndTxn, 3),
    ]);
    let armed = [ends, offsets].map(|rule| one.line.proxy().arm(rule));
    let late = || {
        armed
            .iter()
            .flat_map(Armed::late_answers)
            .collect::<Vec<_>>()
    };
    one.send_until(|| late().len() >= LATE);
    let answers = late();
    // The last ones may arrive in their own transaction, where they do no harm.
    armed.iter().for_each(Armed::release);
    for rule in &armed {
        rule.wait_answered(LIMIT).unwrap();
    }
    one.prove();
    let committed = one.committed_transactions();
    eprintln!("{} late requests, {committed} transactions", answers.len());
    assert!(answers.len() >= LATE && committed >= TRANSACTIONS);
    assert!(are_refused(&answers), "{answers:?}");
}
