//! Models that are late, change, are refused, disappear, or cannot be run.

use std::path::Path;

use crate::camera::Camera;
use crate::common::http::send;
use crate::common::program::until;
use crate::common::service::Service;
use crate::fixture::{Viewers, clip, end, folder, gate_and_open, start};
use crate::models::{self, Kind};
use crate::paint::{HEIGHT, WIDTH, write_long_walk, write_poison, write_walk};

/// The size of the frames.
const FULL: (i64, i64) = (WIDTH as i64, HEIGHT as i64);

/// Writes the model of the service, and waits for this answer in the log.
fn replace(service: &mut Service, folder: &Path, kind: Kind, size: (i64, i64), answer: &str) {
    models::write(&folder.join("channels.onnx"), kind, size);
    wait_for_log(service, answer);
}

fn wait_for_log(service: &mut Service, text: &str) {
    service.program.wait_for(text, |entry| entry["message"].as_str()?.contains(text).then_some(()));
}

fn hidden_frames(service: &Service) -> u64 {
    service.stream("gate")["redaction"]["hidden_frames"].as_u64().unwrap_or(0)
}

/// Person under another index, a mask of another size, a model without the class, a damaged one, and none at all.
pub fn a_change_of_the_model_shows_nothing() {
    let folder = folder(Kind::First);
    write_walk(&folder.path().join("clip.mp4"));
    let mut service = start(folder.path(), &gate_and_open(&clip("clip.mp4")));
    service.program.wait_for_message("ready");
    let viewers = Viewers::start(&service);
    viewers.until_visible();
    viewers.compare("first model");

    replace(&mut service, folder.path(), Kind::OtherIndex, FULL, "model changed");
    viewers.compare("another index");
    viewers.until_visible();
    replace(&mut service, folder.path(), Kind::OtherIndex, (160, 90), "model changed");
    viewers.compare("another size");
    viewers.until_visible();
    replace(&mut service, folder.path(), Kind::First, (96, 96), "model changed");
    viewers.compare("another shape");
    viewers.until_visible();

    replace(&mut service, folder.path(), Kind::WithoutPerson, FULL, "model change refused");
    viewers.compare("a model without the class");
    viewers.until_visible();
    // A model with the class, but another one: its masks would decide what is hidden.
    let other = folder.path().join("other.onnx");
    models::write(&other, Kind::First, FULL);
    let url = format!("{}api/v1/model", service.page);
    let (status, _, body) = send("POST", &url, Some(&format!("{{\"path\": \"{}\"}}", other.display())));
    assert_eq!(status, 403, "{body}");
    viewers.compare("another model by the API");
    std::fs::write(folder.path().join("channels.onnx"), "damaged").unwrap();
    wait_for_log(&mut service, "model change refused");
    viewers.compare("a damaged model");
    std::fs::remove_file(folder.path().join("channels.onnx")).unwrap();
    viewers.compare("a removed model");
    viewers.until_visible();
    end(service);
}

/// While the first model is loaded, and with one that takes longer for a frame than masks may be old.
pub fn a_model_that_is_slow_to_load_and_to_run_shows_nothing() {
    let folder = folder(Kind::Slow);
    let file = folder.path().join("clip.mp4");
    write_long_walk(&file);
    let camera = Camera::show(&file, 0);
    let source = camera.source() + "max_mask_age = \"100ms\"\n";
    let mut service = start(folder.path(), &gate_and_open(&source));
    let viewers = Viewers::start(&service);
    viewers.gate[0].until_more_hidden(1);
    assert!(!service.program.log().contains("model loaded"), "this frame was hidden while it was loaded");
    viewers.gate.iter().for_each(|gate| drop(gate.until_more_hidden(5)));
    viewers.compare("loading");
    wait_for_log(&mut service, "model loaded");
    viewers.compare("slow");
    let before = hidden_frames(&service);
    until("frames without masks", || (hidden_frames(&service) > before).then_some(()));
    replace(&mut service, folder.path(), Kind::First, FULL, "model changed");
    viewers.until_visible();
    viewers.compare("fast");
    end(service);
}

/// The inference fails with some frames, then the worker pauses.
pub fn a_model_that_cannot_be_run_shows_nothing() {
    let folder = folder(Kind::Failing);
    let file = folder.path().join("clip.mp4");
    write_poison(&file);
    let camera = Camera::show(&file, 0);
    let mut service = start(folder.path(), &gate_and_open(&camera.source()));
    let viewers = Viewers::start(&service);
    viewers.until_visible();
    wait_for_log(&mut service, "segmentation failed");
    let before = hidden_frames(&service);
    until("hidden frames", || (hidden_frames(&service) > before).then_some(()));
    viewers.compare("failed");
    viewers.until_visible();
    viewers.compare("works again");
    end(service);
}
