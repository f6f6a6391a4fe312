//! The byte stream of a client's connection: reports when all written bytes have reached the kernel, and ends when the
//! client has read nothing for a while.
//!
//! hyper and the kernel buffer what a client does not read. For an endless MJPEG response this means old frames. So
//! the sender of frames waits until the previous one has left the process ([`ClientConnection::flushed`]), and the
//! kernel's queue of unsent bytes is limited.
//!
//! tokio-io-timeout is not used here: its read timer would end an MJPEG response, because it ignores bytes that are
//! written, and it does not report a stall before the time limit, which [`HttpConnectionPermit`] needs.

use std::convert::Infallible;
use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Sleep};

use super::connection_limit::HttpConnectionPermit;

/// A client that reads nothing for this long while something is to be sent is disconnected: a suspended laptop would
/// keep a stream's encoder running forever.
const STALL_LIMIT: Duration = Duration::from_secs(15);

/// Maximum number of bytes that the kernel queues beyond what it has sent. Its default is megabytes: a viewer on a slow
/// line would see frames that are half a minute old.
const MAX_UNSENT: u32 = 32 << 10;

/// A connection on which nothing was received or sent for this long is closed, also while a response is in progress
/// that has nothing to send: its client may have vanished. Between requests, the limit of a request's header is reached
/// first (`accept`).
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// How long bytes are discarded that a client still sends after its response.
const LINGER: Duration = Duration::from_secs(2);

/// Maximum number of consecutive reads before other tasks may run.
const READS_PER_POLL: usize = 64;

/// Exists as long as a connection is open, also when it has become a WebSocket.
pub(super) type OpenConnection = mpsc::Sender<Infallible>;

/// The connection of a request, for its handler.
#[derive(Clone)]
pub(super) struct ClientConnection {
    pub address: SocketAddr,
    /// Changes each time all bytes written so far have been passed to the kernel.
    pub flushed: watch::Receiver<()>,
    pub permit: Arc<HttpConnectionPermit>,
    /// Delays the end of the server while a handler uses the connection.
    pub _open: OpenConnection,
}

pub(super) struct HttpConnection<S> {
    stream: S,
    flushed: watch::Sender<()>,
    stall_limit: Duration,
    /// Runs while the client reads nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    idle_limit: Duration,
    /// Restarted by every read or write.
    idle: Option<Pin<Box<Sleep>>>,
    /// Runs after the response, while the client still sends.
    lingering: Option<Pin<Box<Sleep>>>,
    permit: Arc<HttpConnectionPermit>,
}

/// Makes the kernel send small pieces at once and queue few unsent bytes.
pub(super) fn set_socket_options(stream: &TcpStream) {
    let lowat = SockRef::from(stream).set_tcp_notsent_lowat(MAX_UNSENT);
    if let Err(error) = stream.set_nodelay(true).and(lowat) {
        tracing::debug!("socket options of an HTTP connection not set: {error}");
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> HttpConnection<S> {
    pub fn new(stream: S, permit: Arc<HttpConnectionPermit>) -> Self {
        HttpConnection {
            stream,
            flushed: watch::Sender::new(()),
            stall_limit: STALL_LIMIT,
            stalled: None,
            idle_limit: IDLE_LIMIT,
            idle: None,
            lingering: None,
            permit,
        }
    }

    pub fn peer(&self, address: SocketAddr, open: OpenConnection) -> ClientConnection {
        ClientConnection { address, flushed: self.flushed.subscribe(), permit: Arc::clone(&self.permit), _open: open }
    }

    fn restart_idle_timer(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.as_mut().reset(Instant::now() + self.idle_limit);
        }
    }

    /// Returns the result of a write, or `TimedOut` when the client has read nothing for the stall limit.
    fn limit_stall<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stalled.take().is_some() {
                self.permit.set_stalled(false);
            }
            self.restart_idle_timer();
            return written;
        }
        if self.stalled.is_none() {
            self.permit.set_stalled(true);
        }
        let limit = self.stall_limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Discards what a client still sends after its response, for a limited time. Closing a socket with unread bytes
    /// resets the connection, and a client that is still sending its request would not receive the refusal.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 4 << 10];
        for _ in 0..READS_PER_POLL {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    return self.lingering.as_mut().map_or(Poll::Ready(()), |end| end.as_mut().poll(cx));
                }
            }
            if self.lingering.is_none() {
                self.permit.set_waiting();
                self.lingering = Some(Box::pin(tokio::time::sleep(LINGER)));
            }
        }
        // Other tasks run before the next reads.
        cx.waker().wake_by_ref();
        self.lingering.as_mut().map_or(Poll::Ready(()), |end| end.as_mut().poll(cx))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for HttpConnection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.restart_idle_timer();
            return read;
        }
        let limit = self.idle_limit;
        let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        idle.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for HttpConnection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.limit_stall(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.limit_stall(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called when hyper's own buffer is empty. TLS has another buffer, which may have to wait for the client.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        let flushed = self.limit_stall(flushed, cx);
        if flushed.is_ready() {
            self.flushed.send_replace(());
            self.permit.set_flushed();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lingering.is_none() {
            let closed = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.limit_stall(closed, cx))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests;
