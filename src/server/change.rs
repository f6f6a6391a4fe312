//! Adds, changes and removes streams while the service runs, and passes every change to the service's run loop.
//!
//! Settings are not validated here: they become changes of the configuration file, which the service validates.

use std::path::Path;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequest, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::api::{StreamReport, report_of};
use super::problem::Problem;
use super::settings::{NewStream, Settings};
use super::{App, NamedStream, SharedApp, stopped};
use crate::config::{Edit, Object, SourceHost, SourceUri};
use crate::publish::encoder::select::probe_choice;
use crate::view::ChangeQueueFull;
use crate::view::request::{Change, ChangeOutcome, ChangeRefusal};

/// How long a change may wait to be applied: each change before it may take seconds, because streams stop.
const CHANGE_LIMIT: Duration = Duration::from_secs(60);

/// A JSON object as the body.
pub(super) struct KeyValueBody(pub Object);

impl FromRequest<SharedApp> for KeyValueBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &SharedApp) -> Result<Self, Problem> {
        let keys: Result<Json<Object>, JsonRejection> = Json::from_request(request, app).await;
        keys.map(|Json(keys)| KeyValueBody(keys)).map_err(Problem::from)
    }
}

/// Requests a change from the service and waits until it is applied. A change that is not started in time is withdrawn:
/// after a 503 it is not applied later.
pub(super) async fn request_change(app: &App, change: Change) -> Result<ChangeOutcome, Problem> {
    let unavailable = |detail: &str| Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail.to_owned());
    let stopping = || unavailable("the service is stopping");
    let host = match &change {
        Change::Stream(Edit::Add(settings) | Edit::Change { patch: settings, .. }) => look_up_host(settings).await,
        _ => None,
    };
    let pending = app.view.request_change(change, host);
    let mut pending =
        pending.map_err(|ChangeQueueFull| unavailable("too many changes are pending; try again later"))?;
    let result = tokio::select! {
        result = &mut pending.result => result,
        () = stopped(app.stopping.clone()) => return Err(stopping()),
        () = tokio::time::sleep(CHANGE_LIMIT) => {
            if pending.withdraw() {
                return Err(unavailable("change not applied: the changes before it take too long; try again later"));
            }
            // It is being applied.
            tokio::select! {
                result = &mut pending.result => result,
                () = stopped(app.stopping.clone()) => return Err(stopping()),
            }
        }
    };
    result.map_err(|_| stopping())?.map_err(Problem::from)
}

/// Looks up the host of the source in `settings`, if there is one, for a few seconds at most. This runs here and not in the
/// service's run loop, so that a slow name server delays only this client.
async fn look_up_host(settings: &Object) -> Option<SourceHost> {
    let source = settings.get("source").and_then(|source| source.as_str())?;
    // An invalid source or a file has no host.
    let uri = SourceUri::parse(source, Path::new("/")).ok()?;
    tokio::task::spawn_blocking(move || SourceHost::look_up(&uri)).await.ok().flatten()
}

/// Tests the encoder in `settings`, if there is one. This runs here because an encoder that hangs must not block the
/// service's run loop.
async fn try_encoder(settings: &Object) {
    let Some(encode) = settings.get("encode") else { return };
    let name = encode.get("encoder").and_then(|name| name.as_str()).unwrap_or("auto").to_owned();
    // It fails only by a panic, which the run loop also reports.
    let _ = tokio::task::spawn_blocking(move || probe_choice(&name)).await;
}

/// Add a stream
///
/// The settings are checked like the configuration file. Then the stream is written to that file and started. Other streams
/// continue without interruption.
#[utoipa::path(
    post,
    path = "/api/v1/streams",
    operation_id = "add_stream",
    tag = "streams",
    request_body(content = NewStream, example = json!({"name": "gate", "source": "rtsp://10.0.0.7/stream1"})),
    responses(
        (status = 201, description = "The stream has been started.", body = StreamReport,
            headers(("Location" = String, description = "Path of the stream in this API."))),
        (status = 403, description = "The role is not sufficient, or the API may not set this source or folder; `errors` lists the settings."),
        (status = 409, description = "A stream has this name already, or the configuration file has errors or cannot be written."),
        (status = 422, description = "The settings are not valid; `errors` lists all errors."),
    )
)]
pub(super) async fn add(
    State(app): State<SharedApp>,
    headers: HeaderMap,
    keys: KeyValueBody,
) -> Result<Response, Problem> {
    let KeyValueBody(settings) = keys;
    let name = settings.get("name").and_then(|name| name.as_str()).unwrap_or_default().to_owned();
    try_encoder(&settings).await;
    request_change(&app, Change::Stream(Edit::Add(settings))).await?;
    let report = report_of(&app, &name, &headers)?;
    // Names of streams consist of characters that are valid in a URL.
    let location = HeaderValue::try_from(format!("/api/v1/streams/{name}"))
        .map_err(|error| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("the stream's address: {error}")))?;
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(report)).into_response())
}

