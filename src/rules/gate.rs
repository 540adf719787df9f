//! How many questions may be on the wire. Healthy: up to the limit. During an outage: one probe at
//! a time for keys that were never asked and one for keys that failed, at most about one a second
//! each, until one is answered; then everybody at once. A key that the service told to wait asks for
//! no probe before its time; the others are probed meanwhile.
//!
//! The gate closes when several *different* keys failed with no definite answer in between, so a
//! single key that the service cannot answer slows nobody down but itself.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use crate::domain::rule::RuleKey;

/// Different keys that must fail in a row.
const OUTAGE_KEYS: usize = 8;
/// Pause between probes: doubles from the shortest to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a question's outcome changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Closed,
    Opened,
}

/// Keys that were never asked do not queue behind those that the service could not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    Fresh,
    Failed,
}

#[derive(Debug)]
enum State {
    /// The different keys that failed since the last definite answer.
    Open {
        failed: Vec<RuleKey>,
    },
    Closed {
        pause: Duration,
        next: Instant,
    },
}

/// One question that ended without a definite answer.
pub(super) struct Miss<'a> {
    pub(super) key: &'a RuleKey,
    pub(super) probe: bool,
    /// Uniform in 0..1, so that several instances do not probe in step.
    pub(super) dice: f64,
}

pub(super) struct Gate {
    state: Mutex<State>,
    wire: Semaphore,
    fresh_probe: Semaphore,
    failed_probe: Semaphore,
    openings: watch::Sender<u64>,
}

/// Permission for one question. Goes back when dropped, also in the middle of a question.
pub(super) struct Pass<'a> {
    _wire: SemaphorePermit<'a>,
    probe: Option<SemaphorePermit<'a>>,
}

impl Pass<'_> {
    pub(super) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

impl Gate {
    pub(super) fn new(max_concurrent: usize) -> Self {
        Self {
            state: Mutex::new(State::Open { failed: Vec::new() }),
            wire: Semaphore::new(max_concurrent.min(Semaphore::MAX_PERMITS)),
            fresh_probe: Semaphore::new(1),
            failed_probe: Semaphore::new(1),
            openings: watch::Sender::new(0),
        }
    }

    /// Waits until a question may go.
    pub(super) async fn enter(&self, lane: Lane) -> Pass<'_> {
        loop {
            let mut openings = self.openings.subscribe();
            let pass = if self.next_probe().is_none() {
                Pass {
                    _wire: acquire(&self.wire).await,
                    probe: None,
                }
            } else {
                tokio::select! {
                    biased;
                    _ = openings.changed() => continue,
                    pass = self.probe(lane) => pass,
                }
            };
            if pass.is_probe() || self.next_probe().is_none() {
                return pass;
            }
        }
    }

    /// A receiver that sees every opening from now on.
    pub(super) fn openings(&self) -> watch::Receiver<u64> {
        self.openings.subscribe()
    }

    pub(super) fn answered(&self) -> Change {
        let change = self.state().answered();
        if change == Change::Opened {
            self.openings.send_modify(|count| *count += 1);
        }
        change
    }

    pub(super) fn missed(&self, miss: &Miss<'_>) -> Change {
        self.state().missed(miss, Instant::now())
    }

    async fn probe(&self, lane: Lane) -> Pass<'_> {
        let turn = acquire(match lane {
            Lane::Fresh => &self.fresh_probe,
            Lane::Failed => &self.failed_probe,
        })
        .await;
        while let Some(next) = self.next_probe().filter(|next| *next > Instant::now()) {
            sleep_until(next).await;
        }
        Pass {
            _wire: acquire(&self.wire).await,
            probe: Some(turn),
        }
    }

    /// When the next probe may go; none while the gate is open.
    fn next_probe(&self) -> Option<Instant> {
        match &*self.state() {
            State::Open { .. } => None,
            State::Closed { next, .. } => Some(*next),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while it is held")
    }
}

async fn acquire(semaphore: &Semaphore) -> SemaphorePermit<'_> {
    semaphore.acquire().await.expect("it is never closed")
}

impl State {
    fn answered(&mut self) -> Change {
        match self {
            Self::Open { failed } => {
                failed.clear();
                Change::None
            }
            Self::Closed { .. } => {
                *self = Self::Open { failed: Vec::new() };
                Change::Opened
            }
        }
    }

