//! Access rights of a running cluster: grant and take away. The safe crate has no such call.
#![expect(
    unsafe_code,
    reason = "calls librdkafka; every block states why it is sound"
)]

use std::ffi::{CStr, CString};
use std::ptr;

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::AdminClient;
use rdkafka::bindings as rd;
use rdkafka::client::DefaultClientContext;
use serde::Deserialize;

const LIMIT_MILLIS: i32 = 20_000;

/// An access control entry that allows something from every host, in Kafka's words.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Acl {
    /// `User:name`
    pub principal: String,
    /// `TOPIC`, `GROUP` or `TRANSACTIONAL_ID`
    pub resource_type: String,
    pub resource_name: String,
    /// `LITERAL` or `PREFIXED`
    pub pattern_type: String,
    /// `READ`, `DESCRIBE_CONFIGS`, …
    pub operation: String,
}

/// A super user's connection.
pub struct Acls {
    admin: AdminClient<DefaultClientContext>,
}

/// Options, queue and event of one request; destroyed with it.
struct Request {
    options: *mut rd::rd_kafka_AdminOptions_t,
    queue: *mut rd::rd_kafka_queue_t,
    event: *mut rd::rd_kafka_event_t,
}

impl Drop for Request {
    fn drop(&mut self) {
        // SAFETY: made by the library for this request and destroyed once, the event first.
        unsafe {
            if !self.event.is_null() {
                rd::rd_kafka_event_destroy(self.event);
            }
            rd::rd_kafka_queue_destroy(self.queue);
            rd::rd_kafka_AdminOptions_destroy(self.options);
        }
    }
}

impl Acls {
    pub fn connect(bootstrap: &str) -> Result<Self> {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", bootstrap);
        Ok(Self {
            admin: config.create().context("create an admin client")?,
        })
    }

    /// Grants rights; those that are there already are fine.
    pub fn grant(&self, acls: &[Acl]) -> Result<()> {
        let mut bindings = acls.iter().map(binding).collect::<Result<Vec<_>>>()?;
        let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_CREATEACLS;
        // SAFETY: handle, options and queue are live, the library copies the bindings, which are
        // destroyed after the call, once.
        let request = self.request(operation, |client, options, queue| unsafe {
            rd::rd_kafka_CreateAcls(
                client,
                bindings.as_mut_ptr(),
                bindings.len(),
                options,
                queue,
            );
            rd::rd_kafka_AclBinding_destroy_array(bindings.as_mut_ptr(), bindings.len());
        })?;
        let mut count = 0;
        // SAFETY: the event is live and of this request; the results live as long as it.
        unsafe {
            let result = rd::rd_kafka_event_CreateAcls_result(request.event);
            let results = rd::rd_kafka_CreateAcls_result_acls(result, &raw mut count);
            for index in 0..count {
                check(rd::rd_kafka_acl_result_error(*results.add(index)))?;
            }
        }
        Ok(())
    }

    /// Takes rights away; each must have been granted.
    pub fn take_away(&self, acls: &[Acl]) -> Result<()> {
        // A filter that names everything is a binding to the library.
        let mut filters = acls.iter().map(filter).collect::<Result<Vec<_>>>()?;
        let operation = rd::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DELETEACLS;
        // SAFETY: as above.
        let request = self.request(operation, |client, options, queue| unsafe {
            rd::rd_kafka_DeleteAcls(client, filters.as_mut_ptr(), filters.len(), options, queue);
            rd::rd_kafka_AclBinding_destroy_array(filters.as_mut_ptr(), filters.len());
        })?;
        let mut count = 0;
        // SAFETY: as above.
        unsafe {
            let result = rd::rd_kafka_event_DeleteAcls_result(request.event);
            let responses = rd::rd_kafka_DeleteAcls_result_responses(result, &raw mut count);
            for (index, acl) in acls.iter().enumerate().take(count) {
                let response = *responses.add(index);
                check(rd::rd_kafka_DeleteAcls_result_response_error(response))?;
                let mut matching = 0;
                rd::rd_kafka_DeleteAcls_result_response_matching_acls(response, &raw mut matching);
                if matching != 1 {
                    bail!("{acl:?} was granted {matching} times");
                }
            }
        }
        Ok(())
    }

