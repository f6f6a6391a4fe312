//! The files of the web page, compiled into the program.
//!
//! Plain ES modules and style sheets with fixed names, in `page/`. They need no login: they contain no data of streams, and
//! the login form is one of them.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::body::Body;
use axum::extract::{Path, Request};
use axum::http::{HeaderName, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};

use super::problem::Problem;
use super::{SharedApp, unknown_path};

pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const CSS: &str = "text/css; charset=utf-8";
pub(super) const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of the page.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

/// Files of the folder `page/`, by name and type.
macro_rules! assets {
    ($($name:literal: $content_type:expr),+ $(,)?) => {
        &[$(Asset { name: $name, content_type: $content_type, text: include_str!(concat!("page/", $name)) }),+]
    };
}

const INDEX: &[Asset] = assets! { "index.html": HTML };
const ICON: &[Asset] = assets! { "favicon.svg": SVG };

/// The files at `/page/NAME`.
const PARTS: &[Asset] = assets! {
    "base.css": CSS,
    "views.css": CSS,
    "zones.css": CSS,
    "history.css": CSS,
    "models.css": CSS,
    "drift.css": CSS,
    "collection.css": CSS,
    "theme.js": JAVASCRIPT,
    "app.js": JAVASCRIPT,
    "api.js": JAVASCRIPT,
    "axis.js": JAVASCRIPT,
    "chart.js": JAVASCRIPT,
    "collection.js": JAVASCRIPT,
    "collection-data.js": JAVASCRIPT,
    "colour.js": JAVASCRIPT,
    "detail.js": JAVASCRIPT,
    "dom.js": JAVASCRIPT,
    "drift.js": JAVASCRIPT,
    "editor.js": JAVASCRIPT,
    "events.js": JAVASCRIPT,
    "frame-editor.js": JAVASCRIPT,
    "grid.js": JAVASCRIPT,
    "history.js": JAVASCRIPT,
    "label-conflict.js": JAVASCRIPT,
    "label-drafts.js": JAVASCRIPT,
    "label-editor.js": JAVASCRIPT,
    "label-mask.js": JAVASCRIPT,
    "label-pointer.js": JAVASCRIPT,
    "label-png.js": JAVASCRIPT,
    "label-saver.js": JAVASCRIPT,
    "label-view.js": JAVASCRIPT,
    "lists.js": JAVASCRIPT,
    "live.js": JAVASCRIPT,
    "mjpeg.js": JAVASCRIPT,
    "models.js": JAVASCRIPT,
    "overlay.js": JAVASCRIPT,
    "player.js": JAVASCRIPT,
    "polygon.js": JAVASCRIPT,
    "recordings.js": JAVASCRIPT,
    "rules.js": JAVASCRIPT,
    "session.js": JAVASCRIPT,
    "shares.js": JAVASCRIPT,
    "snapshot.js": JAVASCRIPT,
    "superpixels.js": JAVASCRIPT,
    "superpixels-worker.js": JAVASCRIPT,
    "timeline.js": JAVASCRIPT,
    "whep.js": JAVASCRIPT,
    "words.js": JAVASCRIPT,
    "zone-draft.js": JAVASCRIPT,
    "zone-view.js": JAVASCRIPT,
    "zones.js": JAVASCRIPT,
};

/// `/`, its icon, and `/page/NAME`, which need no login.
pub(super) fn routes() -> Router<SharedApp> {
    Router::new()
        .route("/", get(async || INDEX[0].response()))
        .route("/favicon.svg", get(async || ICON[0].response()))
        .route("/page/{name}", get(part))
        .route_layer(middleware::from_fn(not_modified))
}

async fn part(Path(name): Path<String>, uri: Uri) -> Result<Response, Problem> {
    match PARTS.iter().find(|asset| asset.name == name) {
        Some(asset) => Ok(asset.response()),
        None => Err(unknown_path(uri).await),
    }
}

impl Asset {
    fn response(&self) -> Response {
        asset(self.content_type, self.text)
    }
}

/// A compiled-in file with an entity tag of its content.
pub(super) fn asset(content_type: &'static str, text: &'static str) -> Response {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let headers: [(HeaderName, String); 3] = [
        (header::CONTENT_TYPE, content_type.into()),
        // Browsers revalidate it: after an update of the service, a reload shows the new page.
        (header::CACHE_CONTROL, "no-cache".into()),
        (header::ETAG, format!("\"{:016x}\"", hasher.finish())),
    ];
    (headers, text).into_response()
}

/// Answers 304 without a body when the browser has the current version.
pub(super) async fn not_modified(request: Request, next: Next) -> Response {
    let known = request.headers().get(header::IF_NONE_MATCH).cloned();
    let mut response = next.run(request).await;
    let tags = known.as_ref().and_then(|tags| tags.to_str().ok()).unwrap_or_default();
    let tag = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
    if tag.is_some_and(|tag| tags.split(',').any(|known| known.trim().trim_start_matches("W/") == tag)) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}
