//! Counts takeovers, which tell whether another live process has this one's identity.
//!
//! A takeover of the transactional id, or of the place in the group, is weather: a late request, a
//! transaction that timed out, a request to join that was repeated. Two processes that take the
//! same things from each other do not stop.

use std::collections::VecDeque;
use std::time::Duration;

/// Who takes a transactional id over while a transaction is open has to initialise again when that
/// one has ended, and meets the next one: one takeover can be noticed several times, this far apart
/// at most.
const NOTICED_AGAIN: Duration = Duration::from_secs(5);

/// No takeover goes on for longer.
const ONE_TAKEOVER: Duration = Duration::from_secs(15);

/// Takeovers count together within this time.
const WHILE: Duration = Duration::from_secs(60);

/// Takeovers of late.
pub struct Takeovers {
    /// So many within [`WHILE`] are too many.
    limit: usize,
    /// When each began.
    times: VecDeque<Duration>,
    /// When one was noticed for the last time.
    noticed: Duration,
}

impl Takeovers {
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            times: VecDeque::new(),
            noticed: Duration::ZERO,
        }
    }

    /// Takes down a takeover at `now` (process clock). `true` when it is one too many within
    /// [`WHILE`]: another live process takes the same thing, and the two would go on for ever.
    #[must_use]
    pub fn record(&mut self, now: Duration) -> bool {
        let is_old = |at: &Duration| now.saturating_sub(*at) >= WHILE;
        while self.times.front().is_some_and(is_old) {
            self.times.pop_front();
        }
        let is_noticed_again = now.saturating_sub(self.noticed) < NOTICED_AGAIN;
        self.noticed = now;
        let is_same =
            |began: &Duration| is_noticed_again && now.saturating_sub(*began) < ONE_TAKEOVER;
        if !self.times.back().is_some_and(is_same) {
            self.times.push_back(now);
        }
        self.times.len() >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which of the takeovers at these seconds is one too many.
    fn too_many(seconds: &[u64]) -> Option<usize> {
        let mut takeovers = Takeovers::new(3);
        let mut times = seconds.iter().map(|at| Duration::from_secs(*at));
        times.position(|at| takeovers.record(at))
    }

    #[test]
    fn the_third_takeover_of_a_minute_is_a_duel() {
        assert_eq!(too_many(&[0, 20, 40]), Some(2));
        assert_eq!(too_many(&[0, 30, 60, 90, 120]), None);
    }

    #[test]
    fn what_is_noticed_again_within_five_seconds_is_one_takeover_for_fifteen() {
        assert_eq!(too_many(&[0, 1, 2, 3, 4]), None);
        assert_eq!(too_many(&[0, 4, 8, 12, 14]), None);
        let seconds: Vec<u64> = (0..60).collect();
        assert_eq!(too_many(&seconds), Some(30));
    }
}
