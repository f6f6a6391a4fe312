//! Tests of every route with a real server and real connections.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::base::ledger::DropReason;
use crate::base::status::Status;
use crate::base::timing::{Elapsed, Stage};
use crate::config::SourceSpec;
use crate::frame::{Label, PixelFormat, Rgb, VideoInfo};
use crate::publish::outputs::StreamOutputs;
use crate::segment::placement::{Placement, ProviderShare};
use crate::view::{ModelChangeRequest, ModelChangeState, ModelView, NamedModel, Saving, StreamView};

mod collection;
mod limits;
mod live;
mod metrics;
mod mjpeg;
mod reference;

pub(super) fn view(names: &[&str]) -> Arc<ServiceView> {
    let stream = |name: &&str| {
        let mut config =
            crate::config::defaults_stream(name, SourceSpec::parse("rtsp://10.0.0.7/stream1", "/".as_ref()).unwrap());
        config.overlay.hide = Some(vec!["sky".into()]);
        Arc::new(StreamView::new(&config, StreamOutputs::default(), &Arc::default()))
    };
    let named = named_model("default").0;
    named.set_running(model());
    let (view, _) = ServiceView::new("0.0.0.0:8554".parse().unwrap(), vec![named]);
    view.set_streams(names.iter().map(stream).collect());
    Arc::new(view)
}

/// A model that is not loaded, and its requests.
pub(super) fn named_model(name: &str) -> (Arc<NamedModel>, crossbeam_channel::Receiver<ModelChangeRequest>) {
    let (model, requests) = NamedModel::new(name, Arc::default());
    (Arc::new(model), requests)
}

pub(super) fn model() -> ModelView {
    let label = |name: &str, color| Label::new(name, color);
    ModelView {
        name: "street \"small\"".into(),
        path: "/srv/street.onnx".into(),
        labels: [label("road", Rgb(128, 64, 128)), label("sky", Rgb(70, 130, 180))].into(),
        requested: "tensorrt",
        actual: "cpu",
        placement: Placement(vec![ProviderShare { provider: "CPU".into(), nodes: 83, time: 1.0 }]),
        refused: vec![("tensorrt", "no GPU".into())],
        golden_difference: Some(0.0),
        output: "uint8 class indices".into(),
        unlabelled: Arc::default(),
        input: (512, 288),
        devices: Vec::new(),
        workers: 2,
        threads: 1,
        max_batch: 1,
        time: Duration::from_millis(52),
        memory: Some(123_456_789),
        reference: None,
    }
}

pub(super) fn server(view: &Arc<ServiceView>) -> HttpServer {
    HttpServer::bind("127.0.0.1:0".parse().unwrap()).unwrap().serve(Arc::clone(view), whep()).unwrap()
}

pub(super) fn whep() -> Arc<Whep> {
    Arc::new(Whep::new(crate::config::WebRtcConfig::default()))
}

pub(super) struct Answer {
    pub status: u16,
    pub headers: ureq::http::HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

pub(super) fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(600)))
        .build()
        .into()
}

pub(super) fn get(server: &HttpServer, path: &str) -> Answer {
    let mut response = agent().get(format!("http://{}{path}", server.address())).call().unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.body_mut().read_to_string().unwrap(),
    }
}

/// Three frames published, three dropped, one in flight.
fn feed(status: &Status) {
    let entries: Vec<_> = (0..6).map(|_| status.ledger.open()).collect();
    for (n, entry) in entries.into_iter().enumerate() {
        match n {
            0..3 => entry.published(),
            3 => entry.dropped(DropReason::SegmenterBusy),
            _ => entry.dropped(DropReason::EncoderBusy),
        }
    }
    std::mem::forget(status.ledger.open());
    status.set_info(VideoInfo::new(PixelFormat::I420, 1280, 720));
    status.outputs.count_recording_failure();
    status.count_published();
    status.record_latency(Instant::now());
    status.stage(Stage::Overlay).record(Elapsed { wall: Duration::from_millis(3), cpu: Duration::from_millis(2) });
}

#[test]
fn the_error_of_a_used_port_has_key_and_address() {
    let used = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = used.local_addr().unwrap();
    let Err(error) = HttpServer::bind(address) else { panic!("the port is in use") };
    assert!(
        matches!(&error.source, ServerErrorKind::Io(error) if error.kind() == io::ErrorKind::AddrInUse),
        "{error:?}"
    );
    assert_eq!(error.to_string(), format!("server.http: {address}: Address already in use (os error 98)"));
}

