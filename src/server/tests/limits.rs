//! Tests with slow clients, too many clients, and invalid HTTP, on real connections to a real server.

use axum::extract::ConnectInfo;
use axum::routing::post;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

use super::super::accept::LimitedListener;
use super::super::body;
use super::super::connection::ClientConnection;
use super::super::connection_limit::ConnectionLimits;
use super::*;

const LIMITS: ConnectionLimits = ConnectionLimits { total: 8, per_address: 8, reserve: 2 };

/// A guard against hanging.
const DEADLINE: Duration = Duration::from_secs(120);

struct Served {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    ended: tokio::task::JoinHandle<()>,
}

impl Served {
    /// Serves `router` with these limits.
    async fn start(router: Router, limits: ConnectionLimits, header_limit: Duration) -> Self {
        Served::until(watch::Sender::new(false), router, limits, header_limit).await
    }

    async fn until(
        stop: watch::Sender<bool>,
        router: Router,
        limits: ConnectionLimits,
        header_limit: Duration,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopping = stop.subscribe();
        let listener = LimitedListener::new(listener, None).with_limits(limits, header_limit);
        let ended = tokio::spawn(listener.serve(router, |_| false, stopping));
        Served { address, stop, ended }
    }

    /// Serves the routes of the service.
    async fn service(limits: ConnectionLimits, header_limit: Duration) -> Self {
        let address = "127.0.0.1:8080".parse().unwrap();
        let access = Arc::new(Access::new(&ServerConfig::default()).unwrap());
        let stop = watch::Sender::new(false);
        let stopping = stop.subscribe();
        let live_clients = Arc::new(Semaphore::new(LIVE_CLIENTS));
        let app =
            App { view: view(&["gate"]), whep: whep(), address, access, certificate: None, stopping, live_clients };
        Served::until(stop, router(Arc::new(app)), limits, header_limit).await
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Everything that the server sends until it closes the connection.
    async fn answer(&self, request: &[u8]) -> String {
        let mut client = self.connect().await;
        client.write_all(request).await.unwrap();
        rest(&mut client).await
    }

    async fn health(&self) -> String {
        self.answer(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await
    }
}

/// Everything that arrives until the connection is closed or reset.
async fn rest(client: &mut TcpStream) -> String {
    let mut text = Vec::new();
    let read = tokio::time::timeout(DEADLINE, client.read_to_end(&mut text)).await;
    // A reset also ends it.
    let _ = read.expect("the server neither answers nor closes the connection");
    String::from_utf8_lossy(&text).into_owned()
}

/// Sends one byte at a time until the server closes the connection; returns what it sent and after how long.
async fn drip(mut client: TcpStream, start: &[u8], bytes: &[u8]) -> (String, Duration) {
    let began = Instant::now();
    client.write_all(start).await.unwrap();
    let (mut read, mut write) = client.split();
    let mut answer = Vec::new();
    let mut beat = tokio::time::interval(Duration::from_millis(20));
    beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut bytes = bytes.iter().cycle();
    let mut buffer = [0; 4096];
    loop {
        assert!(began.elapsed() < DEADLINE, "the server never closes the connection");
        tokio::select! {
            _ = beat.tick() => {
                if write.write_all(&[*bytes.next().unwrap()]).await.is_err() {
                    break;
                }
            }
            got = read.read(&mut buffer) => match got {
                Ok(length) if length > 0 => answer.extend_from_slice(&buffer[..length]),
                _ => break,
            }
        }
    }
    (String::from_utf8_lossy(&answer).into_owned(), began.elapsed())
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test]
async fn a_slow_header_closes_the_connection() {
    let limit = Duration::from_millis(400);
    let served = Served::service(LIMITS, limit).await;
    for start in ["G", "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: b"] {
        let (answer, took) = drip(served.connect().await, start.as_bytes(), b"x").await;
        assert_eq!(answer, "", "{start}");
        assert!(took >= limit, "{start}: after {took:?}");
    }
    // The second request of a connection, or the pause before it, has its own limit.
    let first = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for then in ["", "G"] {
        let (answer, took) = drip(served.connect().await, format!("{first}{then}").as_bytes(), b"x").await;
        assert_eq!((status(&answer), answer.matches("HTTP/1.1").count()), ("200", 1), "{answer}");
        assert!(took >= limit, "after {took:?}");
    }
    let mut silent = served.connect().await;
    silent.write_all(first.as_bytes()).await.unwrap();
    assert!(rest(&mut silent).await.ends_with("\r\n\r\nok"));
}

#[tokio::test]
async fn a_slow_body_is_a_408() {
    let limit = Duration::from_millis(400);
    let in_time =
        move |ConnectInfo(peer): ConnectInfo<ClientConnection>,
              request: axum::extract::Request,
              next: middleware::Next| async move { body::read(limit, &peer.permit, request, next).await };
    let router = Router::new().route("/", post(async |body: String| body)).layer(middleware::from_fn(in_time));
    let served = Served::start(router, LIMITS, Duration::from_secs(60)).await;
    let post = "POST / HTTP/1.1\r\nHost: localhost\r\n";
    let (answer, took) =
        drip(served.connect().await, format!("{post}Content-Length: 1000\r\n\r\n").as_bytes(), b"x").await;
    assert_eq!(status(&answer), "408", "{answer}");
    assert!(
        answer.contains("the body did not arrive within 0.4 s") && answer.contains("connection: close"),
        "{answer}"
    );
    assert!(took >= limit, "after {took:?}");
    let (answer, _) =
        drip(served.connect().await, format!("{post}Transfer-Encoding: chunked\r\n\r\n").as_bytes(), b"1\r\nx\r\n")
            .await;
    assert_eq!(status(&answer), "408", "{answer}");
    // A body in time is passed to the handler; one that is too large is not read.
    let answer = served.answer(format!("{post}Connection: close\r\nContent-Length: 2\r\n\r\nhi").as_bytes()).await;
    assert!(status(&answer) == "200" && answer.ends_with("\r\n\r\nhi"), "{answer}");
    let long = format!("{post}Content-Length: 9999999\r\nExpect: 100-continue\r\n\r\n");
    let answer = served.answer(long.as_bytes()).await;
    assert_eq!((status(&answer), answer.contains("100 Continue")), ("413", false), "{answer}");
}

#[tokio::test]
async fn health_checks_are_answered_while_all_connections_are_in_use() {
    let served = Served::service(LIMITS, Duration::from_secs(60)).await;
    // Incomplete headers, and incomplete bodies of a request that needs no login.
    let login =
        "POST /api/v1/session HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\nContent-Type: application/json";
    let mut waiting = Vec::new();
    for n in 0..40 {
        let mut client = served.connect().await;
        let text = if n % 2 == 0 { "GET / HTTP/1.1\r\nHost: loc".into() } else { format!("{login}\r\n\r\n{{") };
        client.write_all(text.as_bytes()).await.unwrap();
        waiting.push(client);
        let health = served.health().await;
        assert!(status(&health) == "200" && health.ends_with("\r\n\r\nok"), "{n}: {health}");
    }
    // The oldest ones were closed.
    assert_eq!(rest(&mut waiting[0]).await, "");
    let streams = served.answer(b"GET /api/v1/streams HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(status(&streams), "200", "{streams}");
    drop(waiting);

    // Connected viewers are kept: health checks use the reserve, other requests get a 503.
    let mut viewers = Vec::new();
    while viewers.len() < LIMITS.total {
        let mut client = served.connect().await;
        client.write_all(b"GET /mjpeg/gate HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        client.read_exact(&mut head).await.unwrap();
        assert_eq!(&head, b"HTTP/1.1 200");
        viewers.push(client);
    }
    let mut idle = Vec::new();
    for n in 0..10 {
        let health = served.answer(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert!(status(&health) == "200" && health.contains("connection: close"), "{n}: {health}");
        let other = served.answer(b"GET /page/app.js HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(status(&other), "503", "{n}: {other}");
        assert!(other.contains("retry-after: 5") && other.contains("all connections are in use"), "{other}");
        idle.push(served.connect().await);
    }
    drop(viewers.pop());
    let mut again = String::new();
    for _ in 0..1000 {
        // Until the server has noticed that the viewer is disconnected.
        again = served.answer(b"GET /page/app.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
        if status(&again) == "200" {
            break;
        }
    }
    assert_eq!(status(&again), "200", "{again}");
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_the_whole_response() {
    let limit = Duration::from_millis(500);
    let router = Router::new().route("/", axum::routing::get(async || Bytes::from(vec![b'x'; 2 << 20])));
    let served = Served::start(router, LIMITS, limit).await;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    socket.connect(&served.address.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut client = TcpStream::from_std(socket.into()).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let began = Instant::now();
    let mut beat = tokio::time::interval(Duration::from_millis(10));
    let (mut length, mut buffer) = (0, vec![0; 8 << 10]);
    loop {
        beat.tick().await;
        match client.read(&mut buffer).await.unwrap() {
            0 => break,
            got => length += got,
        }
    }
    assert!(length > 2 << 20, "{length} bytes");
    assert!(began.elapsed() > 2 * limit, "it was not slow: this test proves nothing");
}

#[tokio::test]
async fn a_refusal_reaches_a_client_that_is_still_sending() {
    let served = Served::service(LIMITS, Duration::from_secs(60)).await;
    let body = "x".repeat(4 << 20);
    for (host, expected) in [("localhost", "413"), ("evil.example", "421")] {
        let head = format!("POST /api/v1/model HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n\r\n", body.len());
        let answer = served.answer(format!("{head}{body}").as_bytes()).await;
        assert_eq!(status(&answer), expected, "{answer}");
    }
}

#[tokio::test]
async fn http_1_0_head_and_pipelined_requests_are_answered() {
    let served = Served::service(LIMITS, Duration::from_secs(60)).await;
    let answer = served.answer(b"GET /healthz HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200") && answer.ends_with("\r\n\r\nok"), "{answer}");
    let head = b"HEAD /page/app.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answer = served.answer(head).await;
    assert!(status(&answer) == "200" && answer.ends_with("\r\n\r\n"), "{answer}");
    let length = answer.split("content-length: ").nth(1).unwrap().split('\r').next().unwrap();
    assert!(length.parse::<usize>().unwrap() > 1000, "{length}");
    // Pipelined requests.
    let two = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(served.answer(two.as_bytes()).await.matches("HTTP/1.1 200 OK").count(), 2);
}

#[tokio::test]
async fn invalid_http_is_refused() {
    let served = Served::service(LIMITS, Duration::from_secs(60)).await;
    let long = "x".repeat(70_000);
    let host = "Host: localhost\r\nConnection: close\r\n";
    let many: String = (0..120).map(|n| format!("X-{n}: 1\r\n")).collect();
    let body = "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n";
    for (request, expected) in [
        ("GET /healthz HTTP/1.1\r\n\r\n".to_string(), "400"),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n".to_string(), "400"),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".to_string(), "400"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".to_string(), "400"),
        ("GET / HTTP/1.1\r\nHost: user@localhost\r\n\r\n".to_string(), "400"),
        ("GET http://localhost/healthz HTTP/1.1\r\n\r\n".to_string(), "400"),
        (format!("GET http://localhost/healthz HTTP/1.1\r\n{host}\r\n"), "200"),
        (format!("GET http://evil.example/healthz HTTP/1.1\r\n{host}\r\n"), "421"),
        (format!("GET /{long} HTTP/1.1\r\n{host}\r\n"), "414"),
        (format!("GET / HTTP/1.1\r\n{host}X: {long}{long}{long}\r\n\r\n"), "431"),
        (format!("GET / HTTP/1.1\r\n{host}{many}\r\n"), "431"),
        (format!("GET /\u{0} HTTP/1.1\r\n{host}\r\n"), "400"),
        (format!("GET / HTTP/1.1\r\n{host}X: a\u{0}b\r\n\r\n"), "400"),
        (format!("GET /mjpeg/%00 HTTP/1.1\r\n{host}\r\n"), "404"),
        (format!("GET /mjpeg/%ff HTTP/1.1\r\n{host}\r\n"), "404"),
        ("GET / HTTP/3.0\r\n\r\n".to_string(), "400"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_string(), ""),
        (format!("POST /api/v1/session HTTP/1.1\r\n{host}{body}Content-Length: 3\r\n\r\n0\r\n\r\n"), "400"),
        (format!("POST /api/v1/session HTTP/1.1\r\n{host}Content-Length: 3\r\nContent-Length: 4\r\n\r\n"), "400"),
        (format!("POST /api/v1/session HTTP/1.1\r\n{host}Transfer-Encoding: gzip\r\n\r\n"), "400"),
        (format!("POST /api/v1/session HTTP/1.1\r\n{host}{body}\r\nffffffffffffffffff\r\n"), "400"),
        (format!("POST /api/v1/session HTTP/1.1\r\n{host}{body}\r\n2\r\n{{}}\r\n0\r\nX: {long}\r\n\r\n"), "400"),
        (format!("POST /api/v1/session HTTP/1.1\r\n{host}{body}\r\n2\r\n{{}}\r\n0\r\nX: y\r\n\r\n"), "422"),
        (format!("POST /api/v1/session HTTP/1.1\r\n{host}{body}\r\n11000\r\n{long}"), "413"),
    ] {
        let answer = served.answer(request.as_bytes()).await;
        assert_eq!(status(&answer), expected, "{}: {answer}", &request[..request.len().min(200)]);
    }
    // The server still answers, and stops at once.
    assert_eq!(status(&served.health().await), "200");
    served.stop.send_replace(true);
    tokio::time::timeout(DEADLINE, served.ended).await.expect("the server does not stop").unwrap();
}
