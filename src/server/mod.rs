//! HTTP: the page, the API, metrics, health checks, and MJPEG for browsers.
//!
//! | path | content |
//! | --- | --- |
//! | `/`, `/page/…` | the web page (`page`) |
//! | `/healthz`, `/readyz` | whether the process runs; whether every stream is live or known to be offline |
//! | `/metrics` | Prometheus text (`metrics`) |
//! | `/api/v1/…` | streams, their settings, overlay and masks, models and version (`api`, `change`, `overlay`, `model`) |
//! | `/api/v1/openapi.json`, `/api/docs` | the OpenAPI document, made from the code, and a page that shows it (`openapi`) |
//! | `/api/v1/streams/NAME/recordings`, `…/FILE` | recordings (`recordings`) |
//! | `/api/v1/streams/NAME/collection`, `…/ID/…` | frames that were collected for training (`collection`) |
//! | `/api/v1/events`, `/api/v1/streams/NAME/history` | the history (`events`, `history`) |
//! | `/api/v1/session` | logging in and out (`session`) |
//! | `/mjpeg/NAME`, `/api/v1/streams/NAME/snapshot.jpg` | live JPEG frames (`mjpeg`) |
//! | `/api/v1/streams/NAME/masks`, `/api/v1/events/live` | masks and events live, by WebSocket or server-sent events (`live`) |
//! | `/whep/NAME` | WebRTC viewers (`whep`) |
//!
//! Handlers read the [`ServiceView`] and send requests for other settings or another model through it. The server has a
//! small runtime of its own, so that a busy pipeline and a slow client do not delay each other. Every refusal is a problem
//! document (RFC 9457, `problem`). Access is decided in one place, before any handler runs (`auth`).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router, middleware};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::access::tls::{Certificate, CertificateError};
use crate::access::{Access, RandomError};
use crate::base::bounded::field;
use crate::base::status::StreamState;
use crate::config::ServerConfig;
use crate::publish::whep::Whep;
use crate::users::Role;
use crate::view::ServiceView;

mod accept;
mod api;
mod api_reference;
mod app;
mod auth;
mod blocking;
mod body;
mod candidates;
mod change;
mod client;
mod collection;
mod connection;
mod connection_limit;
mod cookie;
mod drift;
mod events;
mod history;
mod host;
mod live;
mod metrics;
mod mjpeg;
mod model;
mod openapi;
mod overlay;
mod page;
mod problem;
mod process;
mod recordings;
mod rules;
mod session;
mod settings;
mod whep;

#[cfg(test)]
mod tests;

pub use api_reference::markdown as api_reference;

use accept::LimitedListener;
use app::{App, LIVE_CLIENTS, NamedStream, SharedApp, stopped, typed, unknown_path};
use client::Client;
use problem::Problem;

/// Maximum number of connections that wait in the kernel to be accepted.
const BACKLOG: u32 = 128;

/// Size of the kernel's send buffer of a connection in bytes, which limits the delay of a slow viewer: Linux by default
/// queues megabytes, which is many seconds of video on a slow line.
const SEND_BUFFER: u32 = 128 * 1024;

/// How long open connections may take to end when the server stops.
const SHUTDOWN_GRACE: Duration = Duration::from_millis(400);

/// How long the runtime then waits for its threads.
const RUNTIME_SHUTDOWN: Duration = Duration::from_millis(200);

/// Neither foreign nor inline content: a stream's name or a reason is never run as a script.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                                       media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                                       frame-ancestors 'none'";

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The server cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("server.http: {address}: {source}")]
pub struct ServerError {
    pub address: SocketAddr,
    pub source: ServerErrorKind,
}

/// Why the server cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum ServerErrorKind {
    /// The port cannot be bound, or the runtime or its thread cannot be started.
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// A bound port that is not served yet.
pub struct BoundListener {
    address: SocketAddr,
    runtime: Runtime,
    listener: TcpListener,
}

