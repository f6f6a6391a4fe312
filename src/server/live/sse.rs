//! Live messages as server-sent events (WHATWG HTML, section 9.2).

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use tokio::sync::watch;
use tokio_stream::Stream;

use super::super::stopped;
use super::feed::{LiveFeed, LiveItem};

/// Proxies of the nginx family collect responses in a buffer unless this header forbids it.
const ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// The response with the messages of `feed`. `flushed` changes when all bytes so far were passed to the kernel.
pub(super) fn response(feed: LiveFeed, flushed: watch::Receiver<()>) -> Response {
    let client = SseClient { feed, flushed };
    let mut response = Sse::new(SseEvents { next: Box::pin(client.next()) }).into_response();
    response.headers_mut().insert(ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

struct SseClient {
    feed: LiveFeed,
    flushed: watch::Receiver<()>,
}

impl SseClient {
    /// The next event, after the previous one was flushed. `None` ends the response.
    async fn next(mut self) -> Option<(Event, SseClient)> {
        tokio::select! {
            flushed = self.flushed.changed() => flushed.ok()?,
            () = stopped(self.feed.stopping()) => return None,
        }
        let event = match self.feed.next().await.ok()? {
            // JSON text has no line breaks.
            LiveItem::Message(text) => Event::default().event(self.feed.name()).data(text),
            LiveItem::Ping => Event::default().comment(""),
        };
        Some((event, self))
    }
}

/// The future of the next event.
type NextEvent = Pin<Box<dyn Future<Output = Option<(Event, SseClient)>> + Send>>;

struct SseEvents {
    next: NextEvent,
}

impl Stream for SseEvents {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Poll::Ready(next) = self.next.as_mut().poll(cx) else { return Poll::Pending };
        let Some((event, mut client)) = next else { return Poll::Ready(None) };
        // Before this event is returned: only a later flush counts.
        client.flushed.mark_unchanged();
        self.next = Box::pin(client.next());
        Poll::Ready(Some(Ok(event)))
    }
}
