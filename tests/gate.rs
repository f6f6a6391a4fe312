//! The motion gate (`stream.gate`) as a whole: the real program with still and moving pictures, and `maskcast bench --gate`.

mod common;

use std::path::Path;

use common::clip::{self, Patch};
use common::http::send;
use common::program::{maskcast, run, until};
use common::schema::assert_valid;
use common::service::{Service, folder};
use maskcast::commands::schema::MessageKind;
use serde_json::Value;

const CAPS: &str = "video/x-raw,width=320,height=240,framerate=15/1";

fn stream(name: &str, source: &str, more: &str) -> String {
    format!("[[stream]]\nname = \"{name}\"\nsource = \"gst:videotestsrc is-live=true {source} ! {CAPS}\"\n{more}\n")
}

/// Frames that the model ran for, masks that were confirmed, and frames that were published, of a service with one stream.
#[derive(Clone, Copy, Debug)]
struct Totals {
    runs: f64,
    confirmed: f64,
    published: f64,
}

impl Totals {
    fn of(service: &Service, stream: &str) -> Totals {
        let metrics = service.metrics();
        Totals {
            runs: metrics.sum("maskcast_segment_frames_total", &[]),
            confirmed: metrics.sum("maskcast_stream_masks_confirmed_total", &[("stream", stream)]),
            published: metrics.published(stream),
        }
    }

    /// The totals of the next frames, this many or more.
    fn of_next(service: &Service, stream: &str, frames: f64) -> Totals {
        let before = Totals::of(service, stream);
        let after = until("more frames are published", || {
            Some(Totals::of(service, stream)).filter(|now| now.published >= before.published + frames)
        });
        Totals {
            runs: after.runs - before.runs,
            confirmed: after.confirmed - before.confirmed,
            published: after.published - before.published,
        }
    }
}

fn until_skipped(service: &Service, stream: &str, what: &str, is_so: fn(f64) -> bool) -> Value {
    until(what, || {
        let report = service.stream(stream);
        is_so(report["mask_runs_skipped_ratio"].as_f64().unwrap()).then_some(report)
    })
}

