use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::super::accept::handshake;
use super::super::connection_limit::{ConnectionLimits, HttpConnectionLimiter};
use super::*;

/// A guard against hanging.
const DEADLINE: Duration = Duration::from_secs(120);

fn permit() -> Arc<HttpConnectionPermit> {
    let limiter = HttpConnectionLimiter::new(ConnectionLimits { total: 1, per_address: 1, reserve: 0 });
    Arc::new(limiter.acquire([127, 0, 0, 1].into(), true).unwrap())
}

/// A connection without TLS and its client, whose receive buffer is small, so that the server's buffers are measured.
async fn plain() -> (HttpConnection<TcpStream>, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(4 << 10).unwrap();
    client.connect(&listener.local_addr().unwrap().into()).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    set_socket_options(&stream);
    (HttpConnection::new(stream, permit()), client)
}

/// How many bytes a connection accepts for a client that reads nothing.
async fn accepted_bytes(connection: &mut HttpConnection<TcpStream>) -> usize {
    let chunk = vec![0; 4 << 10];
    let mut accepted = 0;
    while let Ok(Ok(written)) = tokio::time::timeout(
        Duration::from_millis(200),
        std::future::poll_fn(|cx| Pin::new(&mut *connection).poll_write(cx, &chunk)),
    )
    .await
    {
        accepted += written;
    }
    accepted
}

#[tokio::test]
async fn the_kernel_queues_few_unsent_frames() {
    let (mut connection, _client) = plain().await;
    let accepted = accepted_bytes(&mut connection).await;
    assert!((4 << 10..128 << 10).contains(&accepted), "{accepted} bytes");
    SockRef::from(&connection.stream).set_tcp_notsent_lowat(u32::MAX).unwrap();
    let more = accepted_bytes(&mut connection).await;
    assert!(more > 128 << 10, "the kernel's default queue has only {more} bytes more: this test proves nothing");
}

#[tokio::test]
async fn writes_restart_the_idle_timer_and_its_end_closes_the_connection() {
    let (mut connection, _client) = plain().await;
    let mut bytes = [0; 8];
    // The timer starts when there is nothing to read.
    std::future::poll_fn(|cx| {
        let read = Pin::new(&mut connection).poll_read(cx, &mut ReadBuf::new(&mut bytes));
        assert!(read.is_pending(), "{read:?}");
        Poll::Ready(())
    })
    .await;
    for _ in 0..8 {
        let idle = connection.idle.as_mut().unwrap();
        // It would end soon.
        idle.as_mut().reset(Instant::now() + IDLE_LIMIT / 100);
        let written = Instant::now();
        std::future::poll_fn(|cx| Pin::new(&mut connection).poll_write(cx, b"frame")).await.unwrap();
        let deadline = connection.idle.as_ref().unwrap().deadline();
        assert!(deadline >= written + IDLE_LIMIT, "a sent frame restarts the timer");
    }
    // The limit has passed.
    connection.idle.as_mut().unwrap().as_mut().reset(Instant::now());
    let mut buffer = ReadBuf::new(&mut bytes);
    let ended = std::future::poll_fn(|cx| Pin::new(&mut connection).poll_read(cx, &mut buffer)).await;
    assert_eq!(ended.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_disconnected() {
    let (mut connection, client) = plain().await;
    connection.stall_limit = Duration::from_millis(100);
    let chunk = vec![0; 1 << 16];
    let mut write = |cx: &mut Context<'_>| Pin::new(&mut connection).poll_write(cx, &chunk);
    let error = loop {
        match std::future::poll_fn(&mut write).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    drop(client);
}

/// A server's TLS acceptor and a client's connector that trusts it.
fn tls() -> (TlsAcceptor, tokio_rustls::TlsConnector) {
    use rustls::pki_types::PrivateKeyDer;
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
    (TlsAcceptor::from(Arc::new(server)), tokio_rustls::TlsConnector::from(Arc::new(client)))
}

/// A client's TCP connection and the server's end of it.
async fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

/// Both ends of a TLS connection, after the handshake.
async fn secure(
    stall_limit: Duration,
) -> (HttpConnection<TlsStream<TcpStream>>, tokio_rustls::client::TlsStream<TcpStream>) {
    let ((acceptor, connector), (client, server)) = (tls(), tcp().await);
    SockRef::from(&client).set_recv_buffer_size(4 << 10).unwrap();
    set_socket_options(&server);
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let (server, client) = tokio::join!(handshake(&acceptor, server, DEADLINE), connector.connect(name, client));
    let mut connection = HttpConnection::new(server.unwrap(), permit());
    connection.stall_limit = stall_limit;
    (connection, client.unwrap())
}

#[tokio::test]
async fn over_tls_a_flush_reaches_the_kernel_and_a_stalled_client_is_disconnected() {
    let (mut connection, mut client) = secure(Duration::from_millis(300)).await;
    let mut flushed = connection.flushed.subscribe();
    connection.write_all(b"frame").await.unwrap();
    assert!(!flushed.has_changed().unwrap());
    connection.flush().await.unwrap();
    assert!(flushed.has_changed().unwrap());
    let mut received = [0; 5];
    client.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"frame");
    // The client stops reading: bytes in TLS's buffer are never flushed and must not keep the connection open.
    flushed.mark_unchanged();
    let chunk = vec![0; 4 << 10];
    while let Ok(Ok(_)) = tokio::time::timeout(Duration::from_millis(50), connection.write(&chunk)).await {}
    assert_eq!(connection.flush().await.unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn a_client_that_does_not_complete_the_tls_handshake_is_disconnected() {
    let (acceptor, _) = tls();
    let (mut client, server) = tcp().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let error = handshake(&acceptor, server, DEADLINE).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    // An alert may precede the end; the connection is closed or reset.
    let _ = tokio::time::timeout(DEADLINE, client.read_to_end(&mut Vec::new())).await.expect("it is still open");
    let (mut client, server) = tcp().await;
    let error = handshake(&acceptor, server, Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
    let _ = tokio::time::timeout(DEADLINE, client.read_to_end(&mut Vec::new())).await.expect("it is still open");
}
