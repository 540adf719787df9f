//! A transactional producer over librdkafka's C interface.
//!
//! The safe crate cannot hook the interceptor that tells of requests without an answer, waits 100
//! ms in every commit, and hides the generation of group metadata. All three decide whether a
//! transaction can be trusted, so this file makes exactly those calls itself.
#![expect(
    unsafe_code,
    reason = "calls librdkafka; every block states why it is sound"
)]

use std::ffi::{CStr, CString, c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;
use std::time::Duration;

use rdkafka::bindings as rd;
use rdkafka::config::ClientConfig;
use rdkafka::error::IsError;
use rdkafka::types::RDKafkaRespErr;

use crate::broker::classify::{Error, Reaction, Stop, TransactionFailure, transaction};
use crate::broker::signals::Signals;
use crate::broker::{Names, Partition, Topic};

/// A record to send. `None` as value is a tombstone.
pub struct Outgoing<'a> {
    pub partition: Partition,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'static str, String)],
    /// Number under which the record's offset is asked for once it was delivered.
    pub receipt: Option<usize>,
}

/// One client of the library, with one transactional id and, after [`Client::initialise`], one
/// epoch. A client is never initialised twice.
pub struct Client {
    handle: NonNull<rd::rd_kafka_t>,
    topics: [*mut rd::rd_kafka_topic_t; Topic::ALL.len()],
    signals: Box<Signals>,
}

// SAFETY: librdkafka's handles may be used from any thread; `Client` hands out no reference that
// is bound to the thread that made it.
unsafe impl Send for Client {}

fn millis(timeout: Duration) -> c_int {
    c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX)
}

/// Takes the error object of a transaction call apart and frees it.
fn outcome(attempt: &'static str, error: *mut rd::rd_kafka_error_t) -> Result<(), Error> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: `error` is a live error object that we own; its strings are copied before it is
    // destroyed, once.
    let failure = unsafe {
        let failure = TransactionFailure {
            code: rd::rd_kafka_error_code(error).into(),
            text: CStr::from_ptr(rd::rd_kafka_error_string(error))
                .to_string_lossy()
                .into_owned(),
            fatal: rd::rd_kafka_error_is_fatal(error) != 0,
            requires_abort: rd::rd_kafka_error_txn_requires_abort(error) != 0,
        };
        rd::rd_kafka_error_destroy(error);
        failure
    };
    Err(transaction(attempt, &failure))
}

fn last_error() -> (RDKafkaRespErr, String) {
    // SAFETY: reads the calling thread's last error; the text is a static string.
    unsafe {
        let error = rd::rd_kafka_last_error();
        let text = CStr::from_ptr(rd::rd_kafka_err2str(error));
        (error, text.to_string_lossy().into_owned())
    }
}

