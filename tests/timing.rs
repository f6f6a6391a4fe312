//! Keyframes, timestamps and ends of sources, with real files, decoders and cameras.

mod common;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::time::{Duration, Instant};

use common::clip::{self, ffmpeg};
use common::program::{DEADLINE, maskcast, run};
use common::rtsp::Camera;
use common::service::folder_with_model;
use maskcast::capture::{Capture, Captured, CapturedFrame, GstSource, Source};
use maskcast::config::SourceSpec;
use serde_json::Value;

/// Encodes `source`, a filter graph of ffmpeg's `lavfi`, with `arguments`.
fn encode(path: &Path, source: &str, arguments: &[&str]) {
    let mut all = vec!["-f", "lavfi", "-i", source];
    all.extend(arguments);
    all.push(path.to_str().unwrap());
    ffmpeg(&all);
}

fn open(source: &str, looped: bool) -> Box<dyn Capture> {
    let mut spec = SourceSpec::parse(source, Path::new("/")).unwrap();
    spec.looped = looped;
    GstSource::new(spec).open().unwrap()
}

/// The next frame; `None` at the end. Panics when none comes within [`DEADLINE`].
fn next(capture: &mut dyn Capture) -> Option<CapturedFrame> {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        match capture.next(Duration::from_millis(100)).unwrap() {
            Captured::Frame(frame) => return Some(frame),
            Captured::End => return None,
            Captured::Silence | Captured::NoKeyframe(_) => {}
        }
    }
    panic!("no frame within {DEADLINE:?}");
}

/// All frames of a source that ends: timestamp in milliseconds, and a hash of the luma plane.
fn all_frames(source: &str) -> Vec<(u128, u64)> {
    let mut capture = open(source, false);
    let mut all = Vec::new();
    while let Some(frame) = next(&mut *capture) {
        let image = frame.pixels.image();
        let (luma, mut digest) = (image.planes[0], DefaultHasher::new());
        for row in luma.data.chunks(luma.stride).take(image.info.height) {
            row[..image.info.width].hash(&mut digest);
        }
        all.push((frame.pts.as_millis(), digest.finish()));
    }
    all
}

/// The NAL units of a byte stream (H.264, Annex B), with their start codes.
fn units(stream: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> = (0..stream.len() - 3).filter(|&at| stream[at..at + 3] == [0, 0, 1]).collect();
    let ends = starts[1..].iter().copied().chain([stream.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &stream[start..end]).collect()
}

#[test]
fn frames_before_the_first_keyframe_are_not_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, cut) = (folder.path().join("whole.h264"), folder.path().join("cut.h264"));
    let arguments =
        ["-frames:v", "75", "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-bf", "0", "-pix_fmt", "yuv420p"];
    encode(&whole, "testsrc2=s=320x240:r=25", &arguments);
    let bytes = std::fs::read(&whole).unwrap();
    let first_keyframe = units(&bytes).iter().position(|unit| unit[3] & 31 == 5).unwrap();
    // The same stream without its first keyframe, and with its parameter sets.
    let kept = units(&bytes).into_iter().enumerate().filter(|(n, _)| *n != first_keyframe);
    std::fs::write(&cut, kept.flat_map(|(_, unit)| unit).copied().collect::<Vec<u8>>()).unwrap();
    for decoder in ["h264parse ! avdec_h264", "decodebin"] {
        let source = |path: &Path| format!("gst:filesrc location={} ! {decoder}", path.display());
        let digests = |path| all_frames(&source(path)).into_iter().map(|(_, digest)| digest).collect::<Vec<_>>();
        let (all, delivered) = (digests(&whole), digests(&cut));
        assert_eq!(all.len(), 75, "{decoder}");
        let count = delivered.len();
        assert!(delivered == all[25..], "{decoder}: {count} frames, not the 50 from the second keyframe on");
    }
}

