//! H.264 levels: the decoder capability that a frame size, its rate and the bitrate need (ITU-T H.264, Annex A.3).

use super::bitrate::{fps, most};
use crate::config::EncodeConfig;
use crate::frame::VideoInfo;

/// A row of table A-1 of ITU-T H.264, reduced to frame size, rate and bitrate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub name: &'static str,
    /// `level_idc`, the last byte of `profile-level-id` in SDP.
    pub idc: u8,
    /// The most macroblocks per second (MaxMBPS).
    rate: u32,
    /// The most macroblocks per frame (MaxFS).
    size: u32,
    /// The most kbit/s (MaxBR).
    bitrate: u32,
}

/// From the lowest level that WebRTC endpoints must support (RFC 7742, section 6.2). Levels 3.2 and 4.1 are left out:
/// they differ from their neighbours in features that live encoders do not use.
const LEVELS: [Level; 6] = [
    Level { name: "3.1", idc: 31, rate: 108_000, size: 3_600, bitrate: 14_000 },
    Level { name: "4", idc: 40, rate: 245_760, size: 8_192, bitrate: 20_000 },
    Level { name: "4.2", idc: 42, rate: 522_240, size: 8_704, bitrate: 50_000 },
    Level { name: "5", idc: 50, rate: 589_824, size: 22_080, bitrate: 135_000 },
    Level { name: "5.1", idc: 51, rate: 983_040, size: 36_864, bitrate: 240_000 },
    Level { name: "5.2", idc: 52, rate: 2_073_600, size: 36_864, bitrate: 240_000 },
];

impl Level {
    /// The lowest level for this video with at most `bitrate` kbit/s; the highest of the table when none is sufficient.
    pub fn of(info: &VideoInfo, bitrate: u32) -> Level {
        let size = info.width.div_ceil(16) * info.height.div_ceil(16);
        let rate = size as f64 * fps(info);
        let suffices =
            |level: &&Level| size <= level.size as usize && rate <= f64::from(level.rate) && bitrate <= level.bitrate;
        LEVELS.iter().find(suffices).copied().unwrap_or(LEVELS[LEVELS.len() - 1])
    }

    /// The level of the live stream with this configuration.
    pub fn of_stream(info: &VideoInfo, config: &EncodeConfig) -> Level {
        Level::of(info, most(info, config))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::PixelFormat;

    #[test]
    fn levels_follow_table_a_1() {
        for (width, height, fps, expected) in [
            (640, 360, 15, ("3.1", 0x1f)),
            (1280, 720, 30, ("3.1", 0x1f)),
            (1280, 720, 60, ("4", 0x28)),
            (1920, 1080, 30, ("4", 0x28)),
            (1920, 1080, 60, ("4.2", 0x2a)),
            (2560, 1440, 30, ("5", 0x32)),
            (3840, 2160, 30, ("5.1", 0x33)),
            (3840, 2160, 60, ("5.2", 0x34)),
            (7680, 4320, 60, ("5.2", 0x34)),
        ] {
            let info = VideoInfo { fps: (fps, 1), ..VideoInfo::new(PixelFormat::I420, width, height) };
            let level = Level::of(&info, 5000);
            assert_eq!((level.name, level.idc), expected, "{info} at {fps}");
        }
        let info = VideoInfo { fps: (25, 1), ..VideoInfo::new(PixelFormat::I420, 1280, 720) };
        let names = [14_000, 14_001, 50_000, 60_000, 500_000].map(|bitrate| Level::of(&info, bitrate).name);
        assert_eq!(names, ["3.1", "4", "4.2", "5", "5.2"], "the bitrate counts");
    }
}
