//! `/api/v1/streams/{name}/collection`: the frames that a stream has collected for training, their labels, and what was decided about
//! them. For operators only: collected frames are not redacted.
//!
//! A label is saved for the revision that the client has read (`If-Match`), so that two editors of one frame cannot overwrite each
//! other's work without notice.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, JsonRejection, QueryRejection};
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::blocking::blocking;
use super::problem::Problem;
use super::{NamedStream, SharedApp};
use crate::base::bounded::field;
use crate::collect::error::{CollectionError, SaveError};
use crate::collect::record::{FrameId, FrameRecord, FrameState};
use crate::collect::store::{Collection, Picture};
use crate::collect::stream_collection::StreamCollection;
use crate::config::hex;

/// Maximum size of a label in bytes. Labels of 4K frames have a few hundred kilobytes as PNG.
pub(super) const MAX_LABEL: usize = 4 << 20;

/// Default and maximum number of frames in one response.
const DEFAULT_LIMIT: usize = 200;
const MAX_LIMIT: usize = 1000;

/// Whether `path` is that of a label, which may be larger than other bodies.
pub(super) fn is_label(path: &str) -> bool {
    is_collection(path) && path.ends_with("/label.png")
}

/// Whether `path` is about a collection.
pub(super) fn is_collection(path: &str) -> bool {
    path.strip_prefix("/api/v1/streams/").and_then(|rest| rest.split('/').nth(1)) == Some("collection")
}

/// The collection of a stream.
#[derive(Serialize, ToSchema)]
#[schema(as = Collection)]
pub(super) struct CollectionReport {
    /// Folder of the collection on the machine of the service, for `maskcast-train`.
    #[schema(example = "/var/lib/maskcast/collected/gate")]
    folder: String,
    /// The classes, in the order of their indices in labels. 255 is void: not used for training.
    classes: Vec<CollectionClass>,
    /// Numbers of frames by state.
    counts: FrameCounts,
    /// Size of all files in bytes.
    bytes: u64,
    /// The frames, the newest first.
    frames: Vec<FrameRecord>,
}

/// A class of a collection.
#[derive(Serialize, ToSchema)]
pub(super) struct CollectionClass {
    /// Name of the class.
    #[schema(example = "person")]
    name: String,
    /// Colour of the class, `#rrggbb`.
    #[schema(example = "#dc143c")]
    color: String,
}

/// Numbers of collected frames.
#[derive(Serialize, ToSchema)]
pub(super) struct FrameCounts {
    /// Frames that were not reviewed.
    new: usize,
    /// Frames that were put off.
    later: usize,
    /// Frames whose label was accepted: the trainer uses them.
    accepted: usize,
    /// Frames that a person discarded in the last 30 days.
    discarded: usize,
}

/// Which frames are listed.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Only frames in this state. Default: all that have pictures, which are those that were not discarded.
    #[param(value_type = Option<FrameState>)]
    state: Option<FrameState>,
    /// Maximum number of frames in the response.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 1000, default = 200)]
    limit: Option<usize>,
    /// `id` of a frame: only older ones. For the next page, the last of this page.
    #[param(value_type = Option<String>)]
    before: Option<FrameId>,
}

/// A decision about a frame.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FrameDecision {
    /// `accepted`: the label is right, the trainer uses the frame. `discarded`: its pictures are deleted.
    state: FrameState,
}

/// The collection of the stream in the path.
pub(super) struct RequestedCollection {
    shared: Arc<StreamCollection>,
}

impl FromRequestParts<SharedApp> for RequestedCollection {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedApp) -> Result<Self, Problem> {
        let named = NamedStream::from_request_parts(parts, app).await?;
        let stream = named.stream();
        let Some(shared) = stream.collection.clone() else {
            let name = &stream.status.name;
            let detail = format!("stream {name} collects no frames; `[stream.collect]` in the configuration makes it");
            return Err(Problem::new(StatusCode::NOT_FOUND, detail));
        };
        Ok(RequestedCollection { shared })
    }
}

