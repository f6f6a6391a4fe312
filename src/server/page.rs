//! The page's files, inside the program: what is installed is what is served.

use axum::http::{HeaderName, header};
use axum::response::{IntoResponse, Response};

pub(super) async fn index() -> Response {
    asset("text/html; charset=utf-8", include_str!("page/index.html"))
}

pub(super) async fn script() -> Response {
    asset("text/javascript; charset=utf-8", include_str!("page/app.js"))
}

pub(super) async fn style() -> Response {
    asset("text/css; charset=utf-8", include_str!("page/style.css"))
}

pub(super) async fn icon() -> Response {
    asset("image/svg+xml", include_str!("page/favicon.svg"))
}

pub(super) fn asset(content_type: &'static str, text: &'static str) -> Response {
    // After an update of the service, a reload shows the new page.
    let headers: [(HeaderName, &str); 2] = [(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")];
    (headers, text).into_response()
}