/// Change a stream
///
/// The body is a JSON merge patch (RFC 7396): keys in it are set, and null deletes a key. The stream is restarted, unless only
/// its overlay changes; viewers stay connected. The change is written to the configuration file.
#[utoipa::path(
    patch,
    path = "/api/v1/streams/{name}",
    operation_id = "change_stream",
    tag = "streams",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate")),
    request_body(
        content(
            (Settings = "application/merge-patch+json", example = json!({"max_mask_age": "2s"})),
            (Settings = "application/json", example = json!({"max_mask_age": "2s"})),
        )
    ),
    responses(
        (status = 200, description = "The stream runs with the new settings.", body = StreamReport),
        (status = 403, description = "The role is not sufficient, or the API may not set this source or folder; `errors` lists the settings."),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
        (status = 409, description = "The configuration file has errors or cannot be written."),
        (status = 422, description = "The settings are not valid; `errors` lists all errors."),
    )
)]
pub(super) async fn change(
    named: NamedStream,
    headers: HeaderMap,
    keys: KeyValueBody,
) -> Result<Json<StreamReport>, Problem> {
    let KeyValueBody(patch) = keys;
    let stream = named.stream().status.name.to_string();
    try_encoder(&patch).await;
    request_change(&named.app, Change::Stream(Edit::Change { stream: stream.clone(), patch })).await?;
    report_of(&named.app, &stream, &headers).map(Json)
}

