//! HTTP: the page, the API, metrics, health, and pictures for browsers.
//!
//! | path | what it gives |
//! | --- | --- |
//! | `/`, `/page/…` | the page that operators keep open (`page`) |
//! | `/healthz`, `/readyz` | whether the process serves; whether every stream is live or known to be away |
//! | `/metrics` | Prometheus text (`metrics`) |
//! | `/api/v1/…` | streams, their settings, overlay and masks, model and version (`api`, `change`, `overlay`, `model`) |
//! | `/api/v1/openapi.json`, `/api/docs` | the OpenAPI document, made from the code, and a page that shows it (`openapi`) |
//! | `/api/v1/streams/NAME/recordings`, `…/FILE` | recordings (`recordings`) |
//! | `/api/v1/session` | logging in and out (`session`) |
//! | `/mjpeg/NAME`, `/api/v1/streams/NAME/snapshot.jpg` | live pictures (`mjpeg`) |
//! | `/whep/NAME` | offers of WebRTC viewers (`whep`) |
//!
//! The server only reads the [`ServiceView`]; model_requests for other settings and models go through it, too. It has a small runtime of
//! its own, so that neither a busy pipeline nor a slow client holds up the other. What is refused is refused with a problem document (RFC 9457, `problem`).
//! Who may ask for what is decided in one place, before any handler (`auth`).

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
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::access::Access;
use crate::access::tls::Certificate;
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
mod body;
mod change;
mod client;
mod connection;
mod connection_limit;
mod cookie;
mod host;
mod metrics;
mod mjpeg;
mod model;
mod openapi;
mod overlay;
mod page;
mod problem;
mod process;
mod recordings;
mod session;
mod settings;
mod whep;

#[cfg(test)]
mod tests;

pub use api_reference::markdown as api_reference;

use accept::LimitedListener;
use app::{App, NamedStream, SharedApp, stopped, typed, unknown_path};
use client::Client;
use problem::Problem;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: u32 = 128;

/// Bytes that the kernel may hold for a client, and so the age of what a slow viewer sees: left to itself, Linux lets
/// megabytes queue up, which is many seconds of old pictures on a slow line.
const SEND_BUFFER: u32 = 128 * 1024;

/// How long open connections may take to end by themselves when the server stops.
const GRACE: Duration = Duration::from_millis(400);

/// How long the runtime waits for its threads after that.
const CUT: Duration = Duration::from_millis(200);

/// Nothing from elsewhere and nothing inline: a stream's name or a reason can never become a script.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                                       media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
                                       frame-ancestors 'none'";

const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Why the server cannot serve; in one line that names the key.
#[derive(Clone, Debug, thiserror::Error)]
#[error("server.http: {address}: {problem}")]
pub struct ServerError {
    address: SocketAddr,
    problem: String,
}

/// A port that is ours, with nobody serving on it yet.
pub struct BoundListener {
    address: SocketAddr,
    runtime: Runtime,
    listener: TcpListener,
}

/// The running server. Dropping it ends it within a second: open requests get a moment, endless ones are ended.
pub struct HttpServer {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl HttpServer {
    /// Takes the port, so that it is known to be free before anything else starts; clients wait until [`BoundListener::serve`].
    ///
    /// # Errors
    /// The key, the address and the OS's words, as in
    /// `server.http: 127.0.0.1:8080: Address already in use (os error 98)`.
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
        listen().map_err(|error: std::io::Error| ServerError { address, problem: error.to_string() })
    }

    /// Where it listens; the port is the real one when the configured one is 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Accepted connections inherit what is set here.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // As every server: a restart need not wait until the old connections are forgotten.
    socket.set_reuseaddr(true)?;
    // Finds out in time about clients that vanished without a word while nothing was to be sent to them.
    socket.set_keepalive(true)?;
    socket.set_send_buffer_size(SEND_BUFFER)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

impl BoundListener {
    /// Where it will listen; the port is the real one when the configured one is 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves `view` to whoever comes, on a thread named `http`, until the server is dropped.
    ///
    /// # Errors
    /// When there is no thread to be had.
    pub fn serve(self, view: Arc<ServiceView>, whep: Arc<Whep>) -> Result<HttpServer, ServerError> {
        let open = Access::new(&ServerConfig::default());
        let address = self.address;
        let access = open.map_err(|problem| ServerError { address, problem })?;
        self.serve_guarded(view, whep, Arc::new(access), None)
    }

