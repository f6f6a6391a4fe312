//! Two clips with painted shapes of known area and time, and what all outputs say about them: MQTT (a real Mosquitto),
//! WebSocket, server-sent events, webhooks, the sink `jsonl`, the history and the metrics have the same events, which begin and
//! end with the shapes, and the same shares, which are those of the shapes.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use common::clip::{self, Patch, RED};
use common::http::{Metrics, get_json};
use common::live::{ServerSentEvents, Socket, next, open};
use common::mosquitto::{Broker, Message, Subscriber};
use common::program::until;
use common::receiver::receive;
use common::schema::assert_valid;
use common::service::{Service, folder_with_model, write_config};
use jiff::Timestamp;
use maskcast::commands::schema::MessageKind;
use serde_json::{Value, json};
use tokio::task::block_in_place;

/// The size of the model's masks. The clips have other sizes and shapes.
const MODEL: (usize, usize) = (512, 288);

/// Half a per cent of a zone.
const TOLERANCE: f64 = 0.005;

/// Frames between a shape and the start or the end of its event.
const LATEST: usize = 2;

/// The name of the zone of each stream.
const ZONE: &str = "\"><script>/+# Süd";

/// A stream: a clip with one large and one small red shape on blue, which are there at the times [`LARGE`] and [`SMALL`].
struct Scene {
    stream: &'static str,
    file: &'static str,
    size: (usize, usize),
    fps: usize,
    /// Covers a part of the frame with slanted sides, which cut both shapes.
    zone: &'static [[f64; 2]],
    large: Patch,
    small: Patch,
}

/// Not of the shape of the model, and odd sides.
const SCENES: [Scene; 2] = [
    Scene {
        stream: "gate",
        file: "gate.mp4",
        size: (640, 400),
        fps: 25,
        zone: &[[0.1, 0.2], [0.75, 0.1], [0.9, 0.85], [0.2, 0.95]],
        large: Patch { left: 54, top: 124, width: 206, height: 150, color: RED },
        small: Patch { left: 400, top: 30, width: 100, height: 122, color: RED },
    },
    Scene {
        stream: "yard",
        file: "yard.mkv",
        size: (427, 239),
        fps: 15,
        zone: &[[0.25, 0.04], [1.0, 0.4], [0.55, 1.0], [0.2, 0.7]],
        large: Patch { left: 70, top: 52, width: 142, height: 74, color: RED },
        small: Patch { left: 240, top: 170, width: 92, height: 60, color: RED },
    },
];

/// When the shapes are there, in fifths of a second, of which all frame rates have whole numbers of frames.
const LARGE: [Range<usize>; 3] = [10..14, 35..38, 43..51];
const SMALL: [Range<usize>; 2] = [14..20, 25..30];
const LENGTH: usize = 60;

/// The rules of each stream: name, keys, and when its events begin and end. The large shape is above all limits, the small one
/// is between those at which events begin and end (hysteresis).
const RULES: [(&str, &str, &[Range<usize>]); 5] = [
    ("blocked", "share = 0.15\nrelease = 0.04\nfor = \"0s\"", &[10..20, 35..38, 43..51]),
    ("held", "share = 0.15\nrelease = 0.04\nfor = \"1s\"", &[10..20, 43..51]),
    ("bare", "when = \"below\"\nshare = 0.85\nrelease = 0.97\nfor = \"0s\"", &[10..20, 35..38, 43..51]),
    ("entered", "when = \"entered\"\nshare = 0.04\nfor = \"0s\"", &[10..10, 25..25, 35..35, 43..43]),
    ("left", "when = \"left\"\nshare = 0.04\nfor = \"0s\"", &[20..20, 30..30, 38..38, 51..51]),
];

impl Scene {
    /// Frames of a time in fifths of a second.
    fn frames(&self, fifths: usize) -> usize {
        fifths * self.fps / 5
    }

    fn patch_at(&self, frame: usize) -> Option<&Patch> {
        let is_there = |times: &[Range<usize>]| {
            times.iter().any(|time| (self.frames(time.start)..self.frames(time.end)).contains(&frame))
        };
        if is_there(&LARGE) { Some(&self.large) } else { Some(&self.small).filter(|_| is_there(&SMALL)) }
    }

