//! The rule service's sockets: a listener that can be closed and opened again, connections that can end in a reset.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::IncomingStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

const PAUSE_AFTER_ERROR: Duration = Duration::from_millis(20);

pub(super) struct Listener {
    address: SocketAddr,
    socket: Option<TcpListener>,
    open: watch::Receiver<bool>,
}

impl Listener {
    pub(super) async fn bind(address: SocketAddr, open: watch::Receiver<bool>) -> io::Result<Self> {
        let socket = Some(TcpListener::bind(address).await?);
        Ok(Self {
            address,
            socket,
            open,
        })
    }

    async fn try_accept(&mut self) -> io::Result<(Connection, SocketAddr)> {
        loop {
            if !*self.open.borrow_and_update() {
                self.socket = None;
                // The sender lives as long as the service.
                let _ = self.open.changed().await;
                continue;
            }
            let socket = match self.socket.take() {
                Some(socket) => socket,
                None => TcpListener::bind(self.address).await?,
            };
            let socket = self.socket.insert(socket);
            tokio::select! {
                accepted = socket.accept() => {
                    let (stream, from) = accepted?;
                    return Ok((Connection { stream, peer: Peer::default() }, from));
                }
                _ = self.open.changed() => {}
            }
        }
    }
}

impl axum::serve::Listener for Listener {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        loop {
            match self.try_accept().await {
                Ok(accepted) => return accepted,
                Err(_) => tokio::time::sleep(PAUSE_AFTER_ERROR).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// A handler's hold on the connection its request came by.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    reset: Arc<AtomicBool>,
}

impl Peer {
    /// Lets the connection end with a reset instead of an orderly close.
    pub(super) fn reset_on_close(&self) {
        self.reset.store(true, Ordering::Relaxed);
    }
}

impl Connected<IncomingStream<'_, Listener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Listener>) -> Self {
        stream.io().peer.clone()
    }
}

pub(super) struct Connection {
    stream: TcpStream,
    peer: Peer,
}

impl Connection {
    fn stream(self: Pin<&mut Self>) -> Pin<&mut TcpStream> {
        Pin::new(&mut self.get_mut().stream)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.stream().poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.stream().poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.peer.reset.load(Ordering::Relaxed) {
            // An orderly end would go out before the reset.
            return Poll::Ready(Ok(()));
        }
        self.stream().poll_shutdown(context)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if self.peer.reset.load(Ordering::Relaxed) {
            // With no time to linger, closing discards what is unsent and resets.
            let _ = self.stream.set_zero_linger();
        }
    }
}