    fn request(
        &self,
        operation: rd::rd_kafka_admin_op_t,
        send: impl FnOnce(
            *mut rd::rd_kafka_t,
            *mut rd::rd_kafka_AdminOptions_t,
            *mut rd::rd_kafka_queue_t,
        ),
    ) -> Result<Request> {
        let client = self.admin.inner().native_ptr();
        // SAFETY: the handle lives as long as `self`; the setter takes this value.
        let mut request = unsafe {
            let options = rd::rd_kafka_AdminOptions_new(client, operation);
            rd::rd_kafka_AdminOptions_set_request_timeout(
                options,
                LIMIT_MILLIS,
                ptr::null_mut(),
                0,
            );
            Request {
                options,
                queue: rd::rd_kafka_queue_new(client),
                event: ptr::null_mut(),
            }
        };
        send(client, request.options, request.queue);
        // SAFETY: the queue is live.
        request.event = unsafe { rd::rd_kafka_queue_poll(request.queue, LIMIT_MILLIS + 1000) };
        if request.event.is_null() {
            bail!("no answer about access rights");
        }
        // SAFETY: the event is live; its text is zero-terminated.
        unsafe {
            if rd::rd_kafka_event_error(request.event)
                != rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
            {
                let text = CStr::from_ptr(rd::rd_kafka_event_error_string(request.event));
                bail!("access rights: {}", text.to_string_lossy());
            }
        }
        Ok(request)
    }
}

/// # Safety
///
/// `error` is null or a live error.
unsafe fn check(error: *const rd::rd_kafka_error_t) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the caller's promise; the text is zero-terminated.
    let text = unsafe { CStr::from_ptr(rd::rd_kafka_error_string(error)) };
    bail!("access right: {}", text.to_string_lossy())
}

/// The words of an entry for the library, with texts that outlive the call.
struct Native {
    kind: rd::rd_kafka_ResourceType_t,
    name: CString,
    pattern: rd::rd_kafka_ResourcePatternType_t,
    principal: CString,
    operation: rd::rd_kafka_AclOperation_t,
}

fn native(acl: &Acl) -> Result<Native> {
    use rd::rd_kafka_AclOperation_t as Operation;
    use rd::rd_kafka_ResourcePatternType_t as Pattern;
    use rd::rd_kafka_ResourceType_t as Kind;
    Ok(Native {
        kind: match acl.resource_type.as_str() {
            "TOPIC" => Kind::RD_KAFKA_RESOURCE_TOPIC,
            "GROUP" => Kind::RD_KAFKA_RESOURCE_GROUP,
            "TRANSACTIONAL_ID" => Kind::RD_KAFKA_RESOURCE_TRANSACTIONAL_ID,
            other => bail!("no type of resource: {other}"),
        },
        name: CString::new(acl.resource_name.as_str())?,
        pattern: match acl.pattern_type.as_str() {
            "LITERAL" => Pattern::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
            "PREFIXED" => Pattern::RD_KAFKA_RESOURCE_PATTERN_PREFIXED,
            other => bail!("no pattern: {other}"),
        },
        principal: CString::new(acl.principal.as_str())?,
        operation: match acl.operation.as_str() {
            "READ" => Operation::RD_KAFKA_ACL_OPERATION_READ,
            "WRITE" => Operation::RD_KAFKA_ACL_OPERATION_WRITE,
            "CREATE" => Operation::RD_KAFKA_ACL_OPERATION_CREATE,
            "DESCRIBE" => Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE,
            "DESCRIBE_CONFIGS" => Operation::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS,
            other => bail!("no operation: {other}"),
        },
    })
}

fn binding(acl: &Acl) -> Result<*mut rd::rd_kafka_AclBinding_t> {
    let native = native(acl)?;
    let mut reason = [0_u8; 256];
    // SAFETY: the texts are zero-terminated and copied; the buffer is as long as said.
    let made = unsafe {
        rd::rd_kafka_AclBinding_new(
            native.kind,
            native.name.as_ptr(),
            native.pattern,
            native.principal.as_ptr(),
            c"*".as_ptr(),
            native.operation,
            rd::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
            reason.as_mut_ptr().cast(),
            reason.len(),
        )
    };
    made_or(made, &reason)
}

fn filter(acl: &Acl) -> Result<*mut rd::rd_kafka_AclBindingFilter_t> {
    let native = native(acl)?;
    let mut reason = [0_u8; 256];
    // SAFETY: as above.
    let made = unsafe {
        rd::rd_kafka_AclBindingFilter_new(
            native.kind,
            native.name.as_ptr(),
            native.pattern,
            native.principal.as_ptr(),
            c"*".as_ptr(),
            native.operation,
            rd::rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
            reason.as_mut_ptr().cast(),
            reason.len(),
        )
    };
    made_or(made, &reason)
}

fn made_or<T>(made: *mut T, reason: &[u8]) -> Result<*mut T> {
    if made.is_null() {
        let text = CStr::from_bytes_until_nul(reason).unwrap_or(c"unknown reason");
        bail!("describe an access right: {}", text.to_string_lossy());
    }
    Ok(made)
}
