//! Kafka's framing: a length, and for a request a header that says what it is and whose.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use crate::proxy::api::Api;

/// More than the broker takes (`socket.request.max.bytes`).
const LENGTH_MAX: usize = 128 << 20;

/// Everything behind the length, without it.
pub(super) type Frame = Vec<u8>;

pub(super) async fn read(from: &mut OwnedReadHalf) -> Result<Frame> {
    let length = usize::try_from(from.read_i32().await?).context("a length is negative")?;
    ensure!(length <= LENGTH_MAX, "a frame of {length} bytes");
    let mut frame = vec![0; length];
    from.read_exact(&mut frame).await?;
    Ok(frame)
}

pub(super) async fn write(to: &mut OwnedWriteHalf, frame: &Frame) -> Result<()> {
    let length = i32::try_from(frame.len()).context("a frame is too long")?;
    let bytes = [&length.to_be_bytes(), frame.as_slice()].concat();
    Ok(to.write_all(&bytes).await?)
}

/// A request with what its header says.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) frame: Frame,
    pub(super) key: i16,
    pub(super) version: i16,
    pub(super) correlation: i32,
    pub(super) client: String,
}

impl Request {
    pub(super) fn parse(frame: Frame) -> Result<Self> {
        let mut fields = Fields(&frame);
        let (key, version, correlation) = (fields.i16()?, fields.i16()?, fields.i32()?);
        // Null is -1.
        let length = usize::try_from(fields.i16()?).unwrap_or(0);
        let client = String::from_utf8_lossy(fields.take(length)?).into_owned();
        Ok(Self {
            frame,
            key,
            version,
            correlation,
            client,
        })
    }
}

/// The correlation id, which every answer begins with.
pub(super) fn correlation(answer: &Frame) -> Result<i32> {
    Fields(answer).i32()
}

/// The first error code in the answer to a request that changes a transaction; 0 when it was done, `None` for other
/// requests and for versions that librdkafka does not speak.
pub(super) fn error_code(key: i16, version: i16, answer: &Frame) -> Option<i16> {
    let read = || -> Result<Option<i16>> {
        let mut fields = Fields(answer);
        fields.i32()?;
        let simple = [Api::EndTxn, Api::AddOffsetsToTxn];
        if simple.iter().any(|api| api.is(key)) && version < 3 {
            fields.take(4)?;
        } else if Api::InitProducerId.is(key) {
            // From version 2 on an empty list of tagged fields stands before the throttle time.
            fields.take(if version < 2 { 4 } else { 5 })?;
        } else if Api::AddPartitionsToTxn.is(key) && version < 3 {
            fields.take(4 + 4)?;
            let topic = fields.i16()?;
            fields.take(usize::try_from(topic)? + 4 + 4)?;
        } else if Api::TxnOffsetCommit.is(key) && version == 3 {
            // Lengths of compact fields are one more; those here fit one byte.
            fields.take(1 + 4 + 1)?;
            let topic = usize::from(fields.take(1)?[0]);
            fields.take(topic.saturating_sub(1) + 1 + 4)?;
        } else {
            return Ok(None);
        }
        fields.i16().map(Some)
    };
    read().ok().flatten()
}

/// The answer to a metadata request with an empty list of brokers.
pub(super) fn without_brokers(version: i16, answer: &Frame) -> Result<Frame> {
    // Since version 9 lists and texts are compact, and everything ends with tagged fields.
    ensure!((9..=13).contains(&version), "metadata of version {version}");
    let mut fields = Fields(answer);
    fields.take(CORRELATION_TAGS_THROTTLE)?;
    for _ in 0..fields.compact()? {
        fields.take(4)?;
        let host = fields.compact()?;
        fields.take(host + 4)?;
        let rack = fields.compact()?;
        fields.take(rack)?;
        ensure!(fields.take(1)? == [0], "a broker with tagged fields");
    }
    let head = &answer[..CORRELATION_TAGS_THROTTLE];
    Ok([head, &[1], fields.0].concat())
}

/// The answer to a fetch with an empty list of topics.
pub(super) fn without_records(version: i16, answer: &Frame) -> Result<Frame> {
    // Since version 12 lists are compact, and everything ends with tagged fields.
    ensure!((12..=17).contains(&version), "fetch of version {version}");
    let mut fields = Fields(answer);
    // The error code and the number of the session.
    let head = fields.take(CORRELATION_TAGS_THROTTLE + 2 + 4)?;
    Ok([head, &[1, 0]].concat())
}

/// What stands before the list of brokers.
const CORRELATION_TAGS_THROTTLE: usize = 4 + 1 + 4;

/// Reads fields one after the other.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8]> {
        let (head, rest) = self
            .0
            .split_at_checked(length)
            .context("a frame is too short")?;
        self.0 = rest;
        Ok(head)
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take(2)?.try_into()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take(4)?.try_into()?))
    }

    /// The length of a compact list or text that fits one byte; 0 for null.
    fn compact(&mut self) -> Result<usize> {
        let byte = self.take(1)?[0];
        ensure!(byte < 0x80, "a long list or text");
        Ok(usize::from(byte.saturating_sub(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_it_is_and_whose() {
        let frame = b"\x00\x1a\x00\x01\x00\x00\x00\x07\x00\x03one-and-more".to_vec();
        let request = Request::parse(frame).unwrap();
        assert!(Api::EndTxn.is(request.key));
        assert_eq!((request.version, request.correlation), (1, 7));
        assert_eq!(request.client, "one");
        let nameless = Request::parse(b"\x00\x00\x00\x07\x00\x00\x00\x01\xff\xff".to_vec());
        assert_eq!(nameless.unwrap().client, "");
        assert!(Request::parse(b"\x00\x00\x00".to_vec()).is_err());
    }

    #[test]
    fn brokers_are_taken_out_of_metadata() {
        let answer = b"\x00\x00\x00\x05\x00\x00\x00\x00\x00\x02\x00\x00\x00\x01\x03ab\x00\x00\x23\x84\x00\x00and the rest";
        let without = without_brokers(12, &answer.to_vec()).unwrap();
        assert_eq!(
            without,
            b"\x00\x00\x00\x05\x00\x00\x00\x00\x00\x01and the rest"
        );
        assert!(without_brokers(8, &answer.to_vec()).is_err());
    }

    #[test]
    fn records_are_taken_out_of_a_fetch() {
        let answer =
            b"\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02and the rest";
        let without = without_records(16, &answer.to_vec()).unwrap();
        assert_eq!(without, [&answer[..15], &[1, 0]].concat());
        assert!(without_records(11, &answer.to_vec()).is_err());
    }

    #[test]
    fn error_codes_are_found_in_answers() {
        let key = |api: Api| api as i16;
        let end = b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x2f".to_vec();
        assert_eq!(error_code(key(Api::EndTxn), 1, &end), Some(47));
        assert_eq!(error_code(key(Api::EndTxn), 5, &end), None);
        let added =
            b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\x02ab\x00\x00\x00\x01\x00\x00\x00\x00\x00\x30";
        assert_eq!(
            error_code(key(Api::AddPartitionsToTxn), 0, &added.to_vec()),
            Some(48)
        );
        let offsets =
            b"\x00\x00\x00\x01\x00\x00\x00\x00\x00\x02\x03ab\x02\x00\x00\x00\x00\x00\x2f\x00\x00\x00";
        assert_eq!(
            error_code(key(Api::TxnOffsetCommit), 3, &offsets.to_vec()),
            Some(47)
        );
        assert_eq!(error_code(key(Api::Fetch), 4, &end), None);
    }
}
