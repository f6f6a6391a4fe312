//! `maskcast segment`: the output has every frame with its timestamp, or standard error has one line with the error.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::clip::{self, BLUE, Patch, RED, borders, decoded_frame, ffmpeg, flag, paint, probe};
use common::program::{Ended, Program, maskcast, run, until};
use common::service::folder_with_model as folder;
use serde_json::Value;

/// `maskcast segment` in `folder` with its model.
fn command(folder: &Path, input: &str, output: &str) -> Command {
    let mut command = maskcast();
    command.current_dir(folder).args(["segment", input, "-o", output, "--model", "channels.onnx", "--threads", "1"]);
    command
}

/// Runs it with the further arguments `more`; returns the path of the output.
fn segment(folder: &Path, input: &str, output: &str, more: &[&str]) -> PathBuf {
    let ended = run(command(folder, input, output).args(more));
    assert_eq!(ended.code, Some(0), "{input}: {}", ended.stderr);
    folder.join(output)
}

#[test]
fn the_output_has_as_many_frames_as_the_input() {
    let folder = folder(64, 36);
    for (name, size, frames) in
        [("wide", (320, 240), 61), ("odd", (321, 241), 25), ("portrait", (240, 426), 25), ("one", (320, 240), 1)]
    {
        let input = folder.path().join(format!("{name}.mkv"));
        match name {
            "odd" => paint(&input, size, frames, &flag(size.0, size.1)),
            _ => clip::moving(&input, size, 25, frames),
        }
        for container in ["mp4", "mkv"] {
            let output = segment(folder.path(), &format!("{name}.mkv"), &format!("{name}-masks.{container}"), &[]);
            let probe = probe(&output);
            assert_eq!(probe.frames, frames as u64, "{name} {container}");
            assert_eq!(probe.codec, "h264");
            // H.264 with 4:2:0 needs even sides.
            let even = |side: usize| side as u64 / 2 * 2;
            assert_eq!((probe.width, probe.height), (even(size.0), even(size.1)), "{name} {container}");
            assert_eq!(clip::decode_errors(&output), "", "{name} {container}");
        }
    }
}

#[test]
fn frames_are_divided_into_tiles() {
    let folder = folder(64, 36);
    let input = folder.path().join("flag.mkv");
    paint(&input, (640, 360), 6, &flag(640, 360));
    let size = |tiles: &str| {
        let arguments = ["--tiles", tiles, "--mask-dir", tiles, "--mask-size", "model"];
        let output = segment(folder.path(), "flag.mkv", &format!("{tiles}.mkv"), &arguments);
        assert_eq!(probe(&output).frames, 6);
        let mask = std::fs::read_dir(folder.path().join(tiles)).unwrap().next().unwrap().unwrap().path();
        let reader =
            png::Decoder::new(std::io::BufReader::new(std::fs::File::open(mask).unwrap())).read_info().unwrap();
        reader.info().size()
    };
    assert_eq!(size("1x1"), (64, 36));
    let (width, height) = size("3x2");
    assert!((160..=180).contains(&width) && (64..=70).contains(&height), "{width}x{height}");
    let ended = run(command(folder.path(), "flag.mkv", "x.mkv").args(["--tiles", "5x5"]));
    assert_eq!(ended.code, Some(2));
    assert!(ended.stderr.contains("5x5 is not from 1x1 to 4x4"), "{}", ended.stderr);
}

#[test]
fn file_extensions_may_be_in_upper_case() {
    let folder = folder(64, 36);
    clip::moving(&folder.path().join("x.mp4"), (320, 180), 25, 10);
    std::fs::rename(folder.path().join("x.mp4"), folder.path().join("X.MP4")).unwrap();
    for (output, muxer) in [("OUT.MP4", "mp4"), ("OUT.Mkv", "matroska")] {
        let path = segment(folder.path(), "X.MP4", output, &[]);
        assert_eq!(path.file_name().unwrap(), output);
        assert_eq!(probe(&path).frames, 10, "{output}");
        let arguments =
            ["-v", "error", "-show_entries", "format=format_name", "-of", "csv=p=0", path.to_str().unwrap()];
        let format = common::program::tool("ffprobe", arguments).text();
        assert!(format.contains(muxer), "{output}: {format}");
    }
}

