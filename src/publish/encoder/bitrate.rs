//! The automatic bitrate of live streams.
//!
//! Encoders hold the quality constant: a static scene needs few bits, and masks that change need many. A limit by frame size
//! and rate bounds what a viewer's connection must carry. It grows with the square root of the pixels per second: a frame
//! differs more from its predecessor the longer ago that was, and large frames have less detail per pixel.

use crate::base::encode_status::RateControl;
use crate::config::EncodeConfig;
use crate::frame::VideoInfo;

/// Kilobits per second for each square root of a pixel per second. Measured with three clips of fixed cameras and masks of two
/// models (`make quality`): 1.6 gives the hardest, in which a fifth of the pixels change class with each frame,
/// its quality with a reserve of two fifths.
const LIMIT_PER_ROOT: f64 = 1.6;

/// Bits per pixel that the limit never falls below. It decides above 114 million pixels per second (1080p at 55 fps).
const LEAST_BITS_PER_PIXEL: f64 = 0.15;

/// Bounds of the automatic bitrate, kbit/s.
const BOUNDS: (f64, f64) = (200.0, 40_000.0);

/// The frame rate that is assumed for a source of unknown rate.
const DEFAULT_FPS: f64 = 25.0;

/// Frames per second; [`DEFAULT_FPS`] when the source does not announce a rate.
pub(in crate::publish) fn fps(info: &VideoInfo) -> f64 {
    if info.fps.0 == 0 { DEFAULT_FPS } else { f64::from(info.fps.0) / f64::from(info.fps.1) }
}

fn pixels_per_second(info: &VideoInfo) -> f64 {
    (info.width * info.height) as f64 * fps(info)
}

/// The most kbit/s of the automatic bitrate for a frame size and rate.
pub fn bitrate_limit(info: &VideoInfo) -> u32 {
    let pixels = pixels_per_second(info);
    (LIMIT_PER_ROOT * pixels.sqrt()).max(LEAST_BITS_PER_PIXEL * pixels / 1000.0).clamp(BOUNDS.0, BOUNDS.1) as u32
}

/// The automatic bitrate in kbit/s for encoders that cannot hold the quality constant: half the limit, at least 0.15 bit per
/// pixel.
pub(super) fn constant_bitrate(info: &VideoInfo) -> u32 {
    let least = LEAST_BITS_PER_PIXEL * pixels_per_second(info) / 1000.0;
    f64::from(bitrate_limit(info) / 2).max(least).clamp(BOUNDS.0, BOUNDS.1) as u32
}

/// The most kbit/s of a live stream with this configuration, with any encoder.
pub(super) fn most(info: &VideoInfo, config: &EncodeConfig) -> u32 {
    if config.bitrate == 0 { bitrate_limit(info) } else { config.bitrate }
}

/// The rate control of a live stream. `holds_quality`: the encoder can hold the quality constant below a limit.
pub(super) fn rate_control(info: &VideoInfo, config: &EncodeConfig, holds_quality: bool) -> RateControl {
    match (config.bitrate, holds_quality) {
        (0, true) => RateControl::Quality { limit: bitrate_limit(info) },
        (0, false) => RateControl::Constant { bitrate: constant_bitrate(info) },
        (bitrate, _) => RateControl::Constant { bitrate },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::PixelFormat;
    use crate::publish::encoder::Level;

    fn info(width: usize, height: usize, fps: (u32, u32)) -> VideoInfo {
        VideoInfo { fps, ..VideoInfo::new(PixelFormat::I420, width, height) }
    }

    #[test]
    fn the_limit_depends_on_frame_size_and_rate_and_favours_slow_streams() {
        for (width, height, fps, limit, constant) in [
            (16, 16, (25, 1), 200, 200),
            (768, 432, (10, 1), 2914, 1457),
            (768, 432, (25, 2), 3258, 1629),
            (768, 432, (0, 1), 4608, 2304),
            (960, 540, (25, 1), 5760, 2880),
            (1280, 720, (25, 1), 7680, 3840),
            (1920, 1080, (25, 1), 11_520, 7776),
            (1920, 1080, (60, 1), 18_662, 18_662),
            (3840, 2160, (60, 1), 40_000, 40_000),
        ] {
            let info = info(width, height, fps);
            assert_eq!((bitrate_limit(&info), constant_bitrate(&info)), (limit, constant), "{info}");
        }
        let bits = |fps| f64::from(bitrate_limit(&info(768, 432, (fps, 1)))) / f64::from(fps);
        assert!(bits(5) > 1.4 * bits(10) && bits(10) > 1.5 * bits(25), "a frame of a slow stream may have more bits");
    }

    #[test]
    fn a_configured_bitrate_is_constant() {
        let info = info(768, 432, (25, 2));
        let set = EncodeConfig { bitrate: 900, ..EncodeConfig::default() };
        let automatic = EncodeConfig::default();
        assert_eq!(rate_control(&info, &set, true), RateControl::Constant { bitrate: 900 });
        assert_eq!(rate_control(&info, &automatic, true), RateControl::Quality { limit: 3258 });
        assert_eq!(rate_control(&info, &automatic, false), RateControl::Constant { bitrate: 1629 });
        assert_eq!([most(&info, &set), most(&info, &automatic)], [900, 3258]);
    }

    /// A level that the bitrate raises would be one that the frame size does not need.
    #[test]
    fn the_automatic_bitrate_fits_the_level_of_the_frame_size() {
        for (width, height) in [(320, 240), (640, 360), (1280, 720), (1920, 1080), (2560, 1440), (3840, 2160)] {
            for fps in [1, 5, 12, 15, 25, 30, 50, 60] {
                let info = info(width, height, (fps, 1));
                assert_eq!(Level::of(&info, bitrate_limit(&info)), Level::of(&info, 0), "{info} at {fps}");
            }
        }
    }
}
