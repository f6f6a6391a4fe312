//! State and helpers that all handlers share.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{HeaderName, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use tokio::sync::{Semaphore, watch};

use super::problem::Problem;
use crate::access::Access;
use crate::access::tls::Certificate;
use crate::base::bounded::field;
use crate::publish::whep::Whep;
use crate::view::{ServiceView, StreamView};

/// The state of the handlers.
pub(super) struct App {
    pub view: Arc<ServiceView>,
    pub whep: Arc<Whep>,
    pub address: SocketAddr,
    pub access: Arc<Access>,
    /// `None` without TLS.
    pub certificate: Option<Arc<Certificate>>,
    /// Becomes true when the server stops: endless responses then end.
    pub stopping: watch::Receiver<bool>,
    /// Places for clients of live messages (`live`).
    pub live_clients: Arc<Semaphore>,
}

/// Maximum number of clients that receive live messages at the same time.
pub(super) const LIVE_CLIENTS: usize = 128;

impl App {
    /// Whether the server uses TLS.
    pub(super) fn tls(&self) -> bool {
        self.certificate.is_some()
    }
}

pub(super) type SharedApp = Arc<App>;

/// Completes when the server is to stop.
pub(super) async fn stopped(mut stopping: watch::Receiver<bool>) {
    // An error means that the server was dropped, which also stops it.
    let _ = stopping.wait_for(|stop| *stop).await;
}

pub(super) async fn unknown_path(uri: Uri) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no resource at {}", field(uri.path())))
}

/// The stream of the path's `{name}`.
pub(super) struct NamedStream {
    pub app: SharedApp,
    stream: Arc<StreamView>,
}

/// The stream's part of the path; handlers extract the others.
#[derive(Deserialize)]
struct NamePart {
    name: String,
}

impl NamedStream {
    pub(super) fn stream(&self) -> &StreamView {
        &self.stream
    }
}

impl FromRequestParts<SharedApp> for NamedStream {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedApp) -> Result<Self, Problem> {
        let streams = app.view.streams();
        let name = match Path::<NamePart>::from_request_parts(parts, app).await {
            Ok(Path(NamePart { name })) => name,
            Err(_) => return Err(Problem::unknown_stream(parts.uri.path(), &streams)),
        };
        match streams.iter().find(|stream| *stream.status.name == *name) {
            Some(stream) => Ok(NamedStream { app: Arc::clone(app), stream: Arc::clone(stream) }),
            None => Err(Problem::unknown_stream(&name, &streams)),
        }
    }
}

/// A response with this content type.
pub(super) fn typed(content_type: &'static str, body: impl IntoResponse) -> Response {
    let headers: [(HeaderName, &str); 1] = [(header::CONTENT_TYPE, content_type)];
    (headers, body).into_response()
}
