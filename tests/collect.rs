//! `[stream.collect]` as a whole: the real program collects frames of real video, within its budget and its limit of the disk.

mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::clip;
use common::harness;
use common::http::send;
use common::program::{maskcast, run, until};
use common::service::{Service, folder};
use jiff::Timestamp;
use maskcast::collect::record::{FrameRecord, FrameState};
use maskcast::collect::store::{Collection, Picture};
use serde_json::{Value, json};
use sha2::Digest as _;
use tempfile::TempDir;

fn main() {
    harness::main(tests![
        frames_of_real_video_are_collected_with_all_their_files,
        a_still_picture_gives_one_frame,
        the_budget_of_the_day_holds_also_after_a_restart,
        the_largest_size_holds_and_accepted_frames_stay,
        a_redacting_stream_collects_nothing_unless_the_file_allows_it,
        a_crop_is_collected_as_the_model_sees_it,
        a_folder_that_cannot_be_written_stops_only_the_collector_and_only_until_it_can,
        a_full_disk_stops_only_the_collector_and_only_until_space_is_free if can_mount,
        clients_of_the_api_cannot_set_the_folder,
    ]);
}

/// A bouncing ball: every frame differs.
const BALL: &str = "test://ball?width=320&height=240&fps=15";

fn stream(source: &str, collect: &str) -> String {
    format!(
        "[[stream]]\nname = \"gate\"\nsource = \"{source}\"\n[stream.collect]\nfolder = \"frames\"\nper_day = 100000\ninterval = \"200ms\"\n{collect}\n"
    )
}

/// The records on the disk, the newest first, without those that were deleted.
fn records(folder: &Path) -> Vec<FrameRecord> {
    let frames = std::fs::read_dir(folder.join("Frames")).into_iter().flatten().flatten();
    let texts = frames.filter_map(|entry| std::fs::read_to_string(entry.path()).ok());
    let mut records: Vec<FrameRecord> = texts.filter_map(|text| serde_json::from_str(&text).ok()).collect();
    records.sort_by(|a, b| b.id.cmp(&a.id));
    records
}

/// Waits until this many frames were collected.
fn until_collected(folder: &Path, least: usize) -> Vec<FrameRecord> {
    until(&format!("{least} frames are collected"), || Some(records(folder)).filter(|found| found.len() >= least))
}

fn stop(service: Service) -> String {
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(!log.contains("panicked") && !log.contains("abandoned"), "{log}");
    log
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_path_buf()
}

/// The bundled model, which has scores, and a public clip of people who walk across a square.
fn frames_of_real_video_are_collected_with_all_their_files() {
    let folder = folder();
    symlink(root().join("models/everyday.onnx"), folder.path().join("everyday.onnx")).unwrap();
    let streams = stream(root().join(".demo/vtest.avi").to_str().unwrap(), "")
        .replace("[stream.collect]", "loop = true\n[stream.collect]");
    let config = common::service::write_config(folder.path(), &streams);
    let text = std::fs::read_to_string(&config).unwrap().replace("channels.onnx", "everyday.onnx");
    std::fs::write(&config, text).unwrap();
    let service = Service::run(&config, &[]);
    let gate = folder.path().join("frames/gate");
    until_collected(&gate, 6);
    // The record of a frame is on the disk before the frame is counted.
    let report = until("six frames are counted", || {
        Some(service.stream("gate")).filter(|report| report["collect"]["frames"].as_u64() >= Some(6))
    });
    assert_eq!(report["masks_needed"], true, "the model runs for the collector: {report}");
    let collect = &report["collect"];
    assert!(collect["frames"].as_u64() >= Some(6) && collect["bytes"].as_u64() > Some(100_000), "{collect}");
    assert_eq!((&collect["waiting"], &collect["reason"]), (&collect["frames"], &Value::Null), "{collect}");
    let counted = service.metrics().sum("maskcast_collect_frames_total", &[("stream", "gate")]);
    assert!(counted >= 6.0, "{counted}");
    stop(service);

    let collection = Collection::open(&gate).unwrap();
    assert_eq!(collection.problems(), []);
    let sha256 = hex::encode(sha2::Sha256::digest(std::fs::read(root().join("models/everyday.onnx")).unwrap()));
    let frames = collection.frames();
    let reasons: BTreeSet<&str> = frames.iter().map(|frame| frame.reason.name()).collect();
    assert!(reasons.contains("uncertain") && reasons.contains("novel"), "{reasons:?}");
    for frame in &frames {
        assert_eq!((frame.width, frame.height, frame.state, frame.revision), (768, 576, FrameState::New, 0));
        assert_eq!((frame.stream.as_str(), frame.model.sha256.as_str()), ("gate", sha256.as_str()));
        assert!((0.01..0.9).contains(&frame.uncertainty), "{frame:?}");
        assert!(frame.confidence.is_some_and(|confidence| (0.3..1.0).contains(&confidence)), "{frame:?}");
        let age = Timestamp::now().duration_since(frame.captured).as_secs_f64();
        assert!((0.0..600.0).contains(&age), "{frame:?}");
        assert_eq!(collection.label(&frame.id).unwrap(), (collection.proposal(&frame.id).unwrap(), 0));
    }
    // The JPEG is the frame that the mask belongs to: its colours are those of the clip.
    let jpeg = gate.join(format!("JPEGImages/{}.jpg", frames[0].id));
    let probe = clip::probe(&jpeg);
    assert_eq!((probe.width, probe.height), (768, 576));
    // The same moment of the clip does not come twice, though the clip is repeated.
    let ids: BTreeSet<&str> = frames.iter().map(|frame| frame.id.as_str()).collect();
    assert_eq!(ids.len(), frames.len());
}

