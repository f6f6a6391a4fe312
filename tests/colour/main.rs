//! Colours from source to output: the model, every viewer and every file get the colours of the source, for all ranges and
//! matrices and for all ways to signal them.

#[path = "../common/mod.rs"]
mod common;

mod formats;
mod interlaced;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::clip::{Rgb, decoded_frame, ffmpeg, probe};
use common::http::{Mjpeg, get_bytes};
use common::logging_viewer::LoggingViewer;
use common::program::{DEADLINE, maskcast, run, tool, until};
use common::rtsp::Viewer;
use common::service::{Service, folder};
use maskcast::capture::{Captured, GstSource, Source, SourceError};
use maskcast::config::SourceSpec;
use maskcast::frame::Pixels;
use maskcast::segment::preprocess::Preprocessor;

/// Tolerance for colours: rounding to 8 bits at the input, in the overlay and at the output, and the error of lossy encoders
/// in flat patches.
const TOLERANCE: u8 = 5;

/// Content of the clips: four patches in each of two rows.
const PATCHES: [[u8; 3]; 8] =
    [[0, 0, 0], [64, 64, 64], [255, 255, 255], [200, 120, 40], [255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]];

/// How a clip codes colours, and how it signals that.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// ffmpeg's name of the matrix that the clip signals; `unknown`: none.
    matrix_name: &'static str,
    full_range: bool,
    size: (usize, usize),
}

impl Case {
    fn all() -> Vec<Case> {
        let mut cases = Vec::new();
        for matrix_name in ["smpte170m", "bt709", "bt2020nc", "unknown"] {
            for full_range in [false, true] {
                for size in [(320, 192), (1280, 720)] {
                    cases.push(Case { matrix_name, full_range, size });
                }
            }
        }
        cases
    }

    fn name(&self) -> String {
        let range = if self.full_range { "full" } else { "limited" };
        format!("{}-{range}-{}", self.matrix_name, self.size.1)
    }

    /// Luma weights of red and blue (ITU-R BT.601, BT.709, BT.2020).
    fn weights(&self) -> (f64, f64) {
        match (self.matrix_name, self.size.1) {
            ("smpte170m", _) | ("unknown", ..720) => (0.299, 0.114),
            ("bt709" | "unknown", _) => (0.2126, 0.0722),
            ("bt2020nc", _) => (0.2627, 0.0593),
            other => panic!("{other:?}"),
        }
    }

    /// Y, Cb and Cr of a colour in this clip (ITU-T H.273).
    fn yuv(&self, rgb: [u8; 3]) -> [u8; 3] {
        let [r, g, b] = rgb.map(|component| f64::from(component) / 255.0);
        let (kr, kb) = self.weights();
        let luma = kr * r + (1.0 - kr - kb) * g + kb * b;
        let (blue, red) = ((b - luma) / (2.0 * (1.0 - kb)), (r - luma) / (2.0 * (1.0 - kr)));
        let numbers = if self.full_range {
            [255.0 * luma, 128.0 + 255.0 * blue, 128.0 + 255.0 * red]
        } else {
            [16.0 + 219.0 * luma, 128.0 + 224.0 * blue, 128.0 + 224.0 * red]
        };
        numbers.map(|number| number.round() as u8)
    }

    /// Writes a clip of a few frames, five a second.
    fn write(&self, path: &Path) {
        let (width, height) = self.size;
        let raw = path.with_extension("yuv");
        std::fs::write(&raw, planes(self.size, |patch| self.yuv(PATCHES[patch]))).unwrap();
        let (size, range) = (format!("{width}x{height}"), if self.full_range { "pc" } else { "tv" });
        let full = format!("fullrange={}", if self.full_range { "on" } else { "off" });
        ffmpeg(&[
            "-f",
            "rawvideo",
            "-pix_fmt",
            "yuv420p",
            "-s",
            &size,
            "-r",
            "5",
            "-stream_loop",
            "4",
            "-i",
            raw.to_str().unwrap(),
            "-c:v",
            "libx264",
            "-preset",
            "ultrafast",
            "-qp",
            "4",
            "-color_range",
            range,
            "-colorspace",
            self.matrix_name,
            "-x264opts",
            &full,
            path.to_str().unwrap(),
        ]);
        std::fs::remove_file(raw).unwrap();
    }
}

/// The three planes of a 4:2:0 frame of the patches.
fn planes((width, height): (usize, usize), yuv: impl Fn(usize) -> [u8; 3]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (plane, (width, height)) in
        [(width, height), (width / 2, height / 2), (width / 2, height / 2)].iter().enumerate()
    {
        for y in 0..*height {
            bytes.extend((0..*width).map(|x| yuv(2 * y / height * 4 + 4 * x / width)[plane]));
        }
    }
    bytes
}