    fn paint(&self, folder: &Path) {
        let at = |patch: Patch, times: &[Range<usize>]| -> Vec<_> {
            times.iter().map(|time| (patch, self.frames(time.start)..self.frames(time.end))).collect()
        };
        let shapes = [at(self.large, &LARGE), at(self.small, &SMALL)].concat();
        clip::paint_scene(&folder.join(self.file), self.size, self.fps, self.frames(LENGTH), "blue", &shapes);
    }

    /// The share of a patch in the zone, and in the frame, by a fine grid of points.
    fn shares(&self, patch: &Patch) -> (f64, f64) {
        const GRID: usize = 2000;
        let (width, height) = (self.size.0 as f64, self.size.1 as f64);
        let is_in = |at: f64, from: usize, length: usize| (from as f64..(from + length) as f64).contains(&at);
        let (mut in_zone, mut in_both) = (0_u32, 0_u32);
        for row in 0..GRID {
            for column in 0..GRID {
                let point = [column, row].map(|n| (n as f64 + 0.5) / GRID as f64);
                if is_inside(self.zone, point) {
                    in_zone += 1;
                    let is_red = is_in(point[0] * width, patch.left, patch.width)
                        && is_in(point[1] * height, patch.top, patch.height);
                    in_both += u32::from(is_red);
                }
            }
        }
        let of_frame = (patch.width * patch.height) as f64 / (width * height);
        (f64::from(in_both) / f64::from(in_zone), of_frame)
    }

    fn config(&self, source: &str, broker: u16, hook: &str) -> String {
        let Scene { stream, zone, .. } = self;
        let rules: String = RULES
            .iter()
            .map(|(name, keys, _)| {
                let class = if *name == "bare" { "blue" } else { "red" };
                format!("[[stream.rule]]\nname = \"{name}\"\nclasses = [\"{class}\"]\nzone = '{ZONE}'\n{keys}\n")
            })
            .collect();
        let service = format!(
            "[history]\ndir = \"state\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{broker}\"\nqueue_dir = \"state\"\nevery = \"100ms\"\n\
             [[webhook]]\nname = \"hook\"\nurl = \"http://{hook}/\"\n"
        );
        let service = if *stream == SCENES[0].stream { service } else { String::new() };
        format!(
            "{service}[[stream]]\nname = \"{stream}\"\nsource = \"{source}\"\n\
             [[stream.zone]]\nname = '{ZONE}'\npolygon = {zone:?}\n{rules}\
             [[stream.sink]]\ntype = \"jsonl\"\npath = \"{stream}.jsonl\"\n"
        )
    }
}

/// Whether a point is inside a convex polygon: on the same side of all its sides.
fn is_inside(polygon: &[[f64; 2]], [x, y]: [f64; 2]) -> bool {
    let sides = polygon.iter().zip(polygon.iter().cycle().skip(1));
    let mut turns = sides.map(|([x1, y1], [x2, y2])| (x2 - x1) * (y - y1) - (y2 - y1) * (x - x1) > 0.0);
    let first = turns.next();
    turns.all(|turn| Some(turn) == first)
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap_or_else(|| panic!("{value}")).parse().unwrap()
}

fn red(shares: &Value) -> f64 {
    shares["red"].as_f64().unwrap_or(0.0)
}

/// The messages about events of one output: by id and phase, each of which arrived once.
type Events = BTreeMap<(String, String), Value>;

fn events(output: &str, messages: impl IntoIterator<Item = Value>) -> Events {
    let mut found = Events::new();
    for message in messages {
        assert_valid(MessageKind::Event, &message);
        let text = |key: &str| message[key].as_str().unwrap().to_owned();
        let before = found.insert((text("id"), text("phase")), message.clone());
        assert!(before.is_none(), "{output}: twice: {message}");
    }
    found
}

