//! What is refused, as a problem document (RFC 9457): readable by people and programs.

use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::service::view::StreamView;

/// `application/problem+json`
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    detail: String,
    streams: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Document<'a> {
    /// The status says it all.
    r#type: &'static str,
    title: &'static str,
    status: u16,
    detail: &'a str,
    /// The streams that there are.
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<&'a [String]>,
}

impl Problem {
    pub fn new(status: StatusCode, detail: String) -> Self {
        Problem { status, detail, streams: None }
    }

    /// 404, with the names that are known.
    pub fn unknown_stream(name: &str, streams: &[Arc<StreamView>]) -> Self {
        let names: Vec<String> = streams.iter().map(|stream| stream.status.name.to_string()).collect();
        let detail = format!("there is no stream {name:?}; there is {}", names.join(", "));
        Problem { status: StatusCode::NOT_FOUND, detail, streams: Some(names) }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            streams: self.streams.as_deref(),
        };
        let mut response = (self.status, axum::Json(document)).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}
