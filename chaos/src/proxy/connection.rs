//! One connection of a client: its requests go up one after the other, the answers come down as they arrive.
//!
//! The two sides end separately: what is held or under way still reaches the broker when the client's side is long
//! closed, as it does on a real network.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Result;
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::time;

use crate::proxy::api::Api;
use crate::proxy::frame::{self, Frame, Request};
use crate::proxy::rule::{Book, Caught, Fate, Side, Stage};

/// For what the broker answers at once, also when the machine is busy.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

/// Before [`Fate::FetchNothing`].
const FETCH_PAUSE: Duration = Duration::from_millis(200);

/// A request that the broker has yet to answer.
struct Pending {
    correlation: i32,
    key: i16,
    version: i16,
    client: String,
    caught: Option<Arc<Caught>>,
    answer: Answer,
}

/// What becomes of an answer.
#[derive(Clone, Copy)]
enum Answer {
    Pass,
    /// The client does not get it, and this becomes of its side.
    Swallow(Side),
    WithoutBrokers,
    WithoutRecords,
}

/// What the two directions share.
struct Lane {
    pending: Mutex<VecDeque<Pending>>,
    unanswered: watch::Sender<usize>,
    /// How the client's side is to end.
    cut: watch::Sender<Option<Side>>,
}

impl Lane {
    fn expect(&self, pending: Pending) {
        let mut all = self.lock();
        all.push_back(pending);
        self.unanswered.send_replace(all.len());
    }

    fn answered(&self, correlation: i32) -> Option<Pending> {
        let mut all = self.lock();
        let at = all.iter().position(|one| one.correlation == correlation)?;
        let found = all.remove(at);
        self.unanswered.send_replace(all.len());
        found
    }

    /// Waits until everything that was sent up is answered.
    async fn drained(&self) {
        let mut unanswered = self.unanswered.subscribe();
        let none = unanswered.wait_for(|count| *count == 0);
        let _ = time::timeout(ANSWER_LIMIT, none).await;
    }

