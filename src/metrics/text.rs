//! The text format of Prometheus, version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};

use crate::metrics::cells::{Cell, Histogram};
use crate::metrics::{ALL, Metric, process};

/// Values read off a status at the moment of a scrape.
#[derive(Debug, Default)]
pub struct Observed(BTreeMap<(&'static str, String), String>);

impl Observed {
    /// Sets the series with these label values, in the order of the metric's labels.
    pub fn set(&mut self, metric: &Metric, values: &[&str], value: impl Display) {
        let labels = metric.label_text(values);
        self.0.insert((metric.name, labels), value.to_string());
    }

    /// Sets the series to 1 or 0.
    pub fn set_flag(&mut self, metric: &Metric, values: &[&str], value: bool) {
        self.set(metric, values, u8::from(value));
    }

    fn of(&self, name: &'static str) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .range((name, String::new())..)
            .take_while(move |((of, _), _)| *of == name)
            .map(|((_, labels), value)| (labels.as_str(), value.as_str()))
    }
}

/// All series of the process and the observed ones; a metric without a series is left out.
pub fn render(mut observed: Observed) -> String {
    process::observe(&mut observed);
    let mut text = String::with_capacity(16 * 1024);
    for metric in ALL {
        let mut lines = String::new();
        for (labels, cell) in metric.cells() {
            match cell {
                Cell::Counter(counter) => line(&mut lines, metric.name, &labels, counter.get()),
                Cell::Histogram(histogram) => buckets(&mut lines, metric, &labels, &histogram),
            }
        }
        for (labels, value) in observed.of(metric.name) {
            line(&mut lines, metric.name, labels, value);
        }
        if !lines.is_empty() {
            let (name, kind) = (metric.name, metric.kind.as_str());
            let head = format_args!("# HELP {name} {}\n# TYPE {name} {kind}\n", metric.help);
            text.write_fmt(head).expect("a string takes any text");
            text.push_str(&lines);
        }
    }
    text
}

fn line(out: &mut String, name: &str, labels: &str, value: impl Display) {
    let written = if labels.is_empty() {
        writeln!(out, "{name} {value}")
    } else {
        writeln!(out, "{name}{{{labels}}} {value}")
    };
    written.expect("a string takes any text");
}

fn buckets(out: &mut String, metric: &Metric, labels: &str, histogram: &Histogram) {
    let name = metric.name;
    let comma = if labels.is_empty() { "" } else { "," };
    let mut count = 0;
    for (bound, below) in histogram.cumulative() {
        let labels = format!("{labels}{comma}le=\"{bound}\"");
        line(out, &format!("{name}_bucket"), &labels, below);
        count = below;
    }
    line(out, &format!("{name}_sum"), labels, histogram.sum());
    line(out, &format!("{name}_count"), labels, count);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Kind, LAG, Worker, rule_called};

    fn names(text: &str) -> Vec<&str> {
        text.lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .filter_map(|line| line.split(' ').next())
            .collect()
    }

    #[test]
    fn what_is_rendered_is_the_registry() {
        Worker::new(0);
        rule_called(Duration::ZERO);
        let mut observed = Observed::default();
        for metric in ALL {
            let process = metric.name.starts_with("process_");
            let values = vec!["x"; metric.labels.len()];
            if metric.kind == Kind::Gauge && !process {
                observed.set(metric, &values, 1);
            } else if !process && metric.cells().is_empty() {
                metric.counter(&values);
            }
        }
        let text = render(observed);
        let registry: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names(&text), registry);
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let name = line.split(['{', ' ']).next().unwrap();
            let known = ALL.iter().any(|metric| {
                let suffixes: &[&str] = match metric.kind {
                    Kind::Histogram(_) => &["_bucket", "_sum", "_count"],
                    Kind::Counter | Kind::Gauge => &[""],
                };
                suffixes
                    .iter()
                    .any(|suffix| format!("{}{suffix}", metric.name) == name)
            });
            assert!(known, "{line}");
        }
    }

    #[test]
    fn counters_stand_at_zero_before_anything_happened() {
        Worker::new(91);
        let text = render(Observed::default());
        assert!(
            text.contains("settle_transactions_total{worker=\"91\",result=\"committed\"} 0\n"),
            "{text}"
        );
        assert!(
            text.contains("settle_commit_duration_seconds_bucket{le=\"+Inf\"} "),
            "{text}"
        );
    }

    #[test]
    fn label_values_are_escaped() {
        let mut observed = Observed::default();
        observed.set(&LAG, &["a\"b\\c\nd", "0"], 3);
        let text = render(observed);
        assert!(
            text.contains("settle_lag_records{kind=\"a\\\"b\\\\c\\nd\",partition=\"0\"} 3\n"),
            "{text}"
        );
    }
}
