//! Recordings: segments, deletion, events with pre-roll, seeking in a browser, repair, and the API.

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

/// Waits until the API lists this many complete recordings; returns all.
fn until_complete(service: &Service, count: usize) -> Vec<Value> {
    until(&format!("{count} complete recordings"), || {
        let list = list(service);
        (list.iter().filter(|recording| recording["complete"] == true).count() >= count).then_some(list)
    })
}

/// The keyframe interval is long, so each segment starts with a keyframe that the recorder requested.
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

/// The next start repairs the recording, so that browsers can play it.
#[test]
fn a_recording_of_a_killed_service_is_playable_and_is_repaired_at_the_next_start() {
    let folder = folder();
    let streams = stream(15, "", "segment = \"3s\"");
    let mut service = Service::ready(folder.path(), &streams);
    until_complete(&service, 1);
    let open = until("the next file has two seconds", || {
        let newest = list(&service).remove(0);
        (newest["complete"] == false && newest["seconds"].as_f64() > Some(2.0)).then_some(newest)
    });
    service.program.child.0.kill().unwrap();
    service.program.ended();
    let incomplete = folder.path().join("rec").join(open["name"].as_str().unwrap());
    let before = clip::probe(&incomplete).frames;
    assert!(before >= 14, "{before} frames of {open}");
    std::fs::write(incomplete.with_extension("mp4.part"), "of an earlier repair").unwrap();

    let service = Service::ready(folder.path(), &streams);
    let complete = until("the recording is complete", || {
        list(&service).into_iter().find(|recording| recording["name"] == open["name"] && recording["complete"] == true)
    });
    assert_eq!(frames(std::slice::from_ref(&incomplete)), before);
    let length = complete["seconds"].as_f64().unwrap();
    assert!((length - before as f64 / 15.0).abs() < 0.5, "{complete}");
    assert!(!incomplete.with_extension("mp4.part").exists());
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("repaired a recording that was cut off"), "{log}");
}

#[test]
fn only_recordings_are_deleted_by_age_and_size() {
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
    until("three recordings are deleted because of max_size", || (removed("size") >= 3.0).then_some(()));
    assert_eq!((removed("age"), removed("space"), removed("request")), (2.0, 0.0, 0.0));
    let left = files(folder.path());
    for file in others {
        assert!(left.contains(&rec.join(file)), "{file} was deleted: {left:?}");
    }
    let sizes: Vec<u64> = list(&service).iter().map(|recording| recording["bytes"].as_u64().unwrap()).collect();
    // The size is checked at each new file, so it may exceed the limit by one file.
    let most = 200_000 + sizes.iter().max().unwrap();
    assert!(sizes.iter().sum::<u64>() <= most, "{sizes:?}");
    let metrics = service.metrics();
    let files = metrics.sum("maskcast_recording_files", &[("stream", "gate")]);
    assert!((1.0..10.0).contains(&files), "{files}");
    let bytes = metrics.sum("maskcast_recording_bytes", &[("stream", "gate")]);
    assert!(bytes > 10_000.0 && bytes <= most as f64, "{bytes}");
    let (_, _, log) = service.terminate();
    // In one line or two: a recording that is being checked for repair is deleted later.
    let too_old = log.lines().filter(|line| line.contains("older than max_age"));
    let counts = too_old
        .map(|line| line.split_once("removed ").and_then(|(_, text)| text.split(' ').next()?.parse::<u32>().ok()));
    assert_eq!(counts.sum::<Option<u32>>(), Some(2), "{log}");
}

