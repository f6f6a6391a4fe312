//! Other players: ffprobe and GStreamer's `rtspsrc` read a stream, each over TCP and UDP.

mod common;

use std::time::Duration;

use common::program::{tool, until};
use common::service::{Service, folder};
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use serde_json::Value;

const FPS: f64 = 15.0;
const FRAMES: usize = 45;

fn service(folder: &std::path::Path) -> Service {
    let streams = "[[stream]]\nname = \"gate\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\
                   encode.keyframe_interval = \"1s\"\n";
    let service = Service::ready(folder, streams);
    service.until_state("gate", "live");
    service
}

/// Asserts that the times rise and that their median interval is that of the camera. A busy machine may drop frames.
fn assert_regular(times: &[f64], what: &str) {
    // A player may not have times for the first frames, before it receives the clock reference.
    assert!(times.len() + 2 >= FRAMES, "{what}: {} times", times.len());
    assert!(times.is_sorted_by(|a, b| a < b), "{what}: {times:?}");
    let mut intervals: Vec<f64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    intervals.sort_by(f64::total_cmp);
    let median = intervals[intervals.len() / 2];
    assert!((median - 1.0 / FPS).abs() < 0.01, "{what}: the median interval is {median} s");
}

#[test]
fn ffprobe_reads_the_stream_over_tcp_and_udp() {
    let folder = folder();
    let service = service(folder.path());
    for transport in ["tcp", "udp"] {
        let probe = tool(
            "ffprobe",
            [
                "-v",
                "error",
                "-rtsp_transport",
                transport,
                "-select_streams",
                "v",
                "-read_intervals",
                &format!("%+#{FRAMES}"),
                "-show_entries",
                "stream=codec_name,profile,width,height,pix_fmt,has_b_frames,r_frame_rate:packet=pts_time,dts_time,flags",
                "-of",
                "json",
                &service.rtsp("gate"),
            ],
        );
        assert_eq!(probe.stderr, "", "{transport}");
        let probe: Value = serde_json::from_str(&probe.text()).unwrap();
        let stream = &probe["streams"][0];
        println!("{transport}: {stream}");
        assert_eq!((&stream["codec_name"], &stream["profile"]), (&"h264".into(), &"Constrained Baseline".into()));
        assert_eq!(
            (&stream["width"], &stream["height"], &stream["has_b_frames"]),
            (&320.into(), &240.into(), &0.into())
        );
        let packets = probe["packets"].as_array().unwrap();
        let times = |key: &str| -> Vec<f64> {
            packets.iter().filter_map(|packet| packet[key].as_str()?.parse().ok()).collect()
        };
        assert_regular(&times("pts_time"), &format!("ffprobe, {transport}, pts"));
        let in_order = |packet: &&Value| packet["pts_time"] == packet["dts_time"];
        let early = packets.iter().filter(|packet| !in_order(packet)).count();
        assert!(early <= 2, "{transport}: {early} frames are not in presentation order");
        let keyframes: Vec<usize> = (0..packets.len())
            .filter(|&n| packets[n]["flags"].as_str().is_some_and(|flags| flags.starts_with('K')))
            .collect();
        assert!(keyframes.len() >= FRAMES / 15 && keyframes[0] == 0, "{transport}: keyframes at {keyframes:?}");
    }
}

#[test]
fn gstreamer_plays_the_stream_over_tcp_and_udp() {
    gst::init().unwrap();
    let folder = folder();
    let service = service(folder.path());
    for protocol in ["tcp", "udp"] {
        let description = format!(
            "rtspsrc location={} protocols={protocol} latency=0 ! rtph264depay wait-for-keyframe=true ! h264parse \
             ! video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=sink sync=false",
            service.rtsp("gate")
        );
        let pipeline = gst::parse::launch(&description).unwrap().downcast::<gst::Pipeline>().unwrap();
        let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let bus = pipeline.bus().unwrap();
        let mut times = Vec::new();
        let mut caps = None;
        while times.len() < FRAMES {
            let sample = until(&format!("a frame by {protocol}"), || {
                let error = bus.pop_filtered(&[gst::MessageType::Error]);
                assert!(error.is_none(), "{protocol}: {error:?} after {} frames", times.len());
                sink.try_pull_sample(gst::ClockTime::from_mseconds(100))
            });
            let pts = Duration::from(sample.buffer().unwrap().pts().unwrap());
            times.push(pts.as_secs_f64());
            caps = sample.caps_owned();
        }
        pipeline.set_state(gst::State::Null).unwrap();
        let caps = caps.unwrap();
        println!("{protocol}: {caps}");
        let caps = caps.structure(0).unwrap();
        assert_eq!(caps.get::<&str>("profile"), Ok("constrained-baseline"), "{protocol}: {caps}");
        assert_eq!((caps.get("width"), caps.get("height")), (Ok(320), Ok(240)), "{protocol}: {caps}");
        assert_eq!(caps.get("framerate"), Ok(gst::Fraction::new(15, 1)), "{protocol}: {caps}");
        assert_regular(&times, &format!("rtspsrc, {protocol}"));
    }
}
