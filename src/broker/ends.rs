//! Where logs end, many of them in one request to each broker. The safe crate asks for one
//! partition at a time.
#![expect(
    unsafe_code,
    reason = "calls librdkafka; every block states why it is sound"
)]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_int};
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::error::{IsError, KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::broker::scan::Isolation;
use crate::broker::{Names, Partition};

/// Things of the library that are destroyed however the call ends.
struct Call {
    options: *mut rd::rd_kafka_AdminOptions_t,
    queue: *mut rd::rd_kafka_queue_t,
    event: *mut rd::rd_kafka_event_t,
}

impl Drop for Call {
    fn drop(&mut self) {
        // SAFETY: each was made by the library for this call and is destroyed once; the event,
        // which may be null, before the queue that it came from.
        unsafe {
            if !self.event.is_null() {
                rd::rd_kafka_event_destroy(self.event);
            }
            rd::rd_kafka_queue_destroy(self.queue);
            rd::rd_kafka_AdminOptions_destroy(self.options);
        }
    }
}

/// Ends of these partitions for a reader with this isolation, in their order. `client` is a live
/// handle of the library.
pub(super) fn ends(
    client: *mut rd::rd_kafka_t,
    (names, partitions): (&Names, &[Partition]),
    isolation: Isolation,
    timeout: Duration,
) -> Result<Vec<i64>, KafkaError> {
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
    let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: the handle is live; options and queue are used and destroyed while it is. The list
    // is copied by the library. Both setters get values that they accept, so the error object of
    // the second is null. The event is ours until `call` is dropped.
    let call = unsafe {
        let options = rd::rd_kafka_AdminOptions_new(
            client,
            rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS,
        );
        rd::rd_kafka_AdminOptions_set_request_timeout(options, millis, ptr::null_mut(), 0);
        rd::rd_kafka_AdminOptions_set_isolation_level(options, level);
        let queue = rd::rd_kafka_queue_new(client);
        rd::rd_kafka_ListOffsets(client, asked.ptr(), options, queue);
        // The request's own time-out comes first.
        let event = rd::rd_kafka_queue_poll(queue, millis.saturating_add(1000));
        Call {
            options,
            queue,
            event,
        }
    };
    if call.event.is_null() {
        return Err(KafkaError::MetadataFetch(
            RDKafkaErrorCode::OperationTimedOut,
        ));
    }
    // SAFETY: the event is live.
    let error = unsafe { rd::rd_kafka_event_error(call.event) };
    if error.is_error() {
        return Err(KafkaError::MetadataFetch(error.into()));
    }
    let found = read(&call, names)?;
    partitions
        .iter()
        .map(|partition| found.get(partition).copied())
        .map(|end| {
            end.ok_or(KafkaError::MetadataFetch(
                RDKafkaErrorCode::UnknownPartition,
            ))
        })
        .collect()
}

fn read(call: &Call, names: &Names) -> Result<BTreeMap<Partition, i64>, KafkaError> {
    let mut found = BTreeMap::new();
    let mut count = 0;
    // SAFETY: the event is live and of this call, so its result is no null pointer; the array has
    // `count` entries and everything in it lives as long as the event. Topic names are
    // zero-terminated.
    unsafe {
        let result = rd::rd_kafka_event_ListOffsets_result(call.event);
        let entries = rd::rd_kafka_ListOffsets_result_infos(result, &raw mut count);
        for index in 0..count {
            let entry = rd::rd_kafka_ListOffsetsResultInfo_topic_partition(*entries.add(index));
            let (entry, name) = (&*entry, CStr::from_ptr((*entry).topic));
            if entry.err.is_error() {
                return Err(KafkaError::MetadataFetch(entry.err.into()));
            }
            if let Some(topic) = name.to_str().ok().and_then(|name| names.role(name)) {
                found.insert(Partition::new(topic, entry.partition), entry.offset);
            }
        }
    }
    Ok(found)
}
