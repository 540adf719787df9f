//! One seed, one run: safety under trouble, then the world heals and the lag must reach zero.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use settle::broker::Topic;

use crate::cluster;
use crate::network::Shared;
use crate::oracle;
use crate::world::{Faults, World};

/// How long the trouble lasts at most, and how long all may take afterwards to come to rest.
const TROUBLE_SECONDS: std::ops::Range<u64> = 10..30;
const REST: Duration = Duration::from_secs(300);

/// What came of a seed.
pub struct Outcome {
    pub breach: Option<String>,
    pub history: String,
    pub troubles: BTreeMap<&'static str, u64>,
    pub commits: usize,
    pub calls: u64,
    /// Equal for two runs of one seed.
    pub fingerprint: (Duration, usize, u64),
}

/// Which trouble a seed brings: some kinds not at all, some often.
fn faults(dice: &mut Rng) -> Faults {
    let mut kind = |rare: f64, often: f64| match dice.u32(0..3) {
        0 => 0.0,
        1 => rare,
        _ => often,
    };
    Faults {
        lost_request: kind(0.002, 0.02),
        lost_answer: kind(0.002, 0.02),
        held: kind(0.004, 0.03),
        slow: kind(0.005, 0.03),
        moved: kind(0.0005, 0.004),
        crash: kind(0.0003, 0.001),
        freeze: kind(0.0003, 0.001),
        interleave: kind(0.01, 0.1),
        late_marker: kind(0.02, 0.3),
        shuffle: kind(0.2, 0.8),
        nemesis: kind(0.05, 0.3),
        jump: 0.0,
        repeat: 0.0,
        deaf: 0.0,
        broker: kind(0.01, 0.05),
        broker_in_transaction: kind(0.005, 0.02),
        broker_after_end: kind(0.01, 0.05),
        broker_in_repair: kind(0.05, 0.2),
    }
}

fn sizes(dice: &mut Rng) -> BTreeMap<Topic, i32> {
    let (source, bases) = (dice.i32(1..4), dice.i32(1..4));
    let size = |topic| match topic {
        Topic::Source | Topic::IngestChangelog => source,
        Topic::Exclusions => 2,
        Topic::DeadLetter => 1,
        _ => bases,
    };
    Topic::ALL.map(|topic| (topic, size(topic))).into()
}

/// Runs a seed with its state files below `directory`.
pub fn run(seed: u64, directory: &Path, keeps_history: bool) -> Outcome {
    let mut dice = Rng::with_seed(seed ^ 0x5e77_1e00);
    let sizes = sizes(&mut dice);
    let mut world = World::new(seed, &sizes, keeps_history);
    world.faults = faults(&mut dice);
    world.faults.jump = if seed.is_multiple_of(4) { 0.003 } else { 0.0 };
    world.faults.deaf = if seed % 5 == 1 { 0.002 } else { 0.0 };
    world.faults.repeat = if seed % 5 == 3 { 0.01 } else { 0.0 };
    world.feed.left = dice.u32(100..400);
    let window = if dice.bool() {
        Duration::from_secs(4)
    } else {
        Duration::from_secs(7 * 24 * 3600)
    };
    let trouble = Duration::from_secs(dice.u64(TROUBLE_SECONDS));
    let shared = Shared::new(world);
    for _ in 0..dice.u32(1..4) {
        cluster::add(&shared, directory, window);
    }
    if dice.u32(0..6) == 0 {
        cluster::add_twin(&shared, directory, window);
    }
    let result = through_trouble(&shared, trouble, window).and_then(|()| to_rest(&shared, window));
    let world = shared.world();
    let outcome = Outcome {
        breach: result.err(),
        history: world.history().to_owned(),
        troubles: world.troubles.clone(),
        commits: world.commits.len(),
        calls: world.calls,
        fingerprint: (world.now, world.commits.len(), world.dice.clone().u64(..)),
    };
    drop(world);
    // Workers hold the world, which holds them.
    let slots = std::mem::take(&mut *shared.slots.lock().expect("one thread"));
    drop(slots);
    outcome
}

pub fn go_on(shared: &Arc<Shared>) -> Result<(), String> {
    if !cluster::step_any(shared) {
        let mut world = shared.world();
        let next = world.next_event_at();
        world.advance_to(next);
    }
    cluster::breach(shared).map_or(Ok(()), Err)
}

fn through_trouble(
    shared: &Arc<Shared>,
    duration: Duration,
    window: Duration,
) -> Result<(), String> {
    let until = shared.world().now + duration;
    let mut look_at = Duration::ZERO;
    loop {
        go_on(shared)?;
        let now = shared.world().now;
        if now >= look_at || now >= until {
            look_at = now + Duration::from_secs(3);
            oracle::check(shared, window)?;
        }
        if now >= until {
            return Ok(());
        }
    }
}

pub fn to_rest(shared: &Arc<Shared>, window: Duration) -> Result<(), String> {
    let deadline = {
        let mut world = shared.world();
        world.faults = Faults::default();
        world.healed = true;
        let now = world.now;
        world.coordinator_gone_until = now;
        for process in &mut world.processes {
            process.cut_until = now;
        }
        world.note(|| "all is well again".to_owned());
        now + REST
    };
    let mut look_at = Duration::ZERO;
    loop {
        go_on(shared)?;
        let now = shared.world().now;
        if now < look_at || shared.world().feed.left > 0 && now < deadline {
            continue;
        }
        look_at = now + Duration::from_secs(1);
        let unfinished = oracle::check(shared, window)?.or_else(|| {
            let has_duel = shared.world().has_duel();
            has_duel.then(|| "two processes live with one identity".to_owned())
        });
        match unfinished {
            None => return Ok(()),
            Some(unfinished) if now >= deadline => {
                let group = shared.world().members();
                return Err(format!("no rest after {REST:?}: {unfinished}; {group}"));
            }
            Some(_) => {}
        }
    }
}
