//! The collected frames of a stream: list, pictures, labels with revisions, decisions.

use std::path::Path;

use jiff::Timestamp;

use super::*;
use crate::collect::record::{CollectedModel, Reason};
use crate::collect::store::NewFrame;
use crate::collect::stream_collection::StreamCollection;
use crate::config::CollectConfig;

const WIDTH: u32 = 1024;
const HEIGHT: u32 = 512;

/// A server with the streams `gate`, which collects frames in `folder` and has one, and `yard`, which does not. Returns the frame's name.
fn collecting(folder: &Path) -> (HttpServer, String) {
    let shared = Arc::new(StreamCollection::new("gate", &CollectConfig::to(folder)));
    let labels = [Label::new("road", Rgb(128, 64, 128)), Label::new("sky", Rgb(70, 130, 180))];
    let frame = NewFrame {
        stream: "gate",
        captured: Timestamp::now(),
        model: CollectedModel { name: "default".into(), sha256: String::new() },
        reason: Reason::Novel,
        uncertainty: 0.25,
        novelty: 0.5,
        confidence: None,
        width: WIDTH,
        height: HEIGHT,
        hash: "00ff00ff00ff00ff".into(),
        thumbnail: Vec::new(),
        jpeg: b"a JPEG file",
        mask: &vec![1; (WIDTH * HEIGHT) as usize],
        labels: &labels,
    };
    let id = shared.open().unwrap().add(&frame).unwrap().id.to_string();
    let view = view(&["gate", "yard"]);
    let with_collection = |stream: &Arc<StreamView>| match &*stream.status.name {
        "gate" => Arc::new(StreamView { collection: Some(Arc::clone(&shared)), ..StreamView::clone(stream) }),
        _ => Arc::clone(stream),
    };
    view.set_streams(view.streams().iter().map(with_collection).collect());
    (server(&view), id)
}

/// A greyscale PNG. Its values are 0, 1 and 255 without a pattern, so that it is large.
fn label(width: u32, height: u32) -> Vec<u8> {
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, width, height);
    encoder.set_color(png::ColorType::Grayscale);
    let mut state = 1u32;
    let pixels = (0..width * height).map(|_| {
        // A linear congruential generator (Numerical Recipes).
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        [0, 1, 255][(state >> 16) as usize % 3]
    });
    encoder.write_header().unwrap().write_image_data(&pixels.collect::<Vec<u8>>()).unwrap();
    png
}

fn send(server: &HttpServer, method: &str, path: &str, revision: Option<&str>, kind: &str, body: &[u8]) -> Answer {
    let mut request = ureq::http::Request::builder()
        .method(method)
        .uri(format!("http://{}{path}", server.address()))
        .header("content-type", kind);
    if let Some(revision) = revision {
        request = request.header("if-match", revision);
    }
    let mut response = agent().run(request.body(body.to_vec()).unwrap()).unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.body_mut().read_to_string().unwrap(),
    }
}

#[test]
fn frames_are_listed_with_classes_and_counts() {
    let folder = tempfile::tempdir().unwrap();
    let (server, id) = collecting(folder.path());
    let list = get(&server, "/api/v1/streams/gate/collection").json();
    assert_eq!(list["frames"][0]["id"], *id);
    assert_eq!(list["frames"][0]["reason"], "novel");
    assert_eq!(list["classes"][1], serde_json::json!({"name": "sky", "color": "#4682b4"}));
    assert_eq!(list["counts"]["new"], 1);
    assert!(list["bytes"].as_u64().unwrap() > 0);
    assert_eq!(get(&server, &format!("/api/v1/streams/gate/collection/{id}")).json()["revision"], 0);
    let filtered = get(&server, "/api/v1/streams/gate/collection?state=accepted").json();
    assert_eq!(filtered["frames"], serde_json::json!([]));
    let older = get(&server, &format!("/api/v1/streams/gate/collection?before={id}")).json();
    assert_eq!(older["frames"], serde_json::json!([]));
    for wrong in ["state=x", "limit=0", "limit=1001", "before=../x"] {
        assert_eq!(get(&server, &format!("/api/v1/streams/gate/collection?{wrong}")).status, 400, "{wrong}");
    }
    let missing = get(&server, "/api/v1/streams/yard/collection");
    assert_eq!(missing.status, 404);
    assert!(missing.body.contains("[stream.collect]"), "{}", missing.body);
    for unknown in ["20260101T000000000Z", "..%2Flabelmap.txt", "x"] {
        assert_eq!(
            get(&server, &format!("/api/v1/streams/gate/collection/{unknown}/image.jpg")).status,
            404,
            "{unknown}"
        );
    }
}

