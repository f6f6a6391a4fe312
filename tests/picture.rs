//! The picture of live streams and files at the default settings: close to what was drawn, within the limit of the bitrate.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::picture::{EncodedFrames, Noise, RawFrames, labels, mean_and_worst};
use maskcast::base::encode_status::RateControl;
use maskcast::base::status::Status;
use maskcast::config::{EncodeConfig, EncoderChoice, OverlayConfig};
use maskcast::frame::{Mask, OwnedImage, PixelFormat, Pixels, VideoInfo};
use maskcast::overlay::Overlay;
use maskcast::publish::encoder::bitrate_limit;
use maskcast::publish::file::FileOutput;
use maskcast::publish::live::LiveOutput;
use maskcast::publish::outputs::StreamOutputs;
use maskcast::publish::{CaptureTime, Output};
use maskcast::redact::ClearedFrame;

/// A slow camera: a bitrate by pixels per second is too low for it.
fn slow() -> VideoInfo {
    VideoInfo { fps: (25, 2), ..VideoInfo::new(PixelFormat::I420, 768, 432) }
}

/// A textured scene with an object that moves, under masks whose borders move and of which some areas change class with each
/// frame.
fn scene(frames: usize) -> impl Iterator<Item = OwnedImage> {
    let (info, classes) = (slow(), 6);
    let (width, height) = (info.width, info.height);
    let mut noise = Noise::new(7);
    let mut still = OwnedImage::new(info, 0);
    for (y, row) in still.image_mut().planes[0].data.chunks_mut(width).enumerate() {
        for (x, sample) in row.iter_mut().enumerate() {
            let (x, y) = (x as f64, y as f64);
            let coarse = 30.0 * (x / 17.0).sin() + 30.0 * (y / 11.0).cos();
            let fine = 8.0 * (x / 1.7 + y / 2.3).sin();
            *sample = (120.0 + coarse + fine) as u8 + noise.next() % 4;
        }
    }
    let labels = labels(classes);
    let mut overlay = Overlay::new(&OverlayConfig::default(), &labels).unwrap();
    (0..frames).map(move |n| {
        let mut frame = still.clone();
        let left = 4 * n % (width - 80);
        for row in frame.image_mut().planes[0].data.chunks_mut(width).skip(height / 3).take(90) {
            row[left..left + 80].iter_mut().enumerate().for_each(|(x, sample)| *sample = 40 + (x as u8 / 8) * 20);
        }
        let phase = n as f64 / 9.0;
        let class = |at: usize| {
            let (x, y) = ((at % 512) as f64, (at / 512) as f64);
            let area = ((x + 9.0 * (y / 13.0 + phase).sin()) / 60.0) as usize * 5
                + ((y + 7.0 * (x / 11.0).cos()) / 48.0) as usize;
            // One area of ten changes with each frame.
            ((area + usize::from(area % 10 == n % 10)) % classes) as u8
        };
        let mask = Mask {
            seq: n as u64,
            pts: Duration::ZERO,
            captured_at: Instant::now(),
            width: 512,
            height: 288,
            classes: (0..512 * 288).map(class).collect(),
            labels: Arc::clone(&labels),
            model: "".into(),
            guide: None,
            probable: None,
            confirmed: false,
            seen: None,
        };
        let mut drawn = OwnedImage::new(info, 0);
        overlay.draw(&frame.image(), Some(&mask), &mut drawn.image_mut());
        drawn
    })
}

fn noise(info: VideoInfo, frames: usize) -> impl Iterator<Item = OwnedImage> {
    let mut noise = Noise::new(3);
    (0..frames).map(move |_| {
        let mut frame = OwnedImage::new(info, 0);
        frame.image_mut().planes.iter_mut().for_each(|plane| plane.data.fill_with(|| noise.next()));
        frame
    })
}

/// The time of frame `n` of a camera that started at `start`: the clock of outputs follows the arrival of frames.
fn time(info: &VideoInfo, n: usize, start: Instant) -> CaptureTime {
    let pts = Duration::from_secs_f64(n as f64 * f64::from(info.fps.1) / f64::from(info.fps.0));
    CaptureTime { pts, captured_at: start + pts, slate: false }
}

/// The encoded frames of a live stream, and its rate control.
fn encode(config: EncodeConfig, frames: impl Iterator<Item = OwnedImage>) -> (Vec<Vec<u8>>, RateControl) {
    maskcast::gst::init().unwrap();
    let (outputs, status) = (StreamOutputs::default(), Arc::new(Status::new("test")));
    let (sink, encoded) = EncodedFrames::channel();
    outputs.h264.add(sink);
    let mut output = LiveOutput::new(config, Arc::clone(&status), outputs).blocking();
    let start = Instant::now();
    for (n, frame) in frames.enumerate() {
        let info = frame.image().info;
        output
            .publish(time(&info, n, start), info, &mut |target| target.copy(&ClearedFrame::unredacted(frame.image())))
            .unwrap();
    }
    let control = status.encode.running().expect("an encoder runs").rate_control;
    output.finish().unwrap();
    assert!(status.encode.running().is_none(), "its end shows in the status");
    drop(output);
    let encoded: Vec<Vec<u8>> = encoded.try_iter().collect();
    let received = encoded.iter().map(Vec::len).sum::<usize>() as f64;
    // Parameter sets are repeated behind the encoder.
    let counted = status.encode.bytes() as f64;
    assert!(counted <= received && counted > 0.99 * received, "{counted} of {received} bytes");
    (encoded, control)
}

