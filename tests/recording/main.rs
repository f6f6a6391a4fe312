//! Recordings as a whole: files that follow each other, that are removed, that begin before an event, that a browser can
//! seek in, and what the API says of them.

#[path = "../common/mod.rs"]
mod common;

mod recordings;

use std::path::{Path, PathBuf};

use common::browser::Browser;
use common::clip;
use common::http::{get, get_json};
use common::program::{DEADLINE, until};
use common::service::{Service, account, folder};
use recordings::{frames, list, stream};
use serde_json::{Value, json};

/// The files in `folder/rec`, in the order of their names.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder.join("rec")) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name(path: &Path) -> &str {
    path.file_name().unwrap().to_str().unwrap()
}

/// Waits until the API lists so many recordings that are whole; gives all.
fn until_whole(service: &Service, count: usize) -> Vec<Value> {
    until(&format!("{count} whole recordings"), || {
        let list = list(service);
        (list.iter().filter(|recording| recording["complete"] == true).count() >= count).then_some(list)
    })
}

/// The keyframes come far apart by themselves: each cut is by one that was asked for.
#[test]
fn segments_have_their_length_and_no_frame_is_lost_between_them() {
    let folder = folder();
    for format in ["mp4", "mkv"] {
        let record = format!("segment = \"2s\"\nformat = \"{format}\"");
        let mut service = Service::start(folder.path(), &stream(15, "&frames=150", &record));
        let (code, log) = service.program.ended();
        assert_eq!(code, Some(0), "{log}");
        assert!(!log.contains("ERROR") && !log.contains("cannot close a recording"), "{log}");
        let files: Vec<PathBuf> =
            files(folder.path()).into_iter().filter(|file| file.extension().unwrap() == format).collect();
        assert!((4..=5).contains(&files.len()), "{files:?}");
        let account = account(&log, "gate");
        assert_eq!(frames(&files), account.published, "{account:?} {log}");
        for file in &files[..files.len() - 1] {
            let length = clip::probe(file).duration;
            assert!((1.9..3.0).contains(&length), "{} has {length} s", file.display());
        }
    }
}

#[test]
fn segments_have_their_size() {
    let folder = folder();
    let streams = stream(15, "&frames=150", "segment_size = \"200kB\"")
        .replace("ball", "snow")
        .replace("encode.keyframe_interval", "encode.bitrate = 1000\nencode.keyframe_interval");
    let mut service = Service::start(folder.path(), &streams);
    let (code, log) = service.program.ended();
    assert_eq!(code, Some(0), "{log}");
    let files = files(folder.path());
    assert!(files.len() > 3, "{files:?}");
    assert_eq!(frames(&files), account(&log, "gate").published, "{log}");
    for file in &files[..files.len() - 1] {
        let bytes = file.metadata().unwrap().len();
        assert!((190_000..400_000).contains(&bytes), "{} has {bytes} bytes", file.display());
    }
}

/// The next start makes a browser's file of it.
#[test]
fn a_killed_recording_is_playable_and_whole_after_the_next_start() {
    let folder = folder();
    let streams = stream(15, "", "segment = \"3s\"");
    let mut service = Service::ready(folder.path(), &streams);
    until_whole(&service, 1);
    let open = until("the next file has two seconds", || {
        let newest = list(&service).remove(0);
        (newest["complete"] == false && newest["seconds"].as_f64() > Some(2.0)).then_some(newest)
    });
    service.program.child.0.kill().unwrap();
    service.program.ended();
    let cut_off = folder.path().join("rec").join(open["name"].as_str().unwrap());
    let before = clip::probe(&cut_off).frames;
    assert!(before >= 14, "{before} frames of {open}");
    std::fs::write(cut_off.with_extension("mp4.part"), "of an earlier repair").unwrap();

    let service = Service::ready(folder.path(), &streams);
    let whole = until("it is whole", || {
        list(&service).into_iter().find(|recording| recording["name"] == open["name"] && recording["complete"] == true)
    });
    assert_eq!(frames(std::slice::from_ref(&cut_off)), before);
    let length = whole["seconds"].as_f64().unwrap();
    assert!((length - before as f64 / 15.0).abs() < 0.5, "{whole}");
    assert!(!cut_off.with_extension("mp4.part").exists());
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("repaired a recording that was cut off"), "{log}");
}

