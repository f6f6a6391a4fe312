//! WHEP (draft-ietf-wish-whep): a viewer's offer by POST, its later candidates by PATCH, its end by DELETE.

use std::fmt::Write;
use std::sync::Arc;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::http::header::{CONTENT_TYPE, ETAG, LINK, LOCATION};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use super::problem::Problem;
use super::{NamedStream, SharedApp};
use crate::access::Identity;
use crate::base::bounded::field;
use crate::config::WebRtcConfig;
use crate::publish::encoder::Level;
use crate::publish::whep::{ViewerError, WhepRefusal};

const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

const SDP: &str = "application/sdp";
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// Watch a stream by WebRTC
///
/// WHEP (draft-ietf-wish-whep). The offer must be able to receive H.264. The response is the SDP answer with all ICE candidates
/// of the service; video follows over UDP.
#[utoipa::path(
    post,
    path = "/whep/{name}",
    operation_id = "watch",
    tag = "webrtc",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate")),
    request_body(content = String, content_type = "application/sdp", description = "the SDP offer."),
    responses(
        (status = 201, description = "The SDP answer.", body = String, content_type = "application/sdp", headers(
            ("Location" = String, description = "Path of the viewer: for further ICE candidates, and to disconnect."),
            ("ETag" = String, description = "Identifies the ICE session."),
            ("Accept-Patch" = String, description = "The media type of `PATCH`, `application/trickle-ice-sdpfrag`."),
            ("Link" = String, description = "A STUN or TURN server that the client may use; one header for each server."),
        )),
        (status = 400, description = "The body is not SDP."),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
        (status = 415, description = "The content type is not supported."),
        (status = 422, description = "The offer cannot receive what the service sends."),
        (status = 503, description = "The number of viewers is at `server.webrtc.max_viewers`, or too few file descriptors are free for another one."),
    )
)]
pub(super) async fn offer(
    named: NamedStream,
    identity: Option<Extension<Identity>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let offer = text(&headers, SDP, body)?;
    let (whep, stream) = (&named.app.whep, named.stream());
    let identity = identity.map(|Extension(identity)| identity);
    let level = stream.status.condition().info.map(|info| Level::of_stream(&info, &stream.config.encode));
    let admitted =
        whep.admit(&stream.status.name, &stream.outputs.h264, &offer, level, identity).inspect_err(|refusal| {
            if matches!(refusal, WhepRefusal::Full(_) | WhepRefusal::Scarce) {
                stream.status.outputs.count_refused_viewer();
            }
        })?;
    // The viewer's thread answers within seconds, or ends.
    let gone = |_| WhepRefusal::Failed(ViewerError::ThreadEnded);
    let answer = admitted.answer.await.map_err(gone)??;
    let location = format!("/whep/{}/{}", stream.status.name, admitted.id);
    let fixed = [
        (CONTENT_TYPE, HeaderValue::from_static(SDP)),
        (ACCEPT_PATCH, HeaderValue::from_static(FRAGMENT)),
        (ETAG, header(&format!("\"{}\"", admitted.id))),
        (LOCATION, header(&location)),
    ];
    let mut response = (StatusCode::CREATED, fixed, answer).into_response();
    for link in links(&whep.settings()) {
        let mut link = header(&link);
        link.set_sensitive(true);
        response.headers_mut().append(LINK, link);
    }
    Ok(response)
}

