//! The picture that players get, compared with what was drawn: SSIM, computed by ffmpeg.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use gstreamer as gst;
use maskcast::frame::{Image, PixelFormat, VideoInfo};
use maskcast::publish::frame_sink::{FrameSink, FrameSinkResult};

use super::program::tool;

/// Raw frames in a file, without padding.
pub struct RawFrames {
    path: PathBuf,
    file: BufWriter<File>,
    info: VideoInfo,
}

impl RawFrames {
    pub fn create(path: PathBuf, info: VideoInfo) -> RawFrames {
        let file = BufWriter::new(File::create(&path).unwrap());
        RawFrames { path, file, info }
    }

    pub fn append(&mut self, image: &Image<'_>) {
        for plane in 0..self.info.planes() {
            let (width, height) = self.info.plane_size(plane);
            let Some(rows) = image.planes.get(plane) else { continue };
            for row in rows.data.chunks(rows.stride).take(height) {
                self.file.write_all(&row[..width]).unwrap();
            }
        }
    }

    /// Completes the file.
    pub fn finish(self) -> DrawnFrames {
        self.file.into_inner().unwrap();
        DrawnFrames { path: self.path, info: self.info }
    }
}

/// What was drawn: raw frames in a file.
pub struct DrawnFrames {
    path: PathBuf,
    info: VideoInfo,
}

impl DrawnFrames {
    /// SSIM of each frame of an H.264 stream, whose first frame is the drawn frame `first`: ffmpeg's value of all planes.
    pub fn ssim(&self, encoded: &Path, first: usize) -> Vec<f64> {
        let VideoInfo { width, height, format, .. } = self.info;
        let bytes: usize = (0..self.info.planes()).map(|plane| self.info.plane_size(plane)).map(|(w, h)| w * h).sum();
        let pixels = if format == PixelFormat::Nv12 { "nv12" } else { "yuv420p" };
        let stats = encoded.with_extension("ssim");
        // Both get the same rate, so that frames are compared by their number.
        let graph = format!("[0:v]format=yuv420p[a];[1:v]format=yuv420p[b];[a][b]ssim=stats_file={}", stats.display());
        let (size, skipped) = (format!("{width}x{height}"), (first * bytes).to_string());
        let (encoded, drawn) = (encoded.to_str().unwrap(), self.path.to_str().unwrap());
        let arguments =
            ["-v", "error", "-nostdin", "-f", "h264", "-r", "25", "-i", encoded, "-f", "rawvideo", "-r", "25"];
        let raw = ["-pix_fmt", pixels, "-s", &size, "-skip_initial_bytes", &skipped, "-i", drawn];
        tool("ffmpeg", arguments.iter().chain(&raw).chain(&["-lavfi", &graph, "-f", "null", "-"]));
        let text = std::fs::read_to_string(&stats).unwrap();
        let all = |line: &str| line.split_once("All:").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        text.lines().map(|line| all(line).unwrap_or_else(|| panic!("{line}"))).collect()
    }
}

/// Mean and worst of SSIM values.
pub fn mean_and_worst(values: &[f64]) -> (f64, f64) {
    assert!(!values.is_empty(), "no frames were compared");
    (values.iter().sum::<f64>() / values.len() as f64, values.iter().copied().fold(1.0, f64::min))
}

/// Sends each encoded frame to its receiver.
pub struct EncodedFrames(Sender<Vec<u8>>);

impl EncodedFrames {
    pub fn channel() -> (Box<Self>, Receiver<Vec<u8>>) {
        let (sender, frames) = channel();
        (Box::new(EncodedFrames(sender)), frames)
    }
}

impl FrameSink for EncodedFrames {
    fn push(&mut self, sample: &gst::Sample, _: bool) -> FrameSinkResult {
        let bytes = sample.buffer().unwrap().map_readable().unwrap().to_vec();
        match self.0.send(bytes) {
            Ok(()) => FrameSinkResult::Taken,
            Err(_) => FrameSinkResult::Ended,
        }
    }
}

/// Numbers that look random and are the same in every run.
pub struct Noise(u32);

impl Noise {
    pub fn new(seed: u32) -> Noise {
        Noise(seed)
    }

    pub fn next(&mut self) -> u8 {
        // xorshift32 (Marsaglia 2003)
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        (self.0 >> 24) as u8
    }
}

/// Labels for masks of a test.
pub fn labels(count: usize) -> Arc<[maskcast::frame::Label]> {
    let color = |n: usize| maskcast::frame::Rgb((60 * n) as u8, (255 - 35 * n) as u8, (90 + 20 * n) as u8);
    (0..count).map(|n| maskcast::frame::Label::new(format!("class {n}"), color(n))).collect()
}
