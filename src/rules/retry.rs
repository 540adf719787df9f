//! How long a key waits before it is asked again: exponential back-off with jitter, and the
//! service's own `Retry-After`.

use std::time::Duration;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

/// Shortest wait between two questions for one key.
const WAIT_MIN: Duration = Duration::from_millis(100);
/// Longest wait that this side chooses.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Longest wait that the service may choose: a slip of its operator must not stop a partition for
/// a day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The failures of one key since it was first asked, or since an outage ended.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The key has not failed yet.
    pub(super) fn is_fresh(&self) -> bool {
        self.failures == 0
    }

    /// The wait after one more failure. `dice` is uniform in 0..1.
    pub(super) fn next_wait(&mut self, dice: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let ceiling = WAIT_MIN
            .saturating_mul(2_u32.saturating_pow(self.failures))
            .min(WAIT_MAX);
        WAIT_MIN + ceiling.saturating_sub(WAIT_MIN).mul_f64(dice)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The wait that a `Retry-After` header asks for, capped. A date is measured from the answer's own
/// `Date` header, so a clock that differs from the service's does not matter; without one, from
/// this machine's clock, `now`.
pub(super) fn retry_after(value: &str, date: Option<&str>, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.is_empty() {
        Duration::from_secs(value.parse().unwrap_or(u64::MAX))
    } else {
        let then = timestamp(value)?;
        let sent = date.and_then(timestamp).unwrap_or(now);
        Duration::try_from(then.duration_since(sent)).unwrap_or(Duration::ZERO)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

fn timestamp(text: &str) -> Option<Timestamp> {
    Some(rfc2822::parse(text.trim()).ok()?.timestamp())
}

#[cfg(test)]
mod tests {
    use super::{Backoff, RETRY_AFTER_MAX, WAIT_MAX, WAIT_MIN};
    use jiff::Timestamp;
    use std::time::Duration;

    const DATE: Option<&str> = Some("Sun, 06 Nov 1994 08:49:30 GMT");

    /// What the header asks for at 08:49:35 of this machine's clock.
    fn retry_after(value: &str, date: Option<&str>) -> Option<Duration> {
        let now: Timestamp = "1994-11-06T08:49:35Z".parse().unwrap();
        super::retry_after(value, date, now)
    }

    #[test]
    fn waits_double_up_to_the_longest_and_jitter_never_goes_below_the_shortest() {
        let mut highest = Backoff::default();
        let ceilings: Vec<u128> = (0..9).map(|_| highest.next_wait(1.0).as_millis()).collect();
        assert_eq!(
            ceilings,
            [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000]
        );
        let mut lowest = Backoff::default();
        assert!((0..100).all(|_| lowest.next_wait(0.0) == WAIT_MIN));
        assert!(highest.next_wait(0.999) <= WAIT_MAX);
    }

    #[test]
    fn an_outage_that_ended_starts_the_back_off_again() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next_wait(1.0);
        }
        assert!(!backoff.is_fresh());
        backoff.reset();
        assert!(backoff.is_fresh());
        assert_eq!(backoff.next_wait(1.0), WAIT_MIN * 2);
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_capped() {
        assert_eq!(retry_after("3", None), Some(Duration::from_secs(3)));
        assert_eq!(retry_after(" 0 ", None), Some(Duration::ZERO));
        let hour = Duration::from_secs(3600);
        assert_eq!(retry_after("3600", None), Some(hour));
        assert_eq!(retry_after("86400", None), Some(RETRY_AFTER_MAX));
        let overflow = retry_after("99999999999999999999999", None);
        assert_eq!(overflow, Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn retry_after_as_a_date_counts_from_the_date_of_the_answer() {
        let later = retry_after("Sun, 06 Nov 1994 08:49:37 GMT", DATE);
        assert_eq!(later, Some(Duration::from_secs(7)));
        let past = retry_after("Sun, 06 Nov 1994 08:00:00 GMT", DATE);
        assert_eq!(past, Some(Duration::ZERO));
        let far = retry_after("Mon, 07 Nov 1994 08:49:37 GMT", DATE);
        assert_eq!(far, Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn retry_after_as_a_date_counts_from_the_own_clock_when_the_answer_has_no_date() {
        for date in [None, Some("yesterday")] {
            let later = retry_after("Sun, 06 Nov 1994 08:49:37 GMT", date);
            assert_eq!(later, Some(Duration::from_secs(2)));
        }
    }

    #[test]
    fn a_retry_after_that_cannot_be_read_says_nothing() {
        for nonsense in ["", "soon", "-5", "1.5", "Sun, 99 Nov 1994 08:49:37 GMT"] {
            assert_eq!(retry_after(nonsense, DATE), None, "{nonsense}");
        }
    }
}
