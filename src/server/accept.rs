//! Accepts connections and serves them with hyper, with limits of time, size and number.
//!
//! | limit | of | then |
//! | --- | --- | --- |
//! | 10 s | a TLS handshake | the connection is closed |
//! | 30 s | a request's header, and the pause before it | the connection is closed |
//! | 30 s | a request's body (`body`) | 408 |
//! | 15 s | a client that reads nothing of its response (`connection`) | the connection is closed |
//! | 64 kB, 100 fields | a request's header | 431, 414 for the path |
//! | 512, and 128 from one address | connections (`connection_limit`) | the longest waiting one is closed, or 503 |
//!
//! hyper limits the header's time and size and ends idle connections at the stop. axum-server and tower-http have no
//! limit for a client that stops reading, for a body as a whole, or for the number of connections.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::body::CountedBody;
use super::connection::{ClientConnection, HttpConnection, OpenConnection, set_socket_options};
use super::connection_limit::{ConnectionLimits, HttpConnectionLimiter, HttpConnectionPermit};
use super::problem::Problem;
use super::stopped;
use crate::base::{descriptors, log_dedup};

/// Leaves file descriptors for cameras and recordings.
const CONNECTION_LIMITS: ConnectionLimits = ConnectionLimits { total: 512, per_address: 128, reserve: 32 };

/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How long a request's header may take, from the end of the previous response.
const HEADER_LIMIT: Duration = Duration::from_secs(30);

/// Maximum size of a request's header in bytes. Browsers and proxies send less than 16 kB.
const MAX_HEADER: usize = 64 << 10;

/// Pause between attempts to accept a connection while there is no file descriptor for it.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Seconds after which a refused client may retry (`Retry-After`).
const RETRY_AFTER: u32 = 5;

/// A listener and the limits of its connections.
pub(super) struct LimitedListener {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    limiter: HttpConnectionLimiter,
    header_limit: Duration,
}

/// What one connection is served with.
struct ConnectionContext {
    address: SocketAddr,
    permit: Arc<HttpConnectionPermit>,
    router: Router,
    header_limit: Duration,
    stopping: watch::Receiver<bool>,
    open: OpenConnection,
}

impl LimitedListener {
    /// With a TLS acceptor, only TLS connections are served.
    pub fn new(listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        let limiter = HttpConnectionLimiter::new(CONNECTION_LIMITS);
        LimitedListener { listener, tls, limiter, header_limit: HEADER_LIMIT }
    }

    #[cfg(test)]
    pub fn with_limits(self, limits: ConnectionLimits, header_limit: Duration) -> Self {
        LimitedListener { limiter: HttpConnectionLimiter::new(limits), header_limit, ..self }
    }

    /// Serves until `stopping` is true, and then until the last connection is closed. `is_proxy` returns whether an
    /// address is a proxy's, which carries many clients.
    pub async fn serve(self, router: Router, is_proxy: impl Fn(IpAddr) -> bool, stopping: watch::Receiver<bool>) {
        let (open, mut all_closed) = mpsc::channel(1);
        let mut stop = pin!(stopped(stopping.clone()));
        loop {
            let (stream, address, permit) = tokio::select! {
                accepted = self.accept(&is_proxy) => accepted,
                () = &mut stop => break,
            };
            let context = ConnectionContext {
                address,
                permit: Arc::new(permit),
                router: router.clone(),
                header_limit: self.header_limit,
                stopping: stopping.clone(),
                open: open.clone(),
            };
            tokio::spawn(serve_until_revoked(stream, self.tls.clone(), context));
        }
        drop((self, open));
        // Nothing is sent: this ends when the last connection has dropped its sender.
        all_closed.recv().await;
    }