/// A transport stream (SRT, HTTP) with missing packets.
#[test]
fn frames_damaged_by_packet_loss_are_not_delivered() {
    let folder = tempfile::tempdir().unwrap();
    let (whole, torn) = (folder.path().join("whole.ts"), folder.path().join("torn.ts"));
    let arguments =
        ["-frames:v", "100", "-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-bf", "2", "-pix_fmt", "yuv420p"];
    encode(&whole, "testsrc2=s=640x360:r=25", &arguments);
    let bytes = std::fs::read(&whole).unwrap();
    let (packet, count) = (188, bytes.len() / 188);
    let kept = (0..count).filter(|n| !(count * 2 / 5..count * 2 / 5 + 12).contains(n));
    let torn_bytes: Vec<u8> = kept.flat_map(|n| &bytes[n * packet..(n + 1) * packet]).copied().collect();
    std::fs::write(&torn, torn_bytes).unwrap();
    // With a queue, as from a network, the demuxer cannot seek.
    let source = |path: &Path| format!("gst:filesrc location={} ! queue ! decodebin", path.display());
    let all: HashMap<u128, u64> = all_frames(&source(&whole)).into_iter().collect();
    let delivered = all_frames(&source(&torn));
    let wrong: Vec<u128> = delivered.iter().filter(|(at, luma)| all.get(at) != Some(luma)).map(|(at, _)| *at).collect();
    assert_eq!(wrong, [], "timestamps of damaged frames, ms");
    assert!((60..97).contains(&delivered.len()), "{} of 100 frames", delivered.len());
}

#[test]
fn timestamps_of_a_camera_with_b_frames_have_equal_intervals() {
    let folder = tempfile::tempdir().unwrap();
    let clip = folder.path().join("bframes.mp4");
    let arguments =
        ["-t", "20", "-c:v", "libx264", "-preset", "veryfast", "-bf", "3", "-g", "45", "-pix_fmt", "yuv420p"];
    encode(&clip, "testsrc2=s=320x240:r=15", &arguments);
    let camera = Camera::open(&format!(
        "( filesrc location={} ! qtdemux ! h264parse ! identity sync=true ! rtph264pay name=pay0 pt=96 )",
        clip.display()
    ));
    let mut capture = open(&format!("rtsp://127.0.0.1:{}/stream", camera.port), false);
    let times: Vec<f64> = (0..90).map(|_| next(&mut *capture).unwrap().pts.as_secs_f64()).collect();
    let steps: Vec<f64> = times.windows(2).map(|pair| 1000.0 * (pair[1] - pair[0])).collect();
    // A frame that is lost on a busy machine causes a double step, which is not uneven.
    let uneven: Vec<f64> = steps
        .iter()
        .copied()
        .filter(|step| (step * 15.0 / 1000.0).fract().abs().min(1.0 - (step * 15.0 / 1000.0).fract()) > 0.02)
        .collect();
    assert!(uneven.is_empty(), "steps of {uneven:?} ms");
}

#[test]
fn a_looped_file_shows_its_last_frame_for_its_full_duration() {
    let folder = tempfile::tempdir().unwrap();
    for (frames, passes) in [(1, 6), (3, 3)] {
        let clip = folder.path().join(format!("{frames}.mp4"));
        let count = frames.to_string();
        encode(&clip, "testsrc2=s=320x240:r=5", &["-frames:v", &count, "-c:v", "libx264", "-pix_fmt", "yuv420p"]);
        let mut capture = open(clip.to_str().unwrap(), true);
        let first = next(&mut *capture).unwrap();
        let started = Instant::now();
        let mut at = first.pts;
        for n in 1..frames * passes {
            let pts = next(&mut *capture).unwrap().pts;
            assert_eq!((pts - at).as_millis(), 200, "frame {n} of the file with {frames}");
            at = pts;
        }
        // A busy machine takes longer. The preparation of the next pass may shorten the last frame.
        let due = Duration::from_millis(200) * (frames * passes - 1);
        assert!(started.elapsed() > due.mul_f64(0.9), "{:?} instead of {due:?}", started.elapsed());
    }
}

/// Segments `input` in `folder` to MP4; the timestamps of the output in milliseconds, and the report.
fn segment_to_mp4(folder: &Path, input: &str) -> (Vec<u64>, Value) {
    let output = format!("{input}.mp4");
    let mut command = maskcast();
    command.current_dir(folder).args(["segment", input, "-o", &output, "--model", "channels.onnx", "--threads", "1"]);
    let ended = run(command.args(["--report", "report.json"]));
    assert_eq!(ended.code, Some(0), "{input}: {}", ended.stderr);
    let report = serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap();
    let output = folder.join(output);
    assert_eq!(clip::decode_errors(&output), "", "{input}");
    (clip::times(&output).iter().map(|time| (time * 1000.0).round() as u64).collect(), report)
}

