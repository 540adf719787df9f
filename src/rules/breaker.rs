//! The circuit breaker: how many questions may be on the wire. Closed, up to the limit. Open, which
//! is an outage: one probe at a time for keys that were never asked and one for keys that failed,
//! at most about one a second each, until one is answered; then everybody at once. A key that the
//! service told to wait asks for no probe before its time; the others are probed meanwhile.
//!
//! It opens when several *different* keys failed with no definite answer in between, so a single
//! key that the service cannot answer slows nobody down but itself.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use crate::domain::rule::RuleKey;
use crate::lock::lock;

/// Different keys that must fail in a row.
const OUTAGE_KEYS: usize = 8;
/// Pause between probes: doubles from the shortest to the longest.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What a question's outcome changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Opened,
    Closed,
}

/// Keys that were never asked do not queue behind those that the service could not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attempt {
    First,
    Repeated,
}

#[derive(Debug)]
enum State {
    /// The different keys that failed since the last definite answer.
    Closed {
        failed: Vec<RuleKey>,
    },
    Open {
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

pub(super) struct CircuitBreaker {
    state: Mutex<State>,
    wire: Semaphore,
    first_probe: Semaphore,
    repeated_probe: Semaphore,
    closings: watch::Sender<u64>,
}

/// Permission for one question. Goes back when dropped, also in the middle of a question.
pub(super) struct Permit<'a> {
    _wire: SemaphorePermit<'a>,
    probe: Option<SemaphorePermit<'a>>,
}

impl Permit<'_> {
    pub(super) fn is_probe(&self) -> bool {
        self.probe.is_some()
    }
}

impl CircuitBreaker {
    pub(super) fn new(max_concurrent: usize) -> Self {
        Self {
            state: Mutex::new(State::Closed { failed: Vec::new() }),
            wire: Semaphore::new(max_concurrent.min(Semaphore::MAX_PERMITS)),
            first_probe: Semaphore::new(1),
            repeated_probe: Semaphore::new(1),
            closings: watch::Sender::new(0),
        }
    }

