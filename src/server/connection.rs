//! A client's connection: knows when all that was written has reached the kernel, and ends when the client has not
//! taken a byte for a while.
//!
//! HTTP libraries buffer what a client does not take, and so does the kernel. For endless pictures that means old ones:
//! so the sender of pictures asks [`ClientConnection`] and goes on only when the last one has left the process, and the kernel is
//! told to take no more than is about to be sent.

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
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::connection_limit::HttpConnectionPermit;

/// A client that takes nothing for this long while something is to be sent is let go: a suspended laptop would keep a
/// stream's encoder running for ever.
const STALL_LIMIT: Duration = Duration::from_secs(15);

/// Bytes that the kernel takes beyond what it has sent. By itself it takes megabytes: a viewer with a slow line would see
/// pictures that are half a minute old.
const UNSENT: u32 = 32 << 10;

/// A connection on which nothing has come or gone for this long is closed, also while an answer is under way that has
/// nothing to say: its client may have vanished. Between requests, the limit of a request's header comes first (`accept`).
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// How long a client may take to agree on TLS.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// How long bytes are taken from a client that has got its answer and sends on.
const LINGER: Duration = Duration::from_secs(2);

/// Reads in a row before other connections have their turn.
const READS: usize = 64;

/// What a handler knows of its connection.
#[derive(Clone)]
pub(super) struct ClientConnection {
    pub address: SocketAddr,
    /// Changes whenever all that was written so far has been handed to the kernel.
    pub flushed: watch::Receiver<()>,
    pub place: Arc<HttpConnectionPermit>,
}

pub(super) struct HttpConnection {
    wire: Wire,
    flushed: watch::Sender<()>,
    limit: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    idle_limit: Duration,
    /// Starts anew with every byte that comes or goes.
    idle: Option<Pin<Box<Sleep>>>,
    /// Runs when all is said, while the client still sends.
    lingering: Option<Pin<Box<Sleep>>>,
    place: Arc<HttpConnectionPermit>,
}

/// What carries the bytes.
enum Wire {
    Plain(TcpStream),
    /// TLS is being agreed on.
    Greeting {
        accept: Box<Accept<TcpStream>>,
        limit: Pin<Box<Sleep>>,
    },
    Tls(Box<TlsStream<TcpStream>>),
    /// TLS was not agreed on.
    Gone,
}

impl Wire {
    /// Ready when bytes can be carried.
    fn poll_greeted(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Wire::Greeting { accept, limit } = self else {
            return Poll::Ready(if let Wire::Gone = self { Err(io::ErrorKind::NotConnected.into()) } else { Ok(()) });
        };
        let greeted = match Pin::new(accept).poll(cx) {
            Poll::Ready(greeted) => greeted,
            Poll::Pending if limit.as_mut().poll(cx).is_ready() => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => return Poll::Pending,
        };
        *self = Wire::Gone;
        *self = Wire::Tls(Box::new(greeted.inspect_err(|error| tracing::debug!("a client failed at TLS: {error}"))?));
        Poll::Ready(Ok(()))
    }

    /// What bytes are written to.
    fn poll_writer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut dyn Carrier>>> {
        ready!(self.poll_greeted(cx))?;
        match self {
            Wire::Plain(stream) => Poll::Ready(Ok(Pin::new(stream))),
            Wire::Tls(stream) => Poll::Ready(Ok(Pin::new(&mut **stream))),
            Wire::Greeting { .. } | Wire::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

/// Both kinds of connection.
trait Carrier: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Carrier for T {}

impl HttpConnection {
    /// A connection that was accepted; with TLS, the handshake is part of it, so that a slow one holds up no other.
    pub fn new(stream: TcpStream, tls: Option<&TlsAcceptor>, place: Arc<HttpConnectionPermit>) -> Self {
        let sparing = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        if let Err(error) = stream.set_nodelay(true).and(sparing) {
            tracing::debug!("the options of a connection cannot be set: {error}");
        }
        let wire = match tls {
            None => Wire::Plain(stream),
            Some(tls) => Wire::Greeting {
                accept: Box::new(tls.accept(stream)),
                limit: Box::pin(tokio::time::sleep(GREETING_LIMIT)),
            },
        };
        HttpConnection {
            wire,
            flushed: watch::Sender::new(()),
            limit: STALL_LIMIT,
            stalled: None,
            idle_limit: IDLE_LIMIT,
            idle: None,
            lingering: None,
            place,
        }
    }

    /// What handlers know of it.
    pub fn peer(&self, address: SocketAddr) -> ClientConnection {
        ClientConnection { address, flushed: self.flushed.subscribe(), place: Arc::clone(&self.place) }
    }

    /// Something came or went.
    fn busy(&mut self) {
        if let Some(idle) = &mut self.idle {
            idle.as_mut().reset(Instant::now() + self.idle_limit);
        }
    }

    /// Passes on what became of a write, unless it has been waiting too long.
    fn watched<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stalled.take().is_some() {
                self.place.stalls(false);
            }
            self.busy();
            return written;
        }
        if self.stalled.is_none() {
            self.place.stalls(true);
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Reads what a client still sends after its answer, for a while. Where something is unread, closing a connection
    /// resets it, and a client that has not sent all of its request would not see the answer that refuses it.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut bytes = [0; 4 << 10];
        for _ in 0..READS {
            let mut buffer = ReadBuf::new(&mut bytes);
            let Poll::Ready(Ok(carrier)) = self.wire.poll_writer(cx) else { return Poll::Ready(()) };
            match carrier.poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => {
                    return self.lingering.as_mut().map_or(Poll::Ready(()), |end| end.as_mut().poll(cx));
                }
            }
            if self.lingering.is_none() {
                self.place.waits();
                self.lingering = Some(Box::pin(tokio::time::sleep(LINGER)));
            }
        }
        // Others have their turn.
        cx.waker().wake_by_ref();
        self.lingering.as_mut().map_or(Poll::Ready(()), |end| end.as_mut().poll(cx))
    }

    fn with_writer<T>(
        &mut self,
        cx: &mut Context<'_>,
        work: impl FnOnce(Pin<&mut dyn Carrier>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let written = match self.wire.poll_writer(cx) {
            Poll::Ready(Ok(writer)) => work(writer, cx),
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        };
        self.watched(written, cx)
    }
}

impl AsyncRead for HttpConnection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = match self.wire.poll_writer(cx) {
            Poll::Ready(carrier) => carrier?.poll_read(cx, buffer),
            Poll::Pending => Poll::Pending,
        };
        if read.is_ready() {
            self.busy();
            return read;
        }
        let limit = self.idle_limit;
        let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        idle.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for HttpConnection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.with_writer(cx, |writer, cx| writer.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.with_writer(cx, |writer, cx| writer.poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        // So does TLS: it makes one record of the pieces.
        true
    }

    /// Called when the HTTP library's own buffer is empty. TLS has one more, which may have to wait for the client.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Wire::Greeting { .. } = self.wire {
            return Poll::Ready(Ok(()));
        }
        let flushed = self.with_writer(cx, |writer, cx| writer.poll_flush(cx));
        if flushed.is_ready() {
            self.flushed.send_replace(());
            self.place.written();
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Wire::Greeting { .. } | Wire::Gone = self.wire {
            return Poll::Ready(Ok(()));
        }
        if self.lingering.is_none() {
            ready!(self.with_writer(cx, |writer, cx| writer.poll_shutdown(cx)))?;
        }
        self.poll_linger(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests;
