//! The markers of a committed transaction are all lost, and it is undone by somebody else than its writer, whose state
//! holds it.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use settle::broker::{Partition, Topic};

use crate::cluster;
use crate::log::Payload;
use crate::network::Shared;
use crate::run::{go_on, to_rest};
use crate::world::{World, transactional_id};

const WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);
const PAYMENTS: usize = 20;
/// So many of them are settled again before the state comes back.
const PART: usize = 5;

/// A payment; those of the first part and the others have a total each.
fn payment(number: usize) -> Payload {
    let merchant = if number <= PART { "first" } else { "other" };
    let value = format!(
        "{{\"channel\":\"ONLINE\",\"action\":\"PAYMENT\",\"data\":{{\"paymentType\":\"ONLINE\",\"amount\":700,\
         \"merchantNumber\":\"{merchant}\",\"paymentDate\":\"2025-05-26T14:23\",\
         \"paymentActionType\":\"PAYMENT\",\"paymentMethodType\":\"CARD\"}}}}"
    );
    Payload {
        key: Some(format!("payment-{number}").into_bytes()),
        value: Some(value.into_bytes()),
        headers: Vec::new(),
    }
}

/// Up to where the coordinator has it that bases are settled.
fn settled(shared: &Shared) -> usize {
    let offsets = shared.world().decided_offsets();
    let next = offsets.get(&Partition::new(Topic::Bases, 0));
    next.map_or(0, |next| {
        usize::try_from(*next).expect("no offset is negative")
    })
}

fn until_settled_past(shared: &Arc<Shared>, before: usize) -> usize {
    until(shared, || settled(shared) > before);
    settled(shared)
}

fn until(shared: &Arc<Shared>, holds: impl Fn() -> bool) {
    while !holds() {
        go_on(shared).expect("nothing goes wrong meanwhile");
    }
}

fn send(shared: &Shared, numbers: Range<usize>) {
    for number in numbers {
        let at = Partition::new(Topic::Source, 0);
        shared.world().append(at, payment(number));
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a writable directory");
    for entry in fs::read_dir(from).expect("list files in memory") {
        let entry = entry.expect("list files in memory");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copy files in memory");
    }
}

/// One process, whose last transaction has settled all but the first payment and has no marker yet; up to where bases
/// were settled before it, and are with it.
fn run_up_to_the_last(parent: &Path) -> (Arc<Shared>, usize, usize) {
    let mut world = World::new(1, &Topic::ALL.map(|topic| (topic, 1)).into(), true);
    for merchant in ["first", "other"] {
        // Known from the start, so that nothing waits for the service.
        world.publish_rule_of(format!("{merchant}/2025-05-26/PAYMENT/CARD"));
    }
    let shared = Shared::new(world);
    cluster::add(&shared, parent, WINDOW);
    send(&shared, 0..1);
    let before = until_settled_past(&shared, 0);
    // Slow enough that all this is over before any marker is written.
    shared.world().faults.late_marker = 1.0;
    send(&shared, 1..PAYMENTS);
    let all = until_settled_past(&shared, before);
    assert!(all >= PAYMENTS, "all of them in one transaction");
    (shared, before, all)
}

/// Demands that every promise holds and that bases are settled up to here.
fn prove(shared: &Arc<Shared>, all: usize) {
    to_rest(shared, WINDOW).expect("every promise holds, and the lag reaches zero");
    assert!(settled(shared) >= all);
    // Workers hold the world, which holds them.
    let slots = std::mem::take(&mut *shared.slots.lock().expect("one thread"));
    drop(slots);
}

#[test]
fn a_state_with_an_undone_transaction_is_not_trusted_because_a_later_one_is_committed() {
    let parent = crate::directory();
    let (shared, before, all) = run_up_to_the_last(parent.path());
    shared.world().forget_markers(&transactional_id(0));
    shared.world().processes[0].leaving = true;
    until(&shared, || !shared.world().processes[0].running);
    let directory = cluster::directory(&shared, 0);
    let holds_all = parent.path().join("holds all");
    copy(&directory, &holds_all);
    fs::remove_dir_all(&directory).expect("remove files in memory");
    assert_eq!(settled(&shared), before);

    cluster::set_batch(&shared, 0, PART);
    let part = until_settled_past(&shared, before);
    assert!(part < all, "only a part of them");
    cluster::kill(&shared, 0);
    fs::remove_dir_all(&directory).expect("remove files in memory");
    copy(&holds_all, &directory);
    prove(&shared, all);
}

#[test]
fn a_running_task_hears_that_its_last_transaction_was_undone() {
    let parent = crate::directory();
    let (shared, before, all) = run_up_to_the_last(parent.path());
    shared.world().undo(&transactional_id(0));
    shared.world().processes[0].breaks += 1;
    assert_eq!(settled(&shared), before);
    send(&shared, PAYMENTS..PAYMENTS + 1);
    until_settled_past(&shared, before);
    prove(&shared, all);
}