impl RequestedCollection {
    /// Works with the collection on a thread that may wait for the disk.
    async fn with<T, E>(self, work: impl FnOnce(&Collection) -> Result<T, E> + Send + 'static) -> Result<T, Problem>
    where
        T: Send + 'static,
        E: Into<Problem> + From<CollectionError> + Send + 'static,
    {
        blocking(move || self.shared.open().map_err(E::from).and_then(|collection| work(&collection)))
            .await?
            .map_err(E::into)
    }
}

/// The frame in the path.
pub(super) struct RequestedFrame(FrameId);

/// The part of the path that names a frame.
#[derive(Deserialize)]
struct FramePart {
    id: String,
}

impl FromRequestParts<SharedApp> for RequestedFrame {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedApp) -> Result<Self, Problem> {
        let missing =
            |id: &str| Problem::new(StatusCode::NOT_FOUND, format!("there is no collected frame {:?}", field(id)));
        let Ok(Path(FramePart { id })) = Path::<FramePart>::from_request_parts(parts, app).await else {
            return Err(missing(parts.uri.path()));
        };
        id.parse().map(RequestedFrame).map_err(|_| missing(&id))
    }
}

/// The revision in `If-Match`.
pub(super) struct ExpectedRevision(u64);

impl<S: Sync> FromRequestParts<S> for ExpectedRevision {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else {
            let detail = "the header If-Match is missing; send the revision of the frame in quotes, such as \"3\"";
            return Err(Problem::new(StatusCode::PRECONDITION_REQUIRED, detail.into()));
        };
        let text = value.to_str().unwrap_or_default();
        let revision =
            text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).and_then(|text| text.parse().ok());
        let bad = || {
            let text = field(text);
            let detail = format!("If-Match must be the revision of the frame in quotes, such as \"3\", not {text:?}");
            Problem::new(StatusCode::BAD_REQUEST, detail)
        };
        revision.map(ExpectedRevision).ok_or_else(bad)
    }
}

/// List the collected frames of a stream
///
/// The newest frame comes first. For operators: collected frames are not redacted.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/collection",
    operation_id = "list_collection",
    tag = "collection",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate"), Page),
    responses(
        (status = 200, description = "The frames.", body = CollectionReport),
        (status = 400, description = "A parameter is not valid."),
        (status = 404, description = "No stream has this name, or it collects no frames."),
    )
)]
pub(super) async fn list(
    collection: RequestedCollection,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<CollectionReport>, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
    let Query(Page { state, limit, before }) = page.map_err(|error| bad(error.body_text()))?;
    let limit = limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(bad(format!("limit must be a number between 1 and {MAX_LIMIT}, not {limit}")));
    }
    let report = move |collection: &Collection| {
        let is_listed = |frame: &FrameRecord| match state {
            Some(state) => frame.state == state && !frame.evicted,
            None => frame.has_pictures(),
        };
        let is_older = |frame: &FrameRecord| before.as_ref().is_none_or(|before| frame.id < *before);
        let size = collection.size();
        let frames = collection.frames().into_iter().filter(|frame| is_listed(frame) && is_older(frame));
        let class = |label: &crate::frame::Label| CollectionClass { name: label.name.clone(), color: hex(label.color) };
        Ok::<_, CollectionError>(CollectionReport {
            folder: collection.folder().display().to_string(),
            classes: collection.classes().iter().map(class).collect(),
            counts: FrameCounts {
                new: size.new,
                later: size.later,
                accepted: size.accepted,
                discarded: size.discarded,
            },
            bytes: size.bytes,
            frames: frames.take(limit).collect(),
        })
    };
    collection.with(report).await.map(Json)
}

/// Get a collected frame
///
/// What is known of the frame. For operators.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/collection/{id}",
    operation_id = "get_collected_frame",
    tag = "collection",
    params(
        ("name" = String, Path, description = "Name of the stream.", example = "gate"),
        ("id" = String, Path, description = "`id` of the frame.", example = "20261201T044917123Z"),
    ),
    responses(
        (status = 200, description = "The frame.", body = FrameRecord),
        (status = 404, description = "No stream has this name, it collects no frames, or it has no such frame."),
    )
)]
pub(super) async fn show(
    collection: RequestedCollection,
    RequestedFrame(id): RequestedFrame,
) -> Result<Response, Problem> {
    let record = collection.with(move |collection| collection.frame(&id)).await?;
    Ok(recorded(record))
}

