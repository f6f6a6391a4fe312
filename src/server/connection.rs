//! A client's connection: knows when all that was written has reached the kernel, and ends when the client has not
//! taken a byte for a while.
//!
//! HTTP libraries buffer what a client does not take, and so does the kernel. For endless pictures that means old ones:
//! so the sender of pictures asks [`Peer`] and goes on only when the last one has left the process, and the kernel is
//! told to take no more than is about to be sent.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::Sleep;

/// A client that takes nothing for this long while something is to be sent is let go: a suspended laptop would keep a
/// stream's encoder running for ever.
const STALL_LIMIT: Duration = Duration::from_secs(15);

/// Bytes that the kernel takes beyond what it has sent. By itself it takes megabytes: a viewer with a slow line would see
/// pictures that are half a minute old.
const UNSENT: u32 = 32 << 10;

/// Accepts connections.
pub(super) struct Doors(pub TcpListener);

impl Listener for Doors {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        // The inherent `accept` returns errors; the trait's waits out a lack of file descriptors.
        let (stream, address) = Listener::accept(&mut self.0).await;
        let sparing = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        if let Err(error) = stream.set_nodelay(true).and(sparing) {
            tracing::debug!("{address}: {error}");
        }
        (Connection::new(stream, STALL_LIMIT), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// What a handler knows of its connection.
#[derive(Clone)]
pub(super) struct Peer {
    /// Changes whenever all that was written so far has been handed to the kernel.
    pub flushed: watch::Receiver<()>,
}

impl Connected<IncomingStream<'_, Doors>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Doors>) -> Self {
        Peer { flushed: stream.io().flushed.subscribe() }
    }
}

pub(super) struct Connection {
    stream: TcpStream,
    flushed: watch::Sender<()>,
    limit: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Connection {
    fn new(stream: TcpStream, limit: Duration) -> Self {
        Connection { stream, flushed: watch::Sender::new(()), limit, stalled: None }
    }

    /// Passes on what became of a write, unless it has been waiting too long.
    fn watched(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.watched(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.watched(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Called when the HTTP library's own buffer is empty.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if flushed.is_ready() {
            self.flushed.send_replace(());
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};

    /// Bytes that a connection takes for a client that reads none.
    async fn taken(connection: &mut Connection) -> usize {
        let chunk = vec![0; 4 << 10];
        let mut taken = 0;
        while let Ok(Ok(written)) = tokio::time::timeout(
            Duration::from_millis(200),
            std::future::poll_fn(|cx| Pin::new(&mut *connection).poll_write(cx, &chunk)),
        )
        .await
        {
            taken += written;
        }
        taken
    }

    #[test]
    fn the_kernel_piles_up_no_pictures() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut doors = Doors(TcpListener::bind("127.0.0.1:0").await.unwrap());
            // A client with little room of its own, so that what is seen is ours.
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_recv_buffer_size(4 << 10).unwrap();
            client.connect(&doors.local_addr().unwrap().into()).unwrap();
            let (mut connection, _) = doors.accept().await;
            let taken = taken(&mut connection).await;
            assert!((4 << 10..128 << 10).contains(&taken), "{taken} bytes");
            SockRef::from(&connection.stream).set_tcp_notsent_lowat(u32::MAX).unwrap();
            let more = super::tests::taken(&mut connection).await;
            assert!(more > 128 << 10, "by itself the kernel takes only {more} bytes more: this test tells nothing");
        });
    }

    #[test]
    fn a_client_that_takes_nothing_is_let_go() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = Connection::new(stream, Duration::from_millis(100));
            let chunk = vec![0; 1 << 16];
            let write = |cx: &mut Context<'_>| Pin::new(&mut connection).poll_write(cx, &chunk);
            let mut write = write;
            let error = loop {
                match std::future::poll_fn(&mut write).await {
                    Ok(_) => {}
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            drop(client);
        });
    }
}