/// Scrapes the metrics of the zone until it is stopped: the shares of red that they had, and the last scrape.
fn scrape(page: &str, stop: &Arc<AtomicBool>) -> JoinHandle<Vec<[f64; 2]>> {
    let (page, stop) = (page.to_owned(), Arc::clone(stop));
    std::thread::spawn(move || {
        let pace = crossbeam_channel::tick(Duration::from_millis(200));
        let mut found = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let metrics = Metrics::scrape(&page);
            // A quote in the value of a label is escaped.
            let zone = ZONE.replace('"', "\\\"");
            let share = |scene: &Scene| {
                let labels = [("stream", scene.stream), ("zone", &zone), ("class", "red")];
                metrics.find("maskcast_zone_class_share", &labels).unwrap_or(0.0)
            };
            found.push([share(&SCENES[0]), share(&SCENES[1])]);
            let _ = pace.recv();
        }
        found
    })
}

/// All masks of a stream that the sink has written.
fn masks_of(folder: &Path, scene: &Scene) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(format!("{}.jsonl", scene.stream))).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn all_outputs_have_the_events_and_shares_of_the_painted_shapes() {
    let folder = folder_with_model(MODEL.0, MODEL.1);
    let path = folder.path();
    clip::paint_scene(&path.join("before.mp4"), (64, 36), 25, 5, "blue", &[]);
    SCENES.iter().for_each(|scene| scene.paint(path));
    let broker = Broker::start(path, "");
    let everything = Subscriber::to(broker.port, "maskcast/#", &[]);
    let (hook, requests) = receive(&[]);
    let config = |source: &dyn Fn(&Scene) -> String| -> String {
        // Without a source that continues, the service would stop when the clips end.
        let idle = "[[stream]]\nname = \"idle\"\nsource = \"test://black?width=64&height=36&fps=1\"\n";
        SCENES.iter().map(|scene| scene.config(&source(scene), broker.port, &hook)).collect::<String>() + idle
    };
    // First another clip, during which all clients connect.
    let mut service = block_in_place(|| Service::ready(path, &config(&|_| "file:before.mp4".into())));
    for scene in &SCENES {
        block_in_place(|| service.until_state(scene.stream, "offline"));
    }
    let page = service.page.clone();
    let collect = |mut socket: Socket| {
        tokio::spawn(async move {
            let mut found = Vec::new();
            while let Some(message) = next(&mut socket).await {
                found.push(message);
            }
            found
        })
    };
    let connect = async |path: &str| open(&page, path, &[]).await.unwrap();
    let by_socket = collect(connect("api/v1/events/live").await);
    let masks_by_socket =
        [collect(connect("api/v1/streams/gate/masks").await), collect(connect("api/v1/streams/yard/masks").await)];
    let collect_sse = |path: &str| {
        let mut client = ServerSentEvents::connect(&page, path, &[]);
        assert_eq!(client.status, 200, "{path}");
        std::thread::spawn(move || std::iter::from_fn(|| client.next()).collect::<Vec<Value>>())
    };
    let by_sse = collect_sse("api/v1/events/live");
    let masks_by_sse = SCENES.map(|scene| collect_sse(&format!("api/v1/streams/{}/masks", scene.stream)));
    everything.until("maskcast/status", "online");
    let stop = Arc::default();
    let metrics = scrape(&page, &stop);

    let began = Timestamp::now();
    write_config(path, &config(&|scene| format!("file:{}", scene.file)));
    service.program.child.signal("HUP");
    block_in_place(|| {
        let reloaded = |entry: &Value| entry["message"].as_str()?.starts_with("configuration reloaded: ").then_some(());
        service.program.wait_for("the reload", reloaded);
        SCENES.iter().for_each(|scene| drop(service.until_state(scene.stream, "offline")));
    });
    let expected: usize = RULES.iter().map(|(_, _, times)| times.len()).sum::<usize>() * SCENES.len();
    let stored = block_in_place(|| {
        until("the history has the end of all events", || {
            let stored = get_json(&format!("{page}api/v1/events?limit=1000")).as_array().unwrap().clone();
            (stored.iter().filter(|event| event.get("end").is_some()).count() >= expected).then_some(stored)
        })
    });
    stop.store(true, Ordering::Relaxed);
    let metrics = (metrics.join().unwrap(), block_in_place(|| service.metrics()));
    let reports = SCENES.map(|scene| block_in_place(|| service.stream(scene.stream)));
    let (code, _, log) = block_in_place(|| service.terminate());
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("ERROR") && !log.contains("panicked"), "{log}");

    // The clients have read everything when their connections end.
    let mut messages: Vec<Message> = Vec::new();
    while messages.last().is_none_or(|last| last.topic != "maskcast/status") {
        messages.push(everything.next());
    }
    let is_event = |message: &&Message| message.topic.ends_with("/events");
    for message in messages.iter().filter(is_event) {
        assert_eq!(message.topic, format!("maskcast/{}/events", message.json()["stream"].as_str().unwrap()));
    }
    let outputs = [
        events("MQTT", messages.iter().filter(is_event).map(Message::json)),
        events("WebSocket", by_socket.await.unwrap()),
        events("server-sent events", by_sse.join().unwrap()),
        events("webhook", requests.try_iter().map(|request| request.json())),
    ];
    let [first, others @ ..] = &outputs;
    assert_eq!(first.len(), 2 * expected, "a start and an end of each: {first:#?}");
    others.iter().for_each(|other| assert_eq!(other, first));
    assert_eq!(stored.len(), expected);
    for mut event in stored {
        for key in ["snapshots", "recording"] {
            assert!(event.as_object_mut().unwrap().remove(key).is_some(), "{event}");
        }
        let mut end = first[&(event["id"].as_str().unwrap().to_owned(), "end".to_owned())].clone();
        end.as_object_mut().unwrap().remove("phase");
        assert_eq!(event, end, "the history");
    }

    let [gate, yard] = masks_by_socket;
    let by_client = [gate.await.unwrap(), yard.await.unwrap()].into_iter().zip(masks_by_sse);
    for ((scene, report), (by_socket, by_sse)) in SCENES.iter().zip(&reports).zip(by_client) {
        assert_eq!(report["sinks"][0]["dropped"], 0, "{report}");
        let written = masks_of(path, scene);
        let masks = clip_masks(scene, &written, began);
        check_shares(scene, &masks);
        check_times(scene, &masks, first);
        let by_sse = by_sse.join().unwrap();
        let missing = check_live("WebSocket", &by_socket, &written, began)
            + check_live("server-sent events", &by_sse, &written, began);
        // Masks are lost only where the machine is so busy that sixteen of them wait for a client.
        let lost = metrics.1.sum("maskcast_live_masks_lost_total", &[("stream", scene.stream)]);
        assert_eq!(missing as f64, lost, "{}", scene.stream);
        let of_stream =
            messages.iter().filter(|message| message.topic.starts_with(&format!("maskcast/{}/", scene.stream)));
        check_mqtt_shares(scene, of_stream, &written);
        for (rule, _, times) in RULES {
            let labels = [("stream", scene.stream), ("rule", rule)];
            assert_eq!(metrics.1.sum("maskcast_rule_events_total", &labels), times.len() as f64, "{labels:?}");
            assert_eq!(metrics.1.sum("maskcast_rule_active", &labels), 0.0, "{labels:?}");
        }
    }
    check_metrics(&metrics.0);
    block_in_place(|| check_minutes(path, &config(&|_| "rtsp://127.0.0.1:9/".into())));
}

