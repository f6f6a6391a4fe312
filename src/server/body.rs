//! Bodies of requests that have to come in time, and of answers, in pieces that a slow client can read.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, FromRequest, Request};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::{Buf, Bytes};
use hyper::body::{Frame, SizeHint};

use super::connection::ClientConnection;
use super::connection_limit::HttpConnectionPermit;
use super::problem::Problem;

/// Bytes that bodies may have: some hundred times what settings need; a browser's offer of WebRTC has about 5000.
pub(super) const LARGEST: usize = 64 << 10;

/// How long a request's body may take.
const LIMIT: Duration = Duration::from_secs(30);

/// The largest piece of an answer that is handed to the HTTP library at once. When it has the last one it waits for the
/// next request, and closes the connection when that does not come: what it still holds then is lost.
const PIECE: usize = 16 << 10;

/// Reads the whole body before a handler is asked, so that a slow client costs no more than its connection.
pub(super) async fn in_time(
    ConnectInfo(peer): ConnectInfo<ClientConnection>,
    request: Request,
    next: Next,
) -> Response {
    read(LIMIT, &peer.place, request, next).await
}

pub(super) async fn read(limit: Duration, place: &HttpConnectionPermit, request: Request, next: Next) -> Response {
    let has_body = matches!(*request.method(), Method::POST | Method::PUT | Method::PATCH);
    if !has_body || request.body().is_end_stream() {
        return next.run(request).await;
    }
    let too_large = || refused(StatusCode::PAYLOAD_TOO_LARGE, format!("the body has more than {LARGEST} bytes"));
    if request.body().size_hint().lower() > LARGEST as u64 {
        return too_large();
    }
    let (parts, body) = request.into_parts();
    place.waits();
    let read = Bytes::from_request(Request::from_parts(parts.clone(), body), &());
    let read = tokio::time::timeout(limit, read).await;
    place.works();
    match read {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(error)) if error.status() == StatusCode::PAYLOAD_TOO_LARGE => too_large(),
        Ok(Err(error)) => refused(error.status(), format!("the body cannot be read: {}", error.body_text())),
        Err(_) => {
            refused(StatusCode::REQUEST_TIMEOUT, format!("the body did not come within {} s", limit.as_secs_f64()))
        }
    }
}

/// A refusal after which the connection is closed: nothing can follow a request that was not read to its end.
pub(super) fn refused(status: StatusCode, detail: String) -> Response {
    let mut response = Problem::new(status, detail).into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The body of an answer. Notes in the connection's place when it has ended.
pub(super) struct CountedBody {
    body: Body,
    rest: Bytes,
    place: Arc<HttpConnectionPermit>,
}

impl CountedBody {
    pub fn new(body: Body, place: Arc<HttpConnectionPermit>) -> Self {
        CountedBody { body, rest: Bytes::new(), place }
    }

    /// Whether pieces may be cut: each piece of an endless answer is one picture, and is waited for.
    fn has_an_end(&self) -> bool {
        self.body.size_hint().exact().is_some()
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let may_cut = self.has_an_end();
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) if may_cut => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
            }
        }
        let length = self.rest.remaining().min(PIECE);
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
        self.place.answered();
    }
}
