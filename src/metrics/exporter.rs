//! Counting and rendering, by the `metrics` crate and its Prometheus exporter.
//!
//! Two recorders: one lives as long as the process and holds what is counted; the other lives for
//! one scrape and holds what is read off a status. The exporter can forget a series only by the
//! time it was idle, so rebuilding is what lets a partition that moved away leave nothing behind.

use std::sync::LazyLock;
use std::time::Duration;

use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};
use metrics_process::Collector;

use ::metrics::{
    Counter, Histogram, Key, Label, Metadata, Recorder, set_global_recorder, with_local_recorder,
    with_recorder,
};

use crate::metrics::{ALL, Kind, Metric};

/// Histograms buffer every value until it is folded into the buckets.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

static METADATA: Metadata<'_> = Metadata::new("settle", ::metrics::Level::INFO, None);

static EXPORTER: LazyLock<PrometheusHandle> = LazyLock::new(|| {
    let recorder = recorder();
    let handle = recorder.handle();
    assert!(
        set_global_recorder(recorder).is_ok(),
        "nothing else in this process installs a recorder"
    );
    handle
});

/// Folds what histograms have buffered into their buckets, for ever.
pub async fn upkeep() {
    let mut ticks = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        ticks.tick().await;
        EXPORTER.run_upkeep();
    }
}

/// All series of the process and the observed ones; a metric without a series is left out.
pub fn render(observed: &Observed) -> String {
    // Whole seconds of CPU time: counters of the exporter are integers.
    with_local_recorder(&observed.0, || Collector::default().collect());
    let mut text = EXPORTER.render();
    text.push_str(&observed.0.handle().render());
    text
}

/// A recorder that knows buckets and help texts.
pub(super) fn recorder() -> PrometheusRecorder {
    let builder = ALL
        .iter()
        .fold(PrometheusBuilder::new(), |builder, metric| {
            let Kind::Histogram(bounds) = metric.kind else {
                return builder;
            };
            builder
                .set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)
                .expect("every histogram has bounds")
        });
    let recorder = builder.build_recorder();
    for metric in ALL {
        let (name, help) = (metric.name.into(), metric.help.into());
        match metric.kind {
            Kind::Counter => recorder.describe_counter(name, None, help),
            Kind::Gauge => recorder.describe_gauge(name, None, help),
            Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
        }
    }
    recorder
}

impl Metric {
    /// The counter with these label values, in the order of the metric's labels.
    pub fn counter(&self, values: &[&str]) -> Counter {
        LazyLock::force(&EXPORTER);
        with_recorder(|recorder| recorder.register_counter(&self.key(values), &METADATA))
    }

    /// The histogram with these label values, in the order of the metric's labels.
    pub fn histogram(&self, values: &[&str]) -> Histogram {
        LazyLock::force(&EXPORTER);
        with_recorder(|recorder| recorder.register_histogram(&self.key(values), &METADATA))
    }

    fn key(&self, values: &[&str]) -> Key {
        assert_eq!(values.len(), self.labels.len(), "labels of {}", self.name);
        let labels = self.labels.iter().zip(values);
        let labels = labels.map(|(label, value)| Label::new(*label, (*value).to_owned()));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }
}

/// Values read off a status at the moment of a scrape. Their metrics are never counted as well.
#[derive(Debug)]
pub struct Observed(PrometheusRecorder);

impl Default for Observed {
    fn default() -> Self {
        Self(recorder())
    }
}

impl Observed {
    /// Sets the gauge with these label values, in the order of the metric's labels.
    pub fn set(&self, metric: &Metric, values: &[&str], value: f64) {
        let key = metric.key(values);
        self.0.register_gauge(&key, &METADATA).set(value);
    }

