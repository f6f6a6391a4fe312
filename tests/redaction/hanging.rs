//! Threads that hang: of a stream, and workers that pause.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::capture::{Capture, of_files};
use crate::common::clip::ffmpeg;
use crate::common::program::{run, until};
use crate::common::service::{Service, account};
use crate::fixture::{clip, end, files, folder, gate_and_open, open, redacted, reload, start};
use crate::models::Kind;
use crate::paint::{FPS, HEIGHT, WIDTH, write_only_poison, write_walk};

/// The key of a source that reads raw frames from a pipe. Opening it blocks until a writer opens the pipe.
fn pipe(path: &Path) -> String {
    let made = run(Command::new("mkfifo").arg(path));
    assert_eq!(made.code, Some(0), "{}", made.stderr);
    let format = format!("format=i420 width={WIDTH} height={HEIGHT} framerate={FPS}/1");
    format!("source = \"gst:filesrc location={} ! rawvideoparse {format}\"\n", path.display())
}

/// The source hangs in a call that does not return. The reload that adds the redaction abandons the threads of the stream, which
/// go on to show the last frame of the source, in which there is a person.
pub fn a_stream_that_hangs_shows_nothing_after_a_reload() {
    let folder = folder(Kind::First);
    let file = folder.path().join("clip.mp4");
    write_walk(&file);
    let path = folder.path().join("pipe");
    let rec = folder.path().join("rec");
    let record = "[stream.record]\ndir = \"rec\"\n";
    let mut service = start(folder.path(), &open("gate", &pipe(&path), record));
    let before = [Capture::rtsp(&service, "gate"), Capture::mjpeg(&service, "gate")];
    ffmpeg(&["-re", "-i", file.to_str().unwrap(), "-f", "rawvideo", "-pix_fmt", "yuv420p", path.to_str().unwrap()]);
    before.iter().for_each(|viewer| drop(viewer.until("slates with a person", |findings| findings.slates >= 3)));

    reload(&mut service, folder.path(), &redacted("gate", &clip("clip.mp4"), "fill", record), "restarted gate");
    let log = service.program.log();
    assert!(log.contains("stream not stopped within 4 s; its threads are abandoned"), "{log}");
    let old = files(&rec, "gate");
    let after =
        [Capture::rtsp(&service, "gate"), Capture::mjpeg(&service, "gate"), Capture::snapshots(&service, "gate")];
    let after = after.map(Capture::redacted);
    after.iter().for_each(|viewer| drop(viewer.until_more_visible(FPS * 3)));
    // These viewers have stayed. What they have not shown yet was sent before.
    for viewer in &before {
        viewer.until_more_visible(5);
        let leaks = viewer.findings().leaks();
        viewer.until_more_visible(FPS * 2);
        assert_eq!(viewer.findings().leaks(), leaks, "a viewer from before the reload");
    }
    after.iter().for_each(|viewer| println!("after the reload: {}", viewer.assert_clean()));
    end(service);
    let new: Vec<_> = files(&rec, "gate").into_iter().filter(|path| !old.contains(path)).collect();
    let found = of_files(new.iter().map(|path| &**path));
    assert!(found.frames > 0, "recordings after the reload");
    found.assert_clean("recordings after the reload");
}

fn failed_runs(service: &Service) -> f64 {
    service.metrics().sum("maskcast_segment_failures_total", &[])
}

/// The worker pauses longer after each failure. Meanwhile a file in real time continues, wholly hidden, and the service can be
/// stopped.
pub fn a_file_is_hidden_while_the_worker_pauses() {
    let folder = folder(Kind::Failing);
    write_only_poison(&folder.path().join("clip.mp4"));
    let source = clip("clip.mp4");
    let streams = gate_and_open(&source).replace("overlay =", "show = \"matched\"\noverlay =");
    let service = start(folder.path(), &streams);
    let gate = [Capture::rtsp(&service, "gate"), Capture::mjpeg(&service, "gate")].map(Capture::redacted);
    let open = Capture::mjpeg(&service, "open");
    // The next attempt is made after eight seconds.
    until("five failures", || (failed_runs(&service) >= 5.0).then_some(()));
    let hidden = || service.metrics().sum("maskcast_frames_hidden_total", &[("stream", "gate")]);
    let (before, started) = (hidden(), Instant::now());
    gate.iter().for_each(|gate| drop(gate.until_more_hidden(FPS)));
    open.until_more_leaks(FPS);
    until("hidden frames in the metrics", || (hidden() >= before + FPS as f64).then_some(()));
    let gate_status = service.stream("gate");
    assert_eq!((failed_runs(&service), &gate_status["state"]), (5.0, &"stale".into()), "{:?}", started.elapsed());
    let reason = gate_status["reason"].as_str().unwrap().to_owned();
    assert!(!reason.is_empty(), "{gate_status}");
    gate.iter().for_each(|gate| println!("{reason}: {}", gate.assert_clean()));
    drop((gate, open));
    let (code, took, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < Duration::from_secs(4) && !log.contains("abandoned"), "{took:?}: {log}");
    for stream in ["gate", "open"] {
        let account = account(&log, stream);
        assert_eq!((account.in_flight, account.captured), (0, account.published + account.dropped), "{account:?}");
    }
}
