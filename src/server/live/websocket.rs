//! Live messages by WebSocket (RFC 6455).

use std::time::{Duration, Instant};

use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;

use super::super::connection::ClientConnection;
use super::super::stopped;
use super::feed::{LiveEnd, LiveFeed, LiveItem, PING_INTERVAL};

/// Maximum size in bytes of what a client sends: pongs and its close frame. Other messages are ignored.
const MAX_RECEIVED: usize = 4 << 10;

/// Size of the buffers for reading and writing in bytes. Each client has them.
const BUFFER: usize = 4 << 10;

/// How long one message may take. Less than a client needs that reads a byte now and then.
const SEND_LIMIT: Duration = Duration::from_secs(30);

/// A client from which nothing has arrived for this long is gone: it answers pings.
const SILENCE_LIMIT: Duration = PING_INTERVAL.saturating_mul(3);

/// How long the close frame may take.
const CLOSE_LIMIT: Duration = Duration::from_millis(200);

/// The response that opens the WebSocket.
pub(super) fn response(upgrade: WebSocketUpgrade, feed: LiveFeed, connection: ClientConnection) -> Response {
    let upgrade = upgrade
        .max_message_size(MAX_RECEIVED)
        .max_frame_size(MAX_RECEIVED)
        .read_buffer_size(BUFFER)
        .write_buffer_size(BUFFER);
    let failed = |error| tracing::debug!("WebSocket not opened: {error}");
    upgrade.on_failed_upgrade(failed).on_upgrade(move |socket| serve(socket, feed, connection))
}

/// How a connection ends.
enum End {
    /// The server ends it.
    Closed(LiveEnd),
    /// The client has closed it or is gone, or its place is needed for another connection.
    Gone,
}

async fn serve(mut socket: WebSocket, mut feed: LiveFeed, connection: ClientConnection) {
    // The 101 looked like a complete response, after which the client has to send something.
    connection.permit.set_answering();
    let end = tokio::select! {
        end = exchange(&mut socket, &mut feed) => end,
        () = connection.permit.revoked() => End::Gone,
    };
    if let End::Closed(end) = end {
        let code = match end {
            LiveEnd::ServerStops => close_code::AWAY,
            LiveEnd::StreamRemoved => close_code::NORMAL,
            LiveEnd::AccessRemoved => close_code::POLICY,
        };
        let close = Message::Close(Some(CloseFrame { code, reason: end.reason().into() }));
        // The client may be gone.
        let _ = tokio::time::timeout(CLOSE_LIMIT, socket.send(close)).await;
    }
}

/// Sends messages, and reads what the client sends, until one of them ends.
async fn exchange(socket: &mut WebSocket, feed: &mut LiveFeed) -> End {
    let mut heard = Instant::now();
    loop {
        let item = tokio::select! {
            item = feed.next() => item,
            received = socket.recv() => match received {
                None | Some(Err(_) | Ok(Message::Close(_))) => return End::Gone,
                // tungstenite answers pings itself.
                Some(Ok(_)) => {
                    heard = Instant::now();
                    continue;
                }
            },
        };
        let message = match item {
            Ok(LiveItem::Message(text)) => Message::Text(text.into()),
            Ok(LiveItem::Ping) if heard.elapsed() > SILENCE_LIMIT => return End::Gone,
            Ok(LiveItem::Ping) => Message::Ping(Default::default()),
            Err(end) => return End::Closed(end),
        };
        // Completes when all bytes have been passed to the kernel.
        let sent = tokio::select! {
            sent = tokio::time::timeout(SEND_LIMIT, socket.send(message)) => sent,
            // The message may be sent in part: no close frame can follow it.
            () = stopped(feed.stopping()) => return End::Gone,
        };
        if !matches!(sent, Ok(Ok(()))) {
            return End::Gone;
        }
    }
}