impl Client {
    /// Creates a client that has not spoken to the broker yet.
    pub(super) fn new(config: &ClientConfig, names: &Names) -> Result<Self, Error> {
        let attempt = "create the producer";
        let failed = |detail: String| Error::new(attempt, detail, Reaction::Stop(Stop::Failed));
        let native = config
            .create_native_config()
            .map_err(|error| failed(error.to_string()))?;
        let signals = Box::<Signals>::default();
        let mut reason = [0_u8; 512];
        // SAFETY: the configuration is live and owned by us; `rd_kafka_new` takes it over when it
        // succeeds. When it fails, it has freed the interceptors all the same, and freeing the
        // configuration would free them again (librdkafka issue 4142): so it is forgotten in any case.
        // `signals` is boxed and dropped after the handle.
        let handle = unsafe {
            let conf = native.ptr();
            signals.hook(conf);
            rd::rd_kafka_new(
                rd::rd_kafka_type_t::RD_KAFKA_PRODUCER,
                conf,
                reason.as_mut_ptr().cast(),
                reason.len(),
            )
        };
        #[expect(
            clippy::mem_forget,
            reason = "rd_kafka_new owns or has freed what it holds"
        )]
        std::mem::forget(native);
        let Some(handle) = NonNull::new(handle) else {
            let text = CStr::from_bytes_until_nul(&reason).unwrap_or(c"unknown reason");
            return Err(failed(text.to_string_lossy().into_owned()));
        };
        let mut client = Self {
            handle,
            topics: [ptr::null_mut(); Topic::ALL.len()],
            signals,
        };
        for topic in Topic::ALL {
            let name = CString::new(names.of(topic)).map_err(|error| failed(error.to_string()))?;
            // SAFETY: the handle is live; a null configuration asks for the default one.
            let topic_handle =
                unsafe { rd::rd_kafka_topic_new(handle.as_ptr(), name.as_ptr(), ptr::null_mut()) };
            if topic_handle.is_null() {
                return Err(failed(last_error().1));
            }
            client.topics[topic as usize] = topic_handle;
        }
        Ok(client)
    }

    /// Connects and learns where partitions live, so that [`Client::initialise`] is quick.
    pub(super) fn warm_up(&self, timeout: Duration) {
        let mut metadata: *const rd::rd_kafka_metadata = ptr::null();
        // SAFETY: the handle is live; metadata is destroyed once and only when it was given.
        unsafe {
            rd::rd_kafka_metadata(
                self.handle.as_ptr(),
                0,
                ptr::null_mut(),
                &raw mut metadata,
                millis(timeout),
            );
            if !metadata.is_null() {
                rd::rd_kafka_metadata_destroy(metadata);
            }
        }
    }

    /// Whether a deciding request went without an answer, so that a late copy of it may still
    /// arrive, or a connection broke, so that a broker may have lost markers.
    pub fn is_suspect(&self) -> bool {
        self.signals.suspect.load(Ordering::SeqCst)
    }

    /// Takes the transactional id over: ends whatever its last holder left open, and fences it.
    pub(super) fn initialise(&self, timeout: Duration) -> Result<(), Error> {
        // Connections that broke while it stood by decided nothing.
        self.signals.suspect.store(false, Ordering::SeqCst);
        // SAFETY: the handle is live; the error object is owned by `outcome`.
        outcome("take over the transactional id", unsafe {
            rd::rd_kafka_init_transactions(self.handle.as_ptr(), millis(timeout))
        })
    }

    pub(super) fn begin(&self) -> Result<(), Error> {
        self.take_receipts();
        // SAFETY: as above.
        outcome("begin the transaction", unsafe {
            rd::rd_kafka_begin_transaction(self.handle.as_ptr())
        })
    }

    /// Queues a record. `false` when the queue is full: [`Client::poll`] and try again.
    pub(super) fn send(&self, record: &Outgoing) -> Result<bool, Error> {
        let receipt = record.receipt.map_or(ptr::null_mut(), |receipt| {
            ptr::without_provenance_mut::<c_void>(receipt + 1)
        });
        let topic = self.topics[record.partition.topic as usize];
        let (value, value_len) = raw(record.value);
        let (key, key_len) = raw(record.key);
        if !record.headers.is_empty() {
            return self.send_with_headers(record, receipt);
        }
        // SAFETY: topic and handle are live; key and value are copied during the call.
        let sent = unsafe {
            rd::rd_kafka_produce(
                topic,
                record.partition.number,
                rd::RD_KAFKA_MSG_F_COPY,
                value.cast_mut(),
                value_len,
                key,
                key_len,
                receipt,
            )
        };
        if sent == 0 {
            return Ok(true);
        }
        let (code, text) = last_error();
        queued(code, text)
    }

    fn send_with_headers(&self, record: &Outgoing, receipt: *mut c_void) -> Result<bool, Error> {
        let (value, value_len) = raw(record.value);
        let (key, key_len) = raw(record.key);
        let names: Vec<CString> = record
            .headers
            .iter()
            .map(|(name, _)| CString::new(*name).expect("header names are constants"))
            .collect();
        let mem = |ptr: *const c_void, size| rd::rd_kafka_vu_s__bindgen_ty_1 {
            mem: rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_1 {
                ptr: ptr.cast_mut(),
                size,
            },
        };
        let mut parts = vec![
            part(
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_RKT,
                rd::rd_kafka_vu_s__bindgen_ty_1 {
                    rkt: self.topics[record.partition.topic as usize],
                },
            ),
            part(
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_PARTITION,
                rd::rd_kafka_vu_s__bindgen_ty_1 {
                    i32_: record.partition.number,
                },
            ),
            part(
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_MSGFLAGS,
                rd::rd_kafka_vu_s__bindgen_ty_1 {
                    i: rd::RD_KAFKA_MSG_F_COPY,
                },
            ),
            part(
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_VALUE,
                mem(value, value_len),
            ),
            part(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_KEY, mem(key, key_len)),
            part(
                rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_OPAQUE,
                rd::rd_kafka_vu_s__bindgen_ty_1 { ptr: receipt },
            ),
        ];
        for (name, (_, text)) in names.iter().zip(record.headers) {
            let size = isize::try_from(text.len()).unwrap_or(isize::MAX);
            let header = rd::rd_kafka_vu_s__bindgen_ty_1__bindgen_ty_2 {
                name: name.as_ptr(),
                val: text.as_ptr().cast(),
                size,
            };
            let header = rd::rd_kafka_vu_s__bindgen_ty_1 { header };
            parts.push(part(rd::rd_kafka_vtype_t::RD_KAFKA_VTYPE_HEADER, header));
        }
        // SAFETY: every part points into `record`, `names` or the client, all of which outlive
        // the call, and the library copies what it keeps.
        let error =
            unsafe { rd::rd_kafka_produceva(self.handle.as_ptr(), parts.as_ptr(), parts.len()) };
        if error.is_null() {
            return Ok(true);
        }
        // SAFETY: we own the error object and destroy it once, after its text was copied.
        let (code, text) = unsafe {
            let code = rd::rd_kafka_error_code(error);
            let text = CStr::from_ptr(rd::rd_kafka_error_string(error)).to_string_lossy();
            let text = text.into_owned();
            rd::rd_kafka_error_destroy(error);
            (code, text)
        };
        queued(code, text)
    }

    /// Serves the library's callbacks.
    pub(super) fn poll(&self, timeout: Duration) {
        // SAFETY: the handle is live.
        unsafe { rd::rd_kafka_poll(self.handle.as_ptr(), millis(timeout)) };
    }

    /// Waits for `timeout` at most until every record was delivered; `false` when it was too
    /// short.
    pub(super) fn flush(&self, timeout: Duration) -> Result<bool, Error> {
        // SAFETY: the handle is live. Delivery callbacks run inside this call.
        let error = unsafe { rd::rd_kafka_flush(self.handle.as_ptr(), millis(timeout)) };
        let failed = self.signals.failed_deliveries.load(Ordering::Relaxed);
        if failed > 0 {
            return Err(self.undelivered(format!("{failed} records were refused")));
        }
        Ok(!error.is_error())
    }

    /// Why records were not delivered: the client may be over, fenced for example, or may not
    /// write to a topic.
    pub(super) fn undelivered(&self, detail: String) -> Error {
        let attempt = "deliver the transaction's records";
        if let Some(refused) = self.refused(attempt) {
            return refused;
        }
        // SAFETY: the handle is live; no text is asked for.
        let code = unsafe { rd::rd_kafka_fatal_error(self.handle.as_ptr(), ptr::null_mut(), 0) };
        if !code.is_error() {
            return Error::new(attempt, detail, Reaction::Recover);
        }
        let failure = TransactionFailure {
            code: code.into(),
            text: detail,
            fatal: true,
            requires_abort: false,
        };
        transaction(attempt, &failure)
    }

    /// What the broker has refused of the open transaction. Only a transaction that can still be
    /// begun changes by being begun, and an open one cannot: the answer is the error that it ended
    /// with, or that it is open.
    fn refused(&self, attempt: &'static str) -> Option<Error> {
        // SAFETY: the handle is live; the error object is owned by `outcome`.
        let error = outcome(attempt, unsafe {
            rd::rd_kafka_begin_transaction(self.handle.as_ptr())
        });
        let error = error.err()?;
        matches!(error.reaction, Reaction::Stop(Stop::NotAllowed(_))).then_some(error)
    }

    /// Offsets of the records sent with a receipt since [`Client::begin`], once flushed.
    pub(super) fn take_receipts(&self) -> Vec<i64> {
        let mut receipts = self.signals.receipts();
        std::mem::take(&mut *receipts)
    }

    /// Adds source positions (offsets of the next records) to the transaction.
    pub(super) fn send_offsets(
        &self,
        offsets: &[(CString, i32, i64)],
        membership: &Membership,
        timeout: Duration,
    ) -> Result<(), Error> {
        // SAFETY: the list is created, filled and destroyed here; the library copies it. Topic
        // names are zero-terminated and outlive the call. `membership` owns live metadata.
        let error = unsafe {
            let list = rd::rd_kafka_topic_partition_list_new(
                c_int::try_from(offsets.len()).unwrap_or(c_int::MAX),
            );
            for (topic, partition, offset) in offsets {
                let entry = rd::rd_kafka_topic_partition_list_add(list, topic.as_ptr(), *partition);
                (*entry).offset = *offset;
            }
            let error = rd::rd_kafka_send_offsets_to_transaction(
                self.handle.as_ptr(),
                list,
                membership.metadata.as_ptr(),
                millis(timeout),
            );
            rd::rd_kafka_topic_partition_list_destroy(list);
            error
        };
        outcome("add the source positions to the transaction", error)
    }

    /// Commits. An error may leave the outcome unknown.
    pub(super) fn commit(&self, timeout: Duration) -> Result<(), Error> {
        // SAFETY: the handle is live; the error object is owned by `outcome`.
        outcome("commit the transaction", unsafe {
            rd::rd_kafka_commit_transaction(self.handle.as_ptr(), millis(timeout))
        })
    }

    /// Aborts. An error may leave the outcome unknown.
    pub(super) fn abort(&self, timeout: Duration) -> Result<(), Error> {
        // SAFETY: as above.
        outcome("abort the transaction", unsafe {
            rd::rd_kafka_abort_transaction(self.handle.as_ptr(), millis(timeout))
        })
    }
}

