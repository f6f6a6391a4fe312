//! Clips that tests generate with ffmpeg, and the properties of files as ffprobe reports them.

use std::ops::Range;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::program::{run, tool};

/// Runs ffmpeg with `-v error`.
pub fn ffmpeg(arguments: &[&str]) {
    tool("ffmpeg", ["-v", "error", "-nostdin", "-y"].iter().chain(arguments));
}

/// A rectangle of one colour; pixels.
#[derive(Clone, Copy, Debug)]
pub struct Patch {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    pub height: usize,
    /// `RRGGBB`
    pub color: &'static str,
}

pub const RED: &str = "FF0000";
pub const GREEN: &str = "00FF00";
pub const BLUE: &str = "0000FF";

/// The left half red, the right half green above blue: class shares 1/2, 1/4, 1/4.
pub fn flag(width: usize, height: usize) -> [Patch; 3] {
    let (x, y) = (width / 4 * 2, height / 4 * 2);
    [
        Patch { left: 0, top: 0, width, height, color: RED },
        Patch { left: x, top: 0, width: width - x, height: y, color: GREEN },
        Patch { left: x, top: y, width: width - x, height: height - y, color: BLUE },
    ]
}

/// Writes a clip of `frames` equal frames, lossless: H.264 4:2:0 (or FFV1, for odd sides, in `.mkv`).
pub fn paint(path: &Path, size: (usize, usize), frames: usize, patches: &[Patch]) {
    let always: Vec<_> = patches.iter().map(|patch| (*patch, 0..frames)).collect();
    paint_scene(path, size, 25, frames, "black", &always);
}

/// The same with a background (a colour of ffmpeg), and patches that are there for these frames only.
pub fn paint_scene(
    path: &Path,
    (width, height): (usize, usize),
    fps: usize,
    frames: usize,
    background: &str,
    patches: &[(Patch, Range<usize>)],
) {
    let mut graph = format!("color={background}:s={width}x{height}:r={fps},format=yuv420p");
    for (Patch { left, top, width, height, color }, shown) in patches {
        let enable = format!("enable='between(n,{},{})'", shown.start, shown.end - 1);
        graph += &format!(",drawbox={left}:{top}:{width}:{height}:0x{color}:fill:{enable}");
    }
    let even = width % 2 == 0 && height % 2 == 0;
    let codec: &[&str] =
        if even { &["-c:v", "libx264", "-preset", "ultrafast", "-qp", "0"] } else { &["-c:v", "ffv1"] };
    let count = frames.to_string();
    let mut arguments = vec!["-f", "lavfi", "-i", &graph, "-frames:v", &count];
    arguments.extend(codec);
    arguments.push(path.to_str().unwrap());
    ffmpeg(&arguments);
}

/// Writes a clip of a moving test pattern, H.264, with a keyframe every 12 frames.
pub fn moving(path: &Path, (width, height): (usize, usize), fps: usize, frames: usize) {
    let source = format!("testsrc2=s={width}x{height}:r={fps}");
    let count = frames.to_string();
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        &source,
        "-frames:v",
        &count,
        "-c:v",
        "libx264",
        "-preset",
        "ultrafast",
        "-pix_fmt",
        "yuv420p",
        "-g",
        "12",
        path.to_str().unwrap(),
    ]);
}

/// Properties of the video in a file as ffprobe reports them; it decodes and counts every frame.
#[derive(Debug)]
pub struct Probe {
    pub frames: u64,
    pub width: u64,
    pub height: u64,
    /// As ffprobe writes it: `4:3`; empty when the file does not have it.
    pub sample_aspect_ratio: String,
    pub codec: String,
    /// Seconds.
    pub duration: f64,
}

