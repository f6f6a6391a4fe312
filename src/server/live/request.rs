//! A request for live messages: how the client wants them, and the response.

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{ConnectInfo, FromRequestParts};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;

use super::super::connection::ClientConnection;
use super::super::problem::Problem;
use super::super::{SharedApp, app::LIVE_CLIENTS};
use super::feed::{LiveFeed, LiveSource};
use super::{sse, websocket};
use crate::access::Identity;

/// How the client wants the messages.
enum Transport {
    WebSocket(Box<WebSocketUpgrade>),
    ServerSentEvents,
}

/// The parts of a request that live messages need.
pub struct LiveRequest {
    transport: Transport,
    connection: ClientConnection,
    identity: Option<Identity>,
}

impl FromRequestParts<SharedApp> for LiveRequest {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedApp) -> Result<Self, Problem> {
        let transport = if is_websocket(&parts.headers) {
            let upgrade = WebSocketUpgrade::from_request_parts(parts, app).await;
            let upgrade = upgrade.map_err(|refused| {
                Problem::new(refused.status(), format!("the WebSocket cannot be opened: {}", refused.body_text()))
            })?;
            Transport::WebSocket(Box::new(upgrade))
        } else if accepts_events(&parts.headers) {
            Transport::ServerSentEvents
        } else {
            let detail = "open a WebSocket, or send `Accept: text/event-stream` for server-sent events";
            return Err(Problem::new(StatusCode::NOT_ACCEPTABLE, detail.into()));
        };
        let Some(ConnectInfo(connection)) = parts.extensions.get::<ConnectInfo<ClientConnection>>().cloned() else {
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the connection is not known".into()));
        };
        Ok(LiveRequest { transport, connection, identity: parts.extensions.get::<Identity>().cloned() })
    }
}

impl LiveRequest {
    /// The response with the messages of `source`. The removal of `stream` ends it.
    pub(super) fn answer(
        self,
        app: &SharedApp,
        source: LiveSource,
        stream: Option<String>,
    ) -> Result<Response, Problem> {
        let LiveRequest { transport, connection, identity } = self;
        let Ok(place) = Arc::clone(&app.live_clients).try_acquire_owned() else {
            let detail = format!("{LIVE_CLIENTS} clients receive live messages already; try again later");
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
        };
        let feed = LiveFeed::new(source, app, identity, stream, place);
        Ok(match transport {
            Transport::WebSocket(upgrade) => websocket::response(*upgrade, feed, connection),
            Transport::ServerSentEvents => sse::response(feed, connection.flushed),
        })
    }
}

/// Whether the client wants to open a WebSocket.
fn is_websocket(headers: &HeaderMap) -> bool {
    headers.get(header::UPGRADE).is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Whether `Accept` names server-sent events. `*/*` does not: a client that expects a complete response would wait for ever.
fn accepts_events(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds = values.flat_map(|value| value.split(',')).filter_map(|kind| kind.split(';').next());
    kinds.map(str::trim).any(|kind| kind.eq_ignore_ascii_case("text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_sent_events_must_be_named() {
        let accepts =
            |value: &'static str| accepts_events(&HeaderMap::from_iter([(header::ACCEPT, value.parse().unwrap())]));
        assert!(accepts("text/event-stream") && accepts("text/html, Text/Event-Stream;q=0.9"));
        assert!(!accepts("*/*") && !accepts("application/json") && !accepts("text/*"));
        assert!(!accepts_events(&HeaderMap::new()));
    }
}
