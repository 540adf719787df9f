//! Connections: how many, how long, and how they end.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_native_tls::TlsAcceptor;

use crate::http::connections::{Connection, Connections};

/// With so many, an idle one gives way to the next. When all of them are being answered, further
/// connections wait in the backlog of the system.
const CONNECTIONS_MAX: usize = 256;
/// How often a full house is looked at again.
const FULL_PAUSE: Duration = Duration::from_millis(10);
/// For the TLS handshake; then for the whole head of a request, and for the next one on an idle
/// connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
const HEAD_BYTES: usize = 16 * 1024;
/// After this time a connection ends with its current answer, so that none is held for ever by a
/// client that does not read.
const LIFETIME: Duration = Duration::from_secs(300);
/// For the last answer of a connection that is past its time.
const LAST_ANSWER: Duration = Duration::from_secs(300);
/// For the last answers at shutdown.
const SHUTDOWN: Duration = Duration::from_secs(3);
/// After an accept that failed, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `shutdown` is ready; those that are left end within [`SHUTDOWN`].
pub(super) async fn run(
    listener: TcpListener,
    (router, tls): (Router, Option<TlsAcceptor>),
    shutdown: impl Future<Output = ()>,
) {
    let mut shutdown = pin!(shutdown);
    let (stop, stopped) = watch::channel(false);
    let mut connections = Connections::new(CONNECTIONS_MAX);
    let mut tasks = JoinSet::new();
    let mut waiting: Option<TcpStream> = None;
    loop {
        if let Some(stream) = waiting.take() {
            match connections.add() {
                Some(place) => {
                    let server = (router.clone(), tls.clone());
                    tasks.spawn(connection(stream, server, place, stopped.clone()));
                }
                None => waiting = Some(stream),
            }
        }
        tokio::select! {
            () = &mut shutdown => break,
            () = sleep(FULL_PAUSE), if waiting.is_some() => {}
            accepted = listener.accept(), if waiting.is_none() => match accepted {
                Ok((stream, _)) => waiting = Some(stream),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = tasks.join_next() => {}
        }
    }
    drop(listener);
    stop.send_replace(true);
    let all = async { while tasks.join_next().await.is_some() {} };
    if timeout(SHUTDOWN, all).await.is_err() {
        tracing::info!("HTTP answers that were still under way are cut");
    }
}

/// Serves one connection to its end, or until it has to give way.
async fn connection(
    stream: TcpStream,
    (router, tls): (Router, Option<TlsAcceptor>),
    place: Arc<Connection>,
    stopped: watch::Receiver<bool>,
) {
    // Small answers go out at once; a system that refuses merely answers later.
    drop(stream.set_nodelay(true));
    let serving = async {
        match tls {
            None => converse(stream, router, &place, stopped).await,
            Some(acceptor) => {
                // Who shakes no hands in time is no client of ours.
                if let Ok(Ok(stream)) = timeout(HEAD_TIMEOUT, acceptor.accept(stream)).await {
                    converse(stream, router, &place, stopped).await;
                }
            }
        }
    };
    tokio::select! {
        () = serving => {}
        () = place.must_leave() => {}
    }
}

/// Requests and answers. Errors are the client's: it went away or sent no HTTP.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    router: Router,
    place: &Arc<Connection>,
    mut stopped: watch::Receiver<bool>,
) {
    let place = Arc::clone(place);
    let count = from_fn(move |request: Request, next: Next| {
        let answering = place.answering();
        async move {
            let response = next.run(request).await;
            drop(answering);
            response
        }
    });
    let router = router.layer(count);
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
    );
    tokio::select! {
        _ = connection.as_mut() => return,
        () = sleep(LIFETIME) => {}
        _ = stopped.wait_for(|stopped| *stopped) => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(timeout(LAST_ANSWER, connection).await);
}
