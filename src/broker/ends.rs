//! Where logs end, many of them in one request to each broker. The safe crate asks for one
//! partition at a time.
#![expect(
    unsafe_code,
    reason = "calls librdkafka; every block states why it is sound"
)]

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::error::{IsError, KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::broker::call::Call;
use crate::broker::scan::Isolation;
use crate::broker::{Names, Partition};

/// Ends of these partitions for a reader with this isolation, in their order. `client` is a live
/// handle of the library.
pub(super) fn ends(
    client: *mut rd::rd_kafka_t,
    (names, partitions): (&Names, &[Partition]),
    isolation: Isolation,
    timeout: Duration,
) -> Result<Vec<i64>, KafkaError> {
    let found = known(client, (names, partitions), isolation, timeout)?;
    let end = |partition| match found.get(partition) {
        Some(end) => end.clone(),
        None => Err(KafkaError::MetadataFetch(
            RDKafkaErrorCode::UnknownPartition,
        )),
    };
    partitions.iter().map(end).collect()
}

/// The same, each by itself: one without a leader keeps no other from being known.
pub(super) fn known(
    client: *mut rd::rd_kafka_t,
    (names, partitions): (&Names, &[Partition]),
    isolation: Isolation,
    timeout: Duration,
) -> Result<BTreeMap<Partition, Result<i64, KafkaError>>, KafkaError> {
    let mut asked = TopicPartitionList::new();
    for partition in partitions {
        let name = names.of(partition.topic);
        asked.add_partition_offset(name, partition.number, Offset::End)?;
    }
    let level = match isolation {
        Isolation::Committed => {
            rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
        }
        Isolation::Uncommitted => {
            rd::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
        }
    };
    let call = Call::make(
        client,
        (
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
            timeout,
        ),
        // SAFETY: the options are live, and take this value: the error object is null.
        |options| unsafe {
            rd::rd_kafka_AdminOptions_set_isolation_level(options, level);
        },
        // SAFETY: handle, options and queue are live; the list is copied by the library.
        |options, queue| unsafe { rd::rd_kafka_ListOffsets(client, asked.ptr(), options, queue) },
    )?;
    Ok(read(&call, names))
}

fn read(call: &Call, names: &Names) -> BTreeMap<Partition, Result<i64, KafkaError>> {
    let mut found = BTreeMap::new();
    let mut count = 0;
    // SAFETY: the event is live and of this call, so its result is no null pointer; the array has
    // `count` entries and everything in it lives as long as the event. Topic names are
    // zero-terminated.
    unsafe {
        let result = rd::rd_kafka_event_ListOffsets_result(call.event());
        let entries = rd::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        for index in 0..count {
            let entry = rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*entries.add(index));
            let (entry, name) = (&*entry, CStr::from_ptr((*entry).topic));
            let end = if entry.err.is_error() {
                Err(KafkaError::MetadataFetch(entry.err.into()))
            } else {
                Ok(entry.offset)
            };
            if let Some(topic) = name.to_str().ok().and_then(|name| names.role(name)) {
                found.insert(Partition::new(topic, entry.partition), end);
            }
        }
    }
    found
}
