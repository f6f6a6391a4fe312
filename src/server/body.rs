//! Request bodies, which must arrive within a time limit, and response bodies, in chunks that a slow client can read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, DefaultBodyLimit, FromRequest, Request};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use hyper::body::{Frame, SizeHint};

use super::collection;
use super::connection::ClientConnection;
use super::connection_limit::HttpConnectionPermit;
use super::problem::Problem;

/// Maximum size of a request body in bytes: some hundred times what settings need; a browser's WebRTC offer has about 5000.
pub(super) const MAX_BODY: usize = 64 << 10;

/// How long a request's body may take in total. tower-http's `RequestBodyTimeoutLayer` limits only the time between two
/// chunks: a client that sends one byte a second would never reach it.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// Maximum size of a chunk of a response that is passed to hyper at once. When hyper has the last chunk it waits for the
/// next request, and closes the connection when none arrives in time: bytes that it still buffers then are lost.
const MAX_CHUNK: usize = 16 << 10;

/// Reads the whole body before the handler is called, so that a slow client costs no more than its connection.
pub(super) async fn with_deadline(
    ConnectInfo(peer): ConnectInfo<ClientConnection>,
    request: Request,
    next: Next,
) -> Response {
    read(BODY_LIMIT, &peer.permit, request, next).await
}

pub(super) async fn read(limit: Duration, permit: &HttpConnectionPermit, mut request: Request, next: Next) -> Response {
    let has_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    if !has_body || request.body().is_end_stream() {
        return next.run(request).await;
    }
    // Only operators get here with the path of a label.
    let is_label = *request.method() == Method::PUT && collection::is_label(request.uri().path());
    let most = if is_label { collection::MAX_LABEL } else { MAX_BODY };
    let too_large = || refuse_and_close(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {most} bytes"));
    if request.body().size_hint().lower() > most as u64 {
        return too_large();
    }
    if is_label {
        DefaultBodyLimit::max(most).apply(&mut request);
    }
    let (parts, body) = request.into_parts();
    permit.set_waiting();
    let read = Bytes::from_request(Request::from_parts(parts.clone(), body), &());
    let read = tokio::time::timeout(limit, read).await;
    permit.set_answering();
    match read {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        Ok(Err(error)) => refuse_and_close(error.status(), format!("the body cannot be read: {}", error.body_text())),
        Err(_) => refuse_and_close(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", limit.as_secs_f64()),
        ),
    }
}

/// A refusal that also closes the connection: the next request cannot be found where the body was not read to its end.
pub(super) fn refuse_and_close(status: StatusCode, detail: String) -> Response {
    let mut response = Problem::new(status, detail).into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The body of a response. Reports its end to the connection's permit.
pub(super) struct CountedBody {
    body: Body,
    rest: Bytes,
    permit: Arc<HttpConnectionPermit>,
}

impl CountedBody {
    pub fn new(body: Body, permit: Arc<HttpConnectionPermit>) -> Self {
        CountedBody { body, rest: Bytes::new(), permit }
    }

    /// Whether chunks may be split: each chunk of an endless response is one frame, which is sent as a whole.
    fn has_fixed_length(&self) -> bool {
        self.body.size_hint().exact().is_some()
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let may_split = self.has_fixed_length();
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) if may_split => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.remaining().min(MAX_CHUNK);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        let rest = self.rest.remaining() as u64;
        let mut all = SizeHint::new();
        all.set_lower(hint.lower() + rest);
        if let Some(upper) = hint.upper() {
            all.set_upper(upper + rest);
        }
        all
    }
}

impl Drop for CountedBody {
    fn drop(&mut self) {
        self.permit.set_response_produced();
    }
}
