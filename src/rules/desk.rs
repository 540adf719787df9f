//! One worker's place in the resolver: what it waits for, and what has landed for it.

use std::collections::BTreeSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

use super::resolver::Office;
use super::{Answer, Service};
use crate::domain::rule::RuleKey;

/// Owned by one worker thread. Nothing here waits, [`Desk::wait`] aside. Dropping it cancels
/// whatever it still waits for.
pub struct Desk {
    office: Arc<Office>,
    inbox: Arc<Inbox>,
    asked: BTreeSet<RuleKey>,
}

impl Desk {
    pub(super) fn new(office: Arc<Office>) -> Self {
        Self {
            office,
            inbox: Arc::default(),
            asked: BTreeSet::new(),
        }
    }

    /// Blocks until there is an answer to take, for at most `timeout`. Says whether there is.
    pub fn wait(&self, timeout: Duration) -> bool {
        self.inbox.wait(timeout)
    }
}

impl Service for Desk {
    fn request(&mut self, key: &RuleKey) {
        if !self.asked.contains(key) {
            self.asked.insert(key.clone());
            self.office.join(key, &self.inbox);
        }
    }

    fn cancel(&mut self, key: &RuleKey) {
        if self.asked.remove(key) {
            self.office.leave(key, &self.inbox);
            self.inbox.forget(key);
        }
    }

    fn take_answers(&mut self) -> Vec<(RuleKey, Answer)> {
        let answers = self.inbox.take();
        for (key, _) in &answers {
            self.asked.remove(key);
        }
        answers
    }

    fn in_flight(&self) -> usize {
        self.asked.len()
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for key in std::mem::take(&mut self.asked) {
            self.office.leave(&key, &self.inbox);
        }
    }
}

/// Where flights put what one desk waits for. Its size is bounded by what the desk has asked.
#[derive(Default)]
pub(super) struct Inbox {
    answers: Mutex<Vec<(RuleKey, Answer)>>,
    filled: Condvar,
}

impl Inbox {
    pub(super) fn put(&self, key: RuleKey, answer: Answer) {
        self.answers().push((key, answer));
        self.filled.notify_one();
    }

    fn take(&self) -> Vec<(RuleKey, Answer)> {
        std::mem::take(&mut self.answers())
    }

    fn forget(&self, key: &RuleKey) {
        self.answers().retain(|(other, _)| other != key);
    }

    fn wait(&self, timeout: Duration) -> bool {
        let (answers, _) = self
            .filled
            .wait_timeout_while(self.answers(), timeout, |answers| answers.is_empty())
            .expect("nothing panics while it is held");
        !answers.is_empty()
    }

    fn answers(&self) -> MutexGuard<'_, Vec<(RuleKey, Answer)>> {
        self.answers
            .lock()
            .expect("nothing panics while it is held")
    }
}
