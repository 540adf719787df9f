//! A thread for disk work that no payment should wait for.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

type Job = Box<dyn FnOnce() + Send>;

/// Runs jobs in the order in which they are given. Dropping it waits for the last one.
pub struct Background {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub fn start() -> Self {
        let (jobs, receiver) = mpsc::channel::<Job>();
        let thread = thread::spawn(move || receiver.into_iter().for_each(|job| job()));
        Self {
            jobs: Some(jobs),
            thread: Some(thread),
        }
    }

    pub fn run(&self, job: Job) {
        let jobs = self.jobs.as_ref().expect("taken by drop only");
        jobs.send(job)
            .expect("the thread ends with the sender only");
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
