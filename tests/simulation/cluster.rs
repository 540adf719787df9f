//! Processes: each runs one worker of the real engine, dies, and is started again.

use std::any::Any;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

use settle::broker::{Names, Topic};
use settle::clock;
use settle::domain::classify::Exclude;
use settle::engine::background::Background;
use settle::engine::failure::{Cause, Stopped};
use settle::engine::fixed::{Fixed, Partitions};
use settle::engine::worker::{Options, Worker};
use settle::state::directory::Directory;
use settle::state::ids::Window;
use settle::state::view::Views;

use crate::network::{Crash, Shared, Sim};
use crate::payments::{EXCLUDED_MERCHANT, TEST_MERCHANT};
use crate::rules::Desk;
use crate::world::{Event, transactional_id};

pub const APPLICATION: &str = "settle";
pub const DEFAULT_PAYOUT_DAYS: u32 = 2;

/// Most records of one transaction.
const BATCH: usize = 40;

/// A process, running or not.
#[derive(Default)]
pub struct Slot {
    worker: Option<Worker<Sim>>,
    pub views: Views,
    directory: PathBuf,
    window: Duration,
    max_batch_records: usize,
    /// Why the run has failed.
    pub breach: Option<String>,
}

fn slots(shared: &Shared) -> MutexGuard<'_, Vec<Slot>> {
    shared.slots.lock().expect("one thread")
}

/// Adds a process that starts at once.
pub fn add(shared: &Arc<Shared>, directory: &Path, window: Duration) {
    let process = push(shared, directory, window);
    let mut world = shared.world();
    world.processes[process].identity = process;
    world.starting.insert(process);
}

/// Adds a process that starts later, with the identity of the first by mistake.
pub fn add_twin(shared: &Arc<Shared>, directory: &Path, window: Duration) {
    let process = push(shared, directory, window);
    let mut world = shared.world();
    let delay = world.millis(1000..15_000);
    world.schedule(delay, Event::Start(process));
    world.twin = Some(process);
}

fn push(shared: &Arc<Shared>, directory: &Path, window: Duration) -> usize {
    let mut slots = slots(shared);
    let process = slots.len();
    slots.push(Slot {
        directory: directory.join(process.to_string()),
        window,
        max_batch_records: BATCH,
        ..Slot::default()
    });
    let mut world = shared.world();
    world.processes.push(crate::world::Process::default());
    process
}

/// From its next start on, no transaction of the process has more records.
pub fn set_batch(shared: &Shared, process: usize, max_batch_records: usize) {
    slots(shared)[process].max_batch_records = max_batch_records;
}

/// Where the process has its state.
pub fn directory(shared: &Shared, process: usize) -> PathBuf {
    slots(shared)[process].directory.clone()
}

/// The process ends at once.
pub fn kill(shared: &Arc<Shared>, process: usize) {
    drop(slots(shared)[process].worker.take());
    gone(shared, process);
}

/// What went wrong so far.
pub fn breach(shared: &Shared) -> Option<String> {
    slots(shared).iter().find_map(|slot| slot.breach.clone())
}

/// Gives one process a turn, whichever; `false` when none can go on.
pub fn step_any(shared: &Arc<Shared>) -> bool {
    start_due(shared);
    if let Some(aside) = shared.take_aside()
        && let (process, Err(payload)) = (aside.process, shared.do_aside(aside))
    {
        // The worker dies with it, at its own next request.
        shared.world().processes[process].doomed = true;
        if !payload.is::<Crash>() {
            slots(shared)[process].breach = Some(told(process, payload.as_ref()));
        }
    }
    let ready: Vec<usize> = slots(shared)
        .iter()
        .enumerate()
        .filter(|(_, slot)| slot.worker.is_some())
        .map(|(process, _)| process)
        .collect();
    if ready.is_empty() {
        return false;
    }
    let chosen = shared.world().dice.usize(0..ready.len());
    step(shared, ready[chosen]);
    true
}

fn start_due(shared: &Arc<Shared>) {
    let due = std::mem::take(&mut shared.world().starting);
    for process in due {
        let is_idle = {
            let world = shared.world();
            !world.processes[process].retired && !world.processes[process].running
        };
        if is_idle {
            start(shared, process);
        }
    }
}

fn start(shared: &Arc<Shared>, process: usize) {
    let sim = Sim {
        shared: Arc::clone(shared),
        process,
    };
    shared.world().processes[process].running = true;
    shared.world().note(|| format!("process {process} starts"));
    let (directory, window, max_batch_records, views) = {
        let mut slots = slots(shared);
        let slot = &mut slots[process];
        slot.views = Views::default();
        (
            slot.directory.clone(),
            slot.window,
            slot.max_batch_records,
            slot.views.clone(),
        )
    };
    let directory = Directory::open(&directory).expect("a writable directory in memory");
    let members = Arc::clone(&shared.world().processes[process].members);
    let options = Options {
        number: 0,
        port: sim.clone(),
        fixed: fixed(&sim),
        directory: Arc::new(directory),
        window: Window::new(window),
        accept_shorter_window: false,
        commit_interval: Duration::from_millis(100),
        max_batch_records,
        desk: Box::new(Desk::new(sim)),
        background: Background::default(),
        views,
        status: Arc::default(),
        ends: Arc::default(),
        members,
        stop: Arc::new(AtomicBool::new(false)),
    };
    match Worker::new(options) {
        Ok(worker) => slots(shared)[process].worker = Some(worker),
        Err(stopped) => ended(shared, process, &stopped),
    }
}