/// Writes a clip: blue, red for three seconds, blue again.
fn write_event_clip(path: &Path) {
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

fn check_event_recording(show: &str) {
    let folder = folder();
    write_event_clip(&folder.path().join("clip.mp4"));
    let streams = format!(
        "[[stream]]\nname = \"gate\"\nsource = \"file:clip.mp4\"\nloop = true\nshow = \"{show}\"\n\
         overlay.legend = false\nencode.keyframe_interval = \"500ms\"\n\
         [stream.record]\ndir = \"rec\"\nwhen = \"event\"\n\
         [[stream.record.event]]\nname = \"visit\"\nclasses = [\"red\"]\nzone = [[0, 0.5], [1, 0.5], [1, 1], [0, 1]]\n\
         share = 0.5\nfor = \"1s\"\npre_roll = \"2s\"\npost_roll = \"1s\"\n\
         [[stream.record.event]]\nname = \"never\"\nclasses = [\"green\"]\n"
    );
    let service = Service::ready(folder.path(), &streams);
    let recordings = until_complete(&service, 1);
    let visit = recordings.last().unwrap();
    assert_eq!(visit["event"], "visit", "{visit}");
    let events = |event| service.metrics().sum("maskcast_events_total", &[("stream", "gate"), ("event", event)]);
    assert!(events("visit") >= 1.0);
    assert_eq!(events("never"), 0.0);
    assert!(recordings.len() <= 2, "only events are recorded: {recordings:?}");
    let file = folder.path().join("rec").join(visit["name"].as_str().unwrap());
    assert!(name(&file).ends_with("Z-visit.mp4"), "{}", file.display());
    assert_eq!(clip::decode_errors(&file), "");
    let times = clip::times(&file);
    let class_at = |seconds: f64| {
        let number = times.iter().position(|time| *time >= seconds).unwrap();
        clip::decoded_frame(&file, number).class_at(160, 120)
    };
    // Two seconds before the red plus up to one keyframe interval, three seconds of red, one second after it.
    let length = *times.last().unwrap();
    assert!((5.3..8.0).contains(&length), "{length} s");
    let red = (0..).map(|n| f64::from(n) / 4.0).take_while(|at| *at < length).find(|at| class_at(*at) == 0);
    let red = red.expect("the recording contains red frames");
    assert!((1.5..3.3).contains(&red), "the first red frame is at {red} s");
    assert_eq!((class_at(0.0), class_at(red + 2.0), class_at(length)), (2, 0, 2), "blue, red, blue");
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("\"event\":\"visit\""), "{log}");
}

#[test]
fn an_event_is_recorded_with_pre_roll_and_post_roll_at_full_rate() {
    check_event_recording("full-rate");
}

#[test]
fn an_event_is_recorded_with_pre_roll_and_post_roll_with_matched_masks() {
    check_event_recording("matched");
}

