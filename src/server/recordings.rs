//! A stream's recordings: listed, downloaded in whole or in parts, removed.
//!
//! A file's name is taken for what the listing says, never for a path: only names that a recording of this stream can
//! have lead to a file ([`Archive::path_of`]).

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tower_http::services::ServeFile;
use utoipa::{IntoParams, ToSchema};

use super::NamedStream;
use super::problem::Problem;
use crate::publish::recording::{Archive, Recording, RemoveError};

/// Recordings in one answer, when nothing is said, and at most.
const LIMIT: usize = 100;
const MOST: usize = 1000;

/// One recording of `/api/v1/streams/NAME/recordings`.
#[derive(Serialize, ToSchema)]
#[schema(as = Recording)]
pub(super) struct RecordingReport {
    name: String,
    /// When its first picture was recorded (RFC 3339), in whole seconds.
    start: String,
    seconds: f64,
    bytes: u64,
    /// False while it is written, and for an MP4 that was cut off; it can be played all the same.
    complete: bool,
    /// The event that it was recorded for.
    event: Option<String>,
    url: String,
}

/// Which recordings are listed.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// At most so many.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
    /// Those that began before this one, which the page before ended with.
    before: Option<String>,
}

/// The part of the path that names a file.
#[derive(Deserialize)]
pub(super) struct FilePart {
    file: String,
}

/// List a stream's recordings
///
/// The newest first.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/recordings",
    operation_id = "list_recordings",
    tag = "recordings",
    params(("name" = String, Path, description = "The stream's name."), Page),
    responses(
        (status = 200, description = "The recordings.", body = Vec<RecordingReport>),
        (status = 400, description = "A limit or a name that means nothing."),
        (status = 404, description = "There is no such stream."),
    )
)]
pub(super) async fn list(
    named: NamedStream,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Vec<RecordingReport>>, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
    // Everything is text, so that only a key that comes twice is refused here.
    let twice = |_| bad("limit and before can be given once each".into());
    let Query(Page { limit, before }) = page.map_err(twice)?;
    let number = |text: String| match text.parse() {
        Ok(limit) if (1..=MOST).contains(&limit) => Ok(limit),
        _ => Err(bad(format!("limit is {text:?}, not a number between 1 and {MOST}"))),
    };
    let limit = limit.map_or(Ok(LIMIT), number)?;
    let Some(archive) = named.stream().recordings.clone() else { return Ok(Json(Vec::new())) };
    let parse = |before: String| {
        archive.parse(&before).ok_or_else(|| bad(format!("before is {before:?}, not the name of a recording")))
    };
    let before = before.map(parse).transpose()?;
    let found = blocking(move || archive.list(before.as_ref(), limit)).await?;
    let found = found.map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the recordings cannot be listed: {error}"))
    })?;
    let stream = &named.stream().status.name;
    Ok(Json(found.into_iter().map(|recording| report(stream, recording)).collect()))
}

fn report(stream: &str, recording: Recording) -> RecordingReport {
    RecordingReport {
        start: recording.name.start.to_string(),
        seconds: (recording.seconds * 1000.0).round() / 1000.0,
        bytes: recording.bytes,
        complete: recording.complete,
        event: recording.name.event,
        url: format!("/api/v1/streams/{stream}/recordings/{}", recording.file),
        name: recording.file,
    }
}