#[test]
fn recordings_are_removed_by_age_and_size_and_nothing_else_is() {
    let folder = folder();
    let rec = folder.path().join("rec");
    std::fs::create_dir(&rec).unwrap();
    let others = ["gate-20200101T000000Z.txt", "gate-2-20200101T000000Z.mp4", "yard-20200101T000000Z.mp4"];
    for file in others.iter().chain(&["gate-20200101T000000Z.mp4", "gate-20200101T000000Z-visit.mkv"]) {
        std::fs::write(rec.join(file), [0; 1000]).unwrap();
    }
    let record = "segment = \"1s\"\nmax_age = \"1d\"\nmax_size = \"200kB\"";
    let streams = stream(15, "", record).replace("encode.k", "encode.bitrate = 500\nencode.k").replace("ball", "snow");
    let service = Service::ready(folder.path(), &streams);
    let removed =
        |reason| service.metrics().sum("maskcast_recordings_removed_total", &[("stream", "gate"), ("reason", reason)]);
    until("three have gone for the size", || (removed("size") >= 3.0).then_some(()));
    assert_eq!((removed("age"), removed("space"), removed("request")), (2.0, 0.0, 0.0));
    let left = files(folder.path());
    for file in others {
        assert!(left.contains(&rec.join(file)), "{file} is gone: {left:?}");
    }
    let sizes: Vec<u64> = list(&service).iter().map(|recording| recording["bytes"].as_u64().unwrap()).collect();
    // Looked after at each new file: one of them may be over.
    let most = 200_000 + sizes.iter().max().unwrap();
    assert!(sizes.iter().sum::<u64>() <= most, "{sizes:?}");
    let metrics = service.metrics();
    let files = metrics.sum("maskcast_recording_files", &[("stream", "gate")]);
    assert!((1.0..10.0).contains(&files), "{files}");
    let bytes = metrics.sum("maskcast_recording_bytes", &[("stream", "gate")]);
    assert!(bytes > 10_000.0 && bytes <= most as f64, "{bytes}");
    let (_, _, log) = service.terminate();
    assert!(log.contains("removed 2 recordings") && log.contains("older than max_age"), "{log}");
}

/// Blue, red for three seconds, and blue again.
fn visitor(path: &Path) {
    let graph = "color=blue:s=320x240:r=15:d=5[a];color=red:s=320x240:r=15:d=3[b];color=blue:s=320x240:r=15:d=6[c];\
                 [a][b][c]concat=n=3,format=yuv420p";
    clip::ffmpeg(&[
        "-filter_complex",
        graph,
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-g",
        "15",
        path.to_str().unwrap(),
    ]);
}

fn event_begins_before_and_ends_after(show: &str) {
    let folder = folder();
    visitor(&folder.path().join("clip.mp4"));
    let streams = format!(
        "[[stream]]\nname = \"gate\"\nsource = \"file:clip.mp4\"\nloop = true\nshow = \"{show}\"\n\
         overlay.legend = false\nencode.keyframe_interval = \"500ms\"\n\
         [stream.record]\ndir = \"rec\"\nwhen = \"event\"\n\
         [[stream.record.event]]\nname = \"visit\"\nclasses = [\"red\"]\nzone = [[0, 0.5], [1, 0.5], [1, 1], [0, 1]]\n\
         share = 0.5\nfor = \"1s\"\npre_roll = \"2s\"\npost_roll = \"1s\"\n\
         [[stream.record.event]]\nname = \"never\"\nclasses = [\"green\"]\n"
    );
    let service = Service::ready(folder.path(), &streams);
    let recordings = until_whole(&service, 1);
    let visit = recordings.last().unwrap();
    assert_eq!(visit["event"], "visit", "{visit}");
    let events = |event| service.metrics().sum("maskcast_events_total", &[("stream", "gate"), ("event", event)]);
    assert!(events("visit") >= 1.0);
    assert_eq!(events("never"), 0.0);
    assert!(recordings.len() <= 2, "nothing is recorded between the events: {recordings:?}");
    let file = folder.path().join("rec").join(visit["name"].as_str().unwrap());
    assert!(name(&file).ends_with("Z-visit.mp4"), "{}", file.display());
    assert_eq!(clip::decode_errors(&file), "");
    let times = clip::times(&file);
    let class_at = |seconds: f64| {
        let number = times.iter().position(|time| *time >= seconds).unwrap();
        clip::decoded_frame(&file, number).class_at(160, 120)
    };
    // Two seconds before the red and up to a keyframe more, three seconds of red, one after it.
    let length = *times.last().unwrap();
    assert!((5.3..8.0).contains(&length), "{length} s");
    let red = (0..).map(|n| f64::from(n) / 4.0).take_while(|at| *at < length).find(|at| class_at(*at) == 0);
    let red = red.expect("it shows the red");
    assert!((1.5..3.3).contains(&red), "red comes after {red} s");
    assert_eq!((class_at(0.0), class_at(red + 2.0), class_at(length)), (2, 0, 2), "blue, red, blue");
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("\"event\":\"visit\""), "{log}");
}