/// Add ICE candidates
///
/// Adds candidates that the client found after it sent the offer (RFC 8840). ICE restarts are not supported.
#[utoipa::path(
    patch,
    path = "/whep/{name}/{id}",
    operation_id = "add_candidates",
    tag = "webrtc",
    params(
        ("name" = String, Path, description = "Name of the stream.", example = "gate"),
        ("id" = String, Path, description = "Identifier of the viewer, the last part of `Location`."),
    ),
    request_body(
        content = String,
        content_type = "application/trickle-ice-sdpfrag",
        description = "the candidates as an SDP fragment (RFC 8840)."
    ),
    responses(
        (status = 204, description = "The candidates have been added."),
        (status = 400, description = "The body is not an SDP fragment."),
        (status = 404, description = "No viewer of this stream has this identifier."),
        (status = 415, description = "The content type is not supported."),
        (status = 422, description = "The fragment asks for more than adding candidates."),
    )
)]
pub(super) async fn candidates(
    viewer: WhepPath,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<StatusCode, Problem> {
    let fragment = text(&headers, FRAGMENT, body)?;
    viewer.app.whep.trickle(&viewer.stream, &viewer.id, &fragment)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Disconnect a viewer
///
/// Closes the WebRTC connection.
#[utoipa::path(
    delete,
    path = "/whep/{name}/{id}",
    operation_id = "leave",
    tag = "webrtc",
    params(
        ("name" = String, Path, description = "Name of the stream.", example = "gate"),
        ("id" = String, Path, description = "Identifier of the viewer, the last part of `Location`."),
    ),
    responses(
        (status = 200, description = "The viewer has been disconnected."),
        (status = 404, description = "No viewer of this stream has this identifier."),
    )
)]
pub(super) async fn leave(viewer: WhepPath) -> Result<StatusCode, Problem> {
    viewer.app.whep.disconnect(&viewer.stream, &viewer.id)?;
    Ok(StatusCode::OK)
}

/// The viewer of the path, which may not exist.
pub(super) struct WhepPath {
    app: SharedApp,
    stream: String,
    id: String,
}

impl FromRequestParts<SharedApp> for WhepPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &SharedApp) -> Result<Self, Problem> {
        let Path((stream, id)) =
            Path::<(String, String)>::from_request_parts(parts, app).await.map_err(|_| WhepRefusal::Unknown)?;
        let State(app) =
            State::<SharedApp>::from_request_parts(parts, app).await.unwrap_or_else(|never| match never {});
        Ok(WhepPath { app: Arc::clone(&app), stream, id })
    }
}

/// The body, if it has this content type.
fn text(headers: &HeaderMap, wanted: &str, body: Result<Bytes, BytesRejection>) -> Result<String, Problem> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = content_type.split(';').next().unwrap_or("").trim();
    if !essence.eq_ignore_ascii_case(wanted) {
        let detail = format!("the body must be {wanted}, not {:?}", field(essence));
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let body = body.map_err(|error| Problem::new(error.status(), error.body_text()))?;
    String::from_utf8(body.into())
        .map_err(|_| Problem::new(StatusCode::BAD_REQUEST, "the body is not UTF-8 text".into()))
}

impl From<WhepRefusal> for Problem {
    fn from(refusal: WhepRefusal) -> Self {
        let status = match refusal {
            WhepRefusal::NotSdp(_) => StatusCode::BAD_REQUEST,
            WhepRefusal::Unusable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            WhepRefusal::Full(_) | WhepRefusal::Scarce => StatusCode::SERVICE_UNAVAILABLE,
            WhepRefusal::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
            WhepRefusal::Unknown => StatusCode::NOT_FOUND,
        };
        Problem::new(status, refusal.to_string())
    }
}

/// STUN and TURN servers for the viewer (`Link` headers of WHEP). Every viewer receives the TURN password: it needs it.
fn links(settings: &WebRtcConfig) -> Vec<String> {
    let stun = settings.stun.iter().map(|server| format!("<stun:{server}>; rel=\"ice-server\""));
    let turn = settings.turn.iter().map(|server| {
        let mut link = format!("<{server}>; rel=\"ice-server\"");
        for (name, value) in [("username", server.user.as_str()), ("credential", server.password.expose())] {
            // Writing to a String does not fail.
            let _ = write!(link, "; {name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
        }
        link + "; credential-type=\"password\""
    });
    stun.chain(turn).collect()
}

/// A header's value; empty if it is not valid, as names and passwords with control characters are not.
fn header(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}