fn raw(bytes: Option<&[u8]>) -> (*const c_void, usize) {
    bytes.map_or((ptr::null(), 0), |bytes| {
        (bytes.as_ptr().cast(), bytes.len())
    })
}

fn part(vtype: rd::rd_kafka_vtype_t, u: rd::rd_kafka_vu_s__bindgen_ty_1) -> rd::rd_kafka_vu_t {
    rd::rd_kafka_vu_t { vtype, u }
}

fn queued(code: RDKafkaRespErr, text: String) -> Result<bool, Error> {
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR__QUEUE_FULL => Ok(false),
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(true),
        _ => {
            let failure = TransactionFailure {
                code: code.into(),
                text,
                fatal: false,
                requires_abort: true,
            };
            Err(transaction("queue a record", &failure))
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // SAFETY: topics and handle are destroyed once, topics first. `signals` is freed after
        // this, when no thread of the library is left that could call back.
        unsafe {
            for topic in self.topics {
                if !topic.is_null() {
                    rd::rd_kafka_topic_destroy(topic);
                }
            }
            rd::rd_kafka_purge(
                self.handle.as_ptr(),
                rd::RD_KAFKA_PURGE_F_QUEUE | rd::RD_KAFKA_PURGE_F_INFLIGHT,
            );
            rd::rd_kafka_destroy(self.handle.as_ptr());
        }
    }
}