#[test]
fn the_pixel_aspect_ratio_is_kept() {
    let folder = folder(64, 36);
    let input = folder.path().join("wide-pixels.mp4");
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=360x288:r=25",
        "-vf",
        "setsar=4/3",
        "-frames:v",
        "10",
        "-c:v",
        "libx264",
        "-pix_fmt",
        "yuv420p",
        input.to_str().unwrap(),
    ]);
    assert_eq!(probe(&input).sample_aspect_ratio, "4:3");
    for output in ["out.mp4", "out.mkv"] {
        let probe = probe(&segment(folder.path(), "wide-pixels.mp4", output, &[]));
        assert_eq!((probe.width, probe.height, probe.sample_aspect_ratio.as_str()), (360, 288, "4:3"), "{output}");
    }
}

#[test]
fn a_clip_with_rotation_metadata_is_rotated() {
    let folder = folder(64, 64);
    let turned = folder.path().join("turned.mp4");
    paint(&turned, (320, 160), 10, &flag(320, 160));
    clip::turn(&turned, 160);
    let output = segment(folder.path(), "turned.mp4", "out.mp4", &["--style", "mask-only", "--no-legend"]);
    let probe = probe(&output);
    assert_eq!((probe.width, probe.height, probe.frames), (160, 320, 10));
    // The left part of the flag, red, is at the top; green is at the bottom right.
    let frame = decoded_frame(&output, 0);
    let classes = [(40, 80), (120, 80), (120, 240), (40, 240)].map(|(x, y)| frame.class_at(x, y));
    assert_eq!(classes, [0, 0, 1, 2]);
}

#[test]
fn frames_at_irregular_intervals_keep_their_timestamps() {
    let folder = folder(64, 36);
    let input = folder.path().join("uneven.mkv");
    // Every third frame is missing; from the 20th frame on, two of three are missing.
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=320x240:r=25",
        "-vf",
        "select='if(lt(n,20),mod(n,3),not(mod(n,3)))'",
        "-fps_mode",
        "vfr",
        "-frames:v",
        "30",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-pix_fmt",
        "yuv420p",
        input.to_str().unwrap(),
    ]);
    let expected = clip::times(&input);
    let steps: Vec<u64> = expected.windows(2).map(|pair| ((pair[1] - pair[0]) * 1e3).round() as u64).collect();
    assert!(steps.contains(&40) && steps.contains(&80) && steps.contains(&120), "{steps:?}");
    for output in ["out.mp4", "out.mkv"] {
        let times = clip::times(&segment(folder.path(), "uneven.mkv", output, &[]));
        assert_eq!(times.len(), expected.len(), "{output}");
        for (number, (time, expected)) in times.iter().zip(&expected).enumerate() {
            assert!((time - expected).abs() <= 0.001, "{output}: frame {number} is at {time}, not {expected}");
        }
    }
}

#[test]
fn the_report_has_counts_times_and_class_shares() {
    let folder = folder(128, 72);
    paint(&folder.path().join("flag.mp4"), (640, 360), 20, &flag(640, 360));
    segment(folder.path(), "flag.mp4", "out.mp4", &["--report", "report.json"]);
    let report: Value = serde_json::from_slice(&std::fs::read(folder.path().join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["frames_in"], &report["frames_out"]), (&20.into(), &20.into()), "{report}");
    assert_eq!(report["dropped"], serde_json::json!({}), "{report}");
    assert_eq!((&report["complete"], &report["provider"]), (&true.into(), &"cpu".into()), "{report}");
    assert!(report["model"].as_str().unwrap().contains("channels"), "{report}");
    let number = |value: &Value| value.as_f64().unwrap_or_else(|| panic!("not a number in {report}"));
    let (seconds, fps) = (number(&report["seconds"]), number(&report["fps"]));
    assert!(seconds > 0.0 && (fps * seconds - 20.0).abs() < 0.1, "{report}");
    for stage in ["decode", "preprocess", "segment", "overlay", "encode"] {
        let times = &report["stage_ms"][stage];
        let (p50, p99, cpu) = (number(&times["p50"]), number(&times["p99"]), number(&times["total_cpu"]));
        assert!(0.0 < p50 && p50 <= p99 && cpu > 0.0, "{stage}: {times}");
    }
    let share = |class: &str| number(&report["classes"][class]);
    for (class, expected) in [("red", 0.5), ("green", 0.25), ("blue", 0.25)] {
        assert!((share(class) - expected).abs() < 0.02, "{class}: {}", share(class));
    }
    assert!((share("red") + share("green") + share("blue") - 1.0).abs() < 1e-6);
}

