//! One question to an instance, from outside of its process.

use crate::http::forward::Forwarder;

/// Status and body of the answer to `GET path` of the instance at `address`; the error says why there is none.
pub fn get(address: &str, path: &str) -> Result<(u16, String), String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?;
    let answer = runtime.block_on(Forwarder::new("").get(address, path, None))?;
    let body = String::from_utf8_lossy(&answer.body).into_owned();
    Ok((answer.status.as_u16(), body))
}