#[test]
fn an_event_is_recorded_from_before_it_until_after_it_at_full_rate() {
    event_begins_before_and_ends_after("full-rate");
}

#[test]
fn an_event_is_recorded_from_before_it_until_after_it_with_matched_masks() {
    event_begins_before_and_ends_after("matched");
}

#[test]
fn an_event_of_a_class_that_the_model_does_not_know_is_a_configuration_error() {
    let folder = folder();
    let event = "when = \"event\"\n[[stream.record.event]]\nclasses = [\"red\", \"person\"]";
    let config = common::service::write_config(folder.path(), &stream(15, "", event));
    let ended = common::program::run(common::program::maskcast().arg("run").arg(config));
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    let says = "stream[gate].record.event[0].classes: the model has no class \"person\"";
    assert!(ended.stderr.contains(says) && ended.stderr.contains("red, green, blue"), "{}", ended.stderr);
}

/// Status, headers and body of a request.
fn request(method: &str, url: &str, headers: &[(&str, &str)]) -> (u16, ureq::http::HeaderMap, Vec<u8>) {
    let mut request = ureq::http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE)).build().into();
    let mut response = agent.run(request.body(()).unwrap()).unwrap_or_else(|error| panic!("{method} {url}: {error}"));
    let body = if method == "HEAD" { Vec::new() } else { response.body_mut().read_to_vec().unwrap() };
    (response.status().as_u16(), response.headers().clone(), body)
}

