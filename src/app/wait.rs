//! The end of the process: the workers, then the sink and HTTP, all within `shutdown.grace`.

use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::app::Process;
use crate::app::error::Error;
use crate::clock;
use crate::engine::failure::{Cause, Stopped};
use crate::sink;

/// How often a waiting thread looks whether the process is to end.
pub const STOP_LOOK: Duration = Duration::from_millis(50);

/// What a worker's thread came to.
pub type WorkerResult = thread::Result<Result<(), Stopped>>;

/// Waits until everything has ended, or the grace time is over. The first worker that ends, and the
/// sink when it does, stop the others.
pub fn until_ended(
    process: &Process,
    results: &Receiver<WorkerResult>,
    sink: Option<sink::Handle>,
    server: JoinHandle<()>,
) -> Result<(), Error> {
    let mut end = End {
        process,
        sink,
        deadline: None,
    };
    let worked = end.of_workers(results);
    process.stop.store(true, Ordering::SeqCst);
    let sunk = end.of_sink();
    end.of_server(server);
    match (worked, sunk) {
        // Why the sink has ended says more than that the rest took too long.
        (Err(Error::Grace(_)), Err(why)) => Err(why),
        (worked, sunk) => worked.and(sunk),
    }
}

struct End<'a> {
    process: &'a Process<'a>,
    sink: Option<sink::Handle>,
    /// When the grace time is over (process clock); it begins when the process is to end.
    deadline: Option<Duration>,
}

impl End<'_> {
    fn of_workers(&mut self, results: &Receiver<WorkerResult>) -> Result<(), Error> {
        let mut first = Ok(());
        for _ in 0..self.process.config.pipeline.workers {
            let result = loop {
                match results.recv_timeout(STOP_LOOK) {
                    Ok(result) => break result,
                    Err(RecvTimeoutError::Disconnected) => return first,
                    Err(RecvTimeoutError::Timeout) => {}
                }
                if let Err(error) = self.look() {
                    return first.and(Err(error));
                }
            };
            self.process.stop.store(true, Ordering::SeqCst);
            let result = result.unwrap_or_else(|panic| Err(broken(&*panic)));
            first = first.and(result.map_err(Error::from));
        }
        first
    }

    fn of_sink(&mut self) -> Result<(), Error> {
        loop {
            let is_finished = |sink: &sink::Handle| sink.is_finished();
            if self.sink.as_ref().is_none_or(is_finished) {
                let sink = self.sink.take();
                return sink.map_or(Ok(()), |sink| Ok(sink.join()?));
            }
            self.look()?;
            clock::sleep(STOP_LOOK);
        }
    }

    /// Answers that are still under way when the grace time is over are cut.
    fn of_server(&mut self, server: JoinHandle<()>) {
        // Begins the grace time, if there was no need before.
        let _ = self.look();
        let left = self
            .deadline
            .unwrap_or_default()
            .saturating_sub(clock::now());
        self.process
            .runtime
            .block_on(async { tokio::time::timeout(left, server).await.ok() });
    }

    /// Looks whether the process is to end, and fails when the grace time is over.
    fn look(&mut self) -> Result<(), Error> {
        let Process { config, stop, .. } = self.process;
        if self.sink.as_ref().is_some_and(sink::Handle::is_finished) {
            // It says why when it is joined.
            stop.store(true, Ordering::SeqCst);
        }
        if !stop.load(Ordering::SeqCst) {
            return Ok(());
        }
        let (now, grace) = (clock::now(), config.shutdown.grace);
        let deadline = *self.deadline.get_or_insert_with(|| {
            self.process.notifier.stopping();
            if let Some(sink) = &self.sink {
                sink.stop();
            }
            now + grace
        });
        if now > deadline {
            return Err(Error::Grace(grace));
        }
        Ok(())
    }
}

fn broken(panic: &(dyn std::any::Any + Send)) -> Stopped {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    Stopped {
        cause: Cause::PromiseBroken,
        message: format!("an invariant is broken: {}", text.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicBool;
    use std::sync::mpsc;

    use super::*;
    use crate::config::Config;
    use crate::notify::Notifier;
    use crate::state::directory::Directory;

    const GRACE: Duration = Duration::from_secs(1);

    /// Waits for one worker that has come to `result`, or does not end, and for an HTTP server that
    /// does not end; returns after how long, too.
    fn ended(result: Option<WorkerResult>) -> (Result<(), Error>, Duration) {
        let settings = [
            ("SETTLE_PIPELINE__WORKERS", "1"),
            ("SETTLE_SHUTDOWN__GRACE", "1s"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = Config::load(None, settings.into_iter()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let process = Process {
            config: &config,
            directory: &Arc::new(Directory::open(directory.path()).unwrap()),
            runtime: runtime.handle(),
            notifier: &Notifier::start().unwrap(),
            stop: &Arc::new(AtomicBool::new(true)),
        };
        let (result_sender, results) = mpsc::channel();
        if let Some(result) = result {
            result_sender.send(result).unwrap();
        }
        let server = runtime.spawn(std::future::pending());
        let began = clock::now();
        let outcome = until_ended(&process, &results, None, server);
        let took = clock::now().saturating_sub(began);
        runtime.shutdown_background();
        (outcome, took)
    }

    #[test]
    fn the_process_ends_within_its_grace_time_whatever_does_not_end() {
        // Without the grace time it would be never.
        let (outcome, took) = ended(None);
        assert!(matches!(outcome, Err(Error::Grace(GRACE))), "{outcome:?}");
        assert!(took >= GRACE, "{took:?}");
        // Answers that are still under way are cut, which is no failure.
        let (outcome, took) = ended(Some(Ok(Ok(()))));
        assert!(outcome.is_ok(), "{outcome:?}");
        assert!(took >= GRACE, "{took:?}");
    }

    #[test]
    fn a_worker_that_panics_breaks_a_promise() {
        let (outcome, _) = ended(Some(Err(Box::new("too little"))));
        let error = outcome.unwrap_err();
        assert_eq!(error.exit(), crate::exit::Exit::BrokenPromise);
        assert!(error.to_string().contains("too little"), "{error}");
    }
}