#[test]
fn the_page_is_served_with_headers_that_allow_only_its_own_files() {
    let server = server(&view(&["gate"]));
    for (path, kind, sign) in [
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
        ("/page/app.js", "text/javascript; charset=utf-8", "/api/v1/streams"),
        ("/page/base.css", "text/css; charset=utf-8", "[data-theme=\"dark\"]"),
        ("/favicon.svg", "image/svg+xml", "<svg"),
        ("/api/docs", "text/html; charset=utf-8", "<!doctype html>"),
        ("/api/docs.js", "text/javascript; charset=utf-8", "/api/v1/openapi.json"),
        ("/api/docs.css", "text/css; charset=utf-8", "prefers-color-scheme: dark"),
    ] {
        let answer = get(&server, path);
        assert_eq!((answer.status, answer.header("content-type")), (200, kind), "{path}");
        assert!(answer.body.contains(sign), "{path}");
        assert_eq!(answer.header("cache-control"), "no-cache");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("referrer-policy"), "no-referrer");
        assert_eq!(answer.header("cross-origin-resource-policy"), "same-origin");
        assert_eq!(
            answer.header("content-security-policy"),
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        );
        // A request with the current entity tag gets no body.
        let url = format!("http://{}{path}", server.address());
        let again = |tag: &str| agent().get(&url).header("if-none-match", tag).call().unwrap().status().as_u16();
        assert_eq!((again(answer.header("etag")), again("\"another\"")), (304, 200), "{path}");
    }
    for path in ["/", "/api/docs"] {
        let page = get(&server, path).body;
        assert!(
            !page.contains(" style=") && !page.contains("<style") && !page.contains(" onclick="),
            "the policy forbids it in {path}"
        );
    }
    assert_eq!(get(&server, "/page/nothing.js").status, 404);
}

/// Every file that the page and its modules load exists.
#[test]
fn every_file_of_the_page_is_served() {
    let server = server(&view(&["gate"]));
    let (mut open, mut seen) = (vec!["/".to_string()], std::collections::BTreeSet::new());
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let answer = get(&server, &path);
        assert_eq!(answer.status, 200, "{path}");
        let quoted = answer.body.split('"').skip(1).step_by(2);
        open.extend(quoted.filter_map(|text| match text.strip_prefix("./") {
            Some(module) if module.ends_with(".js") => Some(format!("/page/{module}")),
            _ => text.starts_with("/page/").then(|| text.to_string()),
        }));
    }
    assert_eq!(
        seen.len(),
        1 + std::fs::read_dir("src/server/page").unwrap().count() - 2,
        "all files of the folder except the page and its icon: {seen:?}"
    );
}

#[test]
fn the_service_is_ready_when_no_stream_is_starting() {
    let view = view(&["gate", "yard"]);
    let server = server(&view);
    assert_eq!((get(&server, "/healthz").status, get(&server, "/healthz").body.as_str()), (200, "ok"));
    let answer = get(&server, "/readyz");
    assert_eq!((answer.status, answer.body.as_str()), (503, "starting: gate, yard"));
    view.streams()[0].status.set_shown(StreamState::Live, None, Instant::now());
    assert_eq!(get(&server, "/readyz").body, "starting: yard");
    view.streams()[1].status.set_offline("connection refused".into());
    assert_eq!(get(&server, "/readyz").status, 200);
    assert_eq!(get(&server, "/healthz").status, 200);
}