/// Decide about a collected frame
///
/// `If-Match` has the revision of the label that was looked at, in quotes.
#[utoipa::path(
    patch,
    path = "/api/v1/streams/{name}/collection/{id}",
    operation_id = "decide_collected_frame",
    tag = "collection",
    params(
        ("name" = String, Path, description = "Name of the stream.", example = "gate"),
        ("id" = String, Path, description = "`id` of the frame.", example = "20261201T044917123Z"),
        ("If-Match" = String, Header, description = "The revision of the frame in quotes.", example = "\"3\""),
    ),
    request_body = FrameDecision,
    responses(
        (status = 200, description = "The decision is stored.", body = FrameRecord),
        (status = 404, description = "No stream has this name, it collects no frames, or it has no such frame."),
        (status = 410, description = "The frame was discarded."),
        (status = 412, description = "The frame has another revision, which is in `ETag`."),
        (status = 428, description = "`If-Match` is missing."),
    )
)]
pub(super) async fn decide(
    collection: RequestedCollection,
    RequestedFrame(id): RequestedFrame,
    ExpectedRevision(revision): ExpectedRevision,
    body: Result<Json<FrameDecision>, JsonRejection>,
) -> Result<Response, SaveProblem> {
    let Json(FrameDecision { state }) = body.map_err(Problem::from)?;
    let record = collection.save(move |collection| collection.set_state(&id, state, revision)).await?;
    Ok(recorded(record))
}

/// Get the image of a collected frame
///
/// The frame as it was decoded, without masks and not redacted. For operators.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/collection/{id}/image.jpg",
    operation_id = "get_collected_image",
    tag = "collection",
    params(
        ("name" = String, Path, description = "Name of the stream.", example = "gate"),
        ("id" = String, Path, description = "`id` of the frame.", example = "20261201T044917123Z"),
    ),
    responses(
        (status = 200, description = "The image.", content_type = "image/jpeg", body = Vec<u8>),
        (status = 404, description = "No stream has this name, it collects no frames, or it has no such frame."),
        (status = 410, description = "The frame was discarded."),
    )
)]
pub(super) async fn image(
    collection: RequestedCollection,
    RequestedFrame(id): RequestedFrame,
) -> Result<Response, Problem> {
    let jpeg = collection.with(move |collection| collection.picture(&id, Picture::Image)).await?;
    Ok(picture("image/jpeg", "\"image\"".into(), jpeg))
}

/// Get what the model proposed for a collected frame
///
/// A palette PNG of the size of the image: the index of the class of each pixel, 255 = void. For operators.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/collection/{id}/proposal.png",
    operation_id = "get_collected_proposal",
    tag = "collection",
    params(
        ("name" = String, Path, description = "Name of the stream.", example = "gate"),
        ("id" = String, Path, description = "`id` of the frame.", example = "20261201T044917123Z"),
    ),
    responses(
        (status = 200, description = "The mask of the model.", content_type = "image/png", body = Vec<u8>),
        (status = 404, description = "No stream has this name, it collects no frames, or it has no such frame."),
        (status = 410, description = "The frame was discarded."),
    )
)]
pub(super) async fn proposal(
    collection: RequestedCollection,
    RequestedFrame(id): RequestedFrame,
) -> Result<Response, Problem> {
    let png = collection.with(move |collection| collection.picture(&id, Picture::Proposal)).await?;
    Ok(picture("image/png", "\"proposal\"".into(), png))
}

/// Get the label of a collected frame
///
/// A palette PNG of the size of the image: the index of the class of each pixel, 255 = void. It is the proposal until another label is
/// saved. `ETag` is the revision, for `If-Match`. For operators.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/collection/{id}/label.png",
    operation_id = "get_collected_label",
    tag = "collection",
    params(
        ("name" = String, Path, description = "Name of the stream.", example = "gate"),
        ("id" = String, Path, description = "`id` of the frame.", example = "20261201T044917123Z"),
    ),
    responses(
        (status = 200, description = "The label.", content_type = "image/png", body = Vec<u8>),
        (status = 404, description = "No stream has this name, it collects no frames, or it has no such frame."),
        (status = 410, description = "The frame was discarded."),
    )
)]
pub(super) async fn label(
    collection: RequestedCollection,
    RequestedFrame(id): RequestedFrame,
) -> Result<Response, Problem> {
    let (png, revision) = collection.with(move |collection| collection.label(&id)).await?;
    Ok(picture("image/png", etag(revision), png))
}

