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

const SETTLEMENTS: Partition = Partition::new(Topic::Settlements, 0);

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
fn run_up_to_the_last(
    parent: &Path,
    before_it: impl FnOnce(&mut World),
) -> (Arc<Shared>, usize, usize) {
    let mut world = World::new(1, &Topic::ALL.map(|topic| (topic, 1)).into(), true);
    for merchant in ["first", "other"] {
        // Known from the start, so that nothing waits for the service.
        world.publish_rule_of(format!("{merchant}/2025-05-26/PAYMENT/CARD"));
    }
    let shared = Shared::new(world);
    cluster::add(&shared, parent, WINDOW);
    send(&shared, 0..1);
    let before = until_settled_past(&shared, 0);
    before_it(&mut shared.world());
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
    let (shared, before, all) = run_up_to_the_last(parent.path(), |_| {});
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
    let (shared, before, all) = run_up_to_the_last(parent.path(), |_| {});
    shared.world().undo(&transactional_id(0));
    shared.world().processes[0].breaks += 1;
    assert_eq!(settled(&shared), before);
    send(&shared, PAYMENTS..PAYMENTS + 1);
    until_settled_past(&shared, before);
    prove(&shared, all);
}

/// A transaction of another application with one record, open for an hour.
fn open_for_long(world: &mut World) {
    let holder = world.initialise("another application", Duration::from_secs(3600));
    let holder = holder.expect("nobody has the id");
    world.add(&holder, &[SETTLEMENTS]).expect("it begins");
    let record = Payload {
        key: None,
        value: None,
        headers: Vec::new(),
    };
    let written = world.produce(&holder, SETTLEMENTS, 1, &[record]);
    written.expect("it is open");
}

#[test]
fn what_cannot_be_told_ends_the_process_with_what_a_person_must_run() {
    let parent = crate::directory();
    let (shared, _, _) = run_up_to_the_last(parent.path(), open_for_long);
    {
        let mut world = shared.world();
        let id = transactional_id(0);
        // Committed where the other one hides it.
        world.mark(&id, Some(SETTLEMENTS));
        world.forget_markers(&id);
        world.processes[0].breaks += 1;
    }
    let breach = loop {
        if let Err(breach) = go_on(&shared) {
            break breach;
        }
    };
    for part in [
        "PromiseBroken",
        "Settlements/0: an undecided transaction of another writer has stood at offset",
        "kafka-transactions.sh abort --topic Settlements --partition 0 --start-offset",
    ] {
        assert!(breach.contains(part), "{breach}");
    }
    let slots = std::mem::take(&mut *shared.slots.lock().expect("one thread"));
    drop(slots);
}
