//! Where counters and histograms live: atomics that are found once, by name and labels.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::metrics::{Kind, Metric};

/// Rises only. Cheap to clone; clones are the same counter.
#[derive(Debug, Clone, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    pub fn increment(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    #[cfg(test)]
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Counts values per bucket. Cheap to clone; clones are the same histogram.
#[derive(Debug, Clone)]
pub struct Histogram(Arc<Buckets>);

#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    /// One more than bounds: what lies above all of them.
    counts: Box<[AtomicU64]>,
    /// Bits of an `f64`.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        Self(Arc::new(Buckets {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0_f64.to_bits()),
        }))
    }

    pub fn record(&self, value: f64) {
        self.record_many(value, 1);
    }

    /// Records `value` `count` times at the cost of once.
    #[expect(
        clippy::cast_precision_loss,
        reason = "no batch has 2^53 records; the sum is approximate anyway"
    )]
    pub fn record_many(&self, value: f64, count: u64) {
        let bucket = self.0.bounds.partition_point(|bound| *bound < value);
        self.0.counts[bucket].fetch_add(count, Ordering::Relaxed);
        let add = |sum| Some((f64::from_bits(sum) + value * count as f64).to_bits());
        self.0
            .sum
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add)
            .expect("add always gives a value");
    }

    /// Count of the values up to each bound, with `+Inf` last.
    pub(super) fn cumulative(&self) -> Vec<(String, u64)> {
        let bounds = self.0.bounds.iter().map(|bound| format!("{bound:?}"));
        let mut total = 0;
        bounds
            .chain(["+Inf".to_owned()])
            .zip(&self.0.counts)
            .map(|(bound, count)| {
                total += count.load(Ordering::Relaxed);
                (bound, total)
            })
            .collect()
    }

    pub(super) fn sum(&self) -> f64 {
        f64::from_bits(self.0.sum.load(Ordering::Relaxed))
    }
}

#[derive(Debug, Clone)]
pub(super) enum Cell {
    Counter(Counter),
    Histogram(Histogram),
}

/// Cells by rendered labels, of one metric.
type Series = BTreeMap<String, Cell>;

static CELLS: Mutex<BTreeMap<&'static str, Series>> = Mutex::new(BTreeMap::new());

impl Metric {
    /// The counter with these label values, in the order of the metric's labels.
    pub fn counter(&self, values: &[&str]) -> Counter {
        match self.cell(values) {
            Cell::Counter(counter) => counter,
            Cell::Histogram(_) => unreachable!("{} is a histogram", self.name),
        }
    }

    /// The histogram with these label values, in the order of the metric's labels.
    pub fn histogram(&self, values: &[&str]) -> Histogram {
        match self.cell(values) {
            Cell::Histogram(histogram) => histogram,
            Cell::Counter(_) => unreachable!("{} is a counter", self.name),
        }
    }

    fn cell(&self, values: &[&str]) -> Cell {
        let labels = self.label_text(values);
        let mut cells = CELLS.lock().unwrap_or_else(PoisonError::into_inner);
        let series = cells.entry(self.name).or_default();
        let new = || match self.kind {
            Kind::Counter => Cell::Counter(Counter::default()),
            Kind::Histogram(bounds) => Cell::Histogram(Histogram::new(bounds)),
            Kind::Gauge => unreachable!("{} is observed, it has no cell", self.name),
        };
        series.entry(labels).or_insert_with(new).clone()
    }

    pub(super) fn cells(&self) -> Series {
        let cells = CELLS.lock().unwrap_or_else(PoisonError::into_inner);
        cells.get(self.name).cloned().unwrap_or_default()
    }

    /// `a="x",b="y"`.
    pub(super) fn label_text(&self, values: &[&str]) -> String {
        assert_eq!(values.len(), self.labels.len(), "labels of {}", self.name);
        let mut text = String::new();
        for (label, value) in self.labels.iter().zip(values) {
            let comma = if text.is_empty() { "" } else { "," };
            let value = value
                .replace('\\', r"\\")
                .replace('"', r#"\""#)
                .replace('\n', r"\n");
            write!(text, "{comma}{label}=\"{value}\"").expect("a string takes any text");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_lands_in_one_bucket_and_in_the_sum() {
        let histogram = Histogram::new(&[0.5, 1.5]);
        histogram.record_many(0.25, 3);
        histogram.record(1.5);
        histogram.record(2.0);
        let expected = [("0.5", 3), ("1.5", 4), ("+Inf", 5)];
        let expected = expected.map(|(bound, count)| (bound.to_owned(), count));
        assert_eq!(histogram.cumulative(), expected);
        assert!((histogram.sum() - 4.25).abs() < 1e-9);
    }
}