/// Save the label of a collected frame
///
/// The body is a PNG of the size of the image, 8-bit greyscale or palette, whose values are the indices of classes, and 255 for void; its
/// palette is ignored. `If-Match` has the revision that was changed, in quotes: if another client has saved the label since, nothing is
/// stored.
#[utoipa::path(
    put,
    path = "/api/v1/streams/{name}/collection/{id}/label.png",
    operation_id = "save_collected_label",
    tag = "collection",
    params(
        ("name" = String, Path, description = "Name of the stream.", example = "gate"),
        ("id" = String, Path, description = "`id` of the frame.", example = "20261201T044917123Z"),
        ("If-Match" = String, Header, description = "The revision of the frame in quotes.", example = "\"3\""),
    ),
    request_body(content_type = "image/png", content = Vec<u8>),
    responses(
        (status = 200, description = "The label is stored.", body = FrameRecord),
        (status = 400, description = "The body is not a label of this frame."),
        (status = 404, description = "No stream has this name, it collects no frames, or it has no such frame."),
        (status = 410, description = "The frame was discarded."),
        (status = 412, description = "The frame has another revision, which is in `ETag`."),
        (status = 413, description = "The body has more than 4 MiB."),
        (status = 428, description = "`If-Match` is missing."),
        (status = 507, description = "The disk is full."),
    )
)]
pub(super) async fn save_label(
    collection: RequestedCollection,
    RequestedFrame(id): RequestedFrame,
    ExpectedRevision(revision): ExpectedRevision,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, SaveProblem> {
    let png = body.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    let record = collection.save(move |collection| collection.save_label(&id, &png, revision)).await?;
    Ok(recorded(record))
}

impl RequestedCollection {
    /// Changes a frame on a thread that may wait for the disk.
    async fn save(
        self,
        work: impl FnOnce(&Collection) -> Result<FrameRecord, SaveError> + Send + 'static,
    ) -> Result<FrameRecord, SaveProblem> {
        let saved = blocking(move || self.shared.open().map_err(SaveError::from).and_then(|opened| work(&opened)));
        saved.await?.map_err(SaveProblem::from)
    }
}

/// Why a label or a decision was not stored, and for a conflict the revision that the frame has.
pub(super) struct SaveProblem {
    problem: Problem,
    revision: Option<u64>,
}

impl From<Problem> for SaveProblem {
    fn from(problem: Problem) -> Self {
        SaveProblem { problem, revision: None }
    }
}

impl From<SaveError> for SaveProblem {
    fn from(error: SaveError) -> Self {
        let detail = error.to_string();
        match error {
            SaveError::Conflict { current } => SaveProblem {
                problem: Problem::new(StatusCode::PRECONDITION_FAILED, detail),
                revision: Some(current.revision),
            },
            SaveError::Label(_) => Problem::new(StatusCode::BAD_REQUEST, detail).into(),
            SaveError::Collection(error) => Problem::from(error).into(),
        }
    }
}

impl IntoResponse for SaveProblem {
    fn into_response(self) -> Response {
        let mut response = self.problem.into_response();
        if let Some(Ok(tag)) = self.revision.map(|revision| HeaderValue::from_str(&etag(revision))) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}

impl From<CollectionError> for Problem {
    fn from(error: CollectionError) -> Self {
        let status = match &error {
            CollectionError::Unknown { .. } => StatusCode::NOT_FOUND,
            CollectionError::Discarded { .. } => StatusCode::GONE,
            error if error.is_full_disk() => StatusCode::INSUFFICIENT_STORAGE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Problem::new(status, error.to_string())
    }
}

fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

fn recorded(record: FrameRecord) -> Response {
    let tag = [(header::ETAG, etag(record.revision))];
    (tag, Json(record)).into_response()
}

/// A picture, which the browser may keep but must ask for: an operator who logs out, or a frame that is discarded, has none.
fn picture(content_type: &'static str, tag: String, bytes: Vec<u8>) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    (headers, bytes).into_response()
}
