//! Keeps a failure that repeats itself from filling the disk and hiding the others.
//!
//! Of warnings and errors, the same line (call site, text and all fields) passes [`SAME_LINE`]
//! times in a [`WINDOW`], and a call site [`SAME_SITE`] times whatever its lines say. How many were
//! left out is told when the window is over. What is less than a warning is never left out: it
//! comes seldom, or somebody has asked for it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::clock;

pub(super) const WINDOW: Duration = Duration::from_secs(10);
pub(super) const SAME_LINE: u64 = 5;
pub(super) const SAME_SITE: u64 = 100;

/// How often it is looked for windows that are over.
const SWEEP: Duration = Duration::from_secs(1);

/// A line is quoted up to so many characters.
const QUOTED: usize = 300;

/// The summaries themselves.
const TARGET: &str = "settle::log";

/// File and line of a call in the code; what comes through the facade `log` has one for all.
type Site = (&'static str, u32);

/// What repeats itself: a line of a call site, or whatever that logs.
type Subject = (Site, Option<u64>);

/// One subject since it was seen first.
struct Window {
    began: Duration,
    seen: u64,
    most: u64,
    level: Level,
    text: String,
}

impl Window {
    fn suppressed(&self) -> u64 {
        self.seen.saturating_sub(self.most)
    }

    fn is_over(&self, now: Duration) -> bool {
        now.saturating_sub(self.began) >= WINDOW
    }
}

/// What was left out.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    level: Level,
    text: String,
    suppressed: u64,
}

#[derive(Default)]
struct Windows {
    open: BTreeMap<Subject, Window>,
    due: Vec<Summary>,
}

impl Windows {
    /// Counts one more and says whether it passes.
    fn admit(&mut self, subject: Subject, most: u64, line: (Level, &str), now: Duration) -> bool {
        let (level, text) = line;
        if self
            .open
            .get(&subject)
            .is_some_and(|open| open.is_over(now))
        {
            self.close(&subject);
        }
        let window = self.open.entry(subject).or_insert_with(|| Window {
            began: now,
            seen: 0,
            most,
            level,
            text: text.chars().take(QUOTED).collect(),
        });
        window.seen += 1;
        window.seen <= most
    }

    fn is_full(&self, subject: &Subject, now: Duration) -> bool {
        let open = self.open.get(subject);
        open.is_some_and(|open| !open.is_over(now) && open.seen >= open.most)
    }

    fn close(&mut self, subject: &Subject) {
        let closed = self.open.remove(subject);
        let Some(window) = closed.filter(|window| window.suppressed() > 0) else {
            return;
        };
        self.due.push(Summary {
            suppressed: window.suppressed(),
            level: window.level,
            text: window.text,
        });
    }

    /// Closes what is over, or all of it, and hands out what is to be told.
    fn sweep(&mut self, now: Option<Duration>) -> Vec<Summary> {
        let over = |window: &Window| now.is_none_or(|now| window.is_over(now));
        let closed = self.open.iter().filter(|(_, window)| over(window));
        let closed: Vec<Subject> = closed.map(|(subject, _)| *subject).collect();
        for subject in closed {
            self.close(&subject);
        }
        std::mem::take(&mut self.due)
    }
}

#[derive(Default)]
pub(super) struct Limit(Mutex<Windows>);

impl Limit {
    fn windows(&self) -> MutexGuard<'_, Windows> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells, for as long as the process lives, what was left out.
    pub(super) fn run(&self) {
        loop {
            thread::sleep(SWEEP);
            self.tell(Some(clock::now()));
        }
    }

    pub(super) fn flush(&self) {
        self.tell(None);
    }

    fn tell(&self, now: Option<Duration>) {
        // The lock is free again when the lines are logged.
        let summaries = self.windows().sweep(now);
        for Summary {
            level,
            text,
            suppressed,
        } in summaries
        {
            let repeated = text.as_str();
            if level == Level::ERROR {
                tracing::error!(target: TARGET, suppressed, repeated, "lines were left out");
            } else {
                tracing::warn!(target: TARGET, suppressed, repeated, "lines were left out");
            }
        }
    }

