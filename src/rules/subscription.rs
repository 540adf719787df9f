//! What one worker waits for, and the answers that have come for it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};

use super::resolver::Shared;
use super::{Answer, Service};
use crate::domain::rule::RuleKey;
use crate::lock::lock;

/// Owned by one worker thread. Nothing here waits. Dropping it cancels whatever it still waits for.
pub struct Subscription {
    shared: Arc<Shared>,
    inbox: Arc<Inbox>,
    asked: BTreeSet<RuleKey>,
}

impl Subscription {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            inbox: Arc::default(),
            asked: BTreeSet::new(),
        }
    }
}

impl Service for Subscription {
    fn request(&mut self, key: &RuleKey) {
        if !self.asked.contains(key) {
            self.asked.insert(key.clone());
            self.shared.join(key, &self.inbox);
        }
    }

    fn cancel(&mut self, key: &RuleKey) {
        if self.asked.remove(key) {
            self.shared.leave(key, &self.inbox);
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

impl Drop for Subscription {
    fn drop(&mut self) {
        for key in std::mem::take(&mut self.asked) {
            self.shared.leave(&key, &self.inbox);
        }
    }
}

/// Where calls put what one subscription waits for. Its size is bounded by what that has asked.
#[derive(Default)]
pub(super) struct Inbox(Mutex<Vec<(RuleKey, Answer)>>);

impl Inbox {
    pub(super) fn put(&self, key: RuleKey, answer: Answer) {
        self.answers().push((key, answer));
    }

    fn take(&self) -> Vec<(RuleKey, Answer)> {
        std::mem::take(&mut self.answers())
    }

    fn forget(&self, key: &RuleKey) {
        self.answers().retain(|(other, _)| other != key);
    }

    fn answers(&self) -> MutexGuard<'_, Vec<(RuleKey, Answer)>> {
        lock(&self.0)
    }
}
