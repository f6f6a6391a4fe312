//! Colours from end to end: what a camera or a file shows is what the model, every viewer and every file gets, whatever
//! range and matrix the source has and however it says so.

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

/// How far a colour may be from the right one: rounding to 8 bits on the way in, in between and on the way out, and what
/// lossy encoders do to flat patches.
const NEAR: u8 = 5;

/// What the clips show: four patches in each of two rows.
const PATCHES: [[u8; 3]; 8] =
    [[0, 0, 0], [64, 64, 64], [255, 255, 255], [200, 120, 40], [255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128]];

/// How a clip maps colours to numbers, and what it says of that.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// ffmpeg's name of the matrix that the clip names; `unknown` where it names none.
    named: &'static str,
    full_range: bool,
    size: (usize, usize),
}

impl Case {
    fn all() -> Vec<Case> {
        let mut cases = Vec::new();
        for named in ["smpte170m", "bt709", "bt2020nc", "unknown"] {
            for full_range in [false, true] {
                for size in [(320, 192), (1280, 720)] {
                    cases.push(Case { named, full_range, size });
                }
            }
        }
        cases
    }

    fn name(&self) -> String {
        let range = if self.full_range { "full" } else { "limited" };
        format!("{}-{range}-{}", self.named, self.size.1)
    }

    /// Luma weights of red and blue, as ITU-R BT.601, BT.709 and BT.2020 have them.
    fn weights(&self) -> (f64, f64) {
        match (self.named, self.size.1) {
            ("smpte170m", _) | ("unknown", ..720) => (0.299, 0.114),
            ("bt709" | "unknown", _) => (0.2126, 0.0722),
            ("bt2020nc", _) => (0.2627, 0.0593),
            other => panic!("{other:?}"),
        }
    }

    /// A colour in this clip's numbers: ITU-T H.273.
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

    /// Writes a clip of a few pictures, five a second.
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
            self.named,
            "-x264opts",
            &full,
            path.to_str().unwrap(),
        ]);
        std::fs::remove_file(raw).unwrap();
    }
}

/// The three planes of a 4:2:0 picture of patches.
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

/// Compares the middles of the patches; what is wrong with them, if anything.
fn wrong(picture: &Rgb, near: u8) -> Option<String> {
    let mut wrong = Vec::new();
    for (n, wanted) in PATCHES.iter().enumerate() {
        let (x, y) = ((2 * (n % 4) + 1) * picture.width / 8, (2 * (n / 4) + 1) * picture.height / 4);
        let seen = picture.at(x, y);
        if seen.iter().zip(wanted).any(|(seen, wanted)| seen.abs_diff(*wanted) > near) {
            wrong.push(format!("{wanted:?} is {seen:?}"));
        }
    }
    (!wrong.is_empty()).then(|| wrong.join(", "))
}

/// Collects what is wrong in a whole table, so that a failure shows all of it.
#[derive(Default)]
struct Table(Vec<String>);

impl Table {
    fn check(&mut self, what: &str, case: &Case, picture: &Rgb) {
        self.check_within(NEAR, what, case, picture);
    }

    fn check_within(&mut self, near: u8, what: &str, case: &Case, picture: &Rgb) {
        if let Some(wrong) = wrong(picture, near) {
            self.0.push(format!("{what}, {}: {wrong}", case.name()));
        }
    }

