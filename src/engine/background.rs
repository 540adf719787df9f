//! Where disk work is done that no payment should wait for.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs in the order in which they are given. Dropping it waits for the last one.
#[derive(Default)]
pub struct Background {
    /// None runs each job at once.
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    /// On a thread of its own. The default one has none, for a simulation that can be repeated.
    pub fn start() -> Self {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let thread = thread::spawn(move || receiver.into_iter().for_each(|job| job()));
        Self {
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    pub fn run(&self, job: Job) {
        match &self.jobs {
            Some(jobs) => jobs
                .send(job)
                .expect("the thread ends with the sender only"),
            None => job(),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic in a job is reported by whoever waits for its result.
            let _ = thread.join();
        }
    }
}