/// The membership of a consumer in its group at one moment. The broker accepts an offset commit
/// only from the generation named here, so it is fetched anew for every transaction.
pub struct Membership {
    metadata: NonNull<rd::rd_kafka_consumer_group_metadata_t>,
}

impl Membership {
    /// Metadata of a group without a member.
    pub(super) fn nobody(group: &str) -> Self {
        let group = CString::new(group).expect("the application id is checked");
        // SAFETY: the name is zero-terminated and copied; the metadata is ours to destroy, which
        // `Drop` does.
        let metadata = unsafe { rd::rd_kafka_consumer_group_metadata_new(group.as_ptr()) };
        Self {
            metadata: NonNull::new(metadata).expect("memory for a few words"),
        }
    }

    /// Fetches it. A member without generation or id is refused here, because the broker would
    /// not check it at all.
    pub(super) fn of(consumer: *mut rd::rd_kafka_t) -> Result<Self, Error> {
        let attempt = "prove membership of the group";
        let not_a_member = |detail| Error::new(attempt, detail, Reaction::Recover);
        // SAFETY: `consumer` is the live handle of a consumer; the metadata is ours to destroy,
        // which `Drop` does.
        let metadata = unsafe { rd::rd_kafka_consumer_group_metadata(consumer) };
        let membership = Self {
            metadata: NonNull::new(metadata).ok_or_else(|| not_a_member("no group metadata"))?,
        };
        // SAFETY: the metadata is live; the member id is a string inside it, or null.
        let (generation, nameless) = unsafe {
            let metadata = membership.metadata.as_ptr();
            let member = rd::rd_kafka_consumer_group_metadata_member_id(metadata);
            let nameless = member.is_null() || *member == 0;
            (
                rd::rd_kafka_consumer_group_metadata_generation_id(metadata),
                nameless,
            )
        };
        if generation < 0 || nameless {
            return Err(not_a_member(
                "the consumer is no member of its group at the moment",
            ));
        }
        Ok(membership)
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        // SAFETY: destroyed once.
        unsafe { rd::rd_kafka_consumer_group_metadata_destroy(self.metadata.as_ptr()) }
    }
}