    /// Sets the gauge to an offset or a number of records.
    #[expect(
        clippy::cast_precision_loss,
        reason = "no partition will have had 2^53 records"
    )]
    pub fn set_whole(&self, metric: &Metric, values: &[&str], value: i64) {
        self.set(metric, values, value as f64);
    }

    /// Sets the gauge to a size.
    #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
    pub fn set_bytes(&self, metric: &Metric, bytes: u64) {
        self.set(metric, &[], bytes as f64);
    }

    /// Sets the gauge to 1 or 0.
    pub fn set_flag(&self, metric: &Metric, values: &[&str], value: bool) {
        self.set(metric, values, f64::from(u8::from(value)));
    }

    /// Sets the counter, counted by whoever owns the status, to what it has reached.
    pub fn set_total(&self, metric: &Metric, values: &[&str], total: u64) {
        let key = metric.key(values);
        self.0.register_counter(&key, &METADATA).absolute(total);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::metrics::{LAG, RULE_CALL_DURATION, Worker, install};

    #[test]
    fn what_is_rendered_is_the_registry() {
        install();
        Worker::new(0);
        let observed = Observed::default();
        for metric in ALL {
            if metric.name.starts_with("process_") {
                continue;
            }
            let values = vec!["x"; metric.labels.len()];
            match metric.kind {
                Kind::Gauge => observed.set_flag(metric, &values, true),
                Kind::Counter => metric.counter(&values).increment(0),
                Kind::Histogram(_) => {}
            }
        }
        let text = render(&observed);
        let types: Vec<_> = text
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .collect();
        let expected: BTreeSet<_> = ALL
            .iter()
            .map(|metric| format!("{} {}", metric.name, metric.kind.as_str()))
            .collect();
        assert_eq!(types.len(), expected.len(), "{types:?}");
        let rendered: BTreeSet<_> = types.into_iter().map(str::to_owned).collect();
        assert_eq!(rendered, expected);
        for metric in ALL {
            let help = format!("# HELP {} {}\n", metric.name, metric.help);
            assert!(text.contains(&help), "{help}");
        }
    }

    #[test]
    fn counters_stand_at_zero_before_anything_happened() {
        Worker::new(91);
        let text = render(&Observed::default());
        for line in [
            "settle_transactions_total{worker=\"91\",result=\"committed\"} 0\n",
            "settle_commit_duration_seconds_bucket{le=\"+Inf\"} ",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }

    #[test]
    fn every_histogram_has_the_buckets_of_the_registry() {
        let recorder = recorder();
        let bounds = |metric: &Metric| match metric.kind {
            Kind::Histogram(bounds) => bounds,
            Kind::Counter | Kind::Gauge => &[],
        };
        with_local_recorder(&recorder, || {
            for metric in ALL.iter().filter(|metric| !bounds(metric).is_empty()) {
                metric.histogram(&[]).record_many(1e-9, 3);
            }
        });
        let text = recorder.handle().render();
        for metric in ALL {
            for bound in bounds(metric) {
                let line = format!("{}_bucket{{le=\"{bound}\"}} 3\n", metric.name);
                assert!(text.contains(&line), "{line}{text}");
            }
        }
        assert!(text.contains(&format!("{}_count 3\n", RULE_CALL_DURATION.name)));
    }

    #[test]
    fn a_scrape_remembers_nothing_of_the_one_before() {
        let first = Observed::default();
        first.set_whole(&LAG, &["before", "0"], 1 << 50);
        let line = "settle_lag_records{kind=\"before\",partition=\"0\"} 1125899906842624\n";
        assert!(render(&first).contains(line));
        assert!(!render(&Observed::default()).contains("kind=\"before\""));
    }

    #[test]
    fn label_values_are_escaped() {
        let observed = Observed::default();
        observed.set(&LAG, &["a\"b\\c\nd", "0"], 3.0);
        let text = render(&observed);
        assert!(
            text.contains("settle_lag_records{kind=\"a\\\"b\\\\c\\nd\",partition=\"0\"} 3\n"),
            "{text}"
        );
    }
}