/// Download a recording
///
/// The file, or the ranges of it that were asked for.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/recordings/{file}",
    operation_id = "download_recording",
    tag = "recordings",
    params(
        ("name" = String, Path, description = "The stream's name."),
        ("file" = String, Path, description = "The recording's name."),
    ),
    responses(
        (status = 200, description = "The file.", content((Vec<u8> = "video/mp4"), (Vec<u8> = "video/x-matroska"))),
        (status = 206, description = "Parts of it.", content((Vec<u8> = "video/mp4"), (Vec<u8> = "video/x-matroska"))),
        (status = 404, description = "There is no such recording."),
        (status = 416, description = "It has no such range."),
    )
)]
pub(super) async fn download(
    named: NamedStream,
    Path(FilePart { file }): Path<FilePart>,
    mut request: Request,
) -> Result<Response, Problem> {
    if request.headers().get(header::RANGE).is_some_and(|range| !is_one_range(range)) {
        request.headers_mut().remove(header::RANGE);
    }
    let archive = recordings(&named, &file)?;
    let (wanted, held) = (file.clone(), Arc::clone(&archive));
    let path = blocking(move || held.path_of(&wanted)).await?.ok_or_else(|| unknown(&named, &file))?;
    let served = ServeFile::new(path).try_call(request).await;
    let mut response = served
        .map(|response| response.map(Body::new))
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{file} cannot be read: {error}")))?;
    match response.status() {
        StatusCode::NOT_FOUND => return Err(unknown(&named, &file)),
        StatusCode::RANGE_NOT_SATISFIABLE => {
            let length = response.headers_mut().remove(header::CONTENT_RANGE);
            let detail = format!("{file} has no such range");
            let mut refused = Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, detail).into_response();
            refused.headers_mut().extend(length.map(|length| (header::CONTENT_RANGE, length)));
            return Ok(refused);
        }
        _ => {}
    }
    let headers = response.headers_mut();
    if archive.is_open(&file) {
        // It grows: parts of it that were asked for one after the other still belong together.
        headers.remove(header::ETAG);
        headers.remove(header::LAST_MODIFIED);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Ok(name) = HeaderValue::from_str(&format!("inline; filename=\"{file}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// Whether it is one range of bytes. What is no range is ignored, and so may several be (RFC 9110, 14.2): the answer is the
/// whole file.
fn is_one_range(range: &HeaderValue) -> bool {
    let parts = range.to_str().ok().and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = parts else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match (first, last) {
        ("", last) => is_number(last),
        (first, "") => is_number(first),
        (first, last) if is_number(first) && is_number(last) => {
            // Numbers without end are greater than any file.
            let number = |text: &str| text.parse().unwrap_or(u64::MAX);
            number(first) <= number(last)
        }
        _ => false,
    }
}

/// Remove a recording
#[utoipa::path(
    delete,
    path = "/api/v1/streams/{name}/recordings/{file}",
    operation_id = "remove_recording",
    tag = "recordings",
    params(
        ("name" = String, Path, description = "The stream's name."),
        ("file" = String, Path, description = "The recording's name."),
    ),
    responses(
        (status = 204, description = "It is gone."),
        (status = 404, description = "There is no such recording."),
        (status = 409, description = "It is still being written."),
    )
)]
pub(super) async fn remove(named: NamedStream, Path(FilePart { file }): Path<FilePart>) -> Result<StatusCode, Problem> {
    let archive = recordings(&named, &file)?;
    let wanted = file.clone();
    match blocking(move || archive.remove(&wanted)).await? {
        Ok(()) => Ok(StatusCode::NO_CONTENT),
        Err(RemoveError::Unknown) => Err(unknown(&named, &file)),
        Err(error @ RemoveError::Open) => Err(Problem::new(StatusCode::CONFLICT, format!("{file}: {error}"))),
        Err(error) => {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("{file} cannot be removed: {error}")))
        }
    }
}

fn recordings(named: &NamedStream, file: &str) -> Result<Arc<Archive>, Problem> {
    named.stream().recordings.clone().ok_or_else(|| unknown(named, file))
}

fn unknown(named: &NamedStream, file: &str) -> Problem {
    let stream = &named.stream().status.name;
    Problem::new(StatusCode::NOT_FOUND, format!("there is no recording {file:?} of {stream}"))
}

/// Off the server's own threads: a disk may take its time.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the recordings cannot be looked at: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_bytes_is_one() {
        let is_one = |text: &str| is_one_range(&HeaderValue::from_str(text).unwrap());
        for range in ["bytes=0-0", "bytes=5-", "bytes=-5", "bytes=7-99999999999999999999999"] {
            assert!(is_one(range), "{range}");
        }
        for other in [
            "bytes=abc",
            "bytes=",
            "bytes=-",
            "bytes=5-2",
            "bytes=0-0,5-9",
            "bytes=1-2-3",
            "lines=1-2",
            "0-1",
            "bytes=+1-2",
        ] {
            assert!(!is_one(other), "{other}");
        }
    }
}
