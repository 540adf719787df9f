//! The thread that owns the writer: obeys one command after the other, however long it takes.

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;

use crate::sink::batch::Batch;
use crate::sink::connection::{Error, Reaction};
use crate::sink::status::{Status, Throttle};
use crate::sink::writer::{Positions, Writer};

const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Sent one at a time: the next one after the answer.
pub enum Command {
    Positions,
    Write(Batch),
}

pub enum Answer {
    Positions(Positions),
    Written,
    /// Nothing was written: the positions are these, and not those the batch expected.
    Moved(Positions),
    Stopped(Error),
}

pub struct Service {
    pub writer: Writer,
    pub status: Arc<Status>,
}

impl Service {
    /// Returns when the other side of `commands` is dropped, and gives up what is under way.
    pub async fn serve(mut self, mut commands: Receiver<Command>, answers: Sender<Answer>) {
        let mut complaints = Throttle::default();
        while let Some(command) = commands.recv().await {
            let answer = tokio::select! {
                answer = self.obey(command, &mut complaints) => answer,
                _ = commands.recv() => return,
            };
            let last = matches!(answer, Answer::Stopped(_));
            if answers.send(answer).is_err() || last {
                return;
            }
        }
    }

    async fn obey(&mut self, mut command: Command, complaints: &mut Throttle) -> Answer {
        let mut backoff = BACKOFF_MIN;
        loop {
            let error = match self.attempt(&mut command).await {
                Ok(answer) => {
                    self.status.reached();
                    return answer;
                }
                Err(error) => error,
            };
            if error.reaction() == Reaction::Stop {
                return Answer::Stopped(error);
            }
            self.status.lost_database();
            self.status.set_problem(error.to_string());
            if let Some(held_back) = complaints.pass() {
                tracing::warn!(
                    %error,
                    suppressed = held_back,
                    "the database is not reached: the sink waits, the pipeline goes on"
                );
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn attempt(&mut self, command: &mut Command) -> Result<Answer, Error> {
        let Command::Write(batch) = command else {
            return Ok(Answer::Positions(self.writer.positions().await?));
        };
        let error = match self.writer.write(batch).await {
            Ok(written) => {
                self.status.wrote(written);
                return Ok(Answer::Written);
            }
            Err(error) => error,
        };
        match error.reaction() {
            Reaction::Rewind => Ok(Answer::Moved(self.writer.positions().await?)),
            Reaction::Refused => {
                let refused = self.writer.find_refused(batch).await?;
                tracing::warn!(%error, refused, "PostgreSQL rejected JSON bodies; stored in `payment_log.raw`");
                Err(error)
            }
            Reaction::Retry | Reaction::Stop => Err(error),
        }
    }
}
