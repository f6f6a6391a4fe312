//! What is stored or sent elsewhere: recordings, also of a killed service and on a full disk, recorded events with their
//! pre-roll, and images of events.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::capture::of_files;
use crate::common::http::{get_bytes, get_json};
use crate::common::mosquitto::{Broker, Subscriber};
use crate::common::service::Service;
use crate::common::wait::until;
use crate::detect::Findings;
use crate::fixture::{Disk, clip, end, files, folder, open, redacted, reload, start};
use crate::models::Kind;
use crate::paint::{Scene, write_visits, write_walk};

const STREAMS: [&str; 2] = ["gate", "open"];

/// Both streams with these keys.
fn streams(keys: &str) -> String {
    let source = clip("clip.mp4");
    redacted("gate", &source, "fill", keys) + &open("open", &source, keys)
}

fn list(service: &Service, stream: &str) -> Vec<Value> {
    get_json(&format!("{}api/v1/streams/{stream}/recordings", service.page)).as_array().unwrap().clone()
}

/// All frames of the recordings or images of a folder; those of `gate` show nothing, those of `open` the person of a scene.
fn check(rec: &Path, what: &str, scene: Scene) -> [Findings; 2] {
    STREAMS.map(|stream| {
        let files = files(rec, stream);
        let found = of_files(files.iter().map(PathBuf::as_path));
        println!("{what}, {stream}, {} files: {found}", files.len());
        match stream {
            "gate" => {
                assert!(found.frames > 0, "{what} of gate");
                found.assert_clean(&format!("{what} of gate"));
            }
            _ => found.assert_shows(&format!("{what} of open"), &[scene]),
        }
        found
    })
}

fn until_open_has(service: &Service, seconds: f64) {
    for stream in STREAMS {
        until(&format!("an open recording of {stream}"), || {
            let newest = list(service, stream).into_iter().next()?;
            (newest["complete"] == false && newest["seconds"].as_f64() > Some(seconds)).then_some(())
        });
    }
}

/// Both the file as the killed service left it, and the repaired one.
pub fn recordings_of_a_killed_service_show_nothing() {
    let folder = folder(Kind::First);
    write_walk(&folder.path().join("clip.mp4"));
    let rec = folder.path().join("rec");
    let streams = streams("[stream.record]\ndir = \"rec\"\nsegment = \"1m\"\n");
    let mut service = start(folder.path(), &streams);
    until_open_has(&service, 3.0);
    service.program.child.kill();
    let before = check(&rec, "cut off", Scene::Moving);
    let cut_off = STREAMS.map(|stream| files(&rec, stream).pop().unwrap());

    let service = start(folder.path(), &streams);
    for (stream, file) in STREAMS.iter().zip(&cut_off) {
        let name = file.file_name().unwrap().to_str().unwrap();
        until("it is repaired", || {
            list(&service, stream).iter().any(|found| found["name"] == name && found["complete"] == true).then_some(())
        });
    }
    let log = end(service);
    assert!(log.contains("repaired a recording that was cut off"), "{log}");
    let repaired = of_files([cut_off[0].as_path()]);
    assert_eq!(repaired.frames, before[0].frames);
    repaired.assert_clean("the repaired recording");
    check(&rec, "all recordings", Scene::Moving);
}

