//! What the cluster lets this client do (KIP-430). The safe crate does not ask.
#![expect(
    unsafe_code,
    reason = "calls librdkafka; every block states why it is sound"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char};
use std::slice;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use crate::broker::call::Call;
use crate::broker::rights::Operation;

/// What is allowed on one resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Allowed {
    /// Not even to see it.
    Nothing,
    These(BTreeSet<Operation>),
    /// The cluster does not say: there is no such resource, or it cannot answer now.
    Unknown,
}

/// What is allowed on these topics, by name.
pub(super) fn on_topics(
    client: *mut rd::rd_kafka_t,
    names: &[&str],
    timeout: Duration,
) -> Result<BTreeMap<String, Allowed>, KafkaError> {
    let owned = zero_terminated(names);
    let mut pointers: Vec<*const c_char> = owned.iter().map(|name| name.as_ptr()).collect();
    let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    let call = Call::make(
        client,
        (operation, timeout),
        include_operations,
        // SAFETY: handle, options and queue are live; the names are copied into the collection,
        // and the collection into the request.
        |options, queue| unsafe {
            let topics =
                rd::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len());
            rd::rd_kafka_DescribeTopics(client, topics, options, queue);
            rd::rd_kafka_TopicCollection_destroy(topics);
        },
    )?;
    let mut found = BTreeMap::new();
    let mut count = 0;
    // SAFETY: the event is live and of this call, so its result is no null pointer; the array has
    // `count` entries that live as long as the event, and names are zero-terminated.
    unsafe {
        let result = rd::rd_kafka_event_DescribeTopics_result(call.event());
        let topics = rd::rd_kafka_DescribeTopics_result_topics(result, &raw mut count);
        for index in 0..count {
            let topic = *topics.add(index);
            let name = CStr::from_ptr(rd::rd_kafka_TopicDescription_name(topic));
            let error = rd::rd_kafka_TopicDescription_error(topic);
            let mut length = 0;
            let operations =
                rd::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut length);
            let allowed = allowed(error, operations, length);
            found.insert(name.to_string_lossy().into_owned(), allowed);
        }
    }
    Ok(found)
}

fn zero_terminated(names: &[&str]) -> Vec<CString> {
    let owned = names.iter().map(|name| CString::new(*name));
    owned
        .map(|name| name.expect("names of the configuration are checked"))
        .collect()
}

fn include_operations(options: *mut rd::rd_kafka_AdminOptions_t) {
    // SAFETY: the options are live, and take this value for this request: the error object is
    // null.
    unsafe { rd::rd_kafka_AdminOptions_set_include_authorized_operations(options, 1) };
}

/// # Safety
///
/// `error` is null or a live error; `operations` is null or an array of so many operations.
unsafe fn allowed(
    error: *const rd::rd_kafka_error_t,
    operations: *const rd::rd_kafka_AclOperation_t,
    count: usize,
) -> Allowed {
    // SAFETY: the caller's promise; the function takes null for "no error".
    let code = Code::from(unsafe { rd::rd_kafka_error_code(error) });
    match code {
        Code::NoError => {}
        Code::TopicAuthorizationFailed => return Allowed::Nothing,
        _ => return Allowed::Unknown,
    }
    if operations.is_null() {
        return Allowed::Unknown;
    }
    // Read as numbers: a broker may know operations that this library does not.
    // SAFETY: the caller's promise; an operation is a 32-bit number.
    let numbers = unsafe { slice::from_raw_parts(operations.cast::<u32>(), count) };
    Allowed::These(numbers.iter().filter_map(|number| known(*number)).collect())
}

fn known(number: u32) -> Option<Operation> {
    use rd::rd_kafka_AclOperation_t as Native;
    let pairs = [
        (Native::RD_KAFKA_ACL_OPERATION_READ, Operation::Read),
        (Native::RD_KAFKA_ACL_OPERATION_WRITE, Operation::Write),
        (Native::RD_KAFKA_ACL_OPERATION_CREATE, Operation::Create),
        (Native::RD_KAFKA_ACL_OPERATION_DESCRIBE, Operation::Describe),
        (
            Native::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS,
            Operation::DescribeConfigs,
        ),
    ];
    let pair = pairs
        .into_iter()
        .find(|(native, _)| *native as u32 == number)?;
    Some(pair.1)
}