#[test]
fn an_event_with_a_class_that_the_model_lacks_is_a_configuration_error() {
    let folder = folder();
    let event = "when = \"event\"\n[[stream.record.event]]\nclasses = [\"red\", \"person\"]";
    let config = common::service::write_config(folder.path(), &stream(15, "", event));
    let ended = common::program::run(common::program::maskcast().arg("run").arg(config));
    assert_eq!(ended.code, Some(78), "{}", ended.stderr);
    let message = "stream[gate].record.event[0].classes: the model has no class \"person\"";
    assert!(ended.stderr.contains(message) && ended.stderr.contains("red, green, blue"), "{}", ended.stderr);
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
fn recordings_can_be_listed_downloaded_in_ranges_and_deleted() {
    let folder = folder();
    let streams = stream(15, "", "segment = \"3s\"")
        + "[[stream]]\nname = \"bare\"\nsource = \"test://ball?width=320&height=240&fps=5\"\n";
    let service = Service::ready(folder.path(), &streams);
    let all = until_complete(&service, 3);
    let at = |path: &str| format!("{}{}", service.page, path.trim_start_matches('/'));
    let names: Vec<&str> = all.iter().map(|recording| recording["name"].as_str().unwrap()).collect();
    assert!(names.is_sorted_by(|a, b| a > b), "the newest first: {names:?}");
    assert_eq!(all[0]["complete"], false, "the newest recording is being written");
    let complete = &all[1];
    let file = folder.path().join("rec").join(complete["name"].as_str().unwrap());
    let probe = clip::probe(&file);
    assert!((complete["seconds"].as_f64().unwrap() - probe.duration).abs() < 0.1, "{complete} {probe:?}");
    assert_eq!(complete["bytes"], file.metadata().unwrap().len());
    assert_eq!(complete["event"], Value::Null);
    let start: jiff::Timestamp = complete["start"].as_str().unwrap().parse().unwrap();
    assert!(jiff::Timestamp::now().duration_since(start).as_secs() < 120, "{complete}");
    let page = |query: &str| get_json(&at(&format!("api/v1/streams/gate/recordings?{query}")));
    let second = page(&format!("limit=1&before={}", names[1]));
    assert_eq!(second.as_array().unwrap().len(), 1);
    assert_eq!(second[0]["name"], names[2]);
    assert_eq!(get_json(&at("api/v1/streams/bare/recordings")), json!([]));

    let url = at(complete["url"].as_str().unwrap());
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
    // Invalid and multiple ranges may be ignored.
    for range in ["bytes=abc", "bytes=9-1", "bytes=0-0,5-9"] {
        let (status, _, body) = request("GET", &url, &[("range", range)]);
        assert!(status == 200 && body.len() > 200, "{range}: {status}");
    }
    let (status, headers, body) = request("GET", &url, &[("range", "bytes=99999999-")]);
    assert_eq!((status, &headers["content-type"]), (416, &"application/problem+json".parse().unwrap()));
    assert_eq!(headers["content-range"], format!("bytes */{}", content.len()), "{}", String::from_utf8_lossy(&body));
    let (status, headers, _) = request("HEAD", &url, &[]);
    assert_eq!((status, headers["content-length"].to_str().unwrap()), (200, &*content.len().to_string()));

    // The open recording can be played once it has a second.
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
    let (status, _, body) = until("the deletion of the open recording is refused", || {
        let open = list(&service).into_iter().find(|recording| recording["complete"] == false)?;
        Some(request("DELETE", &at(open["url"].as_str().unwrap()), &[])).filter(|answer| answer.0 != 204)
    });
    assert_eq!(status, 409, "{}", String::from_utf8_lossy(&body));
    let removed = [("stream", "gate"), ("reason", "request")];
    assert!(service.metrics().sum("maskcast_recordings_removed_total", &removed) >= 1.0);
}

#[test]
fn no_name_leads_to_a_file_that_is_not_a_recording_of_the_stream() {
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

/// Adds a video element for URL to the page.
const PLAY: &str = "const video = document.createElement('video'); video.muted = true; video.id = 'video';
    document.querySelectorAll('#video').forEach((old) => old.remove());
    video.src = 'URL'; document.body.append(video); return true;";

/// Duration, end of the seekable range, and width, once the first frame is loaded.
const MEDIA_INFO: &str = "const video = document.getElementById('video');
    if (video.error) return ['error', video.error.message];
    return video.readyState >= 2 && [video.duration, video.seekable.length && video.seekable.end(0), video.videoWidth];";

/// Seeks to TIME; returns the position once the frame there is shown, seconds.
const SEEK: &str = "const video = document.getElementById('video');
    if (video.error) return ['error', video.error.message];
    if (!video.dataset.sought) { video.dataset.sought = 1; video.currentTime = TIME; return null; }
    return !video.seeking && video.readyState >= 2 && video.currentTime;";

#[tokio::test(flavor = "multi_thread")]
async fn a_browser_seeks_in_complete_and_repaired_recordings_and_plays_the_open_one() {
    let folder = folder();
    let streams = stream(15, "", "segment = \"6s\"");
    let (repaired, service) = tokio::task::block_in_place(|| {
        let mut service = Service::ready(folder.path(), &streams);
        until("five seconds", || (list(&service)[0]["seconds"].as_f64() > Some(4.5)).then_some(()));
        service.program.child.0.kill().unwrap();
        service.program.ended();
        let service = Service::ready(folder.path(), &streams);
        let repaired = until_complete(&service, 1).pop().unwrap();
        (repaired, service)
    });
    let complete = tokio::task::block_in_place(|| until_complete(&service, 2).remove(1));
    assert_ne!(complete["name"], repaired["name"]);
    let browser = Browser::start().await;
    browser.client.goto(&service.page).await.unwrap();
    for recording in [&complete, &repaired] {
        browser.run(&PLAY.replace("URL", recording["url"].as_str().unwrap())).await;
        let info = browser.until("the recording can be played", MEDIA_INFO).await;
        let seconds = recording["seconds"].as_f64().unwrap();
        let duration = info[0].as_f64().unwrap_or_else(|| panic!("{info} of {recording}"));
        assert!((duration - seconds).abs() < 0.2 && info[1] == info[0] && info[2] == 320, "{info} of {recording}");
        let time = (seconds - 1.2).to_string();
        let at = browser.until("the seek has completed", &SEEK.replace("TIME", &time)).await;
        assert!((at.as_f64().unwrap_or(-1.0) - (seconds - 1.2)).abs() < 0.1, "{at} of {recording}");
    }
    let open = tokio::task::block_in_place(|| {
        until("an open recording with two seconds", || {
            let newest = list(&service).remove(0);
            (newest["complete"] == false && newest["seconds"].as_f64() > Some(2.5)).then_some(newest)
        })
    });
    browser.run(&PLAY.replace("URL", open["url"].as_str().unwrap())).await;
    let info = browser.until("the open recording can be played", MEDIA_INFO).await;
    assert_eq!(info[2], 320, "{info} of {open}");
    browser.run("document.getElementById('video').play(); return true;").await;
    browser.until("the open recording plays", "return document.getElementById('video').currentTime > 0.5;").await;
}
