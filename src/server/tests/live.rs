//! Tests of live masks and events.

use std::sync::atomic::{AtomicBool, AtomicU64};

use jiff::Timestamp;
use tokio_stream::StreamExt;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::*;
use crate::events::{Event, EventMessage, EventPhase};
use crate::frame::Mask;
use crate::sink::{FeedSink, MaskFeed, MaskSink, StreamMask};
use crate::zones::{Zone, ZoneMeter};

/// Guards against hanging.
const DEADLINE: Duration = Duration::from_secs(180);

const ZONE: &str = "\"><script>";

/// Gives masks of random pixels to a feed.
struct Camera {
    sink: FeedSink,
    meter: ZoneMeter,
    random: fastrand::Rng,
    size: (usize, usize),
}

impl Camera {
    fn new(feed: &Arc<MaskFeed>, size: (usize, usize)) -> Self {
        let polygon = vec![[0.0, 0.0], [1.0, 0.0], [1.0, 0.5], [0.0, 0.5]];
        let zones = [Arc::new(Zone { name: Some(ZONE.into()), polygon })].into();
        Camera {
            sink: FeedSink(Arc::clone(feed)),
            meter: ZoneMeter::new(zones),
            random: fastrand::Rng::with_seed(1),
            size,
        }
    }

    fn push(&mut self, seq: u64, captured_at: Instant) {
        let (width, height) = self.size;
        let mask = Mask {
            seq,
            pts: Duration::from_millis(seq * 100),
            captured_at,
            width,
            height,
            classes: (0..width * height).map(|_| self.random.u8(0..2)).collect(),
            labels: model().labels,
            model: "street".into(),
            guide: None,
            probable: None,
            confirmed: false,
            seen: None,
        };
        let counts = self.meter.measure(&mask);
        let video = VideoInfo::new(PixelFormat::I420, 1280, 720);
        self.sink.push(&StreamMask::new(&"gate".into(), Arc::new(mask), video, counts)).unwrap();
    }
}

fn feed(view: &ServiceView) -> Arc<MaskFeed> {
    Arc::clone(&view.stream("gate").unwrap().masks)
}

fn event(stream: &str, rule: &str, id: &str) -> EventMessage {
    let now = Timestamp::now();
    let event = Event {
        id: id.into(),
        stream: stream.into(),
        rule: rule.into(),
        zone: Some(ZONE.into()),
        classes: ["road".to_owned()].into(),
        start: now,
        end: None,
        end_reason: None,
        share: 0.25,
        peak_share: 0.5,
        peak: now,
    };
    EventMessage { phase: EventPhase::Start, event }
}

/// A client of server-sent events.
struct EventSource(BufReader<TcpStream>);

impl EventSource {
    fn connect(server: &HttpServer, path: &str) -> Self {
        let mut socket = TcpStream::connect(server.address()).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        // HTTP/1.0: the body is not chunked.
        write!(socket, "GET {path} HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n").unwrap();
        let mut source = EventSource(BufReader::new(socket));
        let head = source.lines();
        assert!(head[0].contains(" 200 "), "{head:?}");
        for field in ["content-type: text/event-stream", "x-accel-buffering: no", "x-content-type-options: nosniff"] {
            assert!(head.contains(&field.to_owned()), "{field}: {head:?}");
        }
        source
    }