    /// Serves `view` to those whom `access` lets in; with a certificate, by TLS only.
    ///
    /// # Errors
    /// When there is no thread to be had, or no TLS.
    pub fn serve_guarded(
        self,
        view: Arc<ServiceView>,
        whep: Arc<Whep>,
        access: Arc<Access>,
        certificate: Option<&Arc<Certificate>>,
    ) -> Result<HttpServer, ServerError> {
        let BoundListener { address, runtime, listener } = self;
        let tls = certificate.map(Certificate::server).transpose();
        let tls = tls.map_err(|problem| ServerError { address, problem })?;
        let tls = tls.map(|config| TlsAcceptor::from(Arc::new(config)));
        let (stop, stopping) = watch::channel(false);
        let app = Arc::new(App { view, whep, address, access, certificate: certificate.cloned(), stopping });
        let listener = LimitedListener::new(listener, tls);
        let serve = move || {
            runtime.block_on(run(listener, app));
            runtime.shutdown_timeout(CUT);
        };
        let thread = std::thread::Builder::new()
            .name("http".into())
            .spawn(serve)
            .map_err(|error| ServerError { address, problem: format!("no thread to serve on: {error}") })?;
        Ok(HttpServer { address, stop, thread: Some(thread) })
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the HTTP server ended in a panic");
        }
    }
}

async fn run(listener: LimitedListener, app: SharedApp) {
    let (graceful, hard) = (app.stopping.clone(), app.stopping.clone());
    let access = Arc::clone(&app.access);
    let server = listener.serve(router(app), move |address| access.trusts_proxy(address), graceful);
    let deadline = async {
        stopped(hard).await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        () = server => {}
        () = deadline => tracing::debug!("HTTP connections were still open at the end and are cut"),
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
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&app), auth::guard))
        .layer(middleware::from_fn(accept::limit_reserve))
        .layer(middleware::map_response_with_state(Arc::clone(&app), with_headers))
        .with_state(app)
}

/// Every response says how a browser may use it.
async fn with_headers(State(app): State<SharedApp>, mut response: Response) -> Response {
    let headers = response.headers_mut();
    let policies = [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in policies {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if app.access.anonymous().is_none_or(|who| who.role == Role::Operator) {
        // A page of the same host's other port carries the session's cookie, and one of any site reaches a service that asks
        // nobody: neither is to show what is here. Where everybody may watch, pictures may be put into other pages.
        headers.insert(CROSS_ORIGIN_RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
    }
    if app.tls() {
        // Browsers only take it when they trust the certificate.
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

async fn healthz() -> &'static str {
    "ok"
}

/// 503 and the names of the streams that have neither shown a frame nor been found away, and whether the model is missing.
async fn readyz(State(app): State<SharedApp>, Extension(client): Extension<Client>) -> Response {
    let streams = app.view.streams();
    let starting = streams.iter().filter(|stream| stream.status.state() == StreamState::Starting);
    let mut names: Vec<&str> = starting.map(|stream| &*stream.status.name).collect();
    if app.view.model().is_none() {
        names.push("the model");
    }
    // Looked at once: asked again, the last of them may have begun meanwhile.
    if names.is_empty() {
        return "ready".into_response();
    }
    if auth::anonymous(&app, client).is_none() {
        // Everybody may ask, but only those who are let in may know what there is.
        return (StatusCode::SERVICE_UNAVAILABLE, "starting").into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("starting: {}", names.join(", "))).into_response()
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} has no meaning at {}", field(method.as_str()), field(uri.path()));
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}
