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
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{Accept, TlsAcceptor};

use super::places::{MOST, MOST_OF_ONE, Place, Places};
use crate::{descriptors, repeats};

/// A client that takes nothing for this long while something is to be sent is let go: a suspended laptop would keep a
/// stream's encoder running for ever.
const STALL_LIMIT: Duration = Duration::from_secs(15);

/// Bytes that the kernel takes beyond what it has sent. By itself it takes megabytes: a viewer with a slow line would see
/// pictures that are half a minute old.
const UNSENT: u32 = 32 << 10;

/// A connection on which nothing has come or gone for this long is let go, so that those who only hold connections open do
/// not keep others out.
const IDLE_LIMIT: Duration = Duration::from_secs(120);

/// How long a request may take to come. By itself the HTTP library waits as long as a byte comes now and then.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);

/// How long accepting stops when no descriptors are left for clients: those that come wait in the kernel.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a client may take to agree on TLS.
const GREETING_LIMIT: Duration = Duration::from_secs(10);

/// Accepts connections; with TLS, the clients' greetings are part of the connection, so that a slow one holds up no other.
pub(super) struct Doors {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    places: Places,
}

impl Doors {
    pub fn new(listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        Doors::of(MOST, listener, tls)
    }

    fn of(most: usize, listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        Doors { listener, tls, places: Places::new(most, MOST_OF_ONE) }
    }
}

impl Listener for Doors {
    type Io = Connection;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Connection, SocketAddr) {
        let (stream, address, place) = loop {
            let free = self.places.free().await;
            while descriptors::are_scarce() {
                repeats::warn("", "", "HTTP clients have to wait: too many files and connections are open");
                tokio::time::sleep(PAUSE).await;
            }
            // The inherent `accept` returns errors; the trait's waits out a lack of file descriptors.
            let (stream, address) = Listener::accept(&mut self.listener).await;
            match self.places.take(free, address.ip()) {
                Some(place) => break (stream, address, place),
                None => {
                    let ip = address.ip();
                    repeats::warn("", "", &format!("{ip} has {MOST_OF_ONE} connections; no more from there"));
                }
            }
        };
        let sparing = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
        if let Err(error) = stream.set_nodelay(true).and(sparing) {
            tracing::debug!("{address}: {error}");
        }
        let wire = match &self.tls {
            None => Wire::Plain(stream),
            Some(tls) => Wire::Greeting {
                accept: Box::new(tls.accept(stream)),
                limit: Box::pin(tokio::time::sleep(GREETING_LIMIT)),
            },
        };
        (Connection { _place: Some(place), ..Connection::new(wire, STALL_LIMIT, IDLE_LIMIT) }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// What a handler knows of its connection.
#[derive(Clone)]
pub(super) struct Peer {
    pub address: SocketAddr,
    /// Changes whenever all that was written so far has been handed to the kernel.
    pub flushed: watch::Receiver<()>,
}

impl Connected<IncomingStream<'_, Doors>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Doors>) -> Self {
        Peer { address: *stream.remote_addr(), flushed: stream.io().flushed.subscribe() }
    }
}

pub(super) struct Connection {
    wire: Wire,
    flushed: watch::Sender<()>,
    limit: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    idle_limit: Duration,
    /// Starts anew with every byte that comes or goes.
    idle: Option<Pin<Box<Sleep>>>,
    /// When the first byte came to which nothing has been answered.
    request: Option<Instant>,
    request_limit: Duration,
    /// Given back with the connection.
    _place: Option<Place>,
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

impl Connection {
    fn new(wire: Wire, limit: Duration, idle_limit: Duration) -> Self {
        Connection {
            wire,
            flushed: watch::Sender::new(()),
            limit,
            stalled: None,
            idle_limit,
            idle: None,
            request: None,
            request_limit: REQUEST_LIMIT,
            _place: None,
        }
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
            self.stalled = None;
            self.request = None;
            self.busy();
            return written;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        stalled.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
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

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = match self.wire.poll_writer(cx) {
            Poll::Ready(carrier) => carrier?.poll_read(cx, buffer),
            Poll::Pending => Poll::Pending,
        };
        if read.is_ready() {
            self.busy();
            let began = *self.request.get_or_insert_with(Instant::now);
            if began.elapsed() > self.request_limit {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            return read;
        }
        let limit = self.idle_limit;
        let idle = self.idle.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        idle.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncWrite for Connection {
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
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.wire {
            Wire::Greeting { .. } | Wire::Gone => Poll::Ready(Ok(())),
            Wire::Plain(_) | Wire::Tls(_) => self.with_writer(cx, |writer, cx| writer.poll_shutdown(cx)),
        }
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
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut doors = Doors::new(listener, None);
            // A client with little room of its own, so that what is seen is ours.
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_recv_buffer_size(4 << 10).unwrap();
            client.connect(&doors.local_addr().unwrap().into()).unwrap();
            let (mut connection, _) = doors.accept().await;
            let taken = taken(&mut connection).await;
            assert!((4 << 10..128 << 10).contains(&taken), "{taken} bytes");
            let Wire::Plain(stream) = &connection.wire else { panic!("there is no TLS here") };
            SockRef::from(stream).set_tcp_notsent_lowat(u32::MAX).unwrap();
            let more = super::tests::taken(&mut connection).await;
            assert!(more > 128 << 10, "by itself the kernel takes only {more} bytes more: this test tells nothing");
        });
    }