    /// Lines up to an empty one; none at the end.
    fn lines(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            match line.trim_end() {
                "" => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }

    /// The data of the next event, which has this name.
    fn next(&mut self, name: &str) -> Value {
        loop {
            let lines = self.lines();
            if lines.iter().all(|line| line.starts_with(':')) && !lines.is_empty() {
                continue;
            }
            assert_eq!(lines.len(), 2, "{lines:?}");
            assert_eq!(lines[0], format!("event: {name}"));
            return serde_json::from_str(lines[1].strip_prefix("data: ").unwrap()).unwrap();
        }
    }
}

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

async fn open(server: &HttpServer, path: &str, headers: &[(&'static str, &str)]) -> Result<Socket, Error> {
    let mut request = format!("ws://{}{path}", server.address()).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    tokio_tungstenite::connect_async(request).await.map(|(socket, _)| socket)
}

/// The next text message.
async fn next(socket: &mut Socket) -> Value {
    loop {
        match tokio::time::timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The code of the close frame, which follows without another message.
async fn closed(socket: &mut Socket) -> CloseCode {
    loop {
        match tokio::time::timeout(DEADLINE, socket.next()).await.unwrap().unwrap().unwrap() {
            Message::Close(frame) => return frame.unwrap().code,
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn status(refused: Result<Socket, Error>) -> u16 {
    match refused {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("{other:?}"),
    }
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn masks_are_server_sent_events() {
    let view = view(&["gate"]);
    let server = server(&view);
    let mut camera = Camera::new(&feed(&view), (8, 4));
    let mut plain = EventSource::connect(&server, "/api/v1/streams/gate/masks");
    let mut rle = EventSource::connect(&server, "/api/v1/streams/gate/masks?mask=rle&every=1s");
    let began = Instant::now();
    for seq in 0..4 {
        camera.push(seq, began + Duration::from_millis(400 * seq));
    }
    for seq in 0..4 {
        let mask = plain.next("mask");
        assert_eq!((&mask["stream"], &mask["seq"]), (&"gate".into(), &seq.into()));
        assert_eq!((mask.get("mask"), mask.get("lost")), (None, None));
        let shares = |of: &Value| ["road", "sky"].map(|name| of[name].as_f64().unwrap_or(0.0)).iter().sum::<f64>();
        assert_eq!((shares(&mask["shares"]), shares(&mask["zones"][ZONE])), (1.0, 1.0), "{mask}");
    }
    let (first, second) = (rle.next("mask"), rle.next("mask"));
    assert_eq!((&first["seq"], &second["seq"]), (&0.into(), &3.into()), "at most one a second");
    assert_eq!((&first["mask"]["format"], &first["mask"]["size"]), (&"coco-rle".into(), &serde_json::json!([4, 8])));
    assert!(first["mask"]["classes"]["road"].is_string(), "{first}");
    // The response ends with the stream.
    view.set_streams(Vec::new());
    drop(camera);
    assert_eq!(plain.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn masks_are_messages_of_a_websocket() {
    let view = view(&["gate"]);
    let server = server(&view);
    let mut camera = Camera::new(&feed(&view), (8, 4));
    let own = format!("http://{}", server.address());
    let mut socket = open(&server, "/api/v1/streams/gate/masks?mask=png", &[("origin", &own)]).await.unwrap();
    for seq in 0..3 {
        camera.push(seq, Instant::now());
        let mask = next(&mut socket).await;
        assert_eq!((&mask["seq"], &mask["mask"]["format"]), (&seq.into(), &"png".into()), "{mask}");
    }
    assert_eq!(feed(&view).clients(), 1);
    drop(socket);
    until("the server has noticed that the client is gone", || feed(&view).clients() == 0);
}

#[tokio::test]
async fn pages_of_other_sites_cannot_open_a_websocket() {
    let view = view(&["gate"]);
    let server = server(&view);
    for path in ["/api/v1/streams/gate/masks", "/api/v1/events/live"] {
        for headers in [
            [("origin", "http://evil.example"), ("host", "localhost")],
            [("origin", "null"), ("host", "localhost")],
            [("sec-fetch-site", "cross-site"), ("host", "localhost")],
            [("sec-fetch-site", "same-site"), ("host", "localhost")],
        ] {
            assert_eq!(status(open(&server, path, &headers).await), 403, "{path} {headers:?}");
        }
    }
    assert_eq!(feed(&view).clients(), 0);
}

#[tokio::test]
async fn wrong_requests_are_explained() {
    let view = view(&["gate"]);
    let server = server(&view);
    let problem = |path: &str, headers: &[(&str, &str)]| {
        let mut request = agent().get(format!("http://{}{path}", server.address()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = request.call().unwrap();
        let body: Value = response.body_mut().read_json().unwrap();
        (response.status().as_u16(), body["detail"].as_str().unwrap().to_owned())
    };
    let events = [("accept", "text/event-stream")];
    let masks = "/api/v1/streams/gate/masks";
    let refused = |query: &str, path: &str| problem(&format!("{path}?{query}"), &events);
    assert_eq!(
        refused("every=soon", masks),
        (400, "every: \"soon\" is not a duration; write 500ms, 2s or 1m".to_owned())
    );
    assert_eq!(refused("every=2h", masks), (400, "every: 2h is longer than 1h".to_owned()));
    assert_eq!(refused("mask=gif", masks), (400, "mask: \"gif\" is not one of rle, png".to_owned()));
    assert_eq!(refused("evry=1s", masks), (400, "there is no parameter \"evry\"; parameters: every, mask".to_owned()));
    let unknown = refused("stream=yard", "/api/v1/events/live");
    assert_eq!(unknown, (404, "there is no stream \"yard\"; streams: gate".to_owned()));
    assert_eq!(problem("/api/v1/streams/yard/masks", &events).0, 404);
    for path in [masks, "/api/v1/events/live"] {
        let (status, detail) = problem(path, &[("accept", "*/*")]);
        assert!(status == 406 && detail.contains("text/event-stream"), "{status} {detail}");
        let upgrade = [("upgrade", "websocket"), ("connection", "upgrade"), ("sec-websocket-version", "8")];
        let (status, detail) = problem(path, &upgrade);
        assert!(status == 400 && detail.starts_with("the WebSocket cannot be opened: "), "{status} {detail}");
    }
}

#[tokio::test]
async fn events_can_be_selected_by_stream_and_rule() {
    let view = view(&["gate", "yard"]);
    let server = server(&view);
    let mut all = EventSource::connect(&server, "/api/v1/events/live");
    let mut some = open(&server, "/api/v1/events/live?stream=gate&rule=blocked", &[]).await.unwrap();
    for (stream, rule, id) in [("yard", "blocked", "1"), ("gate", "other", "2"), ("gate", "blocked", "3")] {
        view.events.send(event(stream, rule, id));
    }
    let received = next(&mut some).await;
    assert_eq!((&received["id"], &received["phase"]), (&"3".into(), &"start".into()));
    assert_eq!(received["zone"], ZONE);
    let ids: Vec<Value> = (0..3).map(|_| all.next("event")["id"].clone()).collect();
    assert_eq!(ids, ["1", "2", "3"]);
}

#[tokio::test]
async fn a_slow_client_loses_masks_and_gets_their_number() {
    let view = view(&["gate"]);
    let server = server(&view);
    let mut socket = open(&server, "/api/v1/streams/gate/masks?mask=png", &[]).await.unwrap();
    let (pushed, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let camera = std::thread::spawn({
        let (mut camera, pushed, done) =
            (Camera::new(&feed(&view), (512, 288)), Arc::clone(&pushed), Arc::clone(&done));
        move || {
            let pace = crossbeam_channel::tick(Duration::from_millis(2));
            while !done.load(Ordering::Relaxed) {
                let _ = pace.recv();
                camera.push(pushed.fetch_add(1, Ordering::Relaxed), Instant::now());
            }
        }
    });
    // More than all buffers between server and client can contain.
    until("many masks were made", || pushed.load(Ordering::Relaxed) > 300);
    let mut last: Option<u64> = None;
    let mut total = 0;
    let mut after_loss = 0;
    while after_loss < 3 {
        let mask = next(&mut socket).await;
        let (seq, lost) = (mask["seq"].as_u64().unwrap(), mask["lost"].as_u64().unwrap_or(0));
        assert_eq!(seq, last.map_or(0, |last| last + 1) + lost, "each mask is received or counted as lost");
        (last, total) = (Some(seq), total + lost);
        after_loss += u64::from(total > 0);
    }
    done.store(true, Ordering::Relaxed);
    camera.join().unwrap();
    assert!(total > 100, "{total} lost");
}

#[tokio::test]
async fn the_connection_ends_when_the_server_stops_or_the_stream_is_removed() {
    let view = view(&["gate"]);
    let server = server(&view);
    let mut masks = open(&server, "/api/v1/streams/gate/masks", &[]).await.unwrap();
    let mut events = open(&server, "/api/v1/events/live", &[]).await.unwrap();
    let mut selected = open(&server, "/api/v1/events/live?stream=gate", &[]).await.unwrap();
    let mut lines = EventSource::connect(&server, "/api/v1/events/live");
    view.set_streams(Vec::new());
    assert_eq!(closed(&mut masks).await, CloseCode::Normal);
    assert_eq!(closed(&mut selected).await, CloseCode::Normal);
    view.events.send(event("yard", "blocked", "1"));
    assert_eq!(next(&mut events).await["id"], "1", "it is not about the stream that was removed");
    assert_eq!(lines.next("event")["id"], "1");
    let asked = Instant::now();
    let stopped = std::thread::spawn(move || drop(server));
    assert_eq!(closed(&mut events).await, CloseCode::Away);
    stopped.join().unwrap();
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    assert_eq!(lines.lines(), Vec::<String>::new());
}

#[tokio::test]
async fn the_number_of_clients_is_limited() {
    let view = view(&["gate"]);
    let server = server(&view);
    let mut clients = Vec::new();
    for _ in 0..LIVE_CLIENTS {
        clients.push(open(&server, "/api/v1/events/live", &[]).await.unwrap());
    }
    assert_eq!(status(open(&server, "/api/v1/streams/gate/masks", &[]).await), 503);
    let before = get(&server, "/api/v1/streams").status;
    assert_eq!(before, 200, "other requests are answered");
    clients.pop();
    let again = std::time::Instant::now();
    loop {
        match open(&server, "/api/v1/events/live", &[]).await {
            Ok(_) => break,
            Err(_) => assert!(again.elapsed() < DEADLINE, "the place is not free again"),
        }
    }
}
