//! Brings a client back to its bootstrap servers when an answer names no broker.
//!
//! A broker that was fenced while it stood still, and goes on, says for a moment that there are none.
//! librdkafka 2.12.1 then gives every broker up that it knows, the bootstrap servers with them, and has
//! nobody left to ask: the client waits for ever (confluentinc/librdkafka issue 5301, open). What
//! should bring it back, a new bootstrap when all connections are down, is called off by the very answer.
//!
//! So the linker puts these functions before the library's (`build.rs`). They let it do as it does,
//! and then add the bootstrap servers again, as an application may at any time.
#![expect(
    unsafe_code,
    reason = "stands before functions of librdkafka, and calls it"
)]

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::ptr;

use rdkafka::bindings as rd;

thread_local! {
    /// The client that has given a broker up while this thread reads an answer.
    static GAVE_UP: Cell<*mut rd::rd_kafka_t> = const { Cell::new(ptr::null_mut()) };
}

unsafe extern "C" {
    fn __real_rd_kafka_broker_decommission(
        client: *mut rd::rd_kafka_t,
        broker: *mut c_void,
        threads: *mut c_void,
    );
    fn __real_rd_kafka_parse_Metadata(
        broker: *mut c_void,
        request: *mut c_void,
        answer: *mut c_void,
        metadata: *mut *mut rd::rd_kafka_metadata,
    ) -> rd::rd_kafka_resp_err_t;
    fn __real_rd_kafka_parse_Metadata_admin(
        broker: *mut c_void,
        answer: *mut c_void,
        topics: *mut c_void,
        metadata: *mut *mut rd::rd_kafka_metadata,
    ) -> rd::rd_kafka_resp_err_t;
}

/// Notes whose broker is given up.
// SAFETY: no other symbol has this name; it is called with the arguments of the original.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_broker_decommission(
    client: *mut rd::rd_kafka_t,
    broker: *mut c_void,
    threads: *mut c_void,
) {
    GAVE_UP.set(client);
    // SAFETY: the arguments as they came.
    unsafe { __real_rd_kafka_broker_decommission(client, broker, threads) }
}

// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_parse_Metadata(
    broker: *mut c_void,
    request: *mut c_void,
    answer: *mut c_void,
    metadata: *mut *mut rd::rd_kafka_metadata,
) -> rd::rd_kafka_resp_err_t {
    GAVE_UP.set(ptr::null_mut());
    // SAFETY: the arguments as they came. What is written to `metadata` begins with the public struct.
    unsafe {
        let code = __real_rd_kafka_parse_Metadata(broker, request, answer, metadata);
        come_back((*metadata).as_ref());
        code
    }
}

// SAFETY: as above.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap_rd_kafka_parse_Metadata_admin(
    broker: *mut c_void,
    answer: *mut c_void,
    topics: *mut c_void,
    metadata: *mut *mut rd::rd_kafka_metadata,
) -> rd::rd_kafka_resp_err_t {
    GAVE_UP.set(ptr::null_mut());
    // SAFETY: as above.
    unsafe {
        let code = __real_rd_kafka_parse_Metadata_admin(broker, answer, topics, metadata);
        come_back((*metadata).as_ref());
        code
    }
}

/// Adds the bootstrap servers again where an answer has left the client without brokers. `None` for
/// an answer that was not understood, which changes nothing.
fn come_back(metadata: Option<&rd::rd_kafka_metadata>) {
    let client = GAVE_UP.take();
    if client.is_null() || metadata.is_none_or(|metadata| metadata.broker_cnt > 0) {
        return;
    }
    // SAFETY: the client lives, as this is a thread of its own. With no room the length is written.
    unsafe {
        let conf = rd::rd_kafka_conf(client);
        let name = c"bootstrap.servers".as_ptr();
        let mut length = 0;
        rd::rd_kafka_conf_get(conf, name, ptr::null_mut(), &raw mut length);
        let mut servers: Vec<c_char> = vec![0; length + 1];
        length = servers.len();
        rd::rd_kafka_conf_get(conf, name, servers.as_mut_ptr(), &raw mut length);
        rd::rd_kafka_brokers_add(client, servers.as_ptr());
    }
}

/// Has them linked whatever the order in which the linker sees the libraries.
#[used]
static LINKED: (Decommission, [Parse; 2]) = (
    __wrap_rd_kafka_broker_decommission,
    [
        __wrap_rd_kafka_parse_Metadata,
        __wrap_rd_kafka_parse_Metadata_admin,
    ],
);

type Decommission = unsafe extern "C" fn(*mut rd::rd_kafka_t, *mut c_void, *mut c_void);
type Parse = unsafe extern "C" fn(
    *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut *mut rd::rd_kafka_metadata,
) -> rd::rd_kafka_resp_err_t;