    fn cut(&self, side: Side) {
        if side != Side::Open {
            self.cut.send_replace(Some(side));
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Carries a connection until either side ends it.
pub(super) async fn carry(client: TcpStream, broker: TcpStream, book: Arc<Book>) {
    // Only latency would be lost.
    let _ = (client.set_nodelay(true), broker.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let lane = Arc::new(Lane {
        pending: Mutex::default(),
        unanswered: watch::Sender::new(0),
        cut: watch::Sender::new(None),
    });
    let answers = answers(from_broker, to_client, Arc::clone(&lane), Arc::clone(&book));
    let down = tokio::spawn(answers);
    let up = Up {
        to_broker,
        lane,
        book,
    };
    up.requests(from_client).await;
    // With `to_broker` gone the broker closes its side, which ends the answers.
    let _ = down.await;
}

/// The way up.
struct Up {
    to_broker: OwnedWriteHalf,
    lane: Arc<Lane>,
    book: Arc<Book>,
}

impl Up {
    async fn requests(mut self, mut from_client: OwnedReadHalf) {
        let mut cut = self.lane.cut.subscribe();
        loop {
            let read = tokio::select! {
                biased;
                _ = cut.wait_for(Option::is_some) => break,
                read = frame::read(&mut from_client) => read,
            };
            let Ok(request) = read.and_then(Request::parse) else {
                return;
            };
            if self.pass(request).await.is_err() {
                return;
            }
        }
        let side = *cut.borrow();
        if side == Some(Side::Reset) {
            // An error means that the client is gone already.
            let _ = from_client.as_ref().set_zero_linger();
        }
        drop(from_client);
        self.lane.drained().await;
    }

    async fn pass(&mut self, request: Request) -> Result<()> {
        for late in self.book.due_before(&request) {
            self.lane.drained().await;
            late.release();
            let answered = late.wait(|stage| matches!(stage, Stage::Answered(_)));
            let _ = time::timeout(ANSWER_LIMIT, answered).await;
        }
        let Some((fate, caught)) = self.book.fate_of(&request) else {
            return self.forward(&request, None, Answer::Pass).await;
        };
        match fate {
            Fate::Hold(side) => {
                self.lane.cut(side);
                caught.wait(|stage| *stage != Stage::Held).await;
                let answer = match side {
                    Side::Open => Answer::Pass,
                    side => Answer::Swallow(side),
                };
                self.forward(&request, Some(caught), answer).await
            }
            Fate::Delay(time) => {
                time::sleep(time).await;
                self.forward(&request, Some(caught), Answer::Pass).await
            }
            Fate::Duplicate => {
                self.forward(&request, None, Answer::Pass).await?;
                let answer = Answer::Swallow(Side::Open);
                self.forward(&request, Some(caught), answer).await
            }
            Fate::Drop(side) => {
                caught.answered(None);
                self.lane.cut(side);
                Ok(())
            }
            Fate::DropAnswer(side) => {
                let answer = Answer::Swallow(side);
                self.forward(&request, Some(caught), answer).await
            }
            Fate::NameNoBroker => {
                let answer = Answer::WithoutBrokers;
                self.forward(&request, Some(caught), answer).await
            }
            Fate::FetchNothing => {
                // The client asks again at once.
                time::sleep(FETCH_PAUSE).await;
                let answer = Answer::WithoutRecords;
                self.forward(&request, Some(caught), answer).await
            }
        }
    }

    async fn forward(
        &mut self,
        request: &Request,
        caught: Option<Arc<Caught>>,
        answer: Answer,
    ) -> Result<()> {
        self.lane.expect(Pending {
            correlation: request.correlation,
            key: request.key,
            version: request.version,
            client: request.client.clone(),
            caught,
            answer,
        });
        frame::write(&mut self.to_broker, &request.frame).await
    }
}

/// The way down.
async fn answers(
    mut from_broker: OwnedReadHalf,
    to_client: OwnedWriteHalf,
    lane: Arc<Lane>,
    book: Arc<Book>,
) {
    let mut to_client = Some(to_client);
    let mut cut = lane.cut.subscribe();
    loop {
        let read = tokio::select! {
            biased;
            _ = cut.wait_for(Option::is_some), if to_client.is_some() => {
                close(&mut to_client, *lane.cut.borrow());
                continue;
            }
            read = frame::read(&mut from_broker) => read,
        };
        let Ok(answer) = read else {
            break;
        };
        let Some(answer) = for_client(&lane, &book, answer) else {
            continue;
        };
        if let Some(writer) = &mut to_client
            && frame::write(writer, &answer).await.is_err()
        {
            to_client = None;
        }
    }
    // The broker has ended the connection: the client has to notice, and nobody waits for answers.
    lane.lock().clear();
    lane.unanswered.send_replace(0);
    lane.cut(Side::Closed);
}

/// Notes an answer. What the client gets of it, if anything.
fn for_client(lane: &Lane, book: &Book, answer: Frame) -> Option<Frame> {
    let pending = frame::correlation(&answer).map(|correlation| lane.answered(correlation));
    let Ok(Some(pending)) = pending else {
        return Some(answer);
    };
    let code = frame::error_code(pending.key, pending.version, &answer);
    let ends = [Api::EndTxn, Api::InitProducerId];
    if code == Some(0) && ends.iter().any(|api| api.is(pending.key)) {
        book.ended(&pending.client);
    }
    if let Some(caught) = &pending.caught {
        caught.answered(code);
    }
    match pending.answer {
        Answer::Pass => Some(answer),
        Answer::Swallow(side) => {
            lane.cut(side);
            None
        }
        // A version that cannot be read is passed on; the test finds that nothing happens.
        Answer::WithoutBrokers => {
            Some(frame::without_brokers(pending.version, &answer).unwrap_or(answer))
        }
        Answer::WithoutRecords => {
            Some(frame::without_records(pending.version, &answer).unwrap_or(answer))
        }
    }
}

fn close(to_client: &mut Option<OwnedWriteHalf>, side: Option<Side>) {
    let Some(writer) = to_client.take() else {
        return;
    };
    if side == Some(Side::Reset) {
        let _ = writer.as_ref().set_zero_linger();
        // Without the FIN that dropping it would send before the RST.
        writer.forget();
    }
}