/// Compares the middles of the patches; returns the differences, if any.
fn difference(image: &Rgb, tolerance: u8) -> Option<String> {
    let mut wrong = Vec::new();
    for (n, expected) in PATCHES.iter().enumerate() {
        let (x, y) = ((2 * (n % 4) + 1) * image.width / 8, (2 * (n / 4) + 1) * image.height / 4);
        let seen = image.at(x, y);
        if seen.iter().zip(expected).any(|(seen, expected)| seen.abs_diff(*expected) > tolerance) {
            wrong.push(format!("{expected:?} is {seen:?}"));
        }
    }
    (!wrong.is_empty()).then(|| wrong.join(", "))
}

/// Collects the differences of all cases, so that a failure shows all of them.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn check(&mut self, what: &str, case: &Case, image: &Rgb) {
        self.check_within(TOLERANCE, what, case, image);
    }

    fn check_within(&mut self, tolerance: u8, what: &str, case: &Case, image: &Rgb) {
        if let Some(wrong) = difference(image, tolerance) {
            self.0.push(format!("{what}, {}: {wrong}", case.name()));
        }
    }

    fn assert_empty(self) {
        assert!(self.0.is_empty(), "\n{}", self.0.join("\n"));
    }
}

/// A frame and its time in the source.
type Timed = (Duration, Arc<dyn Pixels>);

/// All frames of a source that has an end.
///
/// # Errors
/// What the source reports.
fn frames(source: &str) -> Result<Vec<Timed>, SourceError> {
    let mut spec = SourceSpec::from_argument(source, Path::new("/")).unwrap();
    spec.real_time = false;
    let mut capture = GstSource::new(spec).open()?;
    let mut frames = Vec::new();
    loop {
        match capture.next(DEADLINE)? {
            Captured::Frame(frame) => frames.push((frame.pts, frame.pixels)),
            Captured::Silence | Captured::NoKeyframe(_) => panic!("{source}: no frame and no end within {DEADLINE:?}"),
            Captured::End => return Ok(frames),
        }
    }
}

/// The input of a model of this size for a frame.
fn model_input(frame: &dyn Pixels, (width, height): (usize, usize)) -> Rgb {
    let mut data = vec![0; 3 * width * height];
    Preprocessor::new(width, height).run(&frame.image(), &mut data).unwrap();
    Rgb { width, height, data }
}

/// The model input for the first frame of a clip, at half its size.
fn first(clip: &Path) -> Rgb {
    let frames = frames(clip.to_str().unwrap()).unwrap();
    let info = frames[0].1.image().info;
    model_input(&*frames[0].1, (info.width / 2, info.height / 2))
}

/// A JPEG as ffmpeg decodes it.
fn jpeg(folder: &Path, bytes: &[u8]) -> Rgb {
    let path = folder.join("frame.jpg");
    std::fs::write(&path, bytes).unwrap();
    decoded_frame(&path, 0)
}

#[test]
fn the_model_and_files_get_the_colours_of_the_source() {
    let folder = folder();
    let mut differences = Differences::default();
    for case in Case::all() {
        let clip = folder.path().join(format!("{}.mkv", case.name()));
        case.write(&clip);
        differences.check("model input", &case, &first(&clip));
        for output in ["out.mp4", "out.mkv"] {
            let mut command = maskcast();
            command.current_dir(folder.path()).args(["segment", clip.to_str().unwrap(), "-o", output]);
            command.args(["--model", "channels.onnx", "--threads", "1", "--alpha", "0", "--no-legend"]);
            let ended = run(&mut command);
            assert_eq!(ended.code, Some(0), "{}: {}", case.name(), ended.stderr);
            differences.check(output, &case, &decoded_frame(&folder.path().join(output), 0));
        }
    }
    differences.assert_empty();
}

/// Writes the clip of every case to `folder`; returns a configuration with a stream for each, and further settings from
/// `more`, which gets its name.
fn streams(folder: &Path, more: impl Fn(&str) -> String) -> String {
    let stream = |case: Case| {
        let name = case.name();
        case.write(&folder.join(format!("{name}.mkv")));
        format!(
            "[[stream]]\nname = \"{name}\"\nsource = \"{name}.mkv\"\nloop = true\noverlay = {{ alpha = 0.0, legend = false }}\n\
             max_mask_age = \"60s\"\nencode.bitrate = 4000\n{}",
            more(&name)
        )
    };
    Case::all().into_iter().map(stream).collect()
}