/// Remove a stream
///
/// Its viewers are disconnected, its recording is finished, and the stream is deleted from the configuration file. Recordings are
/// kept. The only stream cannot be removed.
#[utoipa::path(
    delete,
    path = "/api/v1/streams/{name}",
    operation_id = "remove_stream",
    tag = "streams",
    params(("name" = String, Path, description = "Name of the stream.", example = "gate")),
    responses(
        (status = 204, description = "The stream has been removed."),
        (status = 404, description = "No stream has this name; `streams` lists the names."),
        (status = 409, description = "It is the only stream, or the configuration file has errors or cannot be written."),
    )
)]
pub(super) async fn remove(named: NamedStream) -> Result<StatusCode, Problem> {
    let stream = named.stream().status.name.to_string();
    request_change(&named.app, Change::Stream(Edit::Remove { stream })).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<ChangeRefusal> for Problem {
    fn from(refusal: ChangeRefusal) -> Self {
        let detail = refusal.to_string();
        match refusal {
            ChangeRefusal::NoStream(_) => Problem::new(StatusCode::NOT_FOUND, detail),
            ChangeRefusal::NameTaken(_)
            | ChangeRefusal::LastStream
            | ChangeRefusal::NewModels(_)
            | ChangeRefusal::FileUnwritable(_) => Problem::new(StatusCode::CONFLICT, detail),
            ChangeRefusal::Invalid(errors) => Problem::faults(StatusCode::UNPROCESSABLE_ENTITY, &detail, &errors),
            ChangeRefusal::Forbidden(errors) => Problem::faults(StatusCode::FORBIDDEN, &detail, &errors),
            ChangeRefusal::ModelLoading(why) => Problem::loading(why),
            ChangeRefusal::FileInvalid(errors) => Problem::faults(StatusCode::CONFLICT, &detail, &errors.errors),
            ChangeRefusal::Edit(_) | ChangeRefusal::StreamNotStarted { .. } | ChangeRefusal::NotApplied(_) => {
                Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpStream;
    use std::sync::Arc;
    use std::time::Instant;

    use serde_json::{Value, json};

    use super::super::HttpServer;
    use super::super::tests::{agent, server, view};
    use super::*;
    use crate::config::{ConfigError, StoreError};
    use crate::view::ServiceView;
    use crate::view::request::ChangeRequest;

    fn send(server: &HttpServer, method: &str, path: &str, body: &str) -> (u16, Value) {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", server.address()))
            .header("content-type", "application/merge-patch+json")
            .body(body.to_owned())
            .unwrap();
        let config = agent().configure_request(request).allow_non_standard_methods(true).build();
        let mut response = agent().run(config).unwrap();
        let text = response.body_mut().read_to_string().unwrap();
        (response.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    #[test]
    fn a_change_is_passed_to_the_service_and_its_result_returned() {
        let (view, incoming) = ServiceView::new("127.0.0.1:8554".parse().unwrap(), Vec::new());
        view.set_streams(super::super::tests::view(&["gate"]).streams().to_vec());
        let server = server(&Arc::new(view));
        let fault = |key: &str| ConfigError { key: key.into(), line: None, problem: "is wrong".into(), help: None };
        let keys = |value: Value| value.as_object().unwrap().clone();
        let stream = || "gate".to_owned();
        for (method, path, body, expected, result, status) in [
            (
                "PATCH",
                "/api/v1/streams/gate",
                r#"{"show": null}"#,
                Change::Stream(Edit::Change { stream: stream(), patch: keys(json!({"show": null})) }),
                Ok(ChangeOutcome::default()),
                200,
            ),
            (
                "POST",
                "/api/v1/streams",
                r#"{"name": "gate"}"#,
                Change::Stream(Edit::Add(keys(json!({"name": "gate"})))),
                Err(ChangeRefusal::Invalid(vec![fault("stream[gate].source"), fault("stream[gate].x")])),
                422,
            ),
            (
                "DELETE",
                "/api/v1/streams/gate",
                "",
                Change::Stream(Edit::Remove { stream: stream() }),
                Err(ChangeRefusal::FileUnwritable(StoreError::Changed("maskcast.toml".into()))),
                409,
            ),
            (
                "PATCH",
                "/api/v1/streams/gate/overlay",
                r#"{"alpha": 1}"#,
                Change::Overlay { stream: stream(), patch: keys(json!({"alpha": 1})) },
                Ok(ChangeOutcome { not_saved: Some(Arc::new(StoreError::Changed("maskcast.toml".into()).into())) }),
                200,
            ),
        ] {
            let changes = incoming.clone();
            let service = std::thread::spawn(move || {
                let request = changes.recv_timeout(Duration::from_secs(600)).unwrap();
                request.result.send(result).unwrap();
                request.change
            });
            let (got, body) = send(&server, method, path, body);
            assert_eq!((got, service.join().unwrap()), (status, expected), "{method} {path}: {body}");
            if status == 422 {
                assert_eq!(body["detail"], "invalid settings: 2 errors");
                assert_eq!(body["errors"][0]["key"], "stream[gate].source");
            }
            if path.ends_with("/gate") && status == 200 {
                assert_eq!(body["links"]["rtsp"], "rtsp://127.0.0.1:8554/gate");
            }
            if path.ends_with("overlay") {
                let not_saved = StoreError::Changed("maskcast.toml".into()).to_string();
                assert_eq!((&body["remembered"], &body["reason"]), (&json!(false), &json!(not_saved)));
            }
        }
    }

    /// Waits until this many changes are queued.
    fn wait_for_queue(incoming: &crossbeam_channel::Receiver<ChangeRequest>, changes: usize) {
        let until = Instant::now() + Duration::from_secs(180);
        while incoming.len() < changes {
            assert!(Instant::now() < until, "{} of {changes} changes are queued", incoming.len());
            std::thread::yield_now();
        }
    }

    #[test]
    fn many_simultaneous_changes_are_queued() {
        let (view, incoming) = ServiceView::new("127.0.0.1:8554".parse().unwrap(), Vec::new());
        view.set_streams(super::super::tests::view(&["gate"]).streams().to_vec());
        let server = server(&Arc::new(view));
        const CLIENTS: usize = 40;
        std::thread::scope(|scope| {
            let client = || send(&server, "PATCH", "/api/v1/streams/gate", "{}").0;
            let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
            wait_for_queue(&incoming, CLIENTS);
            for request in incoming.try_iter() {
                assert!(request.ticket.begin());
                request.result.send(Ok(ChangeOutcome::default())).unwrap();
            }
            let answers: Vec<u16> = clients.into_iter().map(|client| client.join().unwrap()).collect();
            assert_eq!(answers, [200; CLIENTS]);
        });
    }

    #[test]
    fn the_change_of_a_disconnected_client_is_withdrawn() {
        let (view, incoming) = ServiceView::new("127.0.0.1:8554".parse().unwrap(), Vec::new());
        view.set_streams(super::super::tests::view(&["gate"]).streams().to_vec());
        let server = server(&Arc::new(view));
        let mut client = TcpStream::connect(server.address()).unwrap();
        let head = format!("PATCH /api/v1/streams/gate HTTP/1.1\r\nHost: {}\r\n", server.address());
        client
            .write_all(format!("{head}Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{{}}").as_bytes())
            .unwrap();
        wait_for_queue(&incoming, 1);
        let request = incoming.recv().unwrap();
        assert!(!request.ticket.is_withdrawn(), "its client is still connected");
        drop(client);
        let until = Instant::now() + Duration::from_secs(180);
        while !request.ticket.is_withdrawn() {
            assert!(Instant::now() < until, "it is not withdrawn");
            std::thread::yield_now();
        }
        assert!(!request.ticket.begin());
    }

    #[test]
    fn an_invalid_change_is_refused_before_it_is_queued() {
        let view = view(&["gate"]);
        let server = server(&view);
        for (method, path, body, status) in [
            ("PATCH", "/api/v1/streams/gate", "[]", 422),
            ("PATCH", "/api/v1/streams/gate/overlay", "{", 400),
            ("POST", "/api/v1/streams", "7", 422),
            ("PATCH", "/api/v1/streams/gat", "{}", 404),
            ("DELETE", "/api/v1/streams/gat", "", 404),
            ("PUT", "/api/v1/streams/gate", "{}", 405),
        ] {
            let (got, body) = send(&server, method, path, body);
            assert_eq!((got, body["status"].as_u64()), (status, Some(u64::from(status))), "{method} {path}");
        }
        let (status, _) =
            send(&server, "POST", "/api/v1/streams", &format!("{{\"name\": \"{}\"}}", "a".repeat(70_000)));
        assert_eq!(status, 413);
        // The service does not run here.
        assert_eq!(send(&server, "PATCH", "/api/v1/streams/gate", "{}").0, 503);
    }
}
