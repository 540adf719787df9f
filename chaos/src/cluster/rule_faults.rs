//! What can be wrong with the rule service, and which call it hits.

use std::time::Duration;

/// How calls are answered until the next switch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    Healthy,
    /// This status with an empty body, and `Retry-After` in seconds.
    Status {
        code: u16,
        retry_after: Option<u64>,
    },
    /// No byte for this long, then the right answer.
    Hang(Duration),
    /// Half of the body, then a reset connection.
    Reset,
    /// 200 with a body that is not JSON.
    Garbage,
    /// 200 with the rule of another merchant.
    WrongKey,
    /// The head at once, the body spread over this time.
    SlowBody(Duration),
    /// 302 to a place that would answer with a rule.
    Redirect,
    /// Nobody listens; open connections are reset.
    Refused,
    /// The right answer, after this time.
    Delay(Duration),
}

/// A fault and the share of calls it hits, spread evenly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plan {
    fault: Fault,
    fraction: f64,
    due: f64,
}

impl Plan {
    pub(super) fn new(fault: Fault, fraction: f64) -> Self {
        Self {
            fault,
            fraction: fraction.clamp(0.0, 1.0),
            due: 0.0,
        }
    }

    /// The fault of the next call.
    pub(super) fn next(&mut self) -> Fault {
        self.due += self.fraction;
        if self.due >= 1.0 {
            self.due -= 1.0;
            self.fault
        } else {
            Fault::Healthy
        }
    }

    /// Whether the listener is to be closed.
    pub(super) fn refuses(&self) -> bool {
        self.fault == Fault::Refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fraction_of_the_calls_is_hit() {
        let mut plan = Plan::new(Fault::Garbage, 0.25);
        let hits = (0..100).filter(|_| plan.next() == Fault::Garbage).count();
        assert_eq!(hits, 25);
        let mut all = Plan::new(Fault::Reset, 1.0);
        assert!((0..10).all(|_| all.next() == Fault::Reset));
    }
}