#[test]
fn a_still_picture_needs_few_runs_and_stays_live_and_the_gate_can_be_switched_off() {
    let folder = folder();
    let sink = "[[stream.sink]]\ntype = \"jsonl\"\npath = \"masks.jsonl\"\n\
                [[stream.rule]]\nname = \"red\"\nclasses = [\"red\"]\nshare = 0.5\n";
    // An age that a mask of the last run would exceed.
    let settings = format!("max_mask_age = \"600ms\"\n{sink}");
    let service = Service::ready(folder.path(), &stream("yard", "pattern=red", &settings));
    service.until_state("yard", "live");
    until_skipped(&service, "yard", "most masks are confirmed", |skipped| skipped > 0.85);
    let since = service.stream("yard")["since"].clone();
    let still = Totals::of_next(&service, "yard", 60.0);
    // Once a second, of 15 frames; more where this machine delays frames.
    assert!(still.runs >= 1.0 && still.runs <= still.published / 4.0, "{still:?}");
    assert!(still.confirmed >= still.published / 2.0, "{still:?}");
    let report = service.stream("yard");
    assert_eq!((&report["state"], &report["since"]), (&"live".into(), &since), "no confirmed mask was too old");
    assert!(report["mask_age_ms"].as_f64().is_some_and(|age| age < 600.0), "{}", report["mask_age_ms"]);
    assert_eq!(report["rules"][0]["state"], "active", "{}", report["rules"]);
    assert!(report["masks_confirmed"].as_u64().unwrap() as f64 >= still.confirmed);
    let lines = std::fs::read_to_string(folder.path().join("masks.jsonl")).unwrap();
    let complete = lines.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let masks: Vec<Value> = complete.map(|line| serde_json::from_str(line).unwrap()).collect();
    masks.iter().for_each(|mask| assert_valid(MessageKind::Mask, mask));
    assert!(masks.iter().any(|mask| mask["confirmed"] == true) && masks.iter().any(|mask| mask["confirmed"].is_null()));

    let address = format!("{}api/v1/streams/yard", service.page);
    let patch = |body: &str| send("PATCH", &address, Some(body));
    assert_eq!(patch(r#"{"gate": "off"}"#).0, 200);
    until_skipped(&service, "yard", "the model runs for each mask", |skipped| skipped == 0.0);
    let off = Totals::of_next(&service, "yard", 30.0);
    assert!(off.confirmed == 0.0 && off.runs >= off.published / 2.0, "{off:?}");
    let (status, _, problem) = patch(r#"{"gate": "on"}"#);
    assert_eq!(status, 422, "{problem}");
    assert!(problem.contains("stream[yard].gate") && problem.contains("auto"), "{problem}");
    assert_eq!(patch(r#"{"gate": "auto"}"#).0, 200);
    let report = until_skipped(&service, "yard", "masks are confirmed again", |skipped| skipped > 0.85);
    assert_eq!((&report["since"], &report["config"]["gate"]), (&since, &"auto".into()), "without a restart");
}

#[test]
fn the_model_runs_for_each_mask_of_a_moving_picture_and_of_a_redacted_stream() {
    // Moving bars, and noise, in which no motion could be seen.
    for source in ["pattern=smpte horizontal-speed=16", "pattern=snow"] {
        let folder = folder();
        let service = Service::ready(folder.path(), &stream("street", source, ""));
        service.until_state("street", "live");
        let moving = Totals::of_next(&service, "street", 45.0);
        assert!(moving.confirmed == 0.0 && moving.runs >= moving.published / 2.0, "{source}: {moving:?}");
        assert_eq!(service.stream("street")["mask_runs_skipped_ratio"], 0.0);
    }
    let folder = folder();
    let redacted = stream("yard", "pattern=red", "gate = \"auto\"\n[stream.redact]\nclasses = [\"blue\"]");
    let service = Service::ready(folder.path(), &redacted);
    service.until_state("yard", "live");
    let still = Totals::of_next(&service, "yard", 30.0);
    assert!(still.confirmed == 0.0 && still.runs >= still.published - 2.0, "{still:?}");
}

/// What `maskcast bench --gate` measures on a clip.
fn bench(folder: &Path, clip: &str) -> Value {
    let ended = run(maskcast()
        .args(["bench", "--model", "channels.onnx", "--providers", "cpu", "--json", "gate.json"])
        .args(["--gate", clip])
        .current_dir(folder));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let text = std::fs::read_to_string(folder.join("gate.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["clips"][0].clone()
}

/// A yard into which things come and from which they go, with and without rain, and in which the light is switched.
#[test]
fn no_event_is_missed_behind_the_gate() {
    let folder = folder();
    let visits = |size: usize| {
        let patch = |left, top, color| Patch { left, top, width: size, height: size, color };
        [
            (patch(40, 40, clip::RED), 50..150),
            (patch(200, 100, clip::BLUE), 100..260),
            (patch(120, 60, clip::GREEN), 180..230),
        ]
    };
    let path = |name: &str| folder.path().join(name);
    clip::paint_scene(&path("yard.mp4"), (320, 180), 25, 300, "0x404040", &visits(60));
    let yard = bench(folder.path(), "yard.mp4");
    assert!(yard["events"].as_u64().unwrap() >= 6, "{yard}");
    assert_eq!(yard["events_missed"], 0, "{yard}");
    assert!(yard["saved_percent"].as_f64().unwrap() > 80.0, "{yard}");
    // Every change is in a run of its own frame.
    assert_eq!((&yard["events_late_s"], &yard["events_more"], &yard["miou"]), (&0.0.into(), &0.into(), &1.0.into()));

    let filtered = |name: &str, filter: &str| {
        let (from, to) = (path("yard.mp4"), path(name));
        let (from, to) = (from.to_str().unwrap(), to.to_str().unwrap());
        clip::ffmpeg(&[
            "-i",
            from,
            "-filter_complex",
            filter,
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-qp",
            "4",
            to,
        ]);
        bench(folder.path(), name)
    };
    // Streaks that move in every frame.
    let rain = filtered(
        "rain.mp4",
        "color=black:s=320x180:r=25,format=gray,geq=lum='255*gt(random(1)\\,0.998)',dblur=angle=80:radius=8,\
         lutyuv=y=val*8,format=gbrp[rain];[0:v]format=gbrp[yard];[yard][rain]blend=all_mode=screen:shortest=1,format=yuv420p",
    );
    let light = filtered("light.mp4", "eq=brightness='if(between(mod(n,80),40,60),-0.12,0)':eval=frame");
    for (what, clip, most) in [("rain", &rain, 50.0), ("light", &light, 100.0)] {
        assert!(clip["events"].as_u64().unwrap() >= 6, "{what}: {clip}");
        assert_eq!(clip["events_missed"], 0, "{what}: {clip}");
        assert!(clip["events_late_s"].as_f64().unwrap() <= 0.1, "{what}: {clip}");
        assert!(clip["saved_percent"].as_f64().unwrap() <= most, "{what}: {clip}");
    }
    // A crossing where something always moves: no frame is skipped.
    clip::moving(&path("crossing.mp4"), (320, 180), 25, 100);
    let crossing = bench(folder.path(), "crossing.mp4");
    assert_eq!((&crossing["runs"], &crossing["events_missed"]), (&crossing["frames"], &0.into()), "{crossing}");
    assert_eq!(crossing["frames"], 100);
}
