//! Dead letters: the original bytes, and why they are no payment.

use crate::broker::{Partition, Topic};
use crate::codec::wire::{DETAIL_HEADER, REASON_HEADER, SOURCE_HEADER, TRUNCATED_HEADER};
use crate::domain::classify::DeadLetter;
use crate::domain::payment::Source;
use crate::engine::fixed::Fixed;
use crate::engine::outbox::Outbox;

/// Room for the headers, the record's framing and the batch's.
const OVERHEAD_BYTES: usize = 1024;

/// Adds a dead letter. `value` may be cut already: `length` is what the source record had. A key that
/// does not fit is left out, for half a key is another key.
pub fn push_dead_letter(
    fixed: &Fixed,
    source: Source,
    dead: &DeadLetter,
    (key, value, length): (Option<&[u8]>, &[u8], u64),
    out: &mut Outbox,
) {
    let number = source.partition % fixed.partitions.dead_letter;
    let room = fixed
        .dead_letter_bytes_max
        .saturating_sub(OVERHEAD_BYTES + dead.detail.len());
    let key = key.filter(|key| key.len() <= room);
    let room = room - key.map_or(0, <[u8]>::len);
    let kept = &value[..value.len().min(room)];
    let topic = fixed.names.of(Topic::Source);
    let mut headers = vec![
        (REASON_HEADER, dead.defect.as_str().to_owned()),
        (DETAIL_HEADER, dead.detail.clone()),
        (
            SOURCE_HEADER,
            format!("{topic}/{}/{}", source.partition, source.offset),
        ),
    ];
    if (kept.len() as u64) < length {
        headers.push((TRUNCATED_HEADER, length.to_string()));
    }
    out.push_raw(
        Partition::new(Topic::DeadLetter, number),
        (key, Some(kept)),
        headers,
    );
}
