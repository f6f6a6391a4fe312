//! The events of the history, with their snapshots and the recordings that show them.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::app::{SharedApp, typed};
use super::history::{bad, history_of, read, refused_parameters, time};
use super::problem::Problem;
use crate::base::bounded::field;
use crate::events::Event;
use crate::history::{EventQuery, SnapshotKind, StoredEvent};
use crate::view::StreamView;

/// Default and maximum number of events in one response.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// Which events are listed.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct EventParameters {
    /// Only events that lasted at this time (RFC 3339) or later.
    from: Option<String>,
    /// Only events that began before this time (RFC 3339).
    to: Option<String>,
    /// Name of a stream.
    stream: Option<String>,
    /// Name of a rule or of a recorded event.
    rule: Option<String>,
    /// Maximum number of events in the response.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
    /// Id of an event: only events that come after it in this list. For the next page, the last id of this page.
    before: Option<String>,
}

/// An event of the history.
#[derive(Serialize, ToSchema)]
pub(super) struct EventRecord {
    #[serde(flatten)]
    event: Event,
    snapshots: EventSnapshots,
    /// The recording that shows its start, if there is one.
    recording: Option<EventRecording>,
}

/// Paths of snapshots in this API. Null if there was no frame, or the rule made several events in a second.
#[derive(Serialize, ToSchema)]
struct EventSnapshots {
    /// The first frame after the event began.
    start: Option<String>,
    /// A frame after the newest peak; null if the share was never higher than at the start.
    peak: Option<String>,
}

/// A recording, and where in it an event begins.
#[derive(Clone, Serialize, ToSchema)]
struct EventRecording {
    /// File name.
    name: String,
    /// Path of the file in this API.
    url: String,
    /// Start of the event in the file, in seconds. It may be up to a second too late, because the names of files have whole
    /// seconds.
    offset_s: f64,
}

/// List events
///
/// The events of all streams from the history, the newest start first.
#[utoipa::path(
    get,
    path = "/api/v1/events",
    operation_id = "list_events",
    tag = "events",
    params(EventParameters),
    responses(
        (status = 200, description = "The events.", body = Vec<EventRecord>),
        (status = 400, description = "A parameter is wrong; `detail` says which."),
        (status = 404, description = "The history is off."),
        (status = 503, description = "The history cannot be read."),
    )
)]
pub(super) async fn list(
    State(app): State<SharedApp>,
    parameters: Result<Query<EventParameters>, QueryRejection>,
) -> Result<Json<Vec<EventRecord>>, Problem> {
    let history = history_of(&app)?;
    let Query(parameters) = parameters.map_err(refused_parameters)?;
    let query = event_query(parameters)?;
    let before = query.before.clone().unwrap_or_default();
    let streams = app.view.streams();
    let found =
        read(&history, move |reader| Ok(reader.events(&query)?.map(|events| records(events, &streams)))).await?;
    found.map(Json).ok_or_else(|| bad(format!("before must be the id of an event, not {:?}", field(&before))))
}

fn event_query(parameters: EventParameters) -> Result<EventQuery, Problem> {
    let EventParameters { from, to, stream, rule, limit, before } = parameters;
    let (from, to) = (time("from", from.as_deref())?, time("to", to.as_deref())?);
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Err(bad(format!("from must be before to: {from} is not before {to}")));
    }
    let number = |text: String| match text.parse() {
        Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        _ => Err(bad(format!("limit must be a number between 1 and {MAX_LIMIT}, not {:?}", field(&text)))),
    };
    let limit = limit.map_or(Ok(DEFAULT_LIMIT), number)?;
    Ok(EventQuery { from, to, stream, rule, before, limit })
}

/// Get an event
///
/// An event of the history, with the fields of the list.
#[utoipa::path(
    get,
    path = "/api/v1/events/{id}",
    operation_id = "event",
    tag = "events",
    params(("id" = String, Path, description = "Id of the event.")),
    responses(
        (status = 200, description = "The event.", body = EventRecord),
        (status = 404, description = "There is no event with this id, or the history is off."),
        (status = 503, description = "The history cannot be read."),
    )
)]
pub(super) async fn show(State(app): State<SharedApp>, Path(id): Path<String>) -> Result<Json<EventRecord>, Problem> {
    let history = history_of(&app)?;
    let (streams, wanted) = (app.view.streams(), id.clone());
    let found = read(&history, move |reader| Ok(records(reader.event(&wanted)?.into_iter().collect(), &streams)));
    found.await?.pop().map(Json).ok_or_else(|| unknown(&id))
}