/// A mask of the clip with the number of its frame in the clip.
struct ClipMask<'a> {
    frame: usize,
    mask: &'a Value,
}

fn clip_masks<'a>(scene: &Scene, written: &'a [Value], began: Timestamp) -> Vec<ClipMask<'a>> {
    let of_clip = written.iter().filter(|mask| time(&mask["captured"]) >= began);
    let masks: Vec<ClipMask> = of_clip
        .map(|mask| {
            assert_valid(MessageKind::Mask, mask);
            let frame = mask["source_time_s"].as_f64().unwrap() * scene.fps as f64;
            assert!((frame - frame.round()).abs() < 0.05, "{mask}");
            ClipMask { frame: frame.round() as usize, mask }
        })
        .collect();
    assert!(masks.windows(2).all(|pair| pair[0].frame < pair[1].frame), "{}", scene.stream);
    masks
}

/// The shares of each mask are those of the shape that its frame shows.
fn check_shares(scene: &Scene, masks: &[ClipMask]) {
    let (large, small) = (scene.shares(&scene.large), scene.shares(&scene.small));
    assert!(large.0 > 0.17 && (0.05..0.12).contains(&small.0), "the limits of the rules: {large:?} {small:?}");
    let mut worst: f64 = 0.0;
    for ClipMask { frame, mask } in masks {
        let (in_zone, in_frame) = match scene.patch_at(*frame) {
            Some(patch) if patch.left == scene.large.left => large,
            Some(_) => small,
            None => (0.0, 0.0),
        };
        let (zone, whole) = (red(&mask["zones"][ZONE]), red(&mask["shares"]));
        let error = (zone - in_zone).abs().max((whole - in_frame).abs());
        assert!(error <= TOLERANCE, "frame {frame}: {zone} of {in_zone}, {whole} of {in_frame}: {mask}");
        assert!((zone + mask["zones"][ZONE]["blue"].as_f64().unwrap_or(0.0) - 1.0).abs() < 1e-9, "{mask}");
        worst = worst.max(error);
    }
    println!("{}: {} masks, shares wrong by {worst:.5} at most", scene.stream, masks.len());
}