/// Mean and worst SSIM of the scene.
fn quality(folder: &Path, config: EncodeConfig) -> (f64, f64) {
    let frames: Vec<OwnedImage> = scene(75).collect();
    let mut raw = RawFrames::create(folder.join("drawn.yuv"), slow());
    frames.iter().for_each(|frame| raw.append(&frame.image()));
    let count = frames.len();
    let (encoded, _) = encode(config, frames.into_iter());
    let path = folder.join("encoded.h264");
    std::fs::write(&path, encoded.concat()).unwrap();
    let values = raw.finish().ssim(&path, 0);
    assert_eq!(values.len(), count);
    mean_and_worst(&values)
}

#[test]
fn a_slow_stream_has_a_clear_picture_at_the_default_settings() {
    let folder = tempfile::tempdir().unwrap();
    for encoder in [EncoderChoice::X264, EncoderChoice::OpenH264] {
        let config = EncodeConfig { encoder, ..EncodeConfig::default() };
        let (mean, worst) = quality(folder.path(), config);
        assert!(mean >= 0.98 && worst >= 0.96, "{encoder:?}: mean {mean}, worst {worst}");
    }
    // 0.15 bit per pixel, which was the default: the scene is not an easy one.
    let config = EncodeConfig { encoder: EncoderChoice::X264, bitrate: 622, ..EncodeConfig::default() };
    let (mean, worst) = quality(folder.path(), config);
    assert!(mean < 0.97 && worst < 0.95, "mean {mean}, worst {worst}");
}

/// The most kbit/s in a window of two seconds.
fn peak(info: &VideoInfo, encoded: &[Vec<u8>]) -> f64 {
    let frames = 2 * info.fps.0 as usize / info.fps.1 as usize;
    let bytes = |window: &[Vec<u8>]| window.iter().map(Vec::len).sum::<usize>();
    encoded.windows(frames).map(|window| bytes(window) as f64 * 8.0 / 1000.0 / 2.0).fold(0.0, f64::max)
}

#[test]
fn the_limit_of_the_bitrate_holds_for_noise() {
    let config = EncodeConfig { encoder: EncoderChoice::X264, ..EncodeConfig::default() };
    let (encoded, control) = encode(config, noise(slow(), 75));
    let limit = bitrate_limit(&slow());
    assert_eq!(control, RateControl::Quality { limit });
    // Half a second at the limit may be added by the buffer.
    let (peak, limit) = (peak(&slow(), &encoded), f64::from(limit));
    assert!(peak <= 1.3 * limit && peak >= 0.8 * limit, "{peak} kbit/s, limit {limit}");
}

#[test]
fn a_static_scene_needs_a_fraction_of_the_limit() {
    for encoder in [EncoderChoice::X264, EncoderChoice::OpenH264] {
        let config = EncodeConfig { encoder, ..EncodeConfig::default() };
        let first = scene(1).next().unwrap();
        let (encoded, _) = encode(config, std::iter::repeat_n(first, 75));
        let seconds = encoded.len() as f64 * f64::from(slow().fps.1) / f64::from(slow().fps.0);
        let mean = encoded.iter().map(Vec::len).sum::<usize>() as f64 * 8.0 / 1000.0 / seconds;
        let limit = f64::from(bitrate_limit(&slow()));
        assert!(mean < 0.3 * limit, "{encoder:?}: {mean} kbit/s, limit {limit}");
    }
}

#[test]
fn the_quality_of_files_has_no_limit() {
    maskcast::gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("noise.mp4");
    let config = EncodeConfig { encoder: EncoderChoice::X264, ..EncodeConfig::default() };
    let mut output = FileOutput::new(path.clone(), config, Arc::new(Status::new("test"))).unwrap();
    let start = Instant::now();
    for (n, frame) in noise(slow(), 25).enumerate() {
        output
            .publish(time(&slow(), n, start), slow(), &mut |target| {
                target.copy(&ClearedFrame::unredacted(frame.image()))
            })
            .unwrap();
    }
    output.finish().unwrap();
    let kbits = std::fs::metadata(&path).unwrap().len() as f64 * 8.0 / 1000.0 / 2.0;
    assert!(kbits > 10_000.0, "{kbits} kbit/s");
}