#[test]
fn viewers_and_recordings_get_the_colours_of_the_source() {
    let folder = folder();
    let streams = streams(folder.path(), |name| format!("[stream.record]\ndir = \"rec/{name}\"\n"));
    let service = Service::ready(folder.path(), &streams);
    let mut differences = Differences::default();
    for case in Case::all() {
        let name = case.name();
        service.until_state(&name, "live");
        let (status, bytes) = get_bytes(&format!("{}api/v1/streams/{name}/snapshot.jpg", service.page));
        assert_eq!(status, 200, "{name}: {}", String::from_utf8_lossy(&bytes));
        differences.check("snapshot", &case, &jpeg(folder.path(), &bytes));
        differences.check("MJPEG", &case, &jpeg(folder.path(), &Mjpeg::connect(&service.page, &name).next()));
        differences.check("RTSP", &case, &Viewer::play(&service.rtsp(&name), "tcp", case.size).next());
    }
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    for case in Case::all() {
        let entries = std::fs::read_dir(folder.path().join("rec").join(case.name())).unwrap();
        let files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "{}: no recording", case.name());
        differences.check("recording", &case, &decoded_frame(&files[0], 0));
    }
    differences.assert_empty();
}

/// The matrix of unlabelled video depends on the size before the rotation.
#[test]
fn a_rotated_clip_keeps_its_colours() {
    let folder = folder();
    let mut differences = Differences::default();
    for size in [(854, 480), (1280, 720)] {
        for full_range in [false, true] {
            let case = Case { matrix_name: "unknown", full_range, size };
            let clip = folder.path().join("clip.mp4");
            case.write(&clip);
            common::clip::turn(&clip, size.1 as u32);
            let turned = first(&clip);
            // Rotate back to compare: the left column of the clip is the top row of the output.
            let mut back = Rgb { width: turned.height, height: turned.width, data: Vec::new() };
            for y in 0..back.height {
                for x in 0..back.width {
                    back.data.extend(turned.at(turned.width - 1 - y, x));
                }
            }
            differences.check("turned", &case, &back);
        }
    }
    differences.assert_empty();
}

/// Transfer function and primaries are copied from source to output.
#[test]
fn a_file_signals_transfer_function_and_primaries_of_the_source() {
    let folder = folder();
    for (transfer, primaries, matrix, range) in [
        ("smpte2084", "bt2020", "bt2020nc", "tv"),
        ("arib-std-b67", "bt2020", "bt2020nc", "pc"),
        ("smpte170m", "bt470bg", "bt470bg", "tv"),
        ("iec61966-2-1", "bt709", "smpte170m", "pc"),
    ] {
        let clip = folder.path().join("clip.mkv");
        ffmpeg(&[
            "-f",
            "lavfi",
            "-i",
            "color=gray:s=320x192:r=5",
            "-frames:v",
            "2",
            "-pix_fmt",
            "yuv420p",
            "-c:v",
            "libx264",
            "-color_range",
            range,
            "-colorspace",
            matrix,
            "-color_trc",
            transfer,
            "-color_primaries",
            primaries,
            clip.to_str().unwrap(),
        ]);
        let ended = run(maskcast().current_dir(folder.path()).args([
            "segment",
            "clip.mkv",
            "-o",
            "out.mkv",
            "--model",
            "channels.onnx",
            "--threads",
            "1",
            "--alpha",
            "0",
        ]));
        assert_eq!(ended.code, Some(0), "{transfer}: {}", ended.stderr);
        let output = folder.path().join("out.mkv");
        let entries = "stream=color_range,color_space,color_transfer,color_primaries";
        let signalled =
            tool("ffprobe", ["-v", "error", "-show_entries", entries, "-of", "csv=p=0", output.to_str().unwrap()]);
        // GStreamer has one name for the matrix of 525 and 625 lines.
        let matrix = matrix.replace("bt470bg", "smpte170m");
        assert_eq!(signalled.text(), format!("{range},{matrix},{transfer},{primaries}"));
        assert_eq!(probe(&output).frames, 2);
    }
}

/// Encoders that do not signal colours get frames in the coding that players assume.
#[test]
fn an_encoder_that_signals_no_colours_gets_the_coding_that_players_assume() {
    let folder = folder();
    let mut differences = Differences::default();
    let streams = streams(folder.path(), |_| "encode.encoder = \"openh264\"\n".into());
    let service = Service::ready(folder.path(), &streams);
    for case in Case::all() {
        service.until_state(&case.name(), "live");
        // The player is GStreamer, which derives the matrix from the size; ffmpeg assumes BT.601 for HD, too.
        let viewer = LoggingViewer::rtsp(&service, &case.name(), |(width, height), data| Rgb {
            width,
            height,
            data: data.to_vec(),
        });
        let frame = until("a frame by RTSP", || viewer.log.lock().unwrap().frames.pop());
        // OpenH264 is less exact than x264; a wrong range or matrix causes larger errors in several patches.
        differences.check_within(8, "RTSP by OpenH264", &case, &frame.content);
    }
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    differences.assert_empty();
}