    #[test]
    fn a_client_that_says_nothing_is_let_go_and_makes_room_for_the_next() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let mut doors = Doors::of(1, listener, None);
            let _clients = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
            let (mut first, _) = doors.accept().await;
            first.idle_limit = Duration::from_millis(200);
            let mut second = Box::pin(doors.accept());
            assert!(tokio::time::timeout(Duration::from_millis(50), &mut second).await.is_err(), "there is one place");
            // Pictures that go out keep a connection, although nothing comes in.
            let mut bytes = [0; 8];
            let started = Instant::now();
            let pictures = async {
                for _ in 0..8 {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    std::future::poll_fn(|cx| {
                        let read = Pin::new(&mut first).poll_read(cx, &mut ReadBuf::new(&mut bytes));
                        assert!(read.is_pending(), "{read:?}");
                        Pin::new(&mut first).poll_write(cx, b"picture")
                    })
                    .await
                    .unwrap();
                }
            };
            pictures.await;
            assert!(started.elapsed() > Duration::from_millis(400));
            let mut buffer = [0; 8];
            let mut buffer = ReadBuf::new(&mut buffer);
            let gone = std::future::poll_fn(|cx| Pin::new(&mut first).poll_read(cx, &mut buffer)).await;
            assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::TimedOut);
            drop(first);
            second.await;
        });
    }

    #[test]
    fn a_request_that_never_ends_is_ended() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let mut connection =
                Connection::new(Wire::Plain(listener.accept().await.unwrap().0), STALL_LIMIT, IDLE_LIMIT);
            connection.request_limit = Duration::from_millis(200);
            let mut drip = async |connection: &mut Connection, wait: u64| {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                client.write_all(b"x").await.unwrap();
                connection.read_u8().await
            };
            for wait in [0, 150] {
                drip(&mut connection, wait).await.unwrap();
            }
            // An answer ends a request; the next one has its own time.
            connection.write_all(b"answer").await.unwrap();
            for wait in [150, 0, 150] {
                drip(&mut connection, wait).await.unwrap();
            }
            let error = drip(&mut connection, 150).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_client_that_takes_nothing_is_let_go() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let mut connection = Connection::new(Wire::Plain(stream), Duration::from_millis(100), IDLE_LIMIT);
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

    /// A server's and a client's side of TLS, agreed on.
    async fn secure(limit: Duration) -> (Connection, tokio_rustls::client::TlsStream<TcpStream>) {
        use rustls::pki_types::{PrivateKeyDer, ServerName};
        use std::sync::Arc;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pair = rcgen::generate_simple_self_signed(["localhost".to_string()]).unwrap();
        let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
        let server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![pair.cert.der().clone()], key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(pair.cert.der().clone()).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut doors = Doors::new(listener, Some(TlsAcceptor::from(Arc::new(server))));
        let tcp = TcpStream::connect(address).await.unwrap();
        SockRef::from(&tcp).set_recv_buffer_size(4 << 10).unwrap();
        let (mut connection, _) = doors.accept().await;
        connection.limit = limit;
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let greet = connector.connect(ServerName::try_from("localhost").unwrap(), tcp);
        let greeted = std::future::poll_fn(|cx| connection.wire.poll_greeted(cx));
        let (greeted, client) = tokio::join!(greeted, greet);
        greeted.unwrap();
        (connection, client.unwrap())
    }

    #[test]
    fn over_tls_flushed_means_that_the_kernel_has_it_and_a_stalled_client_is_let_go() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut connection, mut client) = secure(Duration::from_millis(300)).await;
            let mut flushed = connection.flushed.subscribe();
            let poll = |connection: &mut Connection, cx: &mut Context<'_>| Pin::new(connection).poll_flush(cx);
            tokio::io::AsyncWriteExt::write_all(&mut connection, b"picture").await.unwrap();
            assert!(!flushed.has_changed().unwrap());
            std::future::poll_fn(|cx| poll(&mut connection, cx)).await.unwrap();
            assert!(flushed.has_changed().unwrap());
            let mut got = [0; 7];
            tokio::io::AsyncReadExt::read_exact(&mut client, &mut got).await.unwrap();
            assert_eq!(&got, b"picture");
            // The client reads no more: what is left in TLS's buffer is never flushed, and that is no way to stay for ever.
            flushed.mark_unchanged();
            let chunk = vec![0; 4 << 10];
            while let Ok(Ok(_)) = tokio::time::timeout(
                Duration::from_millis(50),
                std::future::poll_fn(|cx| Pin::new(&mut connection).poll_write(cx, &chunk)),
            )
            .await
            {}
            let error = std::future::poll_fn(|cx| poll(&mut connection, cx)).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_client_that_does_not_speak_tls_is_let_go() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut connection, _client) = secure(Duration::from_secs(1)).await;
            connection.wire = {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                let mut client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                std::io::Write::write_all(&mut client, b"GET / HTTP/1.1\r\n\r\n").unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
                let config = rustls::ServerConfig::builder_with_provider(provider)
                    .with_safe_default_protocol_versions()
                    .unwrap()
                    .with_no_client_auth()
                    .with_cert_resolver(std::sync::Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
                let accept = Box::new(TlsAcceptor::from(std::sync::Arc::new(config)).accept(stream));
                Wire::Greeting { accept, limit: Box::pin(tokio::time::sleep(GREETING_LIMIT)) }
            };
            let mut buffer = [0; 16];
            assert!(tokio::io::AsyncReadExt::read(&mut connection, &mut buffer).await.is_err());
            assert!(tokio::io::AsyncReadExt::read(&mut connection, &mut buffer).await.is_err(), "and stays so");
        });
    }
}