    fn judge(self) {
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

/// What a model whose input has this size gets of a frame.
fn model_input(frame: &dyn Pixels, (width, height): (usize, usize)) -> Rgb {
    let mut data = vec![0; 3 * width * height];
    Preprocessor::new(width, height).run(&frame.image(), &mut data).unwrap();
    Rgb { width, height, data }
}

/// What it gets of the first frame of a clip.
fn first(clip: &Path) -> Rgb {
    let frames = frames(clip.to_str().unwrap()).unwrap();
    let info = frames[0].1.image().info;
    model_input(&*frames[0].1, (info.width / 2, info.height / 2))
}

/// A JPEG as ffmpeg shows it.
fn jpeg(folder: &Path, bytes: &[u8]) -> Rgb {
    let path = folder.join("picture.jpg");
    std::fs::write(&path, bytes).unwrap();
    decoded_frame(&path, 0)
}

#[test]
fn the_model_and_a_file_get_the_right_colours() {
    let folder = folder();
    let mut table = Table::default();
    for case in Case::all() {
        let clip = folder.path().join(format!("{}.mkv", case.name()));
        case.write(&clip);
        table.check("model input", &case, &first(&clip));
        for output in ["out.mp4", "out.mkv"] {
            let mut command = maskcast();
            command.current_dir(folder.path()).args(["segment", clip.to_str().unwrap(), "-o", output]);
            command.args(["--model", "channels.onnx", "--threads", "1", "--alpha", "0", "--no-legend"]);
            let ended = run(&mut command);
            assert_eq!(ended.code, Some(0), "{}: {}", case.name(), ended.stderr);
            table.check(output, &case, &decoded_frame(&folder.path().join(output), 0));
        }
    }
    table.judge();
}

/// Writes the clip of every case into `folder`; gives a stream for each, with what `more` says of its name.
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
fn viewers_and_recordings_get_the_right_colours() {
    let folder = folder();
    let streams = streams(folder.path(), |name| format!("[stream.record]\ndir = \"rec/{name}\"\n"));
    let service = Service::ready(folder.path(), &streams);
    let mut table = Table::default();
    for case in Case::all() {
        let name = case.name();
        service.until_state(&name, "live");
        let (status, bytes) = get_bytes(&format!("{}api/v1/streams/{name}/snapshot.jpg", service.page));
        assert_eq!(status, 200, "{name}: {}", String::from_utf8_lossy(&bytes));
        table.check("snapshot", &case, &jpeg(folder.path(), &bytes));
        table.check("MJPEG", &case, &jpeg(folder.path(), &Mjpeg::connect(&service.page, &name).next()));
        table.check("RTSP", &case, &Viewer::play(&service.rtsp(&name), "tcp", case.size).next());
    }
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    for case in Case::all() {
        let entries = std::fs::read_dir(folder.path().join("rec").join(case.name())).unwrap();
        let files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        assert!(!files.is_empty(), "{}: no recording", case.name());
        table.check("recording", &case, &decoded_frame(&files[0], 0));
    }
    table.judge();
}

/// The range by itself, before the picture is turned: a turned SD picture stays one.
#[test]
fn a_turned_picture_keeps_its_colours() {
    let folder = folder();
    let mut table = Table::default();
    for size in [(854, 480), (1280, 720)] {
        for full_range in [false, true] {
            let case = Case { named: "unknown", full_range, size };
            let clip = folder.path().join("clip.mp4");
            case.write(&clip);
            common::clip::turn(&clip, size.1 as u32);
            let turned = first(&clip);
            // Back again, to compare: the left column of the clip is the top row of what comes out.
            let mut back = Rgb { width: turned.height, height: turned.width, data: Vec::new() };
            for y in 0..back.height {
                for x in 0..back.width {
                    back.data.extend(turned.at(turned.width - 1 - y, x));
                }
            }
            table.check("turned", &case, &back);
        }
    }
    table.judge();
}

/// Transfer function and primaries are handed on as they are: a PQ picture stays one.
#[test]
fn a_file_names_the_source_s_transfer_function_and_primaries() {
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
        let said =
            tool("ffprobe", ["-v", "error", "-show_entries", entries, "-of", "csv=p=0", output.to_str().unwrap()]);
        // GStreamer has one name for the matrix of both 525 and 625 lines.
        let matrix = matrix.replace("bt470bg", "smpte170m");
        assert_eq!(said.text(), format!("{range},{matrix},{transfer},{primaries}"));
        assert_eq!(probe(&output).frames, 2);
    }
}

/// Encoders that describe no colours get pictures as players assume them.
#[test]
fn an_encoder_that_names_no_colours_gets_what_players_assume() {
    let folder = folder();
    let mut table = Table::default();
    let streams = streams(folder.path(), |_| "encode.encoder = \"openh264\"\n".into());
    let service = Service::ready(folder.path(), &streams);
    for case in Case::all() {
        service.until_state(&case.name(), "live");
        // GStreamer's, which assumes by the size: ffmpeg takes BT.601 for HD, too.
        let viewer = LoggingViewer::rtsp(&service, &case.name(), |(width, height), data| Rgb {
            width,
            height,
            data: data.to_vec(),
        });
        let frame = until("a picture by RTSP", || viewer.log.lock().unwrap().frames.pop());
        // It is less exact than x264; a wrong range or matrix is further away in more than one patch.
        table.check_within(8, "RTSP by OpenH264", &case, &frame.content);
    }
    let (code, _, log) = service.terminate();
    assert_eq!(code, Some(0), "{log}");
    table.judge();
}