#[test]
fn labels_are_saved_for_the_revision_that_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let (server, id) = collecting(folder.path());
    let path = format!("/api/v1/streams/gate/collection/{id}/label.png");
    let tag = |path: &str| {
        let response = agent().get(format!("http://{}{path}", server.address())).call().unwrap();
        response.headers()["etag"].to_str().unwrap().to_owned()
    };
    assert_eq!(tag(&path), "\"0\"");
    let large = label(WIDTH, HEIGHT);
    assert!(large.len() > body::MAX_BODY, "{}", large.len());
    assert_eq!(send(&server, "PUT", &path, None, "image/png", &large).status, 428);
    assert_eq!(send(&server, "PUT", &path, Some("0"), "image/png", &large).status, 400, "without quotes");
    let saved = send(&server, "PUT", &path, Some("\"0\""), "image/png", &large);
    assert_eq!((saved.status, saved.header("etag")), (200, "\"1\""), "{}", saved.body);
    let conflict = send(&server, "PUT", &path, Some("\"0\""), "image/png", &large);
    assert_eq!((conflict.status, conflict.header("etag")), (412, "\"1\""), "{}", conflict.body);
    let small = send(&server, "PUT", &path, Some("\"1\""), "image/png", &label(8, 8));
    assert_eq!(small.status, 400);
    assert!(small.body.contains("8 × 8"), "{}", small.body);
    assert_eq!(send(&server, "PUT", &path, Some("\"1\""), "image/png", b"x").status, 400);
    // Refused by its length: the body is not awaited.
    let mut client = TcpStream::connect(server.address()).unwrap();
    let length = crate::server::collection::MAX_LABEL + 1;
    write!(client, "PUT {path} HTTP/1.1\r\nhost: {}\r\nif-match: \"1\"\r\n", server.address()).unwrap();
    write!(client, "content-type: image/png\r\ncontent-length: {length}\r\n\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(client).read_line(&mut line).unwrap();
    assert!(line.starts_with("HTTP/1.1 413"), "{line}");
    assert_eq!(tag(&path), "\"1\"");
    // A browser that has this revision gets no body.
    let known = agent().get(format!("http://{}{path}", server.address())).header("if-none-match", "\"1\"").call();
    assert_eq!(known.unwrap().status().as_u16(), 304);
}

#[test]
fn decisions_are_stored_and_discarded_frames_have_no_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let (server, id) = collecting(folder.path());
    let path = format!("/api/v1/streams/gate/collection/{id}");
    let decide = |state: &str, revision: &str| {
        send(
            &server,
            "PATCH",
            &path,
            Some(revision),
            "application/json",
            format!("{{\"state\": {state:?}}}").as_bytes(),
        )
    };
    let accepted = decide("accepted", "\"0\"");
    assert_eq!(accepted.status, 200, "{}", accepted.body);
    assert_eq!(accepted.json()["state"], "accepted");
    let list = std::fs::read_to_string(folder.path().join("gate/ImageSets/Segmentation/accepted.txt")).unwrap();
    assert_eq!(list.trim(), id);
    assert_eq!(decide("accepted", "\"7\"").status, 412);
    assert_ne!(decide("good", "\"0\"").status, 200);
    assert_eq!(get(&server, &format!("{path}/image.jpg")).header("content-type"), "image/jpeg");
    assert_eq!(decide("discarded", "\"0\"").status, 200);
    assert_eq!(get(&server, &format!("{path}/image.jpg")).status, 410);
    assert_eq!(decide("new", "\"0\"").status, 410);
    let list = get(&server, "/api/v1/streams/gate/collection?state=discarded").json();
    assert_eq!(list["frames"][0]["id"], *id);
}
