//! What librdkafka tells a producer while it works: deliveries, requests that failed, connections
//! that broke.
#![expect(
    unsafe_code,
    reason = "called by librdkafka; every block states why it is sound"
)]

use std::collections::BTreeSet;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rdkafka::bindings as rd;
use rdkafka::error::IsError;
use rdkafka::types::RDKafkaRespErr;

use crate::broker::client::log;

/// Requests whose late copy could decide a later transaction: `AddPartitionsToTxn`,
/// `AddOffsetsToTxn`, `EndTxn`, `TxnOffsetCommit`.
const DECIDING_APIS: [i16; 4] = [24, 25, 26, 28];

/// A broker as the library names it: host and port. Its number can change.
type Broker = (Vec<u8>, c_int);

/// What the library's callbacks write; outlives the client.
#[derive(Default)]
pub struct Signals {
    /// Since the client was initialised a deciding request had no answer or an error, or a
    /// connection broke.
    pub suspect: AtomicBool,
    /// Brokers that there is a connection to.
    connected: Mutex<BTreeSet<Broker>>,
    /// A delivery failed: the transaction cannot be committed.
    pub failed_deliveries: AtomicUsize,
    /// Offsets of the delivered records that were sent with a receipt, by receipt number.
    receipts: Mutex<Vec<i64>>,
}

impl Signals {
    /// Has the library call back with these signals.
    ///
    /// # Safety
    ///
    /// `conf` is live, and `self` neither moves nor is dropped before the client that is made from
    /// it is destroyed.
    pub unsafe fn hook(&self, conf: *mut rd::rd_kafka_conf_t) {
        let pointer = ptr::from_ref(self).cast_mut().cast::<c_void>();
        // SAFETY: `conf` is live; `pointer` stays valid, as the caller promises.
        unsafe {
            rd::rd_kafka_conf_set_opaque(conf, pointer);
            rd::rd_kafka_conf_set_log_cb(conf, Some(on_log));
            rd::rd_kafka_conf_set_dr_msg_cb(conf, Some(on_delivery));
            let name = c"settle".as_ptr();
            rd::rd_kafka_conf_interceptor_add_on_new(conf, name, Some(on_new), pointer);
        }
    }

    pub fn receipts(&self) -> MutexGuard<'_, Vec<i64>> {
        self.receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

unsafe extern "C" fn on_new(
    handle: *mut rd::rd_kafka_t,
    _: *const rd::rd_kafka_conf_t,
    signals: *mut c_void,
    _: *mut c_char,
    _: usize,
) -> RDKafkaRespErr {
    let name = c"settle".as_ptr();
    // SAFETY: called by `rd_kafka_new` with the new handle and the pointer given with the
    // interceptor, which stays valid as long as the handle.
    unsafe {
        let error = rd::rd_kafka_interceptor_add_on_response_received(
            handle,
            name,
            Some(on_response),
            signals,
        );
        if error.is_error() {
            return error;
        }
        rd::rd_kafka_interceptor_add_on_broker_state_change(
            handle,
            name,
            Some(on_broker_state),
            signals,
        )
    }
}

/// A broker that had a connection and has none may have died, and forgotten how a transaction
/// ended.
unsafe extern "C" fn on_broker_state(
    _: *mut rd::rd_kafka_t,
    number: i32,
    _: *const c_char,
    name: *const c_char,
    port: c_int,
    state: *const c_char,
    signals: *mut c_void,
) -> RDKafkaRespErr {
    // SAFETY: both texts are zero-terminated and valid during the call; `signals` is the box of
    // the client whose handle is still alive.
    let (name, state, signals) = unsafe {
        let signals = &*signals.cast::<Signals>();
        (CStr::from_ptr(name), CStr::from_ptr(state), signals)
    };
    let broker = (name.to_bytes().to_vec(), port);
    let mut connected = signals
        .connected
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    match state.to_bytes() {
        // The library gives connections to the addresses it was told up when it knows brokers by
        // number, which may have the same address.
        _ if number < 0 => {}
        b"UP" => {
            connected.insert(broker);
        }
        b"DOWN" if connected.remove(&broker) => {
            signals.suspect.store(true, Ordering::SeqCst);
        }
        _ => {}
    }
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}

unsafe extern "C" fn on_response(
    _: *mut rd::rd_kafka_t,
    _: c_int,
    _: *const c_char,
    _: i32,
    api: i16,
    _: i16,
    _: i32,
    _: usize,
    _: i64,
    error: RDKafkaRespErr,
    signals: *mut c_void,
) -> RDKafkaRespErr {
    if error.is_error() && DECIDING_APIS.contains(&api) {
        // SAFETY: `signals` is the box of the client whose handle is still alive.
        let signals = unsafe { &*signals.cast::<Signals>() };
        signals.suspect.store(true, Ordering::SeqCst);
    }
    RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
}

unsafe extern "C" fn on_delivery(
    _: *mut rd::rd_kafka_t,
    message: *const rd::rd_kafka_message_t,
    signals: *mut c_void,
) {
    // SAFETY: the library passes a message that is valid during the call, and the opaque pointer
    // of the configuration, which is the client's box.
    let (message, signals) = unsafe { (&*message, &*signals.cast::<Signals>()) };
    if message.err.is_error() {
        signals.failed_deliveries.fetch_add(1, Ordering::Relaxed);
        return;
    }
    // A number in the place of a pointer: one more than the receipt, so that null means none.
    if let Some(receipt) = message._private.addr().checked_sub(1) {
        let mut receipts = signals.receipts();
        if receipts.len() <= receipt {
            receipts.resize(receipt + 1, -1);
        }
        receipts[receipt] = message.offset;
    }
}

unsafe extern "C" fn on_log(
    _: *const rd::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    message: *const c_char,
) {
    // SAFETY: both are zero-terminated strings of the library, valid during the call.
    let (facility, message) = unsafe { (CStr::from_ptr(facility), CStr::from_ptr(message)) };
    log(
        level,
        &facility.to_string_lossy(),
        &message.to_string_lossy(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn comes(signals: &Signals, number: i32, state: &CStr) -> bool {
        // SAFETY: the texts are zero-terminated, and nothing is written through the pointer.
        unsafe {
            on_broker_state(
                ptr::null_mut(),
                number,
                c"PLAINTEXT".as_ptr(),
                c"localhost".as_ptr(),
                9092,
                state.as_ptr(),
                ptr::from_ref(signals).cast_mut().cast(),
            );
        }
        signals.suspect.load(Ordering::SeqCst)
    }

    #[test]
    fn a_connection_that_breaks_is_suspect_and_one_that_is_handed_on_is_not() {
        let signals = Signals::default();
        assert!(!comes(&signals, -1, c"UP"));
        assert!(!comes(&signals, -1, c"DOWN"));
        assert!(!comes(&signals, 1, c"TRY_CONNECT"));
        assert!(!comes(&signals, 1, c"DOWN"));
        assert!(!comes(&signals, 1, c"UP"));
        assert!(comes(&signals, 1, c"DOWN"));
    }

    /// A bootstrap server is given up beside the broker that it is.
    #[test]
    fn a_broker_without_number_hides_no_break_of_another_at_its_address() {
        let signals = Signals::default();
        assert!(!comes(&signals, 1, c"UP"));
        assert!(!comes(&signals, -1, c"DOWN"));
        assert!(comes(&signals, 1, c"DOWN"));
    }
}