/// Each event begins and ends with the first mask after a change of the shapes, at most two frames later, and has the share of
/// the shapes.
fn check_times(scene: &Scene, masks: &[ClipMask], events: &Events) {
    let (large, small) = (scene.shares(&scene.large).0, scene.shares(&scene.small).0);
    for (rule, _, times) in RULES {
        let is_of_rule = |event: &&Value| event["rule"] == rule && event["stream"] == scene.stream;
        let ends: Vec<&Value> = events.values().filter(|event| event["phase"] == "end").filter(is_of_rule).collect();
        assert_eq!(ends.len(), times.len(), "{} {rule}: {ends:#?}", scene.stream);
        // In the order of their ids.
        for (event, expected) in ends.into_iter().zip(times) {
            for (key, at) in [("start", expected.start), ("end", expected.end)] {
                let found = time(&event[key]);
                let at = scene.frames(at);
                let first = masks.iter().find(|mask| mask.frame >= at).unwrap();
                let place = format!("{} {rule} {key}: {}, not frame {at}: {event}", scene.stream, first.mask);
                assert!(first.frame <= at + LATEST, "{place}");
                // The clocks may have been adjusted meanwhile.
                let difference = found.duration_since(time(&first.mask["captured"])).abs();
                assert!(difference.as_secs_f64() <= 0.001, "{place}");
            }
            let start = &events[&(event["id"].as_str().unwrap().to_owned(), "start".to_owned())];
            assert_eq!((&start["start"], start.get("end")), (&event["start"], None), "{start}");
            assert_eq!((&event["end_reason"], &event["zone"]), (&json!("cleared"), &json!(ZONE)), "{event}");
            // At the start, at the end, and at the peak.
            let shares = match rule {
                "bare" => [1.0 - large, 1.0, 1.0 - large],
                "left" => [0.0; 3],
                "entered" if expected.start == SMALL[1].start => [small; 3],
                "entered" => [large; 3],
                // When it has lasted for a second, the small shape is there.
                "held" if expected.start == LARGE[0].start => [small, 0.0, large],
                _ => [large, 0.0, large],
            };
            for ((message, key), share) in
                [(start, "share"), (event, "share"), (event, "peak_share")].into_iter().zip(shares)
            {
                let found = message[key].as_f64().unwrap();
                assert!((found - share).abs() <= TOLERANCE, "{key} {found}, not {share}: {message}");
            }
        }
    }
}

/// Identifies a mask: the numbers begin again with another clip.
fn key_of(message: &Value) -> (Timestamp, u64) {
    (time(&message["captured"]), message["seq"].as_u64().unwrap())
}