    /// Waits for the next connection that gets a permit.
    async fn accept(&self, is_proxy: impl Fn(IpAddr) -> bool) -> (TcpStream, SocketAddr, HttpConnectionPermit) {
        loop {
            let (stream, address) = self.accept_stream().await;
            let ip = address.ip().to_canonical();
            let Some(permit) = self.limiter.acquire(ip, ip.is_loopback() || is_proxy(ip)) else {
                let text =
                    format!("HTTP connection closed: too many connections, and the reserve is full too; from {ip}");
                log_dedup::warn("", "", &text);
                continue;
            };
            if permit.in_reserve() {
                let ConnectionLimits { total, per_address, .. } = CONNECTION_LIMITS;
                let text = format!(
                    "HTTP connection limited to health checks: all {total} connections, or all {per_address} of one \
                     address, are busy; from {ip}"
                );
                log_dedup::warn("", "", &text);
            }
            return (stream, address, permit);
        }
    }

    async fn accept_stream(&self) -> (TcpStream, SocketAddr) {
        loop {
            // New connections wait in the kernel while no descriptors are left for clients.
            while descriptors::are_scarce() {
                log_dedup::warn(
                    "",
                    "",
                    "HTTP connections delayed: too many files and connections are open; raise the limit of open files",
                );
                self.limiter.close_idle();
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                Err(error) if is_client_error(&error) => {}
                Err(error) => {
                    let text = format!("HTTP connection not accepted: {error}; raise the limit of open files");
                    log_dedup::warn("", "", &text);
                    self.limiter.close_idle();
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }
}

/// Whether accepting failed because the client has disconnected already.
fn is_client_error(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Serves one connection until it ends or its slot is given to another connection.
async fn serve_until_revoked(stream: TcpStream, tls: Option<TlsAcceptor>, context: ConnectionContext) {
    let (address, permit) = (context.address, Arc::clone(&context.permit));
    set_socket_options(&stream);
    let served = async {
        let Some(tls) = tls else { return serve(stream, context).await };
        match handshake(&tls, stream, HANDSHAKE_LIMIT).await {
            Ok(stream) => serve(stream, context).await,
            Err(error) => tracing::debug!(%address, "TLS handshake failed: {error}"),
        }
    };
    tokio::select! {
        () = served => {}
        () = permit.revoked() => tracing::debug!(%address, "HTTP connection closed in favour of another one"),
    }
}

/// Completes the server's side of a TLS handshake.
///
/// # Errors
/// The client does not speak TLS, or `TimedOut`.
pub(super) async fn handshake(
    tls: &TlsAcceptor,
    stream: TcpStream,
    limit: Duration,
) -> io::Result<TlsStream<TcpStream>> {
    tokio::time::timeout(limit, tls.accept(stream)).await?
}

async fn serve(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, context: ConnectionContext) {
    let ConnectionContext { address, permit, router, header_limit, stopping, open } = context;
    let connection = HttpConnection::new(stream, permit);
    let peer = connection.peer(address, open);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        peer.permit.set_answering();
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        let (response, permit) = (router.call(request), Arc::clone(&peer.permit));
        async move { response.await.map(|response: Response| response.map(|body| CountedBody::new(body, permit))) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_limit).max_buf_size(MAX_HEADER);
    // hyper-util's `GracefulShutdown` does not support connections that may become WebSockets.
    let mut served = pin!(builder.serve_connection(TokioIo::new(connection), service).with_upgrades());
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stopped(stopping) => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%address, "HTTP connection failed: {error}");
    }
}

/// On a connection of the reserve, answers only health checks, without waiting for a body, and closes the connection.
pub(super) async fn limit_reserve(
    ConnectInfo(peer): ConnectInfo<ClientConnection>,
    request: Request,
    next: Next,
) -> Response {
    if !peer.permit.in_reserve() {
        return next.run(request).await;
    }
    let mut response = match request.uri().path() {
        "/healthz" | "/readyz" => next.run(Request::from_parts(request.into_parts().0, Body::empty())).await,
        _ => {
            let detail = "all connections are in use, in total or those of your address; try again later";
            let mut response = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail.into()).into_response();
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER.into());
            response
        }
    };
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}
