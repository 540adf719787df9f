//! Tells the service manager how things stand, by the protocol of `sd_notify(3)`. The only place
//! that names it. Nothing happens where nobody listens (`NOTIFY_SOCKET`).
//!
//! `READY=1` means that the service runs, not that `/readyz` answers 200: a restore may take longer
//! than any start may, and a broker that is away is no failed start. `STATUS` says how far it is.
//! `WATCHDOG=1` is earned by the workers: it goes out only when the loop of each of them has gone
//! round since the last one. This thread alone keeps nothing alive.
//!
//! A service manager that does not read makes this thread wait, and nobody else.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::clock;
use crate::engine::status::Status;

/// How often the workers are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// At least this much time between two lines of status.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// Signs of life are sent so many times as often as the service manager wants them.
const HASTE: u32 = 4;

/// How long the end of the process waits for the last words to be heard.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One line for a person: how the service is.
pub type Describe = Box<dyn Fn() -> String + Send>;

enum News {
    Running(Status, Describe),
    Stopping,
    Ended(Option<String>),
}

/// Reports until the process ends.
pub struct Notifier {
    news: Sender<News>,
    silent: Receiver<()>,
}

impl Notifier {
    /// Starts to report, as far as somebody listens.
    pub fn start() -> std::io::Result<Self> {
        let (news, receiver) = mpsc::channel();
        let (speaking, silent) = mpsc::channel();
        if std::env::var_os("NOTIFY_SOCKET").is_some() {
            let thread = thread::Builder::new().name("notify".into());
            thread.spawn(move || {
                report(&receiver);
                drop(speaking);
            })?;
        }
        Ok(Self { news, silent })
    }

    /// The service runs; the reports say how, and that its workers live.
    pub fn running(&self, status: Status, describe: Describe) {
        self.say(News::Running(status, describe));
    }

    pub fn stopping(&self) {
        self.say(News::Stopping);
    }

    /// The process ends: why, if not because it was asked to.
    pub fn ended(self, why: Option<String>) {
        self.say(News::Ended(why));
        // Whoever does not listen now is not waited for.
        let _ = self.silent.recv_timeout(LAST_WORDS);
    }

    fn say(&self, news: News) {
        // Nobody takes it where nobody listens.
        let _ = self.news.send(news);
    }
}

fn report(news: &Receiver<News>) {
    let mut running: Option<Report> = None;
    loop {
        match news.recv_timeout(LOOK) {
            Ok(News::Running(status, describe)) => {
                tell(&[NotifyState::Ready]);
                running = Some(Report::new(status, describe));
            }
            Ok(News::Stopping) => {
                tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
                running = None;
            }
            Ok(News::Ended(why)) => {
                let why = why.as_deref().unwrap_or("stopped");
                tell(&[NotifyState::Stopping, NotifyState::Status(why)]);
                return;
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        if let Some(report) = &mut running {
            report.now(clock::now());
        }
    }
}

fn tell(states: &[NotifyState]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "cannot tell the service manager");
    }
}

/// What is told of a service that runs.
struct Report {
    status: Status,
    describe: Describe,
    told: Option<(String, Duration)>,
    watchdog: Option<Watchdog>,
}

impl Report {
    fn new(status: Status, describe: Describe) -> Self {
        Self {
            status,
            describe,
            told: None,
            watchdog: sd_notify::watchdog_enabled().map(|period| Watchdog::new(period / HASTE)),
        }
    }

    fn now(&mut self, now: Duration) {
        let told = self.told.as_ref();
        if told.is_none_or(|(_, at)| now >= *at + STATUS_INTERVAL) {
            let text = (self.describe)();
            if told.is_none_or(|(before, _)| *before != text) {
                tell(&[NotifyState::Status(&text)]);
            }
            self.told = Some((text, now));
        }
        let workers = self.status.workers.iter();
        let turns = workers.map(|worker| worker.turned_at());
        let watchdog = self.watchdog.as_mut();
        if watchdog.is_some_and(|watchdog| watchdog.take(turns, now)) {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

/// Decides when a sign of life has been earned.
struct Watchdog {
    interval: Duration,
    fed_at: Duration,
    /// The last turn of each worker that has counted.
    turns: Vec<u64>,
}

impl Watchdog {
    fn new(interval: Duration) -> Self {
        Self {
            interval,
            fed_at: Duration::ZERO,
            turns: Vec::new(),
        }
    }

    /// Takes a sign of life, if every worker has made a turn since the last one was taken; `turns`
    /// are their times. `false` when there is none to take.
    fn take(&mut self, turns: impl Iterator<Item = u64>, now: Duration) -> bool {
        let turns: Vec<u64> = turns.collect();
        self.turns.resize(turns.len(), 0);
        let all_turned = turns
            .iter()
            .zip(&self.turns)
            .all(|(turn, last)| turn > last);
        if !all_turned || now < self.fed_at + self.interval {
            return false;
        }
        self.fed_at = now;
        self.turns = turns;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sign_of_life_takes_a_turn_of_every_worker() {
        let at = Duration::from_millis;
        let mut watchdog = Watchdog::new(at(100));
        let mut earned = |one: u64, other: u64, now| {
            let turns = [one, other].into_iter();
            watchdog.take(turns, at(now))
        };
        // The second has not made its first turn.
        assert!(!earned(110, 0, 120));
        assert!(earned(130, 125, 130));
        // Not more often than asked for.
        assert!(!earned(140, 140, 140));
        assert!(earned(230, 235, 235));
        // One is stuck, the other goes on.
        for now in (300..100_000).step_by(50) {
            assert!(!earned(now, 235, now));
        }
        assert!(earned(100_000, 100_001, 100_002));
    }
}
