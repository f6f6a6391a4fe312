//! The page's files, inside the program: what is installed is what is served.
//!
//! Plain ES modules and style sheets under fixed names, in `page/`. Whoever may connect gets them, logged in or not:
//! they hold nothing of a stream, and the login form is among them.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::problem::Problem;
use super::{Shared, unknown_path};

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of the page.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

/// Assets of the folder `page/`, by name and type.
macro_rules! assets {
    ($($name:literal: $content_type:expr),+ $(,)?) => {
        &[$(Asset { name: $name, content_type: $content_type, text: include_str!(concat!("page/", $name)) }),+]
    };
}

const INDEX: &[Asset] = assets! { "index.html": HTML };
const ICON: &[Asset] = assets! { "favicon.svg": SVG };

/// What is at `/page/NAME`.
const PARTS: &[Asset] = assets! {
    "base.css": CSS,
    "views.css": CSS,
    "theme.js": JAVASCRIPT,
    "app.js": JAVASCRIPT,
    "api.js": JAVASCRIPT,
    "detail.js": JAVASCRIPT,
    "dom.js": JAVASCRIPT,
    "editor.js": JAVASCRIPT,
    "grid.js": JAVASCRIPT,
    "mjpeg.js": JAVASCRIPT,
    "overlay.js": JAVASCRIPT,
    "player.js": JAVASCRIPT,
    "recordings.js": JAVASCRIPT,
    "session.js": JAVASCRIPT,
    "snapshot.js": JAVASCRIPT,
    "whep.js": JAVASCRIPT,
    "words.js": JAVASCRIPT,
};

/// `/`, its icon, and `/page/NAME`: what needs no login.
pub(super) fn routes() -> Router<Shared> {
    Router::new()
        .route("/", get(async |headers: HeaderMap| INDEX[0].response(&headers)))
        .route("/favicon.svg", get(async |headers: HeaderMap| ICON[0].response(&headers)))
        .route("/page/{name}", get(part))
}

async fn part(Path(name): Path<String>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    match PARTS.iter().find(|asset| asset.name == name) {
        Some(asset) => Ok(asset.response(&headers)),
        None => Err(unknown_path(uri).await),
    }
}

impl Asset {
    /// Names this very text, so that a browser that has it is not sent it again.
    fn tag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.text.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }

    fn response(&self, request: &HeaderMap) -> Response {
        let tag = self.tag();
        let asked = request.get(header::IF_NONE_MATCH).and_then(|tags| tags.to_str().ok()).unwrap_or_default();
        let is_known = asked.split(',').any(|known| known.trim().trim_start_matches("W/") == tag);
        // After an update of the service, a reload shows the new page.
        let headers: [(HeaderName, String); 3] = [
            (header::CONTENT_TYPE, self.content_type.into()),
            (header::CACHE_CONTROL, "no-cache".into()),
            (header::ETAG, tag),
        ];
        if is_known {
            (StatusCode::NOT_MODIFIED, headers).into_response()
        } else {
            (headers, self.text).into_response()
        }
    }
}