/// A client got masks with the content that was written. Returns how many of those since `began` it did not get.
fn check_live(name: &str, live: &[Value], written: &[Value], began: Timestamp) -> usize {
    let of_clip = |masks: &[Value]| -> BTreeMap<(Timestamp, u64), Value> {
        masks.iter().map(|mask| (key_of(mask), mask.clone())).filter(|((at, _), _)| *at >= began).collect()
    };
    let (live, written) = (of_clip(live), of_clip(written));
    for (key, mask) in &live {
        assert_valid(MessageKind::Mask, mask);
        let mut mask = mask.clone();
        mask.as_object_mut().unwrap().remove("lost");
        assert_eq!(Some(&mask), written.get(key), "{name}");
    }
    written.len() - live.len()
}

/// Each message about shares is that of a mask.
fn check_mqtt_shares<'a>(scene: &Scene, messages: impl Iterator<Item = &'a Message>, written: &[Value]) {
    let by_key: BTreeMap<_, &Value> = written.iter().map(|mask| (key_of(mask), mask)).collect();
    let mut zones = BTreeSet::new();
    for message in messages.filter(|message| message.topic.ends_with("/shares")) {
        let shares = message.json();
        assert_valid(MessageKind::Shares, &shares);
        let mask = by_key[&key_of(&shares)];
        let of_mask = if shares["zone"].is_null() { &mask["shares"] } else { &mask["zones"][ZONE] };
        assert_eq!(&shares["shares"], of_mask, "{shares}");
        zones.insert(message.topic.clone());
    }
    let stream = scene.stream;
    let zone = format!("maskcast/{stream}/zone/%22%3E%3Cscript%3E%2F%2B%23%20S%C3%BCd/shares");
    assert_eq!(zones.into_iter().collect::<Vec<_>>(), [format!("maskcast/{stream}/shares"), zone]);
}

/// Each scrape has the share of one of the shapes or of none, and all of them occur.
fn check_metrics(scrapes: &[[f64; 2]]) {
    for (n, scene) in SCENES.iter().enumerate() {
        let shares = [0.0, scene.shares(&scene.small).0, scene.shares(&scene.large).0];
        let mut seen = [false; 3];
        for [first, second] in scrapes {
            let found = [first, second][n];
            let shape = shares.iter().position(|share| (share - found).abs() <= TOLERANCE);
            seen[shape.unwrap_or_else(|| panic!("{}: {found} is none of {shares:?}", scene.stream))] = true;
        }
        assert_eq!(seen, [true; 3], "{}: {scrapes:?}", scene.stream);
    }
}

/// The minutes of the history have mean and maximum of the masks. A service with the same history reads them after the stop.
fn check_minutes(folder: &Path, config: &str) {
    let service = Service::start(folder, config);
    for scene in &SCENES {
        let masks = masks_of(folder, scene);
        let mut minutes: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        for mask in &masks {
            let minute = time(&mask["captured"]).as_second().div_euclid(60);
            minutes.entry(minute).or_default().push(red(&mask["zones"][ZONE]));
        }
        let url = format!(
            "{}api/v1/streams/{}/history?class=red&zone=%22%3E%3Cscript%3E%2F%2B%23%20S%C3%BCd",
            service.page, scene.stream
        );
        let stored = get_json(&url);
        let [series] = stored["series"].as_array().unwrap().as_slice() else { panic!("{stored}") };
        let points = series["points"].as_array().unwrap();
        assert_eq!(points.len(), minutes.len(), "{stored}");
        for (point, (minute, shares)) in points.iter().zip(&minutes) {
            let number = |n: usize| point[n].as_f64().unwrap();
            let mean = shares.iter().sum::<f64>() / shares.len() as f64;
            let maximum = shares.iter().copied().fold(0.0, f64::max);
            assert_eq!(point[0].as_i64(), Some(minute * 60_000), "{stored}");
            assert!((number(1) - mean).abs() < 1e-5 && (number(2) - maximum).abs() < 1e-5, "{point} {mean} {maximum}");
        }
        let csv = common::http::get(&format!("{url}&format=csv")).1;
        assert_eq!(csv.lines().count(), 1 + minutes.len(), "{csv}");
        // Quotes are doubled, as RFC 4180 has it.
        assert!(csv.lines().skip(1).all(|line| line.contains(",\"\"\"><script>/+# Süd\",red,")), "{csv}");
    }
}