pub fn probe(path: &Path) -> Probe {
    let ended = tool(
        "ffprobe",
        [
            "-v",
            "error",
            "-count_frames",
            "-select_streams",
            "v:0",
            "-show_streams",
            "-show_format",
            "-of",
            "json",
            path.to_str().unwrap(),
        ],
    );
    let json: Value = serde_json::from_slice(&ended.stdout).unwrap();
    let stream = &json["streams"][0];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    Probe {
        frames: text(&stream["nb_read_frames"]).parse().unwrap_or(0),
        width: stream["width"].as_u64().unwrap_or(0),
        height: stream["height"].as_u64().unwrap_or(0),
        sample_aspect_ratio: text(&stream["sample_aspect_ratio"]),
        codec: text(&stream["codec_name"]),
        duration: text(&json["format"]["duration"]).parse().unwrap_or(f64::NAN),
    }
}

/// The times of all frames in seconds, relative to the first one.
pub fn times(path: &Path) -> Vec<f64> {
    let ended = tool(
        "ffprobe",
        [
            "-v",
            "error",
            "-select_streams",
            "v:0",
            "-show_entries",
            "frame=pts_time",
            "-of",
            "csv=p=0",
            path.to_str().unwrap(),
        ],
    );
    let number = |line: &str| line.trim_end_matches(',').parse().unwrap();
    let times: Vec<f64> = ended.text().lines().filter(|line| !line.is_empty()).map(number).collect();
    times.iter().map(|time| time - times[0]).collect()
}

/// The errors that ffmpeg reports when it decodes the whole file; empty when there are none.
pub fn decode_errors(path: &Path) -> String {
    let ended = run(Command::new("ffmpeg").args(["-v", "error", "-nostdin", "-i"]).arg(path).args(["-f", "null", "-"]));
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    ended.stderr
}

/// An image, three bytes a pixel.
pub struct Rgb {
    pub width: usize,
    pub height: usize,
    pub data: Vec<u8>,
}

impl Rgb {
    pub fn at(&self, x: usize, y: usize) -> [u8; 3] {
        self.data[3 * (y * self.width + x)..][..3].try_into().unwrap()
    }

    /// 0, 1 or 2: the strongest channel.
    pub fn class_at(&self, x: usize, y: usize) -> u8 {
        let pixel = self.at(x, y);
        (0..3).max_by_key(|&channel| pixel[channel]).unwrap() as u8
    }
}

/// Frame `number` (from 0) of a file as ffmpeg decodes it, rotated according to its metadata.
pub fn decoded_frame(path: &Path, number: usize) -> Rgb {
    let Probe { width, height, .. } = probe(path);
    let select = format!("select=eq(n\\,{number})");
    let ended = tool(
        "ffmpeg",
        [
            "-v",
            "error",
            "-nostdin",
            "-i",
            path.to_str().unwrap(),
            "-vf",
            &select,
            "-frames:v",
            "1",
            "-f",
            "rawvideo",
            "-pix_fmt",
            "rgb24",
            "pipe:1",
        ],
    );
    assert_eq!(ended.stdout.len() as u64, 3 * width * height, "{}", path.display());
    Rgb { width: width as usize, height: height as usize, data: ended.stdout }
}

/// The positions along a line where the class changes.
pub fn borders(classes: impl IntoIterator<Item = u8>) -> Vec<usize> {
    let classes: Vec<u8> = classes.into_iter().collect();
    (1..classes.len()).filter(|&at| classes[at] != classes[at - 1]).collect()
}

/// Makes players rotate the MP4 at `path`, whose frames are `height` pixels high, by 90° clockwise: writes the matrix of
/// the track header (ISO/IEC 14496-12, `tkhd`, version 0).
pub fn turn(path: &Path, height: u32) {
    let mut file = std::fs::read(path).unwrap();
    let header = file.windows(4).position(|name| name == b"tkhd").unwrap();
    assert_eq!(file[header + 4], 0, "version 0");
    let one = 1_u32 << 16;
    let matrix = [0, one, 0, one.wrapping_neg(), 0, 0, height << 16, 0, 1 << 30];
    for (field, value) in file[header + 44..].chunks_mut(4).zip(matrix) {
        field.copy_from_slice(&value.to_be_bytes());
    }
    std::fs::write(path, file).unwrap();
}
