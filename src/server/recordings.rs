//! Lists, downloads and removes a stream's recordings.
//!
//! A file name is never used as a path: only valid names of recordings of this stream are resolved
//! ([`Archive::path_of`]).

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
use super::blocking::blocking;
use super::problem::Problem;
use crate::publish::recording::{Archive, Recording, RemoveError};

/// Default and maximum number of recordings in one response.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

/// A recording of a stream.
#[derive(Serialize, ToSchema)]
#[schema(as = Recording)]
pub(super) struct RecordingReport {
    /// File name.
    name: String,
    /// Time of the first frame (RFC 3339), in whole seconds.
    start: String,
    /// Length in seconds.
    seconds: f64,
    /// File size in bytes.
    bytes: u64,
    /// False while the file is being written, and for an MP4 file that was not finished. Such a file can be played.
    complete: bool,
    /// Name of the event that started the recording; null for a continuous recording.
    event: Option<String>,
    /// Path of the file in this API.
    url: String,
}

/// Which recordings are listed.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Page {
    /// Maximum number of recordings in the response.
    #[param(value_type = Option<usize>, minimum = 1, maximum = 1000, default = 100)]
    limit: Option<String>,
    /// File name: only recordings that started before this one. For the next page, the last name of this page.
    before: Option<String>,
}

/// The part of the path that names a file.
#[derive(Deserialize)]
pub(super) struct FilePart {
    file: String,
}

/// List a stream's recordings
///
/// The newest recording comes first.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/recordings",
    operation_id = "list_recordings",
    tag = "recordings",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate"), Page),
    responses(
        (status = 200, description = "The recordings.", body = Vec<RecordingReport>),
        (status = 400, description = "`limit` is not a number in its range, or `before` is not the name of a recording."),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
    )
)]
pub(super) async fn list(
    named: NamedStream,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Vec<RecordingReport>>, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
    // All values are text, so only a repeated key fails here.
    let repeated = |_| bad("limit and before may be given once each".into());
    let Query(Page { limit, before }) = page.map_err(repeated)?;
    let number = |text: String| match text.parse() {
        Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => Ok(limit),
        _ => Err(bad(format!("limit must be a number between 1 and {MAX_LIMIT}, not {text:?}"))),
    };
    let limit = limit.map_or(Ok(DEFAULT_LIMIT), number)?;
    let Some(archive) = named.stream().recordings.clone() else { return Ok(Json(Vec::new())) };
    let parse = |before: String| {
        archive.parse(&before).ok_or_else(|| bad(format!("before must be the name of a recording, not {before:?}")))
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
/// The file, or one range of its bytes if the request has a `Range` header.
#[utoipa::path(
    get,
    path = "/api/v1/streams/{name}/recordings/{file}",
    operation_id = "download_recording",
    tag = "recordings",
    params(
        ("name" = String, Path, description = "Name of the stream.", example = "gate"),
        ("file" = String, Path, description = "File name of the recording."),
    ),
    responses(
        (status = 200, description = "The file.", content((Vec<u8> = "video/mp4"), (Vec<u8> = "video/x-matroska"))),
        (status = 206, description = "The requested range of the file.", content((Vec<u8> = "video/mp4"), (Vec<u8> = "video/x-matroska"))),
        (status = 404, description = "The stream has no recording of this name, or the stream does not exist."),
        (status = 416, description = "The range is not in the file."),
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
    let (name, shared) = (file.clone(), Arc::clone(&archive));
    let path = blocking(move || shared.path_of(&name)).await?.ok_or_else(|| unknown(&named, &file))?;
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
        // The file grows: a validator that changes would make clients discard the ranges that they have.
        headers.remove(header::ETAG);
        headers.remove(header::LAST_MODIFIED);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    if let Ok(name) = HeaderValue::from_str(&format!("inline; filename=\"{file}\"")) {
        headers.insert(header::CONTENT_DISPOSITION, name);
    }
    Ok(response)
}

/// Whether the header has exactly one range of bytes. An invalid header is ignored, and so may be one with several ranges
/// (RFC 9110, 14.2): the response is the whole file.
fn is_one_range(range: &HeaderValue) -> bool {
    let parts = range.to_str().ok().and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
    let Some((first, last)) = parts else { return false };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match (first, last) {
        ("", last) => is_number(last),
        (first, "") => is_number(first),
        (first, last) if is_number(first) && is_number(last) => {
            // A number that does not fit is beyond the end of any file.
            let number = |text: &str| text.parse().unwrap_or(u64::MAX);
            number(first) <= number(last)
        }
        _ => false,
    }
}

/// Delete a recording
///
/// Deletes the file.
#[utoipa::path(
    delete,
    path = "/api/v1/streams/{name}/recordings/{file}",
    operation_id = "remove_recording",
    tag = "recordings",
    params(
        ("name" = String, Path, description = "Name of the stream.", example = "gate"),
        ("file" = String, Path, description = "File name of the recording."),
    ),
    responses(
        (status = 204, description = "The recording has been deleted."),
        (status = 404, description = "The stream has no recording of this name, or the stream does not exist."),
        (status = 409, description = "The recording is still being written."),
    )
)]
pub(super) async fn remove(named: NamedStream, Path(FilePart { file }): Path<FilePart>) -> Result<StatusCode, Problem> {
    let archive = recordings(&named, &file)?;
    let name = file.clone();
    match blocking(move || archive.remove(&name)).await? {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_byte_range_is_recognised() {
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
