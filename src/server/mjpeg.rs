//! Live pictures for browsers: an endless response whose parts each replace the one before, or a single picture.
//!
//! A viewer's receiver holds the newest picture only, and the next part is made when the last one has left the
//! process: a slow client skips pictures, it does not see old ones, and costs one picture of memory.

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

/// How long a single picture may take to come: the stream may have to start its encoder for it.
const SNAPSHOT_LIMIT: Duration = Duration::from_secs(3);

/// Between parts. It follows each picture at once instead of preceding the next: browsers show a picture only when
/// they have seen the boundary after it.
const BOUNDARY: &[u8] = b"\r\n--picture\r\n";

/// What the response is called. Browsers take one that replaces its parts apart by themselves; a script that wants to
/// do so, and to know of every picture, asks for `multipart/mixed`: the same bytes under a name that no browser touches.
fn content_type(request: &HeaderMap) -> &'static str {
    let wants_mixed = request.get(header::ACCEPT).is_some_and(|accept| accept == "multipart/mixed");
    if wants_mixed { "multipart/mixed; boundary=picture" } else { "multipart/x-mixed-replace; boundary=picture" }
}

/// `GET /mjpeg/NAME`
pub(super) async fn live(
    ConnectInfo(peer): ConnectInfo<ClientConnection>,
    who: Option<Extension<Identity>>,
    headers: HeaderMap,
    named: NamedStream,
) -> Response {
    let viewer = MjpegViewer {
        pictures: named.stream().outputs.jpeg.look(),
        flushed: peer.flushed,
        stopping: named.app.stopping.clone(),
        access: Arc::clone(&named.app.access),
        who: who.map(|Extension(who)| who),
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
    tag = "pictures",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate")),
    responses(
        (status = 200, description = "The frame as JPEG.", body = Vec<u8>, content_type = "image/jpeg"),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
        (status = 503, description = "No frame was published within 3 s."),
    )
)]
pub(super) async fn snapshot(named: NamedStream) -> Result<Response, Problem> {
    let mut pictures = named.stream().outputs.jpeg.look();
    let stopping = named.app.stopping.clone();
    let picture = tokio::select! {
        picture = newest(&mut pictures) => picture,
        () = tokio::time::sleep(SNAPSHOT_LIMIT) => None,
        () = stopped(stopping) => None,
    };
    picture.map(|jpeg| typed("image/jpeg", jpeg)).ok_or_else(|| {
        let (name, limit) = (&named.stream().status.name, SNAPSHOT_LIMIT.as_secs());
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, format!("there was no picture of {name} within {limit} s"))
    })
}

/// The next picture that was not seen yet; `None` when there will be no more.
async fn newest(pictures: &mut watch::Receiver<Option<Bytes>>) -> Option<Bytes> {
    loop {
        pictures.changed().await.ok()?;
        if let Some(picture) = &*pictures.borrow_and_update() {
            return Some(picture.clone());
        }
    }
}

struct MjpegViewer {
    pictures: watch::Receiver<Option<Bytes>>,
    flushed: watch::Receiver<()>,
    stopping: watch::Receiver<bool>,
    access: Arc<Access>,
    who: Option<Identity>,
}

impl MjpegViewer {
    /// The newest picture, once the connection has room for it. `None` ends the response.
    async fn next(mut self) -> Option<(Bytes, MjpegViewer)> {
        let stopping = self.stopping.clone();
        let picture = async {
            // The headers were flushed, or a part was.
            self.flushed.changed().await.ok()?;
            newest(&mut self.pictures).await
        };
        let picture = tokio::select! {
            picture = picture => picture?,
            () = stopped(stopping) => return None,
        };
        // Somebody who was removed meanwhile sees no more.
        let may_go_on = self.who.as_ref().is_none_or(|who| self.access.still_knows(who));
        may_go_on.then_some((picture, self))
    }
}

/// A picture that is waited for.
type NextJpeg = Pin<Box<dyn Future<Output = Option<(Bytes, MjpegViewer)>> + Send>>;

/// The parts of the response, one picture each.
struct MjpegParts {
    next: NextJpeg,
    is_first: bool,
}

impl Stream for MjpegParts {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Poll::Ready(next) = self.next.as_mut().poll(cx) else { return Poll::Pending };
        let Some((picture, mut viewer)) = next else { return Poll::Ready(None) };
        let part = part(&picture, std::mem::take(&mut self.is_first));
        // Before this part is handed out: only a flush that comes after it counts.
        viewer.flushed.mark_unchanged();
        self.next = Box::pin(viewer.next());
        Poll::Ready(Some(Ok(part)))
    }
}

fn part(picture: &[u8], is_first: bool) -> Bytes {
    let header = format!("Content-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n", picture.len());
    let mut part = BytesMut::with_capacity(2 * BOUNDARY.len() + header.len() + picture.len());
    if is_first {
        part.extend_from_slice(&BOUNDARY[2..]);
    }
    for piece in [header.as_bytes(), picture, BOUNDARY] {
        part.extend_from_slice(piece);
    }
    part.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_may_ask_for_a_response_that_browsers_leave_alone() {
        let asked =
            |accept: &'static str| content_type(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]));
        assert_eq!(asked("multipart/mixed"), "multipart/mixed; boundary=picture");
        assert_eq!(asked("image/*, */*"), "multipart/x-mixed-replace; boundary=picture");
    }

    #[test]
    fn every_picture_is_closed_by_a_boundary() {
        assert_eq!(
            part(b"JPEG", true),
            "--picture\r\nContent-Type: image/jpeg\r\nContent-Length: 4\r\n\r\nJPEG\r\n--picture\r\n"
        );
        assert_eq!(part(b"JPEG", false), "Content-Type: image/jpeg\r\nContent-Length: 4\r\n\r\nJPEG\r\n--picture\r\n");
    }
}