    fn passes(&self, event: &Event<'_>) -> bool {
        let metadata = event.metadata();
        let level = *metadata.level();
        if level > Level::WARN || metadata.target() == TARGET {
            return true;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let mut hasher = DefaultHasher::new();
        text.hash(&mut hasher);
        let site = (
            metadata.file().unwrap_or_default(),
            metadata.line().unwrap_or_default(),
        );
        let line = hasher.finish();
        let now = clock::now();
        let mut windows = self.windows();
        let quoted = text.quoted();
        let whole = (site, None);
        // A call site that has had its share gets no window for each of its lines.
        let passes = windows.is_full(&whole, now)
            || windows.admit((site, Some(line)), SAME_LINE, (level, &quoted), now);
        // A line that is left out as a repetition does not count for its call site.
        passes && windows.admit(whole, SAME_SITE, (level, &text.message), now)
    }
}

/// The limit as a layer: it decides for all others.
pub(super) struct Gate(pub Arc<Limit>);

impl<S: Subscriber> Layer<S> for Gate {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        self.0.passes(event)
    }
}

/// What a line says, without its time.
#[derive(Default, Hash)]
struct Text {
    message: String,
    fields: String,
}

impl Text {
    fn quoted(&self) -> String {
        format!("{}{}", self.message, self.fields)
    }
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => self.message = format!("{value:?}"),
            // A count of what was left out by whoever logs.
            "suppressed" => {}
            // A String takes everything.
            name => drop(write!(self.fields, " {name}={value:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    /// Writes down what passes.
    #[derive(Clone, Default)]
    struct Passed(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber> Layer<S> for Passed {
        fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
            let mut text = Text::default();
            event.record(&mut text);
            self.0.lock().unwrap().push(text.quoted());
        }
    }

    /// The lines that pass, and the limit as it is afterwards.
    fn passed(log: impl FnOnce()) -> (Vec<String>, Arc<Limit>) {
        clock::simulate(Duration::ZERO);
        let (limit, passed) = (Arc::new(Limit::default()), Passed::default());
        let gate = Gate(Arc::clone(&limit));
        let layers = tracing_subscriber::registry()
            .with(passed.clone())
            .with(gate);
        tracing::subscriber::with_default(layers, log);
        let lines = passed.0.lock().unwrap().clone();
        (lines, limit)
    }

    fn fail(error: &str) {
        tracing::warn!(error, "waiting");
    }

    #[test]
    fn the_same_line_passes_so_often_in_a_window_and_the_rest_is_counted() {
        let (lines, limit) = passed(|| {
            for _ in 0..20 {
                fail("refused");
            }
            fail("timed out");
            clock::simulate(WINDOW);
            fail("refused");
        });
        let refused = " error=\"refused\"";
        let of = |text: &str| lines.iter().filter(|line| line.contains(text)).count() as u64;
        assert_eq!(
            (of(refused), of("timed out")),
            (SAME_LINE + 1, 1),
            "{lines:?}"
        );
        let summary = Summary {
            level: Level::WARN,
            text: format!("waiting{refused}"),
            suppressed: 20 - SAME_LINE,
        };
        assert_eq!(limit.windows().sweep(Some(clock::now())), [summary]);
        assert_eq!(limit.windows().sweep(None), []);
        assert!(limit.windows().open.is_empty());
    }

    #[test]
    fn a_call_site_that_always_says_something_new_is_limited_too() {
        let (lines, limit) = passed(|| (0..1000).for_each(|n| fail(&n.to_string())));
        assert_eq!(lines.len() as u64, SAME_SITE);
        let summaries = limit.windows().sweep(None);
        assert_eq!(summaries.len(), 1, "{summaries:?}");
        assert_eq!(summaries[0].suppressed, 1000 - SAME_SITE);
    }

    #[test]
    fn what_is_less_than_a_warning_always_passes() {
        let (lines, _) = passed(|| (0..1000).for_each(|_| tracing::info!("assigned")));
        assert_eq!(lines.len(), 1000);
    }

    #[test]
    fn what_was_left_out_is_told_with_its_level() {
        let (lines, _) = passed(|| {
            let limit = Limit::default();
            limit.windows().due.push(Summary {
                level: Level::ERROR,
                text: "stopping".into(),
                suppressed: 3,
            });
            limit.flush();
        });
        assert_eq!(lines, ["lines were left out repeated=\"stopping\""]);
    }
}
