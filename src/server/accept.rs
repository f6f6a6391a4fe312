//! Accepts connections and lets the HTTP library serve them, with limits of time, size and number.
//!
//! | limit | of | then |
//! | --- | --- | --- |
//! | 10 s | a TLS handshake (`connection`) | the connection is closed |
//! | 30 s | a request's header, also the pause before it | the connection is closed |
//! | 30 s | a request's body (`body`) | 408 |
//! | 15 s | a client that reads nothing of its answer (`connection`) | the connection is closed |
//! | 64 kB, 100 fields | a request's header | 431, 414 for the path |
//! | 512, and 128 from one address | connections (`places`) | the one that waits the longest is closed, or 503 |

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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use super::body::CountedBody;
use super::connection::{ClientConnection, HttpConnection};
use super::connection_limit::{ConnectionLimits, HttpConnectionLimiter};
use super::problem::Problem;
use super::stopped;
use crate::base::{descriptors, log_dedup};

/// File descriptors are left for cameras and recordings.
const COUNTS: ConnectionLimits = ConnectionLimits { all: 512, of_one: 128, reserve: 32 };

/// How long a request's header may take, from the end of the last answer on.
const HEADER_LIMIT: Duration = Duration::from_secs(30);

/// Bytes of a request's header. Browsers and proxies send less than 16 kB.
const LARGEST_HEADER: usize = 64 << 10;

/// Between two attempts to accept a connection when there is no file descriptor for it.
const PAUSE: Duration = Duration::from_millis(100);

/// Seconds after which a refused client may try again.
const RETRY: u32 = 5;

/// A listener and the limits of its connections.
pub(super) struct LimitedListener {
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    places: HttpConnectionLimiter,
    header_limit: Duration,
}

impl LimitedListener {
    /// With a TLS acceptor, clients come by TLS only.
    pub fn new(listener: TcpListener, tls: Option<TlsAcceptor>) -> Self {
        LimitedListener { listener, tls, places: HttpConnectionLimiter::new(COUNTS), header_limit: HEADER_LIMIT }
    }

    #[cfg(test)]
    pub fn with_limits(self, counts: ConnectionLimits, header_limit: Duration) -> Self {
        LimitedListener { places: HttpConnectionLimiter::new(counts), header_limit, ..self }
    }

    /// Serves until `stopping` is true, and then until the last connection is closed. `is_proxy` says of which addresses
    /// the clients stand for many.
    pub async fn serve(self, router: Router, is_proxy: impl Fn(IpAddr) -> bool, stopping: watch::Receiver<bool>) {
        let mut connections = JoinSet::new();
        let mut stop = pin!(stopped(stopping.clone()));
        loop {
            tokio::select! {
                (connection, address) = self.accept(&is_proxy) => {
                    connections.spawn(carry(connection, address, router.clone(), self.header_limit, stopping.clone()));
                }
                Some(_) = connections.join_next() => {}
                () = &mut stop => break,
            }
        }
        drop(self);
        while connections.join_next().await.is_some() {}
    }

    /// The next connection that has a place.
    async fn accept(&self, is_proxy: impl Fn(IpAddr) -> bool) -> (HttpConnection, SocketAddr) {
        loop {
            let (stream, address) = self.accept_stream().await;
            let ip = address.ip().to_canonical();
            match self.places.enter(ip, ip.is_loopback() || is_proxy(ip)) {
                Some(place) => {
                    if place.in_reserve() {
                        let ConnectionLimits { all, of_one, .. } = COUNTS;
                        let text = format!(
                            "HTTP: {ip} gets no connection but for health checks: all {all}, or all {of_one} of its address, \
                             are busy"
                        );
                        log_dedup::warn("", "", &text);
                    }
                    return (HttpConnection::new(stream, self.tls.as_ref(), Arc::new(place)), address);
                }
                None => log_dedup::warn("", "", &format!("HTTP: a connection from {ip} is closed: there are too many")),
            }
        }
    }

    async fn accept_stream(&self) -> (TcpStream, SocketAddr) {
        loop {
            // New connections wait in the kernel while no descriptors are left for clients.
            while descriptors::are_scarce() {
                log_dedup::warn("", "", "HTTP clients have to wait: too many files and connections are open");
                self.places.close_idle();
                tokio::time::sleep(PAUSE).await;
            }
            match self.listener.accept().await {
                Ok(accepted) => return accepted,
                // The client has gone before it was accepted.
                Err(error) if is_clients(&error) => {}
                Err(error) => {
                    let text = format!("HTTP: no connection can be accepted: {error}; raise the limit of open files");
                    log_dedup::warn("", "", &text);
                    self.places.close_idle();
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// Whether it is the client that an accept failed for.
fn is_clients(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Serves one connection to its end.
async fn carry(
    connection: HttpConnection,
    address: SocketAddr,
    router: Router,
    header_limit: Duration,
    stopping: watch::Receiver<bool>,
) {
    let peer = connection.peer(address);
    let place = Arc::clone(&peer.place);
    let router = TowerToHyperService::new(router);
    let service = service_fn(|mut request: hyper::Request<Incoming>| {
        peer.place.works();
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        let (answer, place) = (router.call(request), Arc::clone(&peer.place));
        async move { answer.await.map(|response: Response| response.map(|body| CountedBody::new(body, place))) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(header_limit).max_buf_size(LARGEST_HEADER);
    let mut served = pin!(builder.serve_connection(TokioIo::new(connection), service));
    let mut stop = pin!(stopped(stopping));
    let mut is_stopping = false;
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("HTTP: {address}: {error}");
                }
                return;
            }
            () = place.closed() => {
                tracing::debug!("HTTP: {address}: the connection is closed for the sake of another one");
                return;
            }
            () = &mut stop, if !is_stopping => {
                is_stopping = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

/// On a connection that is held in reserve, answers nothing but health checks, and that at once.
pub(super) async fn reserve(
    ConnectInfo(peer): ConnectInfo<ClientConnection>,
    request: Request,
    next: Next,
) -> Response {
    if !peer.place.in_reserve() {
        return next.run(request).await;
    }
    let mut response = match request.uri().path() {
        "/healthz" | "/readyz" => next.run(Request::from_parts(request.into_parts().0, Body::empty())).await,
        _ => {
            let detail = "all connections are in use, in total or those of your address; try again later";
            let mut response = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail.into()).into_response();
            response.headers_mut().insert(header::RETRY_AFTER, RETRY.into());
            response
        }
    };
    response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    response
}