#[test]
fn files_whose_timestamps_do_not_increase_can_be_written_as_mp4() {
    let folder = folder_with_model(64, 36);
    let source = "testsrc2=s=320x240:r=10";
    let (avi, gif) = (folder.path().join("b.avi"), folder.path().join("anim.gif"));
    encode(&avi, source, &["-frames:v", "30", "-c:v", "mpeg4", "-q:v", "3", "-bf", "2"]);
    // Every frame of the GIF has the timestamp 0, and the demuxer does not detect its end.
    encode(&gif, source, &["-frames:v", "12"]);
    for (name, frames) in [("b.avi", 30), ("anim.gif", 12)] {
        let (times, report) = segment_to_mp4(folder.path(), name);
        let even: Vec<u64> = (0..frames).map(|n| 100 * n).collect();
        assert_eq!(times, even, "{name}");
        assert_eq!(report["complete"], true, "{name}: {report}");
    }
}

#[test]
fn a_single_image_becomes_a_playable_file() {
    let folder = folder_with_model(64, 36);
    encode(&folder.path().join("one.jpg"), "testsrc2=s=320x240", &["-frames:v", "1"]);
    assert_eq!(segment_to_mp4(folder.path(), "one.jpg").0, [0]);
    let probe = clip::probe(&folder.path().join("one.jpg.mp4"));
    assert!(probe.frames == 1 && probe.duration > 0.0, "{} frames, {} s", probe.frames, probe.duration);
}

#[test]
fn frames_of_another_size_are_scaled_to_the_size_of_the_first() {
    let folder = folder_with_model(64, 36);
    let mut both = Vec::new();
    for (size, color, offset) in [("320x180", "red", "0"), ("160x120", "blue", "1")] {
        let part = folder.path().join("part.ts");
        let arguments = [
            "-t",
            "1",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-g",
            "10",
            "-pix_fmt",
            "yuv420p",
            "-output_ts_offset",
            offset,
        ];
        encode(&part, &format!("color={color}:s={size}:r=10"), &arguments);
        both.extend(std::fs::read(&part).unwrap());
    }
    std::fs::write(folder.path().join("resize.ts"), both).unwrap();
    let mut command = maskcast();
    command.current_dir(folder.path()).args([
        "segment",
        "resize.ts",
        "-o",
        "out.mp4",
        "--model",
        "channels.onnx",
        "--no-legend",
    ]);
    let ended = run(command.args(["--report", "report.json"]));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("160x120") && ended.stderr.contains("320x180"), "{}", ended.stderr);
    let output = folder.path().join("out.mp4");
    let probe = clip::probe(&output);
    assert_eq!((probe.frames, probe.width, probe.height), (20, 320, 180));
    let report: Value = serde_json::from_slice(&std::fs::read(folder.path().join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["frames_out"], &report["width"], &report["height"]), (&20.into(), &320.into(), &180.into()));
    // A 4:3 frame in 16:9 has bars at the sides.
    let (before, after) = (clip::decoded_frame(&output, 5), clip::decoded_frame(&output, 15));
    assert_eq!([before.class_at(4, 90), before.class_at(160, 90)], [0, 0], "red");
    assert_eq!(after.class_at(160, 90), 2, "blue");
    assert!(after.at(8, 90).iter().all(|&part| part < 24), "a black bar: {:?}", after.at(8, 90));
}