/// Reads an 8-bit grey PNG: width, height and `[height × width]` samples.
fn read_png(path: &Path) -> (usize, usize, Vec<u8>) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let info = reader.info();
    assert_eq!((info.color_type, info.bit_depth), (png::ColorType::Grayscale, png::BitDepth::Eight));
    let (width, height) = (info.width as usize, info.height as usize);
    let mut data = vec![0; width * height];
    reader.next_frame(&mut data).unwrap();
    (width, height, data)
}

/// Checks the borders of a blue box on red in masks and in drawn frames.
#[test]
fn masks_and_drawn_frames_have_the_position_of_the_object() {
    let folder = folder(640, 360);
    for (width, height, left, top, box_width, box_height) in [
        (640, 360, 100, 60, 240, 200),
        (320, 180, 50, 30, 102, 76),
        (426, 240, 120, 44, 200, 102),
        (240, 426, 40, 120, 102, 200),
        (1280, 720, 402, 202, 500, 300),
    ] {
        let name = format!("{width}x{height}");
        let inside = Patch { left, top, width: box_width, height: box_height, color: BLUE };
        let all = Patch { left: 0, top: 0, width, height, color: RED };
        paint(&folder.path().join(format!("{name}.mp4")), (width, height), 3, &[all, inside]);
        let masks = format!("masks-{name}");
        let arguments = ["--mask-dir", &masks, "--style", "mask-only", "--no-legend"];
        let output = segment(folder.path(), &format!("{name}.mp4"), &format!("{name}-out.mp4"), &arguments);
        let mut files: Vec<PathBuf> =
            std::fs::read_dir(folder.path().join(&masks)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
        assert_eq!(names, ["000000.png", "000001.png", "000002.png"]);

        let (middle_x, middle_y) = (left + box_width / 2, top + box_height / 2);
        let near = |found: Vec<usize>, expected: [usize; 2], tolerance: usize, what: &str| {
            let good = found.len() == 2 && found.iter().zip(expected).all(|(a, b)| a.abs_diff(b) <= tolerance);
            assert!(good, "{name} {what}: borders at {found:?}, painted at {expected:?}");
        };
        // A pixel of the frame, or of the model if that is larger.
        let tolerance = width.div_ceil(640);
        for file in &files {
            let (mask_width, mask_height, mask) = read_png(file);
            assert_eq!((mask_width, mask_height), (width, height));
            let (row, column) = (&mask[middle_y * width..][..width], mask.iter().skip(middle_x).step_by(width));
            assert_eq!((row[0], row[middle_x]), (0, 2), "{name}: red outside, blue inside");
            near(borders(row.iter().copied()), [left, left + box_width], tolerance, "mask row");
            near(borders(column.copied()), [top, top + box_height], tolerance, "mask column");
        }
        let drawn = decoded_frame(&output, 1);
        let row = borders((0..width).map(|x| drawn.class_at(x, middle_y)));
        near(row, [left, left + box_width], 2, "drawn row");
        let column = borders((0..height).map(|y| drawn.class_at(middle_x, y)));
        near(column, [top, top + box_height], 2, "drawn column");
        assert_eq!(drawn.class_at(middle_x, middle_y), 2);
    }
}

#[test]
fn an_audio_track_is_ignored() {
    let folder = folder(64, 36);
    for input in ["sound.mp4", "sound.mkv"] {
        ffmpeg(&[
            "-f",
            "lavfi",
            "-i",
            "sine=440:d=2",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=s=320x240:r=25",
            "-shortest",
            "-frames:v",
            "40",
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-pix_fmt",
            "yuv420p",
            "-c:a",
            "aac",
            folder.path().join(input).to_str().unwrap(),
        ]);
        assert_eq!(probe(&segment(folder.path(), input, "out.mp4", &[])).frames, 40, "{input}");
    }
}

/// The exit code and the line on standard error, which must be one line and not a panic.
fn refused(ended: &Ended) -> (Option<i32>, &str) {
    let lines: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "standard error must have one line:\n{}", ended.stderr);
    assert!(!ended.stderr.contains("panicked"), "{}", ended.stderr);
    (ended.code, lines[0])
}