#[test]
fn the_api_reports_streams_and_model() {
    let view = view(&["gate", "yard"]);
    feed(&view.streams()[0].status);
    view.streams()[0].status.set_shown(StreamState::Live, None, Instant::now());
    view.streams()[1].status.set_offline("connection refused".into());
    let server = server(&view);
    let answer = get(&server, "/api/v1/streams");
    assert_eq!((answer.header("content-type"), answer.header("cache-control")), ("application/json", "no-store"));
    let list = answer.json();
    let (gate, yard) = (&list[0], &list[1]);
    assert_eq!((gate["name"].as_str(), gate["state"].as_str()), (Some("gate"), Some("live")));
    let number = |key: &str| gate[key].as_u64().unwrap();
    assert_eq!((number("captured"), number("published"), number("dropped"), number("in_flight")), (6, 3, 3, 1));
    assert_eq!(gate["dropped_by_reason"], serde_json::json!({ "segmenter_busy": 1, "encoder_busy": 2 }));
    assert_eq!((number("width"), number("height")), (1280, 720));
    assert!(gate["h264"].is_null(), "nothing is encoded");
    assert!(gate["fps"].is_number() && gate["latency_ms"].is_number() && gate["reason"].is_null());
    assert!(gate["since"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    assert_eq!((gate["source"].as_str(), gate["show"].as_str()), (Some("rtsp://10.0.0.7/stream1"), Some("full-rate")));
    assert_eq!(gate["viewers"], serde_json::json!({ "rtsp": 0, "webrtc": 0, "mjpeg": 0 }));
    assert_eq!(
        gate["legend"][0],
        serde_json::json!({ "name": "road", "color": "#804080", "hidden": false, "rest": false, "weight": 1.0 })
    );
    assert_eq!(gate["legend"][1]["hidden"], true);
    let links =
        serde_json::json!({ "mjpeg": "/mjpeg/gate", "rtsp": "rtsp://127.0.0.1:8554/gate", "whep": "/whep/gate" });
    assert_eq!(gate["links"], links);
    assert_eq!((yard["state"].as_str(), yard["reason"].as_str()), (Some("offline"), Some("connection refused")));
    assert!(yard["width"].is_null() && yard["latency_ms"].is_null() && yard["fps"] == 0.0);
    let one = get(&server, "/api/v1/streams/yard").json();
    assert_eq!(one["links"], yard["links"]);
    let config = &one["config"];
    assert_eq!((config["name"].as_str(), config["max_mask_age"].as_str()), (Some("yard"), Some("1s")));
    assert_eq!((config["transport"].as_str(), config["loop"].is_null()), (Some("tcp"), true));
    assert_eq!(config["overlay"]["hide"], serde_json::json!(["sky"]));

    let model = get(&server, "/api/v1/model").json();
    assert_eq!((&model["model"], &model["streams"]), (&"default".into(), &serde_json::json!(["gate", "yard"])));
    assert_eq!((&gate["model"], &model["memory_bytes"]), (&"default".into(), &123_456_789.into()));
    assert_eq!(get(&server, "/api/v1/models").json(), serde_json::json!([model]));
    assert_eq!(get(&server, "/api/v1/models/default").json(), model);
    assert_eq!(model["input"], serde_json::json!({ "width": 512, "height": 288 }));
    assert_eq!((model["requested"].as_str(), model["actual"].as_str()), (Some("tensorrt"), Some("cpu")));
    assert_eq!(
        (model["workers"].as_u64(), model["threads"].as_u64(), model["max_batch"].as_u64()),
        (Some(2), Some(1), Some(1))
    );
    assert_eq!(model["placement"], serde_json::json!([{ "provider": "CPU", "nodes": 83, "time": 1.0 }]));
    assert_eq!(model["labels"][0], serde_json::json!({ "name": "road", "color": "#804080", "weight": 1.0 }));
    assert_eq!(model["refused"], serde_json::json!([{ "provider": "tensorrt", "reason": "no GPU" }]));
    assert!(model["change"].is_null() && model["frame_ms"] == 52.0);
    assert_eq!(get(&server, "/api/v1/version").json()["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn one_request_for_a_model_is_accepted_at_a_time() {
    let (named, requests) = named_model("default");
    let (view, _) = ServiceView::new("127.0.0.1:8554".parse().unwrap(), vec![Arc::clone(&named)]);
    let server = server(&Arc::new(view));
    let post = |body: &str, kind: &str| {
        let request = agent().post(format!("http://{}/api/v1/model", server.address())).header("content-type", kind);
        let mut response = request.send(body).unwrap();
        (response.status().as_u16(), response.body_mut().read_json::<Value>().unwrap())
    };
    let json = "application/json";
    let request = r#"{"path": "/srv/yard.onnx"}"#;
    let long = format!("{{\"path\": \"/{}\"}}", "x".repeat(60_000));
    assert_eq!(get(&server, "/api/v1/model").status, 503);
    assert_eq!(post(request, json).0, 503, "no model is loaded yet");
    named.set_running(model());
    for (body, kind, status) in [
        (request, "text/plain", 415),
        ("{", json, 400),
        (r#"{"file": "/srv/yard.onnx"}"#, json, 422),
        (r#"{"path": "yard.onnx"}"#, json, 422),
        (r#"{"path": "/srv/a\n2026 ERROR b"}"#, json, 422),
        (&*long, json, 422),
    ] {
        let (got, problem) = post(body, kind);
        assert_eq!((got, problem["status"].as_u64()), (status, Some(u64::from(status))), "{body}");
        assert!(problem["detail"].as_str().unwrap().len() < 500, "{problem}");
    }
    assert!(requests.is_empty());
    let (status, change) = post(request, json);
    assert_eq!((status, change["state"].as_str()), (202, Some("loading")));
    assert_eq!(requests.try_recv().unwrap().path, std::path::Path::new("/srv/yard.onnx"));
    assert_eq!(post(request, json).0, 409);
    named.set_change(
        "/srv/yard.onnx".into(),
        ModelChangeState::Refused("its golden frame differs".into()),
        Saving::NotRequested,
    );
    let change = get(&server, "/api/v1/model").json()["change"].clone();
    assert_eq!(
        (change["state"].as_str(), change["reason"].as_str()),
        (Some("refused"), Some("its golden frame differs"))
    );
    assert_eq!(post(request, json).0, 202);
}

#[test]
fn each_model_takes_requests_of_its_own() {
    let ((street, of_street), (yard, of_yard)) = (named_model("street"), named_model("yard"));
    let (view, _) = ServiceView::new("127.0.0.1:8554".parse().unwrap(), vec![street.clone(), yard.clone()]);
    let source = |name: &str| crate::config::defaults_stream(name, SourceSpec::parse("test://", "/".as_ref()).unwrap());
    let redacted = crate::config::StreamConfig {
        model: "yard".into(),
        redact: Some(crate::config::RedactConfig::default()),
        ..source("gate")
    };
    let plain = crate::config::StreamConfig { model: "street".into(), ..source("road") };
    let of = |config| Arc::new(StreamView::new(&config, StreamOutputs::default(), &Arc::default()));
    view.set_streams(vec![of(redacted), of(plain)]);
    street.set_running(model());
    let server = server(&Arc::new(view));
    let post = |path: &str| {
        let request = agent().post(format!("http://{}{path}", server.address()));
        let mut response = request.send_json(serde_json::json!({"path": "/srv/a.onnx"})).unwrap();
        (response.status().as_u16(), response.body_mut().read_json::<Value>().unwrap())
    };
    assert_eq!(get(&server, "/readyz").body, "starting: gate, road, the model yard");
    assert_eq!(get(&server, "/api/v1/models").status, 503);
    assert_eq!(get(&server, "/api/v1/models/street").json()["streams"], serde_json::json!(["road"]));
    yard.set_running(ModelView { name: "other".into(), ..model() });
    let names: Vec<Value> =
        get(&server, "/api/v1/models").json().as_array().unwrap().iter().map(|model| model["model"].clone()).collect();
    assert_eq!(names, ["street", "yard"]);
    // Its masks decide what is hidden in the frames of the stream gate.
    let (status, problem) = post("/api/v1/models/yard");
    assert_eq!(status, 403, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("\"gate\""), "{problem}");
    assert_eq!(post("/api/v1/models/street").0, 202);
    assert_eq!((of_street.len(), of_yard.len()), (1, 0));
    assert_eq!(post("/api/v1/model").0, 409, "it is the same model");
    let (status, problem) = post("/api/v1/models/stret");
    assert_eq!((status, &problem["models"]), (404, &serde_json::json!(["street", "yard"])));
    assert_eq!(problem["detail"], "unknown model \"stret\"; models: street, yard");
}

#[test]
fn unknown_paths_and_streams_are_404_problems() {
    let server = server(&view(&["gate", "yard"]));
    for path in
        ["/api/v1/streams/gat", "/mjpeg/gat", "/api/v1/streams/gat/snapshot.jpg", "/mjpeg/%ff", "/api/v2", "/x/../etc"]
    {
        let answer = get(&server, path);
        assert_eq!((answer.status, answer.header("content-type")), (404, "application/problem+json"), "{path}");
        assert_eq!(answer.json()["status"], 404);
    }
    let problem = get(&server, "/mjpeg/gat").json();
    assert_eq!(problem["detail"], "there is no stream \"gat\"; streams: gate, yard");
    assert_eq!(problem["streams"], serde_json::json!(["gate", "yard"]));
    let response = agent().post(format!("http://{}/api/v1/version", server.address())).send("{}").unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert!(response.headers()["allow"].to_str().unwrap().contains("GET"));
}
