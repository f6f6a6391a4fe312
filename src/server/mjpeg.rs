//! Live JPEG frames for browsers: an endless MJPEG response, or a snapshot.
//!
//! A viewer's receiver holds only the newest frame, and the next part is created when the previous one has left the
//! process. So a slow client skips frames instead of getting old ones, and needs the memory of one frame.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use tokio::sync::watch;
use tokio_stream::Stream;

use super::connection::ClientConnection;
use super::problem::Problem;
use super::{NamedStream, stopped, typed};
use crate::access::{Access, Identity};

/// How long a snapshot may take: the stream may have to start its encoder first.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(3);

/// Between parts. It is sent right after each frame instead of before the next one, because browsers show a frame only
/// after the boundary that follows it.
const BOUNDARY: &[u8] = b"\r\n--jpeg\r\n";

/// The content type of the response. Browsers parse `multipart/x-mixed-replace` themselves. A script that needs every frame
/// requests `multipart/mixed` to get the same bytes unparsed.
fn content_type(request: &HeaderMap) -> &'static str {
    let wants_mixed = request.get(header::ACCEPT).is_some_and(|accept| accept == "multipart/mixed");
    if wants_mixed { "multipart/mixed; boundary=jpeg" } else { "multipart/x-mixed-replace; boundary=jpeg" }
}

/// `GET /mjpeg/NAME`
pub(super) async fn live(
    ConnectInfo(peer): ConnectInfo<ClientConnection>,
    identity: Option<Extension<Identity>>,
    headers: HeaderMap,
    named: NamedStream,
) -> Response {
    let viewer = MjpegViewer {
        frames: named.stream().outputs.jpeg.subscribe(),
        flushed: peer.flushed,
        stopping: named.app.stopping.clone(),
        access: Arc::clone(&named.app.access),
        identity: identity.map(|Extension(identity)| identity),
    };
    let parts = MjpegParts { next: Box::pin(viewer.next()), is_first: true };
    typed(content_type(&headers), Body::from_stream(parts))
}

/// Get a snapshot
///
/// The next frame with its overlay, as viewers see it.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/snapshot.jpg",
    operation_id = "snapshot",
    tag = "images",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate")),
    responses(
        (status = 200, description = "The frame as JPEG.", body = Vec<u8>, content_type = "image/jpeg"),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
        (status = 503, description = "No frame was published within 3 s."),
    )
)]
pub(super) async fn snapshot(named: NamedStream) -> Result<Response, Problem> {
    let mut frames = named.stream().outputs.jpeg.subscribe();
    let stopping = named.app.stopping.clone();
    let frame = tokio::select! {
        frame = newest(&mut frames) => frame,
        () = tokio::time::sleep(SNAPSHOT_LIMIT) => None,
        () = stopped(stopping) => None,
    };
    frame.map(|jpeg| typed("image/jpeg", jpeg)).ok_or_else(|| {
        let (name, limit) = (&named.stream().status.name, SNAPSHOT_LIMIT.as_secs());
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("no frame of stream {name} within {limit} s"))
    })
}

/// The next frame that this receiver has not seen; `None` after the last one.
async fn newest(frames: &mut watch::Receiver<Option<Bytes>>) -> Option<Bytes> {
    loop {
        frames.changed().await.ok()?;
        if let Some(frame) = &*frames.borrow_and_update() {
            return Some(frame.clone());
        }
    }
}

struct MjpegViewer {
    frames: watch::Receiver<Option<Bytes>>,
    flushed: watch::Receiver<()>,
    stopping: watch::Receiver<bool>,
    access: Arc<Access>,
    identity: Option<Identity>,
}

impl MjpegViewer {
    /// The newest frame, as soon as the previous one was flushed. `None` ends the response.
    async fn next(mut self) -> Option<(Bytes, MjpegViewer)> {
        let stopping = self.stopping.clone();
        let frame = async {
            // The headers or the previous part were flushed.
            self.flushed.changed().await.ok()?;
            newest(&mut self.frames).await
        };
        let frame = tokio::select! {
            frame = frame => frame?,
            () = stopped(stopping) => return None,
        };
        // A user or token may have been removed meanwhile.
        let is_valid = self.identity.as_ref().is_none_or(|identity| self.access.is_valid(identity));
        is_valid.then_some((frame, self))
    }
}

/// The future of the next frame.
type NextJpeg = Pin<Box<dyn Future<Output = Option<(Bytes, MjpegViewer)>> + Send>>;

/// The parts of the response, one frame each.
struct MjpegParts {
    next: NextJpeg,
    is_first: bool,
}

impl Stream for MjpegParts {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Poll::Ready(next) = self.next.as_mut().poll(cx) else { return Poll::Pending };
        let Some((frame, mut viewer)) = next else { return Poll::Ready(None) };
        let part = part(&frame, std::mem::take(&mut self.is_first));
        // Before this part is returned: only a later flush counts.
        viewer.flushed.mark_unchanged();
        self.next = Box::pin(viewer.next());
        Poll::Ready(Some(Ok(part)))
    }
}

fn part(frame: &[u8], is_first: bool) -> Bytes {
    let header = format!("Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", frame.len());
    let mut part = BytesMut::with_capacity(2 * BOUNDARY.len() + header.len() + frame.len());
    if is_first {
        part.extend_from_slice(&BOUNDARY[2..]);
    }
    for piece in [header.as_bytes(), frame, BOUNDARY] {
        part.extend_from_slice(piece);
    }
    part.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_can_request_a_response_that_browsers_do_not_parse() {
        let requested =
            |accept: &'static str| content_type(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]));
        assert_eq!(requested("multipart/mixed"), "multipart/mixed; boundary=jpeg");
        assert_eq!(requested("image/*, */*"), "multipart/x-mixed-replace; boundary=jpeg");
    }

    #[test]
    fn every_frame_is_followed_by_a_boundary() {
        assert_eq!(
            part(b"JPEG", true),
            "--jpeg\r\nContent-Type: image/jpeg\r\nContent-Length: 4\r\n\r\nJPEG\r\n--jpeg\r\n"
        );
        assert_eq!(part(b"JPEG", false), "Content-Type: image/jpeg\r\nContent-Length: 4\r\n\r\nJPEG\r\n--jpeg\r\n");
    }
}