#[test]
fn recordings_are_listed_downloaded_in_parts_and_removed() {
    let folder = folder();
    let streams = stream(15, "", "segment = \"3s\"")
        + "[[stream]]\nname = \"bare\"\nsource = \"test://ball?width=320&height=240&fps=5\"\n";
    let service = Service::ready(folder.path(), &streams);
    let all = until_whole(&service, 3);
    let at = |path: &str| format!("{}{}", service.page, path.trim_start_matches('/'));
    let names: Vec<&str> = all.iter().map(|recording| recording["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted_by(|a, b| a > b), "the newest first: {names:?}");
    assert_eq!(all[0]["complete"], false, "the newest is being written");
    let whole = &all[1];
    let file = folder.path().join("rec").join(whole["name"].as_str().unwrap());
    let probe = clip::probe(&file);
    assert!((whole["seconds"].as_f64().unwrap() - probe.duration).abs() < 0.1, "{whole} {probe:?}");
    assert_eq!(whole["bytes"], file.metadata().unwrap().len());
    assert_eq!(whole["event"], Value::Null);
    let start: jiff::Timestamp = whole["start"].as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(start).as_secs() < 120, "{whole}");
    let page = |query: &str| get_json(&at(&format!("api/v1/streams/gate/recordings?{query}")));
    let second = page(&format!("limit=1&before={}", names[1]));
    assert_eq!(second.as_array().unwrap().len(), 1);
    assert_eq!(second[0]["name"], names[2]);
    assert_eq!(get_json(&at("api/v1/streams/bare/recordings")), json!([]));

    let url = at(whole["url"].as_str().unwrap());
    let content = std::fs::read(&file).unwrap();
    let (status, headers, body) = request("GET", &url, &[]);
    assert_eq!((status, body.len()), (200, content.len()));
    assert_eq!(headers["content-type"], "video/mp4");
    assert_eq!(headers["accept-ranges"], "bytes");
    assert!(headers.contains_key("last-modified"));
    let etag = headers["etag"].to_str().unwrap();
    assert_eq!(request("GET", &url, &[("if-none-match", etag)]).0, 304);
    let (status, headers, body) = request("GET", &url, &[("range", "bytes=100-199")]);
    assert_eq!((status, &body[..]), (206, &content[100..200]));
    assert_eq!(headers["content-range"], format!("bytes 100-199/{}", content.len()));
    // What is no range, and several, may be ignored.
    for range in ["bytes=abc", "bytes=9-1", "bytes=0-0,5-9"] {
        let (status, _, body) = request("GET", &url, &[("range", range)]);
        assert!(status == 200 && body.len() > 200, "{range}: {status}");
    }
    let (status, headers, body) = request("GET", &url, &[("range", "bytes=99999999-")]);
    assert_eq!((status, &headers["content-type"]), (416, &"application/problem+json".parse().unwrap()));
    assert_eq!(headers["content-range"], format!("bytes */{}", content.len()), "{}", String::from_utf8_lossy(&body));
    let (status, headers, _) = request("HEAD", &url, &[]);
    assert_eq!((status, headers["content-length"].to_str().unwrap()), (200, &*content.len().to_string()));

    // The one that is being written can be watched once it has a second.
    let open = until("a recording with a second in it", || {
        let newest = list(&service).remove(0);
        (newest["complete"] == false && newest["seconds"].as_f64() > Some(1.5)).then_some(newest)
    });
    let (status, _, body) = request("GET", &at(open["url"].as_str().unwrap()), &[]);
    let copy = folder.path().join("copy.mp4");
    std::fs::write(&copy, body).unwrap();
    assert!(status == 200 && clip::probe(&copy).frames >= 10, "{status}");

    assert_eq!(request("DELETE", &url, &[]).0, 204);
    assert!(!file.exists());
    for method in ["GET", "DELETE"] {
        let (status, headers, _) = request(method, &url, &[]);
        assert_eq!((status, &headers["content-type"]), (404, &"application/problem+json".parse().unwrap()));
    }
    let (status, _, body) = until("a refusal to remove the open one", || {
        let open = list(&service).into_iter().find(|recording| recording["complete"] == false)?;
        Some(request("DELETE", &at(open["url"].as_str().unwrap()), &[])).filter(|answer| answer.0 != 204)
    });
    assert_eq!(status, 409, "{}", String::from_utf8_lossy(&body));
    let removed = [("stream", "gate"), ("reason", "request")];
    assert!(service.metrics().sum("maskcast_recordings_removed_total", &removed) >= 1.0);
}

#[test]
fn no_name_leads_out_of_the_recordings() {
    let folder = folder();
    let rec = folder.path().join("rec");
    std::fs::create_dir(&rec).unwrap();
    std::fs::write(rec.join("notes.txt"), "secret").unwrap();
    std::fs::write(rec.join("yard-20200101T000000Z.mp4"), "secret").unwrap();
    std::fs::write(folder.path().join("gate-20200101T000000Z.mp4"), "secret").unwrap();
    std::os::unix::fs::symlink(folder.path().join("maskcast.toml"), rec.join("gate-20200102T000000Z.mp4")).unwrap();
    let service = Service::ready(folder.path(), &stream(15, "", ""));
    for name in [
        "notes.txt",
        "yard-20200101T000000Z.mp4",
        "gate-20200102T000000Z.mp4",
        "..%2fmaskcast.toml",
        "..%2Fgate-20200101T000000Z.mp4",
        "%2e%2e%2fgate-20200101T000000Z.mp4",
        "..%5cgate-20200101T000000Z.mp4",
        "gate-20200101T000000Z%2f..%2f..%2fmaskcast.toml",
        "%2fetc%2fpasswd",
        "gate-20200101T000000Z.mp4%00",
        "%ff",
        "..",
        "%2e",
        "gate-",
    ] {
        for method in ["GET", "DELETE"] {
            let url = format!("{}api/v1/streams/gate/recordings/{name}", service.page);
            let (status, _, body) = request(method, &url, &[]);
            let body = String::from_utf8_lossy(&body);
            assert!((400..410).contains(&status), "{method} {name}: {status} {body}");
            assert!(!body.contains("secret") && !body.contains("[model]"), "{method} {name}: {body}");
        }
    }
    for query in ["limit=0", "limit=1001", "limit=x", "before=..%2fmaskcast.toml", "before=notes.txt"] {
        let (status, body) = get(&format!("{}api/v1/streams/gate/recordings?{query}", service.page));
        assert!(status == 400 && body.contains("about:blank"), "{query}: {status} {body}");
    }
    assert_eq!(get(&format!("{}api/v1/streams/none/recordings", service.page)).0, 404);
    assert!(rec.join("notes.txt").exists() && folder.path().join("maskcast.toml").exists());
}

/// Plays `file` in the browser's page; what is known once its header is read.
const PLAY: &str = "const video = document.createElement('video'); video.muted = true; video.id = 'video';
    document.querySelectorAll('#video').forEach((old) => old.remove());
    video.src = 'URL'; document.body.append(video); return true;";

const KNOWN: &str = "const video = document.getElementById('video');
    if (video.error) return ['error', video.error.message];
    return video.readyState >= 2 && [video.duration, video.seekable.length && video.seekable.end(0), video.videoWidth];";

/// Seconds, rounded by the browser, of the place that it has jumped to and shows.
const JUMP: &str = "const video = document.getElementById('video');
    if (video.error) return ['error', video.error.message];
    if (!video.dataset.jumped) { video.dataset.jumped = 1; video.currentTime = TIME; return null; }
    return !video.seeking && video.readyState >= 2 && video.currentTime;";

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_seeks_in_recordings_whole_and_mended_and_plays_the_open_one() {
    let folder = folder();
    let streams = stream(15, "", "segment = \"6s\"");
    let (mended, service) = tokio::task::block_in_place(|| {
        let mut service = Service::ready(folder.path(), &streams);
        until("five seconds", || (list(&service)[0]["seconds"].as_f64() > Some(4.5)).then_some(()));
        service.program.child.0.kill().unwrap();
        service.program.ended();
        let service = Service::ready(folder.path(), &streams);
        let mended = until_whole(&service, 1).pop().unwrap();
        (mended, service)
    });
    let whole = tokio::task::block_in_place(|| until_whole(&service, 2).remove(1));
    assert_ne!(whole["name"], mended["name"]);
    let browser = Browser::start().await;
    browser.client.goto(&service.page).await.unwrap();
    for recording in [&whole, &mended] {
        browser.run(&PLAY.replace("URL", recording["url"].as_str().unwrap())).await;
        let known = browser.until("it can be played", KNOWN).await;
        let seconds = recording["seconds"].as_f64().unwrap();
        let duration = known[0].as_f64().unwrap_or_else(|| panic!("{known} of {recording}"));
        assert!((duration - seconds).abs() < 0.2 && known[1] == known[0] && known[2] == 320, "{known} of {recording}");
        let time = (seconds - 1.2).to_string();
        let at = browser.until("it has jumped", &JUMP.replace("TIME", &time)).await;
        assert!((at.as_f64().unwrap_or(-1.0) - (seconds - 1.2)).abs() < 0.1, "{at} of {recording}");
    }
    let open = tokio::task::block_in_place(|| {
        until("an open recording with two seconds", || {
            let newest = list(&service).remove(0);
            (newest["complete"] == false && newest["seconds"].as_f64() > Some(2.5)).then_some(newest)
        })
    });
    browser.run(&PLAY.replace("URL", open["url"].as_str().unwrap())).await;
    let known = browser.until("the open one can be played", KNOWN).await;
    assert_eq!(known[2], 320, "{known} of {open}");
    browser.run("document.getElementById('video').play(); return true;").await;
    browser.until("it plays", "return document.getElementById('video').currentTime > 0.5;").await;
}
