//! Running totals of one rule key.

/// Sum and number of the settlements of one rule key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Minor units.
    pub amount: i64,
    pub count: u64,
}

impl Totals {
    /// The totals with one more settlement, or `None` when the sum would leave 64 bits.
    #[must_use]
    pub fn with(self, amount: i64) -> Option<Self> {
        Some(Self {
            amount: self.amount.checked_add(amount)?,
            count: self.count.checked_add(1)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_that_would_leave_64_bits_is_refused_and_never_wrapped() {
        let nearly = Totals {
            amount: i64::MAX - 1,
            count: 7,
        };
        assert_eq!(
            nearly.with(1),
            Some(Totals {
                amount: i64::MAX,
                count: 8
            })
        );
        assert_eq!(nearly.with(2), None);
        let low = Totals {
            amount: i64::MIN,
            count: 1,
        };
        assert_eq!(low.with(-1), None);
        assert_eq!(
            low.with(i64::MAX),
            Some(Totals {
                amount: -1,
                count: 2
            })
        );
    }
}
