//! One request of librdkafka's admin interface that the safe crate does not have.
#![expect(
    unsafe_code,
    reason = "calls librdkafka; every block states why it is sound"
)]

use std::ffi::c_int;
use std::ptr;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::error::{IsError, KafkaError, RDKafkaErrorCode};

/// A request with its answer; all of it is destroyed when it is dropped.
pub(super) struct Call {
    options: *mut rd::rd_kafka_AdminOptions_t,
    queue: *mut rd::rd_kafka_queue_t,
    event: *mut rd::rd_kafka_event_t,
}

impl Call {
    /// Sends a request with these options and waits for the answer. `client` is a live handle of
    /// the library; `options` may change the options, `send` sends the request with them to the
    /// queue. Both call the library only.
    pub(super) fn make(
        client: *mut rd::rd_kafka_t,
        (operation, timeout): (rd::rd_kafka_admin_op_t, Duration),
        options: impl FnOnce(*mut rd::rd_kafka_AdminOptions_t),
        send: impl FnOnce(*mut rd::rd_kafka_AdminOptions_t, *mut rd::rd_kafka_queue_t),
    ) -> Result<Self, KafkaError> {
        let millis = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the handle is live; options and queue are made for this call, used while it is,
        // and destroyed by `Drop`. The setter gets a value that it accepts.
        let mut call = unsafe {
            let made = rd::rd_kafka_AdminOptions_new(client, operation);
            rd::rd_kafka_AdminOptions_set_request_timeout(made, millis, ptr::null_mut(), 0);
            Self {
                options: made,
                queue: rd::rd_kafka_queue_new(client),
                event: ptr::null_mut(),
            }
        };
        options(call.options);
        send(call.options, call.queue);
        // The request's own time-out comes first.
        // SAFETY: the queue is live; the event is ours until `call` is dropped.
        call.event = unsafe { rd::rd_kafka_queue_poll(call.queue, millis.saturating_add(1000)) };
        if call.event.is_null() {
            let code = RDKafkaErrorCode::OperationTimedOut;
            return Err(KafkaError::MetadataFetch(code));
        }
        // SAFETY: the event is live.
        let error = unsafe { rd::rd_kafka_event_error(call.event) };
        if error.is_error() {
            return Err(KafkaError::MetadataFetch(error.into()));
        }
        Ok(call)
    }

    /// The answer; lives as long as the call.
    pub(super) fn event(&self) -> *mut rd::rd_kafka_event_t {
        self.event
    }
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