/// The running server. Dropping it stops the server within a second: open requests have a moment to complete, endless
/// responses end.
pub struct HttpServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Binds the port before anything else starts. Clients wait until [`BoundListener::serve`].
    ///
    /// # Errors
    /// [`ServerErrorKind::Io`], as in `server.http: 127.0.0.1:8080: Address already in use (os error 98)`.
    pub fn bind(address: SocketAddr) -> Result<BoundListener, ServerError> {
        let listen = || {
            let threads = AtomicUsize::new(1);
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .thread_name_fn(move || format!("http-{}", threads.fetch_add(1, Ordering::Relaxed)))
                .enable_all()
                .build()?;
            let listener = {
                let _entered = runtime.enter();
                listen(address)?
            };
            let address = listener.local_addr()?;
            Ok(BoundListener { address, runtime, listener })
        };
        listen().map_err(|error: io::Error| ServerError { address, source: error.into() })
    }

    /// The listening address, with the actual port where port 0 is configured.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Accepted connections inherit these socket options.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // A restart does not wait until the kernel has forgotten old connections.
    socket.set_reuseaddr(true)?;
    // Detects clients that have vanished while nothing is sent to them.
    socket.set_keepalive(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl BoundListener {
    /// The bound address, with the actual port where port 0 is configured.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `view` without users, on a thread named `http`, until the server is dropped.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn serve(self, view: Arc<ServiceView>, whep: Arc<Whep>) -> Result<HttpServer, ServerError> {
        let address = self.address;
        let access =
            Access::new(&ServerConfig::default()).map_err(|error| ServerError { address, source: error.into() })?;
        self.serve_with_access(view, whep, Arc::new(access), None)
    }

    /// Serves `view` to clients that `access` admits; with a certificate, over TLS only.
    ///
    /// # Errors
    /// The thread cannot be started, or the certificate cannot be used.
    pub fn serve_with_access(
        self,
        view: Arc<ServiceView>,
        whep: Arc<Whep>,
        access: Arc<Access>,
        certificate: Option<&Arc<Certificate>>,
    ) -> Result<HttpServer, ServerError> {
        let BoundListener { address, runtime, listener } = self;
        let tls = certificate.map(Certificate::server).transpose();
        let tls = tls.map_err(|error| ServerError { address, source: error.into() })?;
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let (stop, stopping) = watch::channel(false);
        let live_clients = Arc::new(Semaphore::new(LIVE_CLIENTS));
        let app =
            Arc::new(App { view, whep, address, access, certificate: certificate.cloned(), stopping, live_clients });
        let listener = LimitedListener::new(listener, tls);
        let serve = move || {
            runtime.block_on(run(listener, app));
            runtime.shutdown_timeout(RUNTIME_SHUTDOWN);
        };
        let thread = std::thread::Builder::new()
            .name("http".into())
            .spawn(serve)
            .map_err(|error| ServerError { address, source: error.into() })?;
        Ok(HttpServer { address, stop, thread: Some(thread) })
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("thread ended in a panic: HTTP server");
        }
    }
}

async fn run(listener: LimitedListener, app: SharedApp) {
    let (graceful, hard) = (app.stopping.clone(), app.stopping.clone());
    let access = Arc::clone(&app.access);
    let server = listener.serve(router(app), move |address| access.trusts_proxy(address), graceful);
    let deadline = async {
        stopped(hard).await;
        tokio::time::sleep(SHUTDOWN_GRACE).await;
    };
    tokio::select! {
        () = server => {}
        () = deadline => tracing::debug!("HTTP connections still open at the end are closed"),
    }
}

fn router(app: SharedApp) -> Router {
    Router::new()
        .merge(page::routes())
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics::metrics))
        .merge(openapi::docs())
        .merge(
            Router::from(openapi::routes())
                .layer(middleware::from_fn(body::with_deadline))
                .layer(DefaultBodyLimit::max(body::MAX_BODY)),
        )
        .route("/mjpeg/{name}", get(mjpeg::live))
        .fallback(unknown_path)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), auth::guard))
        .layer(middleware::from_fn(accept::limit_reserve))
        .layer(middleware::map_response_with_state(Arc::clone(&app), set_response_headers))
        .with_state(app)
}

/// Adds the headers that restrict what a browser may do with a response.
async fn set_response_headers(State(app): State<SharedApp>, mut response: Response) -> Response {
    let headers = response.headers_mut();
    let policies = [(header::X_CONTENT_TYPE_OPTIONS, "nosniff"), (header::REFERRER_POLICY, "no-referrer")];
    for (name, value) in policies {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Reports of comparisons have a policy of their own.
    let policy = HeaderValue::from_static(CONTENT_SECURITY_POLICY);
    headers.entry(header::CONTENT_SECURITY_POLICY).or_insert(policy);
    if app.access.anonymous().is_none_or(|identity| identity.role == Role::Operator) {
        // A page on another port of this host sends the session's cookie, and a page of any site reaches a service without
        // users: neither may embed content of this service. Where anonymous viewers are allowed, other pages may.
        headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    }
    if app.tls() {
        // Browsers ignore it unless they trust the certificate.
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn healthz() -> &'static str {
    "ok"
}

/// 503 with the streams that have neither shown a frame nor been found offline, and with the models that are not loaded.
async fn readyz(State(app): State<SharedApp>, Extension(client): Extension<Client>) -> Response {
    let streams = app.view.streams();
    let starting = streams.iter().filter(|stream| stream.status.state() == StreamState::Starting);
    let mut names: Vec<&str> = starting.map(|stream| &*stream.status.name).collect();
    let models = app.view.models();
    let loading = models.iter().filter(|model| model.running().is_none());
    let loading: Vec<String> = match models.len() {
        1 => loading.map(|_| "the model".to_owned()).collect(),
        _ => loading.map(|model| format!("the model {}", model.name)).collect(),
    };
    names.extend(loading.iter().map(String::as_str));
    // Evaluated once: the last stream may start between two evaluations.
    if names.is_empty() {
        return "ready".into_response();
    }
    if auth::anonymous(&app, client).is_none() {
        // Health checks need no login, but only authenticated clients may learn the names of streams.
        return (StatusCode::SERVICE_UNAVAILABLE, "starting").into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("starting: {}", names.join(", "))).into_response()
}

async fn method_not_allowed(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} is not allowed for {}", field(method.as_str()), field(uri.path()));
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}