/// The names of the files in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_error_is_one_line_and_leaves_no_files() {
    let folder = folder(64, 36);
    let path = folder.path();
    let write = |name: &str, bytes: &[u8]| std::fs::write(path.join(name), bytes).unwrap();
    clip::moving(&path.join("good.mp4"), (320, 240), 25, 50);
    write("text.mp4", b"This is not a video, but a text of some length with the name of a video.\n");
    write("empty.mp4", b"");
    // Without faststart, the index of an mp4 file is at its end.
    let good = std::fs::read(path.join("good.mp4")).unwrap();
    write("cut.mp4", &good[..good.len() * 2 / 3]);
    // A file with faststart that ends after its index.
    ffmpeg(&[
        "-i",
        path.join("good.mp4").to_str().unwrap(),
        "-c",
        "copy",
        "-movflags",
        "+faststart",
        path.join("fast.mp4").to_str().unwrap(),
    ]);
    let fast = std::fs::read(path.join("fast.mp4")).unwrap();
    let media = fast.windows(4).position(|name| name == b"mdat").unwrap();
    write("head.mp4", &fast[..media + 8]);
    ffmpeg(&["-f", "lavfi", "-i", "sine=440:d=1", "-c:a", "aac", path.join("sound.m4a").to_str().unwrap()]);
    let model = std::fs::read(path.join("channels.onnx")).unwrap();
    write("half.onnx", &model[..model.len() / 2]);
    std::fs::create_dir(path.join("folder.mp4")).unwrap();
    let before = names(path);

    // Input, output, further arguments, exit code, words of the line.
    type Case<'a> = (&'a str, &'a str, &'a [&'a str], i32, &'a [&'a str]);
    let cases: &[Case] = &[
        ("missing.mp4", "out.mp4", &[], 1, &["missing.mp4", "no such file"]),
        ("text.mp4", "out.mp4", &[], 1, &["text.mp4"]),
        ("empty.mp4", "out.mp4", &[], 1, &["empty.mp4"]),
        ("cut.mp4", "out.mp4", &[], 1, &["cut.mp4"]),
        ("head.mp4", "out.mp4", &[], 1, &["head.mp4"]),
        ("sound.m4a", "out.mp4", &[], 1, &["sound.m4a", "no video"]),
        ("folder.mp4", "out.mp4", &[], 1, &["folder.mp4", "folder"]),
        ("good.mp4", "nowhere/out.mp4", &[], 1, &["nowhere", "does not exist"]),
        ("good.mp4", "good.mp4", &[], 2, &["good.mp4", "input"]),
        ("good.mp4", "out.avi", &[], 2, &["out.avi", ".mp4"]),
        ("good.mp4", "out", &[], 2, &["out", ".mp4"]),
        ("good.mp4", "folder.mp4", &[], 2, &["folder.mp4", "folder"]),
        ("rstp://camera/1", "out.mp4", &[], 2, &["rstp", "did you mean rtsp"]),
        ("rtsp://127.0.0.1:9/1", "out.mp4", &[], 2, &["rtsp://127.0.0.1:9/1", "run"]),
        ("good.mp4", "out.mp4", &["--hide", "gren"], 2, &["gren", "did you mean", "green"]),
        ("good.mp4", "out.mp4", &["--weights", "gren=0.5"], 2, &["--weights", "gren", "did you mean", "green"]),
        ("good.mp4", "out.mp4", &["--model", "half.onnx"], 1, &["half.onnx"]),
        ("good.mp4", "out.mp4", &["--model", "missing.onnx"], 1, &["missing.onnx"]),
    ];
    let mut wrong = Vec::new();
    for (input, output, more, code, words) in cases {
        let mut command = maskcast();
        command.current_dir(path).args(["segment", input, "-o", output]).args(*more);
        if !more.contains(&"--model") {
            command.args(["--model", "channels.onnx"]);
        }
        let ended = run(&mut command);
        let lines = ended.stderr.lines().count();
        let has_words = words.iter().all(|word| ended.stderr.contains(word));
        if ended.code != Some(*code) || lines != 1 || !has_words || ended.stderr.contains("panicked") {
            wrong.push(format!(
                "{input} -> {output} {more:?}: {code} and {words:?} expected, {:?}:\n{}",
                ended.code, ended.stderr
            ));
        }
        if names(path) != before {
            wrong.push(format!("{input} -> {output} {more:?}: left files behind: {:?}", names(path)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The inputs are long enough to fill every queue: a failed output must end the run even if all stages wait.
#[test]
fn frames_that_are_too_small_for_h264_are_a_one_line_error() {
    let folder = folder(64, 36);
    let path = folder.path();
    let small = ["2x2", "4x4", "8x8", "16x2", "14x20", "640x2", "4098x2"];
    for size in small.into_iter().chain(["16x16", "33x17"]) {
        let (source, file) = (format!("color=red:s={size}:r=25:d=4"), path.join(format!("{size}.mkv")));
        ffmpeg(&["-f", "lavfi", "-i", &source, "-c:v", "ffv1", "-pix_fmt", "bgr0", file.to_str().unwrap()]);
    }
    for size in small {
        let ended = run(&mut command(path, &format!("{size}.mkv"), "small.mp4"));
        let (code, line) = refused(&ended);
        let has_size = line.contains(&format!("the frame is {size}; H.264 encoders need at least 16x16"));
        assert!(code == Some(1) && has_size && line.contains("scale the video up"), "{size}: {line}");
    }
    assert!(names(path).iter().all(|name| !name.starts_with("small")), "{:?}", names(path));
    for size in ["16x16", "33x17"] {
        let output = segment(path, &format!("{size}.mkv"), &format!("{size}.mp4"), &[]);
        assert_eq!(probe(&output).frames, 100, "{size}");
    }
}

#[test]
fn an_existing_output_is_kept_after_a_failure() {
    let folder = folder(64, 36);
    std::fs::write(folder.path().join("text.mp4"), b"not a video").unwrap();
    std::fs::write(folder.path().join("out.mp4"), b"existing").unwrap();
    let ended = run(&mut command(folder.path(), "text.mp4", "out.mp4"));
    assert_eq!(refused(&ended).0, Some(1));
    assert_eq!(std::fs::read(folder.path().join("out.mp4")).unwrap(), b"existing");
    assert_eq!(names(folder.path()), ["channels.onnx", "out.mp4", "text.mp4"]);
}

#[test]
fn a_truncated_clip_is_segmented_up_to_its_end() {
    let folder = folder(64, 36);
    let whole = folder.path().join("whole.mp4");
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        "testsrc2=s=320x240:r=25",
        "-frames:v",
        "100",
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-pix_fmt",
        "yuv420p",
        "-movflags",
        "+faststart",
        whole.to_str().unwrap(),
    ]);
    let bytes = std::fs::read(&whole).unwrap();
    std::fs::write(folder.path().join("half.mp4"), &bytes[..bytes.len() / 2]).unwrap();
    let ended = run(&mut command(folder.path(), "half.mp4", "out.mp4"));
    // A warning names the truncated file.
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.stderr.contains("half.mp4") && !ended.stderr.contains("panicked"), "{}", ended.stderr);
    let frames = probe(&folder.path().join("out.mp4")).frames;
    assert!((30..80).contains(&frames), "{frames} frames");
}

#[test]
fn an_interrupted_run_keeps_the_frames_before_the_interruption() {
    let folder = folder(64, 36);
    clip::moving(&folder.path().join("long.mp4"), (640, 480), 25, 4000);
    let mut program = Program::start(&mut command(folder.path(), "long.mp4", "out.mp4"));
    // Created with the first frame.
    until("the output is created", || folder.path().join("out.part.mp4").exists().then_some(()));
    program.child.signal("INT");
    let (code, log) = program.ended();
    assert_eq!(code, Some(1), "{log}");
    assert!(log.contains("stopped before the end"), "{log}");
    let output = folder.path().join("out.mp4");
    assert_eq!(clip::decode_errors(&output), "");
    let frames = probe(&output).frames;
    assert!((1..4000).contains(&frames), "{frames} frames");
    assert!(!folder.path().join("out.part.mp4").exists());
}

/// The clip of the demo shows small people and vehicles on pavement beside a lawn and a building.
#[test]
fn the_bundled_model_segments_a_yard() {
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join(".demo/vtest.avi");
    assert!(clip.is_file(), "{} is missing: run `make setup-test`", clip.display());
    let folder = tempfile::tempdir().unwrap();
    let short = folder.path().join("short.avi");
    ffmpeg(&["-i", clip.to_str().unwrap(), "-frames:v", "5", "-c", "copy", short.to_str().unwrap()]);
    let ended = run(maskcast().current_dir(folder.path()).args([
        "segment",
        "short.avi",
        "-o",
        "out.mp4",
        "--report",
        "r.json",
    ]));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let report: Value = serde_json::from_slice(&std::fs::read(folder.path().join("r.json")).unwrap()).unwrap();
    assert_eq!(report["frames_out"], 5, "{report}");
    for (class, least) in [("person", 0.001), ("vehicle", 0.003), ("building", 0.05), ("paved", 0.1), ("grass", 0.3)] {
        let share = report["classes"][class].as_f64();
        assert!(share.is_some_and(|share| share > least), "{class}: {}", report["classes"]);
    }
}
