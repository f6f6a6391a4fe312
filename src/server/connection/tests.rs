use socket2::{Domain, Socket, Type};
use tokio::net::TcpListener;

use super::super::connection_limit::{ConnectionLimits, HttpConnectionLimiter};
use super::*;

fn place() -> Arc<HttpConnectionPermit> {
    let places = HttpConnectionLimiter::new(ConnectionLimits { all: 1, of_one: 1, reserve: 0 });
    Arc::new(places.enter([127, 0, 0, 1].into(), true).unwrap())
}

/// A connection without TLS, and its client, who has little room of its own, so that what is seen is ours.
async fn plain() -> (HttpConnection, Socket) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_recv_buffer_size(4 << 10).unwrap();
    client.connect(&listener.local_addr().unwrap().into()).unwrap();
    (HttpConnection::new(listener.accept().await.unwrap().0, None, place()), client)
}

/// Bytes that a connection takes for a client that reads none.
async fn taken(connection: &mut HttpConnection) -> usize {
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
        let (mut connection, _client) = plain().await;
        let taken = taken(&mut connection).await;
        assert!((4 << 10..128 << 10).contains(&taken), "{taken} bytes");
        let Wire::Plain(stream) = &connection.wire else { panic!("there is no TLS here") };
        SockRef::from(stream).set_tcp_notsent_lowat(u32::MAX).unwrap();
        let more = super::tests::taken(&mut connection).await;
        assert!(more > 128 << 10, "by itself the kernel takes only {more} bytes more: this test tells nothing");
    });
}

#[test]
fn pictures_that_go_out_keep_a_connection_and_silence_ends_it() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
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
            // It would end in a moment.
            idle.as_mut().reset(Instant::now() + IDLE_LIMIT / 100);
            let written = Instant::now();
            std::future::poll_fn(|cx| Pin::new(&mut connection).poll_write(cx, b"picture")).await.unwrap();
            let deadline = connection.idle.as_ref().unwrap().deadline();
            assert!(deadline >= written + IDLE_LIMIT, "a frame that goes out starts the timer again");
        }
        // The limit is over.
        connection.idle.as_mut().unwrap().as_mut().reset(Instant::now());
        let mut buffer = ReadBuf::new(&mut bytes);
        let gone = std::future::poll_fn(|cx| Pin::new(&mut connection).poll_read(cx, &mut buffer)).await;
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::TimedOut);
    });
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (mut connection, client) = plain().await;
        connection.limit = Duration::from_millis(100);
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
async fn secure(limit: Duration) -> (HttpConnection, tokio_rustls::client::TlsStream<TcpStream>) {
    use rustls::pki_types::{PrivateKeyDer, ServerName};
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
    let tls = TlsAcceptor::from(Arc::new(server));
    let tcp = TcpStream::connect(address).await.unwrap();
    SockRef::from(&tcp).set_recv_buffer_size(4 << 10).unwrap();
    let mut connection = HttpConnection::new(listener.accept().await.unwrap().0, Some(&tls), place());
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
        let poll = |connection: &mut HttpConnection, cx: &mut Context<'_>| Pin::new(connection).poll_flush(cx);
        tokio::io::AsyncWriteExt::write_all(&mut connection, b"picture").await.unwrap();
        assert!(!flushed.has_changed().unwrap());
        std::future::poll_fn(|cx| poll(&mut connection, cx)).await.unwrap();
        assert!(flushed.has_changed().unwrap());
        let mut got = [0; 7];
        tokio::io::AsyncReadExt::read_exact(&mut client, &mut got).await.unwrap();
        assert_eq!(&got, b"picture");
        // The client reads no more: what is left in TLS's buffer is never flushed, and must not keep the connection open.
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
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = rustls::ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_cert_resolver(Arc::new(rustls::server::ResolvesServerCertUsingSni::new()));
            let accept = Box::new(TlsAcceptor::from(Arc::new(config)).accept(stream));
            Wire::Greeting { accept, limit: Box::pin(tokio::time::sleep(GREETING_LIMIT)) }
        };
        let mut buffer = [0; 16];
        assert!(tokio::io::AsyncReadExt::read(&mut connection, &mut buffer).await.is_err());
        assert!(tokio::io::AsyncReadExt::read(&mut connection, &mut buffer).await.is_err(), "and stays so");
    });
}