/// Get the snapshot of the start of an event
///
/// The first drawn frame after the event began.
#[utoipa::path(
    get,
    path = "/api/v1/events/{id}/start.jpg",
    operation_id = "event_start",
    tag = "events",
    params(("id" = String, Path, description = "Id of the event.")),
    responses(
        (status = 200, description = "The frame as JPEG.", body = Vec<u8>, content_type = "image/jpeg"),
        (status = 404, description = "There is no such event or snapshot, or the history is off."),
        (status = 503, description = "The history cannot be read."),
    )
)]
pub(super) async fn start_snapshot(State(app): State<SharedApp>, Path(id): Path<String>) -> Result<Response, Problem> {
    // It does not change.
    snapshot(&app, id, SnapshotKind::Start, "private, max-age=604800, immutable").await
}

/// Get the snapshot of the peak of an event
///
/// A drawn frame after the share reached its newest peak. There is at most one in three seconds.
#[utoipa::path(
    get,
    path = "/api/v1/events/{id}/peak.jpg",
    operation_id = "event_peak",
    tag = "events",
    params(("id" = String, Path, description = "Id of the event.")),
    responses(
        (status = 200, description = "The frame as JPEG.", body = Vec<u8>, content_type = "image/jpeg"),
        (status = 404, description = "There is no such event or snapshot, or the history is off."),
        (status = 503, description = "The history cannot be read."),
    )
)]
pub(super) async fn peak_snapshot(State(app): State<SharedApp>, Path(id): Path<String>) -> Result<Response, Problem> {
    snapshot(&app, id, SnapshotKind::Peak, "private, no-cache").await
}

async fn snapshot(app: &SharedApp, id: String, kind: SnapshotKind, caching: &'static str) -> Result<Response, Problem> {
    let history = history_of(app)?;
    let wanted = id.clone();
    let jpeg = read(&history, move |reader| reader.snapshot(&wanted, kind)).await?.ok_or_else(|| {
        let detail = format!("there is no snapshot {} of an event {:?}", kind.name(), field(&id));
        Problem::new(StatusCode::NOT_FOUND, detail)
    })?;
    let mut response = typed("image/jpeg", jpeg);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(caching));
    Ok(response)
}

fn unknown(id: &str) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, format!("there is no event {:?}", field(id)))
}

/// Adds paths of snapshots and recordings. Reads the folders of the recordings.
fn records(events: Vec<StoredEvent>, streams: &[Arc<StreamView>]) -> Vec<EventRecord> {
    let mut starts: BTreeMap<Arc<str>, Vec<Timestamp>> = BTreeMap::new();
    for StoredEvent { event, .. } in &events {
        starts.entry(Arc::clone(&event.stream)).or_default().push(event.start);
    }
    let mut recordings = BTreeMap::new();
    for (name, starts) in starts {
        let stream = streams.iter().find(|stream| stream.status.name == name);
        let Some(archive) = stream.and_then(|stream| stream.recordings.as_ref()) else { continue };
        // A folder that cannot be read at present: the events are listed without their recordings.
        let Ok(shown) = archive.showing(&starts) else { continue };
        for (start, (recording, offset)) in starts.iter().zip(shown).filter_map(|(start, shown)| Some((*start, shown?)))
        {
            let url = format!("/api/v1/streams/{name}/recordings/{}", recording.file);
            let offset_s = (offset * 1e3).round() / 1e3;
            recordings.insert((Arc::clone(&name), start), EventRecording { name: recording.file, url, offset_s });
        }
    }
    let record = |StoredEvent { event, has_start_snapshot, has_peak_snapshot }: StoredEvent| {
        let url = |exists: bool, kind: SnapshotKind| {
            exists.then(|| format!("/api/v1/events/{}/{}.jpg", event.id, kind.name()))
        };
        let snapshots = EventSnapshots {
            start: url(has_start_snapshot, SnapshotKind::Start),
            peak: url(has_peak_snapshot, SnapshotKind::Peak),
        };
        let recording = recordings.get(&(Arc::clone(&event.stream), event.start)).cloned();
        EventRecord { event, snapshots, recording }
    };
    events.into_iter().map(record).collect()
}