fn fixed(sim: &Sim) -> Fixed {
    let world = sim.world();
    let partitions = Partitions {
        source: world.partitions(Topic::Source),
        bases: world.partitions(Topic::Bases),
        exclusions: world.partitions(Topic::Exclusions),
        dead_letter: world.partitions(Topic::DeadLetter),
    };
    Fixed {
        application_id: APPLICATION.to_owned(),
        transactional_id: transactional_id(world.processes[sim.process].identity),
        names: Names::new(Topic::ALL.map(|topic| format!("{topic:?}"))),
        partitions,
        written: partitions.written().into(),
        exclude: Exclude::new(&[EXCLUDED_MERCHANT.to_owned()], &[TEST_MERCHANT.to_owned()]),
        default_payout_days: DEFAULT_PAYOUT_DAYS,
        absent_ttl: Duration::from_secs(2),
        dead_letter_bytes_max: 1 << 20,
        cache_per_task: 1 << 20,
        ending: Arc::default(),
        wall_now: clock::wall_millis(),
        now: clock::now(),
    }
}

/// Gives one process a turn, if it runs.
pub fn step(shared: &Arc<Shared>, process: usize) {
    let Some(mut worker) = slots(shared)[process].worker.take() else {
        return;
    };
    let leaving = {
        let world = shared.world();
        world.processes[process].leaving && !world.is_mending(process)
    };
    let run = move || {
        if leaving {
            return (worker.shut_down(), None);
        }
        match worker.step() {
            Ok(()) => (Ok(()), Some(worker)),
            Err(stopped) => (Err(stopped), None),
        }
    };
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok((Ok(()), None)) => gone(shared, process),
        Ok((Ok(()), worker)) => slots(shared)[process].worker = worker,
        Ok((Err(stopped), _)) => ended(shared, process, &stopped),
        Err(payload) if payload.is::<Crash>() => {
            gone(shared, process);
            lose_state(shared, process);
        }
        Err(payload) => {
            gone(shared, process);
            slots(shared)[process].breach = Some(told(process, payload.as_ref()));
        }
    }
}

/// What a panic says.
fn told(process: usize, payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
    format!("process {process} panicked: {}", text.unwrap_or_default())
}

/// The process stopped by itself. A supervisor starts it again, unless a person must act: nothing
/// here gives a reason for that, but a second process with its identity.
fn ended(shared: &Arc<Shared>, process: usize, stopped: &Stopped) {
    gone(shared, process);
    let mut world = shared.world();
    let is_duel = stopped.message.contains("kafka.instance_id");
    let kind = match (is_duel, world.is_twin(process)) {
        (true, true) => "duel",
        (true, false) => "duel with itself",
        _ => "stopped",
    };
    world.trouble(kind, || {
        format!("process {process}: {:?} {stopped}", stopped.cause)
    });
    // A person takes the second one away, and starts the first again if both have stopped.
    if is_duel && world.is_twin(process) {
        world.processes[process].retired = true;
        if world.processes[0].retired && world.twin_is_retired() {
            world.trouble("both of two stopped", String::new);
            world.processes[0].retired = false;
            world.schedule(Duration::from_secs(1), Event::Start(0));
        }
    }
    drop(world);
    if stopped.cause != Cause::Failed || kind == "duel with itself" {
        let message = format!("process {process} stopped: {:?} {stopped}", stopped.cause);
        slots(shared)[process].breach = Some(message);
    }
}

fn gone(shared: &Arc<Shared>, process: usize) {
    // A view keeps its file open.
    slots(shared)[process].views = Views::default();
    drop(shared.take_asides_of(process));
    let mut world = shared.world();
    world.processes[process] = crate::world::Process {
        identity: world.processes[process].identity,
        retired: world.processes[process].retired,
        members: Arc::default(),
        cut_until: world.processes[process].cut_until,
        ..crate::world::Process::default()
    };
    let delay = match world.dice.u32(0..6) {
        0 => world.millis(2000..9000),
        1 | 2 => world.millis(200..2000),
        _ => world.millis(5..200),
    };
    world.schedule(delay, Event::Start(process));
}

/// Now and then a crash takes files with it.
fn lose_state(shared: &Arc<Shared>, process: usize) {
    let directory = slots(shared)[process].directory.clone();
    let mut world = shared.world();
    match world.dice.u32(0..8) {
        0 => {
            world.trouble("state lost", || format!("process {process}"));
            fs::remove_dir_all(&directory).expect("remove files in memory");
        }
        1 => {
            let mut files: Vec<PathBuf> = fs::read_dir(&directory)
                .expect("list files in memory")
                .map(|entry| entry.expect("list files in memory").path())
                .filter(|path| path.extension().is_some_and(|is| is == "redb"))
                .collect();
            files.sort();
            if !files.is_empty() {
                let chosen = world.dice.usize(0..files.len());
                world.trouble("state damaged", || format!("{}", files[chosen].display()));
                fs::write(&files[chosen], "not a database").expect("write a file in memory");
            }
        }
        _ => {}
    }
}