    fn missed(&mut self, miss: &Miss<'_>, now: Instant) -> Change {
        match self {
            Self::Open { failed } => {
                if !failed.contains(miss.key) {
                    failed.push(miss.key.clone());
                }
                if failed.len() < OUTAGE_KEYS {
                    return Change::None;
                }
                *self = Self::Closed {
                    pause: PAUSE_MIN,
                    next: now + jittered(PAUSE_MIN, miss.dice),
                };
                Change::Closed
            }
            // Questions from before the outage say nothing new.
            Self::Closed { .. } if !miss.probe => Change::None,
            Self::Closed { pause, next } => {
                *pause = pause.saturating_mul(2).min(PAUSE_MAX);
                *next = (*next).max(now + jittered(*pause, miss.dice));
                Change::None
            }
        }
    }
}

fn jittered(pause: Duration, dice: f64) -> Duration {
    pause.mul_f64(0.5 + dice / 2.0)
}

#[cfg(test)]
mod tests {
    use super::{Change, Gate, Lane, Miss, OUTAGE_KEYS, PAUSE_MAX, PAUSE_MIN, State};
    use crate::domain::rule::RuleKey;
    use std::future::Future as _;
    use std::task::{Context, Waker};
    use tokio::time::Instant;

    fn key(n: usize) -> RuleKey {
        RuleKey::parse(&format!("m-{n}/2025-05-26/PAYMENT/MONEY")).unwrap()
    }

    fn miss(key: &RuleKey) -> Miss<'_> {
        Miss {
            key,
            probe: false,
            dice: 1.0,
        }
    }

    fn open() -> State {
        State::Open { failed: Vec::new() }
    }

    fn closed(now: Instant) -> State {
        let mut state = open();
        let changes: Vec<_> = (0..OUTAGE_KEYS)
            .map(|n| state.missed(&miss(&key(n)), now))
            .collect();
        let (last, before) = changes.split_last().unwrap();
        assert!(before.iter().all(|change| *change == Change::None));
        assert_eq!(*last, Change::Closed);
        state
    }

    fn next(state: &State) -> Instant {
        let State::Closed { next, .. } = state else {
            panic!("{state:?}")
        };
        *next
    }

    #[test]
    fn one_key_that_always_fails_never_closes_the_gate() {
        let mut state = open();
        let poison = key(0);
        let all_quiet = (0..1000).all(|_| {
            let change = state.missed(&miss(&poison), Instant::now());
            change == Change::None
        });
        assert!(all_quiet);
    }

    #[test]
    fn a_definite_answer_between_failures_keeps_the_gate_open() {
        let mut state = open();
        for n in 0..100 {
            assert_eq!(state.missed(&miss(&key(n)), Instant::now()), Change::None);
            if n % (OUTAGE_KEYS - 1) == 0 {
                assert_eq!(state.answered(), Change::None);
            }
        }
    }

    fn probe(key: &RuleKey) -> Miss<'_> {
        Miss {
            probe: true,
            ..miss(key)
        }
    }

    #[test]
    fn probes_slow_down_to_the_longest_pause_and_one_answer_opens() {
        let now = Instant::now();
        let mut state = closed(now);
        assert_eq!(next(&state), now + PAUSE_MIN);
        for _ in 0..10 {
            assert_eq!(state.missed(&probe(&key(1)), now), Change::None);
        }
        assert_eq!(next(&state), now + PAUSE_MAX);
        assert_eq!(state.answered(), Change::Opened);
        assert_eq!(state.answered(), Change::None);
    }

    #[test]
    fn late_failures_do_not_slow_probes() {
        let now = Instant::now();
        let mut state = closed(now);
        for n in 0..64 {
            state.missed(&miss(&key(n)), now);
        }
        assert_eq!(next(&state), now + PAUSE_MIN);
    }

    #[tokio::test]
    async fn a_closed_gate_lets_one_probe_of_each_lane_through_and_opens_for_all() {
        let gate = Gate::new(64);
        for n in 0..OUTAGE_KEYS {
            gate.missed(&miss(&key(n)));
        }
        let first = gate.enter(Lane::Failed).await;
        let second = gate.enter(Lane::Fresh).await;
        assert!(first.is_probe() && second.is_probe());
        let mut rest: Vec<_> = (0..1000)
            .map(|_| Box::pin(gate.enter(Lane::Failed)))
            .collect();
        for waiting in &mut rest {
            let mut context = Context::from_waker(Waker::noop());
            assert!(waiting.as_mut().poll(&mut context).is_pending());
        }
        assert_eq!(gate.answered(), Change::Opened);
        drop((first, second));
        for waiting in rest {
            assert!(!waiting.await.is_probe());
        }
    }

    #[tokio::test]
    async fn an_abandoned_probe_gives_its_turn_back() {
        let gate = Gate::new(1);
        for n in 0..OUTAGE_KEYS {
            gate.missed(&miss(&key(n)));
        }
        let abandoned = gate.enter(Lane::Failed).await;
        drop(abandoned);
        assert!(gate.enter(Lane::Failed).await.is_probe());
    }
}
