//! Keeps librdkafka from taking leaders from answers to fetches (KIP-951).
//!
//! In 2.12.1 what it makes of such an answer is wrong. Room is made for the partitions that name
//! a new leader. Then every partition of the topic is written into it that does not name "none",
//! and one that names nothing counts as named 0; and what was not written is read all the same
//! (confluentinc/librdkafka issue 5280, open). When a broker came back, instances died of it with
//! SIGSEGV, and memory that is overwritten may do worse. No property turns this off.
//!
//! So the linker puts these functions into the place of the library's (`build.rs`): leaders come
//! from metadata alone, which the library asks for anyway when a partition has lost its leader.
#![expect(
    unsafe_code,
    reason = "gives two functions the names that the linker looks for"
)]

use std::ffi::{c_int, c_void};

/// `RD_KAFKA_OP_RES_HANDLED`.
const HANDLED: c_int = 1;

/// Writes nothing. What is left out is never read, because of the other one. Answers to produce requests do
/// not come here: their call stays inside one file of the library, and writes the one element there is.
// SAFETY: no other symbol has this name; it is called with the arguments of the original.
#[unsafe(no_mangle)]
extern "C" fn __wrap_rd_kafkap_leader_discovery_set_CurrentLeader(
    _: *mut c_void,
    _: *mut c_void,
    _: c_int,
    _: c_int,
    _: i32,
    _: *mut c_void,
) {
}

/// Takes nothing over; the caller frees it.
// SAFETY: as above.
#[unsafe(no_mangle)]
extern "C" fn __wrap_rd_kafka_metadata_update_op(_: *mut c_void, _: *mut c_void) -> c_int {
    HANDLED
}

/// Has both linked whatever the order in which the linker sees the libraries.
#[used]
static LINKED: (Discovery, Update) = (
    __wrap_rd_kafkap_leader_discovery_set_CurrentLeader,
    __wrap_rd_kafka_metadata_update_op,
);

type Discovery = extern "C" fn(*mut c_void, *mut c_void, c_int, c_int, i32, *mut c_void);
type Update = extern "C" fn(*mut c_void, *mut c_void) -> c_int;
