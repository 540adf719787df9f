//! A checkpoint that is being written on another thread.

use std::sync::mpsc::{self, Receiver, TryRecvError};

use crate::state::Error;

/// Runs work on another thread, in the order in which it is given.
pub type Background<'a> = &'a dyn Fn(Box<dyn FnOnce() + Send>);

/// The checkpoint under way, if there is one, and its result once it has ended.
pub struct Pending<T>(Option<Receiver<Result<T, Error>>>);

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Send + 'static> Pending<T> {
    pub fn is_under_way(&self) -> bool {
        self.0.is_some()
    }

    /// Begins to write. Nothing else may be under way.
    pub fn begin(
        &mut self,
        background: Background,
        write: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) {
        let (sender, receiver) = mpsc::sync_channel(1);
        background(Box::new(move || {
            // Nobody waits any more when the task was closed.
            let _ = sender.send(write());
        }));
        self.0 = Some(receiver);
    }

    /// The result, when it is there.
    pub fn poll(&mut self) -> Option<Result<T, Error>> {
        let polled = self.0.as_ref()?.try_recv();
        match polled {
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => panic!("the checkpoint thread is gone"),
            Ok(result) => {
                self.0 = None;
                Some(result)
            }
        }
    }

    /// Waits for the result of what is under way.
    pub fn wait(&mut self) -> Option<Result<T, Error>> {
        let receiver = self.0.take()?;
        let result = receiver.recv();
        Some(result.expect("the checkpoint thread outlives its jobs"))
    }
}
