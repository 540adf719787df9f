//! A transaction from begin to its end, and the permit that only its commit gives.

use std::collections::BTreeSet;

use crate::broker::Partition;
use crate::broker::classify::{Error, Reaction};
use crate::broker::mark::MARK_HEADER;
use crate::broker::native::Outgoing;
use crate::broker::port::Producer;
use crate::failpoint::{self, Point};

/// Proof that a transaction is committed, and where its records went. Local state advances only
/// with it.
#[derive(Debug)]
pub struct Committed {
    /// Offsets of the records that were sent with a receipt, by receipt number.
    receipts: Vec<i64>,
}

impl Committed {
    /// The offset of the record that was sent with this receipt.
    pub fn offset(&self, receipt: usize) -> i64 {
        let offset = self.receipts.get(receipt).copied().unwrap_or(-1);
        assert!(
            offset >= 0,
            "a committed record has no offset (receipt {receipt})"
        );
        offset
    }
}

/// Why a transaction is not known to be committed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Undone {
    /// It never will be.
    #[error("nothing was written: {0}")]
    NotWritten(Error),
    /// It may be.
    #[error("whether it was written is not known: {0}")]
    Unknown(Error),
}

/// An open transaction. Dropping it leaves the producer unusable until it is replaced.
pub struct Transaction<'a, P> {
    producer: &'a mut P,
    mark: String,
    /// Partitions that have their marked record.
    marked: BTreeSet<Partition>,
}

impl<'a, P: Producer> Transaction<'a, P> {
    /// Begins a transaction. The producer must be trusted; one that has become suspect since that
    /// was asked is refused.
    pub fn begin(producer: &'a mut P) -> Result<Self, Error> {
        if !producer.is_trusted() {
            return Err(Error::new(
                "begin a transaction",
                "a connection broke since the last one",
                Reaction::Recover,
            ));
        }
        producer.begin()?;
        failpoint::fail::<Error>(Point::BeginAfter)?;
        let mark = producer.marks().begin().to_string();
        Ok(Self {
            producer,
            mark,
            marked: BTreeSet::new(),
        })
    }

    pub fn send(&mut self, record: &Outgoing) -> Result<(), Error> {
        failpoint::fail::<Error>(Point::Send)?;
        if self.marked.insert(record.partition) {
            let mut headers = record.headers.to_vec();
            headers.push((MARK_HEADER, self.mark.clone()));
            return self.producer.send(&Outgoing {
                headers: &headers,
                ..*record
            });
        }
        self.producer.send(record)
    }

    /// Delivers what was sent, adds the source positions and commits, in the order that the
    /// broker is quickest with: offsets before the flush, or a commit with undelivered records,
    /// cost about 100 ms each.
    ///
    /// `membership` is fetched after the flush, freshly, with no poll in between.
    pub fn commit(
        self,
        positions: &[(Partition, i64)],
        membership: impl FnOnce() -> Result<P::Membership, Error>,
    ) -> Result<Committed, Error> {
        failpoint::fail::<Error>(Point::FlushBefore)?;
        let receipts = self.producer.deliver()?;
        failpoint::fail::<Error>(Point::FlushAfter)?;
        failpoint::fail::<Error>(Point::OffsetsBefore)?;
        self.producer.send_offsets(positions, &membership()?)?;
        failpoint::fail::<Error>(Point::OffsetsAfter)?;
        failpoint::fail::<Error>(Point::CommitBefore)?;
        self.producer.end(true)?;
        failpoint::fail::<Error>(Point::CommitAfter)?;
        Ok(Committed { receipts })
    }

    /// Delivers what was sent and commits it, without source positions: for a writer that is no
    /// member of the group. An error in the second step leaves the outcome unknown.
    pub fn commit_alone(self) -> Result<Committed, Undone> {
        let receipts = self.producer.deliver().map_err(Undone::NotWritten)?;
        self.producer.end(true).map_err(Undone::Unknown)?;
        Ok(Committed { receipts })
    }

    /// Ends it with the same outcome as an earlier transaction of this id whose markers a broker
    /// has lost: its marker is the first that these partitions get, and decides both.
    pub fn end_like(self, was_committed: bool) -> Result<(), Error> {
        self.producer.deliver()?;
        self.producer.end(was_committed)
    }

    /// Takes back offsets of the group that an earlier transaction of this id has left undecided.
    pub fn withdraw_offsets(
        self,
        positions: &[(Partition, i64)],
        membership: &P::Membership,
    ) -> Result<(), Error> {
        self.producer.send_offsets(positions, membership)?;
        self.producer.end(false)
    }
}