#[test]
fn a_file_is_complete_if_its_last_frame_ends_where_its_track_ends() {
    let folder = folder_with_model(64, 36);
    let path = |name: &str| folder.path().join(name);
    let h264 = ["-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p"];
    let with = |more: &[&'static str]| [more, h264.as_slice()].concat();
    // Every second frame except one is missing, so that the nominal rate is twice the real one.
    let glitch = ["-t", "4", "-vf", "select='if(eq(n,7),1,not(mod(n,2)))'", "-fps_mode", "vfr"];
    encode(&path("glitch.mp4"), "testsrc2=s=320x240:r=60", &with(&glitch));
    encode(&path("hours.mkv"), "testsrc2=s=320x240:r=15", &with(&["-t", "2", "-output_ts_offset", "3600"]));
    let sound = ["-f", "lavfi", "-i", "sine", "-t", "6", "-filter:v", "trim=end=2", "-c:a", "aac"];
    encode(&path("longer-sound.mp4"), "testsrc2=s=320x240:r=15:d=2", &with(&sound));
    encode(&path("whole.mp4"), "testsrc2=s=320x240:r=15", &with(&["-t", "4", "-movflags", "+faststart"]));
    encode(&path("whole.mkv"), "testsrc2=s=320x240:r=15", &with(&["-t", "4"]));
    encode(&path("late.mkv"), "testsrc2=s=320x240:r=15", &with(&["-t", "4", "-output_ts_offset", "3600"]));
    for (whole, half) in [("whole.mp4", "half.mp4"), ("whole.mkv", "half.mkv"), ("late.mkv", "late-half.mkv")] {
        let bytes = std::fs::read(path(whole)).unwrap();
        std::fs::write(path(half), &bytes[..bytes.len() / 2]).unwrap();
    }
    for (name, complete) in [
        ("glitch.mp4", true),
        ("hours.mkv", true),
        ("longer-sound.mp4", true),
        ("whole.mp4", true),
        ("whole.mkv", true),
        ("half.mp4", false),
        ("half.mkv", false),
        ("late-half.mkv", false),
    ] {
        let output = path("out.mkv");
        let mut command = maskcast();
        command.current_dir(folder.path()).args([
            "segment",
            name,
            "--model",
            "channels.onnx",
            "--report",
            "report.json",
        ]);
        let ended = run(command.arg("-o").arg(output));
        assert_eq!(ended.code, Some(0), "{name}: {}", ended.stderr);
        let report: Value = serde_json::from_slice(&std::fs::read(path("report.json")).unwrap()).unwrap();
        assert_eq!(report["complete"], complete, "{name}: {report}");
        assert_eq!(ended.stderr.contains("ends early"), !complete, "{name}: {}", ended.stderr);
    }
}

/// Segments `input` in `folder` to Matroska; the timestamps of the output in milliseconds, the report and the log.
fn segment_to_mkv(folder: &Path, input: &str) -> (Vec<u128>, Value, String) {
    let mut command = maskcast();
    command.current_dir(folder).args(["segment", input, "-o", "out.mkv", "--model", "channels.onnx"]);
    let ended = run(command.args(["--report", "report.json"]));
    assert_eq!(ended.code, Some(0), "{input}: {}", ended.stderr);
    let times = all_frames(folder.join("out.mkv").to_str().unwrap()).into_iter().map(|(at, _)| at).collect();
    let report = serde_json::from_slice(&std::fs::read(folder.join("report.json")).unwrap()).unwrap();
    (times, report, ended.stderr)
}

/// GStreamer's MP4 demuxer ignores a track that is shorter than a fifth of the file, as a preview.
#[test]
fn video_that_is_much_shorter_than_the_subtitles_is_segmented() {
    let folder = folder_with_model(64, 36);
    let (words, clip) = (folder.path().join("late.srt"), folder.path().join("subtitles.mp4"));
    let lines = "1\n00:00:00,000 --> 00:00:01,500\nearly\n\n2\n00:01:00,000 --> 00:01:01,000\nlate\n";
    std::fs::write(&words, lines).unwrap();
    for more in [[].as_slice(), &["-movflags", "+faststart"]] {
        let mut arguments = vec!["-i", words.to_str().unwrap(), "-c:s", "mov_text", "-c:v", "libx264"];
        arguments.extend(["-preset", "ultrafast", "-pix_fmt", "yuv420p"].iter().chain(more));
        encode(&clip, "testsrc2=s=320x240:r=15:d=2", &arguments);
        let (times, report, log) = segment_to_mkv(folder.path(), "subtitles.mp4");
        assert_eq!((times.len(), times.last()), (30, Some(&1933)), "{more:?}");
        assert_eq!((&report["frames_in"], &report["complete"]), (&30.into(), &true.into()), "{more:?}: {log}");
    }
}

#[test]
fn gaps_of_hours_between_timestamps_are_removed() {
    let folder = folder_with_model(64, 36);
    // The counter of a transport stream wraps after 26.5 hours.
    let source = "testsrc2=s=320x240:r=10:d=2,settb=1/1000,setpts='N*100+gte(N,12)*95082139'";
    let more = ["-fps_mode", "passthrough", "-enc_time_base", "1/1000", "-c:v", "libx264", "-preset", "ultrafast"];
    encode(&folder.path().join("leap.mkv"), source, &[&more[..], &["-bf", "0", "-pix_fmt", "yuv420p"]].concat());
    let (times, report, log) = segment_to_mkv(folder.path(), "leap.mkv");
    assert_eq!(times, (0..20).map(|n| n * 100).collect::<Vec<u128>>());
    assert_eq!(report["frames_in"], 20, "{report}");
    assert_eq!(log.matches("timestamps jump ahead by 95082 s").count(), 1, "{log}");
}
