//! Masks and events as they occur, for any number of clients: by WebSocket, or as server-sent events.
//!
//! A client's next message is made when the previous one has left the process. Meanwhile messages wait in a bounded queue
//! (`tokio::sync::broadcast`), of which a slow client loses the oldest; their number is in its next message. So a slow client
//! never delays a stream, and needs the memory of one message: masks in the queue are shared.
//!
//! | limit | of | then |
//! | --- | --- | --- |
//! | 128 | clients | 503 |
//! | 15 s | a client that reads nothing (`connection`) | the connection is closed |
//! | 30 s | a message to a client that reads slowly | the connection is closed |
//! | 60 s | a WebSocket client from which nothing arrives, not even an answer to a ping | the connection is closed |
//!
//! The connection also ends when the server stops, and within seconds when the stream, user or token is removed.

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::problem::Problem;
use super::{NamedStream, SharedApp};
use crate::base::bounded::field;
use crate::config::parse_duration;
use crate::sink::PixelsFormat;

mod feed;
mod request;
mod sse;
mod websocket;

use feed::{EventSource, LiveSource, MaskSource};
use request::LiveRequest;

/// Maximum time between two masks that a client can request.
const LONGEST_INTERVAL: Duration = Duration::from_secs(3600);

/// The parameters of a request, checked by hand: a misspelt one is an error.
type Parameters = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// Get masks live
///
/// The masks of a stream as they are made, until the client disconnects: shares of the classes in the frame and in each
/// zone, and on request the pixels. With the headers of a WebSocket (RFC 6455) each mask is a text message with a
/// JSON object; with `Accept: text/event-stream`, each mask is a server-sent event `mask` whose data is that object.
/// `maskcast schema --message mask` prints its JSON Schema. A client that receives too slowly loses masks; `lost` in the
/// next message is their number. Browsers can open the WebSocket only from pages of this service.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/masks",
    operation_id = "live_masks",
    tag = "live",
    params(
        ("name" = String, Path, description = "Name of the stream.", example = "gate"),
        ("every" = Option<String>, Query, description = "Minimum time between two masks, at most `1h`. Default: every mask.", example = "500ms"),
        ("mask" = Option<String>, Query, description = "Adds the pixels of each mask: `rle` (run lengths of each class, as COCO has them) or `png`. Default: none.", example = "rle"),
    ),
    responses(
        (status = 101, description = "The connection becomes a WebSocket."),
        (status = 200, description = "Server-sent events without end.", body = String, content_type = "text/event-stream"),
        (status = 400, description = "A parameter or a header of the WebSocket is not valid."),
        (status = 403, description = "The WebSocket was requested by a page of another site."),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
        (status = 406, description = "The request is neither for a WebSocket nor for server-sent events."),
        (status = 503, description = "128 clients are connected already."),
    )
)]
pub(super) async fn masks(named: NamedStream, query: Parameters, request: LiveRequest) -> Result<Response, Problem> {
    let (mut every, mut pixels) = (None, None);
    for (name, value) in parameters(query)? {
        match name.as_str() {
            "every" => every = Some(interval(&value)?),
            "mask" => pixels = Some(pixels_format(&value)?),
            _ => return Err(unknown_parameter(&name, "every, mask")),
        }
    }
    let source = MaskSource::new(&named.stream().masks, every, pixels);
    let stream = named.stream().status.name.to_string();
    request.answer(&named.app, LiveSource::Masks(source), Some(stream))
}

/// Get events live
///
/// Messages about the events of all streams as they occur, until the client disconnects: an event began, reached a new peak, or
/// ended. WebSocket and server-sent events as for masks; the name of a server-sent event is `event`.
/// `maskcast schema --message event` prints the JSON Schema.
#[utoipa::path(
    get,
    path = "/api/v1/events/live",
    operation_id = "live_events",
    tag = "live",
    params(
        ("stream" = Option<String>, Query, description = "Only events of the stream with this name. Default: all streams.", example = "gate"),
        ("rule" = Option<String>, Query, description = "Only events of the rule with this name. Default: all rules.", example = "blocked"),
    ),
    responses(
        (status = 101, description = "The connection becomes a WebSocket."),
        (status = 200, description = "Server-sent events without end.", body = String, content_type = "text/event-stream"),
        (status = 400, description = "A parameter or a header of the WebSocket is not valid."),
        (status = 403, description = "The WebSocket was requested by a page of another site."),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
        (status = 406, description = "The request is neither for a WebSocket nor for server-sent events."),
        (status = 503, description = "128 clients are connected already."),
    )
)]
pub(super) async fn events(
    State(app): State<SharedApp>,
    query: Parameters,
    request: LiveRequest,
) -> Result<Response, Problem> {
    let (mut stream, mut rule) = (None, None);
    for (name, value) in parameters(query)? {
        match name.as_str() {
            "stream" => stream = Some(value),
            "rule" => rule = Some(value),
            _ => return Err(unknown_parameter(&name, "stream, rule")),
        }
    }
    if let Some(name) = &stream
        && app.view.stream(name).is_none()
    {
        return Err(Problem::unknown_stream(name, &app.view.streams()));
    }
    let source = EventSource::new(app.view.events.subscribe(), stream.clone(), rule);
    request.answer(&app, LiveSource::Events(source), stream)
}

fn parameters(query: Parameters) -> Result<Vec<(String, String)>, Problem> {
    query.map(|Query(pairs)| pairs).map_err(|error| bad_request(format!("the query cannot be read: {error}")))
}

fn interval(text: &str) -> Result<Duration, Problem> {
    let time = parse_duration(text)
        .ok_or_else(|| bad_request(format!("every: {:?} is not a duration; write 500ms, 2s or 1m", field(text))))?;
    if time > LONGEST_INTERVAL {
        return Err(bad_request(format!("every: {} is longer than 1h", field(text))));
    }
    Ok(time)
}

fn pixels_format(text: &str) -> Result<PixelsFormat, Problem> {
    match text {
        "rle" => Ok(PixelsFormat::Rle),
        "png" => Ok(PixelsFormat::Png),
        _ => Err(bad_request(format!("mask: {:?} is not one of rle, png", field(text)))),
    }
}

fn unknown_parameter(name: &str, known: &str) -> Problem {
    bad_request(format!("there is no parameter {:?}; parameters: {known}", field(name)))
}

fn bad_request(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}