fn a_still_picture_gives_one_frame() {
    let folder = folder();
    let still = folder.path().join("still.mp4");
    clip::ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        "testsrc2=size=320x240:rate=10:duration=0.1",
        "-vf",
        "loop=loop=49:size=1",
        still.to_str().unwrap(),
    ]);
    let source = format!("{}\"\nloop = true\nmasks = \"always", still.display());
    let service = Service::ready(folder.path(), &stream(&source, ""));
    let gate = folder.path().join("frames/gate");
    until_collected(&gate, 1);
    // Several slots of 200 ms.
    service.until_published("gate", service.published("gate") + 60);
    stop(service);
    assert_eq!(records(&gate).len(), 1);
}

fn the_budget_of_the_day_holds_also_after_a_restart() {
    let folder = folder();
    let gate = folder.path().join("frames/gate");
    // A slot is an eighth of a day divided by the budget, but at most the interval after the first frame.
    let streams = stream(BALL, "").replace("per_day = 100000", "per_day = 4");
    let service = Service::ready(folder.path(), &streams);
    until_collected(&gate, 1);
    assert_eq!(service.stream("gate")["collect"]["today"], 1);
    service.until_published("gate", service.published("gate") + 60);
    assert_eq!(records(&gate).len(), 1, "the budget is not spent at once");
    stop(service);

    // The frames of today count after a restart.
    let streams = stream(BALL, "").replace("per_day = 100000", "per_day = 1");
    let service = Service::ready(folder.path(), &streams);
    until("the budget is used up", || (service.stream("gate")["collect"]["today"] == 1).then_some(()));
    until("the model does not run for a collector without a budget", || {
        (service.stream("gate")["masks_needed"] == false).then_some(())
    });
    assert_eq!(records(&gate).len(), 1);
    stop(service);
}

fn the_largest_size_holds_and_accepted_frames_stay() {
    let folder = folder();
    let gate = folder.path().join("frames/gate");
    let source = "test://snow?width=320&height=240&fps=15";
    let service = Service::ready(folder.path(), &stream(BALL, ""));
    let accepted = until_collected(&gate, 2).pop().unwrap().id;
    stop(service);
    Collection::open(&gate).unwrap().set_state(&accepted, FrameState::Accepted, 0).unwrap();

    let service = Service::ready(folder.path(), &stream(source, "max_size = \"300kB\""));
    let evicted = || service.metrics().sum("maskcast_collect_evicted_total", &[("stream", "gate")]);
    until("frames were deleted for space", || (evicted() >= 3.0).then_some(()));
    let bytes = service.stream("gate")["collect"]["bytes"].as_u64().unwrap();
    assert!(bytes <= 500_000, "{bytes}");
    stop(service);
    let collection = Collection::open(&gate).unwrap();
    assert!(collection.frame(&accepted).unwrap().has_pictures());
    assert!(collection.size().bytes <= 300_000, "{:?}", collection.size());
    assert!(collection.frames().iter().any(|frame| frame.evicted && frame.state == FrameState::Discarded));
}

fn a_redacting_stream_collects_nothing_unless_the_file_allows_it() {
    let folder = folder();
    let gate = folder.path().join("frames/gate");
    let streams = |allow: &str| format!("{}[stream.redact]\nclasses = [\"red\"]\n", stream(BALL, allow));
    let service = Service::ready(folder.path(), &streams(""));
    assert_eq!(service.stream("gate")["collect"], Value::Null);
    service.until_published("gate", 60);
    stop(service);
    assert!(!gate.exists(), "unredacted frames are on the disk");
    let checked = || {
        let ended = run(maskcast().arg("check").arg(folder.path().join("maskcast.toml")));
        String::from_utf8_lossy(&ended.stdout).into_owned()
    };
    assert!(checked().contains("collects no frames: they would show what [stream.redact] hides"), "{}", checked());

    let state = folder.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let variables = [("STATE_DIRECTORY", state.to_str().unwrap())];
    let service = Service::with(folder.path(), &streams(""), &variables);
    until("the redaction is remembered", || state.join("redaction.json").exists().then_some(()));
    stop(service);
    let service = Service::with(folder.path(), &streams("allow_redacted = true"), &variables);
    until_collected(&gate, 1);
    let weakened = service.stream("gate")["redaction_weakened"].clone();
    assert!(weakened[0]["change"].as_str().unwrap().contains("collect.allow_redacted"), "{weakened}");
    let log = stop(service);
    assert!(log.contains("redaction weakened by the configuration file: collect.allow_redacted"), "{log}");
    assert!(
        checked().contains("UNREDACTED frames") && checked().contains("warning  stream[gate].collect"),
        "{}",
        checked()
    );
}

