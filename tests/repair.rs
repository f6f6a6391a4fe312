//! Repair of incomplete recordings, also with irregular frame times, and two services that record to one folder.

mod common;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use common::clip;
use common::http::get_json;
use common::program::{DEADLINE, until};
use common::service::{Service, account, folder};
use gstreamer as gst;
use gstreamer::prelude::*;
use serde_json::Value;

const STREAM: &str = "[[stream]]\nname = \"gate\"\nsource = \"test://ball?width=320&height=240&fps=15\"\n\
    [stream.record]\ndir = \"rec\"\nsegment = \"4s\"\n";

fn list(service: &Service) -> Vec<Value> {
    get_json(&format!("{}api/v1/streams/gate/recordings", service.page)).as_array().unwrap().clone()
}

/// Writes a recording of `frames` frames as the recorder does, with the irregular times of a network camera, and without
/// the header that finishes it, as after SIGKILL.
fn write_incomplete(path: &Path, frames: u64) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc pattern=ball ! video/x-raw,width=320,height=240,framerate=15/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! h264parse name=parse \
         ! mp4mux name=mux fragment-duration=1000 fragment-mode=first-moov-then-finalise ! filesink location={}",
        path.display()
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let (ended, end) = crossbeam_channel::bounded(1);
    let pad = pipeline.by_name("parse").unwrap().static_pad("sink").unwrap();
    let count = AtomicU64::new(0);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data {
            let number = count.fetch_add(1, Ordering::Relaxed);
            if number == frames {
                let _ = ended.try_send(());
            }
            // Each frame has a different delay, and the rate falls to two thirds after 30 frames.
            let late = gst::ClockTime::from_mseconds(number * 7 % 22 + number.saturating_sub(30) * 33);
            let buffer = buffer.make_mut();
            buffer.set_pts(buffer.pts().map(|pts| pts + late));
            buffer.set_dts(buffer.dts().map(|dts| dts + late));
        }
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    end.recv_timeout(DEADLINE).expect("all frames are produced");
    // The frames that wait in the muxer are lost.
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_recording_with_irregular_frame_times_is_complete_after_repair() {
    let folder = folder();
    let rec = folder.path().join("rec");
    std::fs::create_dir(&rec).unwrap();
    let file = rec.join("gate-20261124T101500Z.mp4");
    write_incomplete(&file, 120);
    let before = clip::probe(&file).frames;
    assert!(before >= 90 && clip::decode_errors(&file).is_empty(), "{before} frames");

    let service = Service::ready(folder.path(), STREAM);
    until("the recording is complete", || {
        list(&service)
            .into_iter()
            .find(|recording| recording["name"] == "gate-20261124T101500Z.mp4" && recording["complete"] == true)
    });
    assert_eq!((clip::decode_errors(&file).as_str(), clip::probe(&file).frames), ("", before));
}

/// The file ends in the middle of a fragment, as after a power failure: every frame that can be played before the repair can
/// be played after it.
#[test]
fn repair_keeps_all_frames_of_a_recording_that_ends_in_the_middle_of_a_fragment() {
    let folder = folder();
    let rec = folder.path().join("rec");
    std::fs::create_dir(&rec).unwrap();
    let file = rec.join("gate-20261124T101500Z.mp4");
    write_incomplete(&file, 120);
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() * 2 / 3]).unwrap();
    let before = clip::probe(&file).frames;
    assert!(before >= 30, "{before} frames");
    let service = Service::ready(folder.path(), STREAM);
    until("a new recording is complete", || {
        (list(&service).iter().filter(|recording| recording["complete"] == true).count() >= 2).then_some(())
    });
    let after = clip::probe(&file).frames;
    assert!(after >= before, "{before} frames, then {after}");
    assert_eq!(clip::decode_errors(&file), "");
}

/// As with a copied configuration: the second service finds a file that grows, and must not change it.
#[test]
fn two_services_on_one_folder_keep_the_recordings_of_both() {
    let folders = [folder(), folder()];
    let rec = folders[0].path().join("rec");
    let streams = |frames: u32| {
        STREAM.replace("fps=15", &format!("fps=15&frames={frames}")).replace("\"rec\"", &format!("{rec:?}"))
    };
    let mut first = Service::ready(folders[0].path(), &streams(300));
    until("the first service records", || {
        list(&first).first().and_then(|newest| newest["seconds"].as_f64().filter(|seconds| *seconds > 1.5))
    });
    let mut second = Service::start(folders[1].path(), &streams(75));
    let (_, log) = second.program.ended();
    assert!(log.contains("another program is writing it"), "{log}");
    let published = account(&log, "gate").published;
    let (_, log) = first.program.ended();
    let published = published + account(&log, "gate").published;
    let frames = std::fs::read_dir(&rec).unwrap().map(|entry| {
        let file = entry.unwrap().path();
        assert_eq!(clip::decode_errors(&file), "", "{}", file.display());
        clip::probe(&file).frames
    });
    assert_eq!(frames.sum::<u64>(), published);
}

/// As after SIGKILL in the first second, or on a full disk.
#[test]
fn a_recording_without_a_header_is_logged_once_and_has_length_zero() {
    let folder = folder();
    let rec = folder.path().join("rec");
    std::fs::create_dir(&rec).unwrap();
    let files = ["gate-20261124T101500Z.mp4", "gate-20261124T101600Z.mp4", "gate-20261124T101700Z.mkv"];
    for (file, content) in files.iter().zip([&b""[..], b"\0\0\0\x10ftypiso5\0\0\0\0", b""]) {
        std::fs::write(rec.join(file), content).unwrap();
    }
    let mut service = Service::start(folder.path(), STREAM);
    for file in files {
        service.program.wait_for(file, |entry| {
            let message = entry["message"].as_str()?;
            (message.contains("was cut off before its first frame") && message.contains(file)).then_some(())
        });
    }
    let old: Vec<_> =
        list(&service).into_iter().filter(|recording| files.iter().any(|file| recording["name"] == *file)).collect();
    assert_eq!(old.len(), 3);
    assert!(old.iter().all(|recording| recording["seconds"] == 0.0 && recording["complete"] == false), "{old:?}");
    let (_, _, log) = service.terminate();
    assert_eq!(log.matches("was cut off before its first frame").count(), 3, "{log}");
    assert!(log.contains("(16 bytes)"), "{log}");
}