/// The pre-roll is the video before the event began: the end of the visit before.
pub fn recorded_events_and_images_of_events_show_nothing() {
    let folder = folder(Kind::First);
    write_visits(&folder.path().join("clip.mp4"));
    let broker = Broker::start(folder.path(), "");
    let images = STREAMS.map(|stream| Subscriber::to(broker.port, &format!("maskcast/{stream}/snapshot"), &[]));
    let event = "[stream.record]\ndir = \"rec\"\nwhen = \"event\"\n\
        [[stream.rule]]\nname = \"visit\"\nclasses = [\"person\"]\nshare = 0.01\nfor = \"0s\"\nrecord = true\n\
        pre_roll = \"3s\"\npost_roll = \"500ms\"\n";
    let tables = format!(
        "[history]\ndir = \"state\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nqueue_dir = \"state\"\nsnapshot_every = \"10s\"\n",
        broker.port
    );
    let service = start(folder.path(), &(tables + &streams(event)));
    for stream in STREAMS {
        until("two recorded events", || {
            let complete = list(&service, stream).iter().filter(|recording| recording["complete"] == true).count();
            (complete >= 2).then_some(())
        });
    }
    let snapshots = folder.path().join("snapshots");
    std::fs::create_dir(&snapshots).unwrap();
    let url = format!("{}api/v1/events?limit=100", service.page);
    let events = until("events with images", || {
        let events = get_json(&url).as_array().unwrap().clone();
        let has_images =
            |event: &Value| event["snapshots"]["start"].is_string() && event["snapshots"]["peak"].is_string();
        let of = |stream: &str| events.iter().filter(|event| event["stream"] == stream && has_images(event)).count();
        (of("gate") >= 2 && of("open") >= 2).then_some(events)
    });
    for event in &events {
        for kind in ["start", "peak"] {
            let Some(path) = event["snapshots"][kind].as_str() else { continue };
            let (status, jpeg) = get_bytes(&format!("{}{}", service.page, path.trim_start_matches('/')));
            assert_eq!(status, 200, "{path}");
            let name = format!("{}-{}-{kind}.jpg", event["stream"].as_str().unwrap(), event["id"].as_str().unwrap());
            std::fs::write(snapshots.join(name), jpeg).unwrap();
        }
    }
    check(&snapshots, "images of events", Scene::Growing);

    let mqtt = folder.path().join("mqtt");
    std::fs::create_dir(&mqtt).unwrap();
    for (stream, images) in STREAMS.iter().zip(&images) {
        for n in 0..2 {
            std::fs::write(mqtt.join(format!("{stream}-{n}.jpg")), images.next().payload).unwrap();
        }
    }
    check(&mqtt, "images by MQTT", Scene::Growing);
    end(service);
    let [gate, open] = check(&folder.path().join("rec"), "recorded events", Scene::Growing);
    assert!(gate.scene(Scene::Empty).frames > 0 && open.scene(Scene::Empty).frames > 0, "the pre-roll");
}

/// The pre-roll of the first recording after a reload that adds the redaction.
pub fn a_new_redaction_hides_the_pre_roll_too() {
    let folder = folder(Kind::First);
    write_visits(&folder.path().join("clip.mp4"));
    let rec = folder.path().join("rec");
    let event = "[stream.record]\ndir = \"rec\"\nwhen = \"event\"\n\
        [[stream.rule]]\nname = \"visit\"\nclasses = [\"person\"]\nshare = 0.01\nfor = \"0s\"\nrecord = true\n\
        pre_roll = \"10s\"\npost_roll = \"500ms\"\n";
    let source = clip("clip.mp4");
    let mut service = start(folder.path(), &open("gate", &source, event));
    until("two recorded events", || {
        let complete = list(&service, "gate").iter().filter(|recording| recording["complete"] == true).count();
        (complete >= 2).then_some(())
    });
    let before = of_files(files(&rec, "gate").iter().map(PathBuf::as_path));
    assert!(before.red > 0, "it is not redacted: {before}");

    reload(&mut service, folder.path(), &redacted("gate", &source, "fill", event), "");
    let old = files(&rec, "gate");
    until("two more recordings", || {
        let complete: Vec<Value> =
            list(&service, "gate").into_iter().filter(|found| found["complete"] == true).collect();
        let is_new = |found: &&Value| old.iter().all(|path| !path.ends_with(found["name"].as_str().unwrap()));
        (complete.iter().filter(is_new).count() >= 2).then_some(())
    });
    end(service);
    let new: Vec<PathBuf> = files(&rec, "gate").into_iter().filter(|path| !old.contains(path)).collect();
    let found = of_files(new.iter().map(PathBuf::as_path));
    println!("{} recordings after the reload: {found}", new.len());
    assert!(found.frames > 0);
    found.assert_clean("recordings after the reload");
}

/// The disk is full, then has space again.
pub fn recordings_on_a_full_disk_show_nothing() {
    let disk = Disk::mount(4).unwrap();
    let folder = folder(Kind::First);
    write_walk(&folder.path().join("clip.mp4"));
    let filler = disk.path().join("filler");
    std::fs::write(&filler, vec![0; 3600 << 10]).unwrap();
    let keys = format!("[stream.record]\ndir = {:?}\nsegment = \"1m\"\n", disk.path());
    let service = start(folder.path(), &streams(&keys));
    let failures = |stream: &str| service.metrics().sum("maskcast_recording_failures_total", &[("stream", stream)]);
    // The other stream has filled it.
    until("the disk is full", || (failures("gate") >= 1.0 || failures("open") >= 1.0).then_some(()));
    check(disk.path(), "full disk", Scene::Moving);
    std::fs::remove_file(&filler).unwrap();
    until_open_has(&service, 1.5);
    let log = end(service);
    assert!(log.contains("full"), "{log}");
    check(disk.path(), "space again", Scene::Moving);
}