fn a_crop_is_collected_as_the_model_sees_it() {
    let folder = folder();
    let gate = folder.path().join("frames/gate");
    let streams = stream(BALL, "").replace("[stream.collect]", "crop = [0.5, 0, 0.5, 0.5]\n[stream.collect]");
    let service = Service::ready(folder.path(), &streams);
    let found = until_collected(&gate, 1);
    stop(service);
    assert_eq!((found[0].width, found[0].height), (160, 120));
    let collection = Collection::open(&gate).unwrap();
    let png = collection.picture(&found[0].id, Picture::Label).unwrap();
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; 160 * 120];
    reader.next_frame(&mut pixels).unwrap();
    assert!(pixels.iter().all(|&class| class < 3), "void pixels: the mask is not that of the crop");
}

fn a_folder_that_cannot_be_written_stops_only_the_collector_and_only_until_it_can() {
    let folder = folder();
    let gate = folder.path().join("frames/gate");
    // A file in the place of the folder: root cannot write into it either.
    std::fs::create_dir(folder.path().join("frames")).unwrap();
    std::fs::write(&gate, "").unwrap();
    let service = Service::ready(folder.path(), &stream(BALL, ""));
    let failed = until("a second attempt has failed", || {
        Some(service.stream("gate")["collect"].clone()).filter(|collect| collect["failures"].as_u64() >= Some(2))
    });
    assert!(failed["reason"].as_str().unwrap().contains("frames/gate"), "{failed}");
    service.until_published("gate", service.published("gate") + 15);
    std::fs::remove_file(&gate).unwrap();
    until_collected(&gate, 1);
    let log = stop(service);
    assert!(log.contains("frames are not collected, next try in 10 s"), "{log}");
}

/// A small tmpfs.
struct Disk(TempDir);

impl Disk {
    fn mount(megabytes: u32) -> Result<Self, String> {
        let disk = Disk(tempfile::tempdir().unwrap());
        let size = format!("size={megabytes}m");
        let ended = run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(disk.0.path()));
        if ended.code == Some(0) { Ok(disk) } else { Err(ended.stderr.lines().next().unwrap_or_default().to_owned()) }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).stderr(Stdio::null()).status();
    }
}

fn can_mount() -> Result<(), String> {
    let mounted = Disk::mount(1).map(drop);
    mounted.map_err(|error| format!("mounting a tmpfs needs root: {error}"))
}

fn a_full_disk_stops_only_the_collector_and_only_until_space_is_free() {
    let disk = Disk::mount(4).unwrap();
    let folder = folder();
    let filler = disk.0.path().join("filler");
    // Fails at the end of the disk, and leaves no space.
    std::fs::write(&filler, vec![0; 5 << 20]).unwrap_err();
    let streams = stream(BALL, "").replace("\"frames\"", &format!("\"{}\"", disk.0.path().display()));
    let service = Service::ready(folder.path(), &streams);
    let failed = until("an attempt has failed", || {
        Some(service.stream("gate")["collect"].clone()).filter(|collect| collect["failures"].as_u64() >= Some(1))
    });
    assert!(failed["reason"].as_str().unwrap().contains("space"), "{failed}");
    service.until_published("gate", service.published("gate") + 15);
    assert_eq!(service.stream("gate")["state"], "live");
    std::fs::remove_file(&filler).unwrap();
    until_collected(&disk.0.path().join("gate"), 2);
    stop(service);
    assert_eq!(Collection::open(&disk.0.path().join("gate")).unwrap().problems(), []);
}

fn clients_of_the_api_cannot_set_the_folder() {
    let folder = folder();
    let service = Service::ready(folder.path(), &stream(BALL, ""));
    let url = format!("{}api/v1/streams/gate", service.page);
    for collect in [json!({"folder": "/srv"}), json!({"per_day": 5}), Value::Null] {
        let (status, _, problem) = send("PATCH", &url, Some(&json!({ "collect": collect }).to_string()));
        let problem: Value = serde_json::from_str(&problem).unwrap();
        assert_eq!((status, &problem["errors"][0]["key"]), (403, &json!("stream[gate].collect")), "{problem}");
    }
    stop(service);
}