    /// Waits until a question may go.
    pub(super) async fn permit(&self, attempt: Attempt) -> Permit<'_> {
        loop {
            let mut closings = self.closings.subscribe();
            let permit = if self.next_probe().is_none() {
                Permit {
                    _wire: acquire(&self.wire).await,
                    probe: None,
                }
            } else {
                tokio::select! {
                    biased;
                    _ = closings.changed() => continue,
                    permit = self.probe(attempt) => permit,
                }
            };
            if permit.is_probe() || self.next_probe().is_none() {
                return permit;
            }
        }
    }

    /// A receiver that sees the end of every outage from now on.
    pub(super) fn closings(&self) -> watch::Receiver<u64> {
        self.closings.subscribe()
    }

    pub(super) fn answered(&self) -> Change {
        let change = self.state().answered();
        if change == Change::Closed {
            self.closings.send_modify(|count| *count += 1);
        }
        change
    }

    pub(super) fn missed(&self, miss: &Miss<'_>) -> Change {
        self.state().missed(miss, Instant::now())
    }

    async fn probe(&self, attempt: Attempt) -> Permit<'_> {
        let turn = acquire(match attempt {
            Attempt::First => &self.first_probe,
            Attempt::Repeated => &self.repeated_probe,
        })
        .await;
        while let Some(next) = self.next_probe().filter(|next| *next > Instant::now()) {
            sleep_until(next).await;
        }
        Permit {
            _wire: acquire(&self.wire).await,
            probe: Some(turn),
        }
    }

    /// When the next probe may go; none while the breaker is closed.
    fn next_probe(&self) -> Option<Instant> {
        match &*self.state() {
            State::Closed { .. } => None,
            State::Open { next, .. } => Some(*next),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

async fn acquire(semaphore: &Semaphore) -> SemaphorePermit<'_> {
    semaphore.acquire().await.expect("it is never closed")
}

impl State {
    fn answered(&mut self) -> Change {
        match self {
            Self::Closed { failed } => {
                failed.clear();
                Change::None
            }
            Self::Open { .. } => {
                *self = Self::Closed { failed: Vec::new() };
                Change::Closed
            }
        }
    }

    fn missed(&mut self, miss: &Miss<'_>, now: Instant) -> Change {
        match self {
            Self::Closed { failed } => {
                if !failed.contains(miss.key) {
                    failed.push(miss.key.clone());
                }
                if failed.len() < OUTAGE_KEYS {
                    return Change::None;
                }
                *self = Self::Open {
                    pause: PAUSE_MIN,
                    next: now + jittered(PAUSE_MIN, miss.dice),
                };
                Change::Opened
            }
            // Questions from before the outage say nothing new.
            Self::Open { .. } if !miss.probe => Change::None,
            Self::Open { pause, next } => {
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
    use super::{Attempt, Change, CircuitBreaker, Miss, OUTAGE_KEYS, PAUSE_MAX, PAUSE_MIN, State};
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

    fn closed() -> State {
        State::Closed { failed: Vec::new() }
    }

    fn opened(now: Instant) -> State {
        let mut state = closed();
        let changes: Vec<_> = (0..OUTAGE_KEYS)
            .map(|n| state.missed(&miss(&key(n)), now))
            .collect();
        let (last, before) = changes.split_last().unwrap();
        assert!(before.iter().all(|change| *change == Change::None));
        assert_eq!(*last, Change::Opened);
        state
    }

    fn next(state: &State) -> Instant {
        let State::Open { next, .. } = state else {
            panic!("{state:?}")
        };
        *next
    }

    #[test]
    fn one_key_that_always_fails_never_opens_the_breaker() {
        let mut state = closed();
        let poison = key(0);
        let all_quiet = (0..1000).all(|_| {
            let change = state.missed(&miss(&poison), Instant::now());
            change == Change::None
        });
        assert!(all_quiet);
    }

    #[test]
    fn a_definite_answer_between_failures_keeps_the_breaker_closed() {
        let mut state = closed();
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
    fn probes_slow_down_to_the_longest_pause_and_one_answer_closes() {
        let now = Instant::now();
        let mut state = opened(now);
        assert_eq!(next(&state), now + PAUSE_MIN);
        for _ in 0..10 {
            assert_eq!(state.missed(&probe(&key(1)), now), Change::None);
        }
        assert_eq!(next(&state), now + PAUSE_MAX);
        assert_eq!(state.answered(), Change::Closed);
        assert_eq!(state.answered(), Change::None);
    }

    #[test]
    fn late_failures_do_not_slow_probes() {
        let now = Instant::now();
        let mut state = opened(now);
        for n in 0..64 {
            state.missed(&miss(&key(n)), now);
        }
        assert_eq!(next(&state), now + PAUSE_MIN);
    }

    #[tokio::test]
    async fn an_open_breaker_lets_one_probe_of_each_kind_through_and_closes_for_all() {
        let breaker = CircuitBreaker::new(64);
        for n in 0..OUTAGE_KEYS {
            breaker.missed(&miss(&key(n)));
        }
        let first = breaker.permit(Attempt::Repeated).await;
        let second = breaker.permit(Attempt::First).await;
        assert!(first.is_probe() && second.is_probe());
        let mut rest: Vec<_> = (0..1000)
            .map(|_| Box::pin(breaker.permit(Attempt::Repeated)))
            .collect();
        for waiting in &mut rest {
            let mut context = Context::from_waker(Waker::noop());
            assert!(waiting.as_mut().poll(&mut context).is_pending());
        }
        assert_eq!(breaker.answered(), Change::Closed);
        drop((first, second));
        for waiting in rest {
            assert!(!waiting.await.is_probe());
        }
    }

    #[tokio::test]
    async fn an_abandoned_probe_gives_its_turn_back() {
        let breaker = CircuitBreaker::new(1);
        for n in 0..OUTAGE_KEYS {
            breaker.missed(&miss(&key(n)));
        }
        let abandoned = breaker.permit(Attempt::Repeated).await;
        drop(abandoned);
        assert!(breaker.permit(Attempt::Repeated).await.is_probe());
    }
}
