//! H.264 levels: what a decoder needs for pictures of this size at this rate.

use super::settings::fps;
use crate::frame::VideoInfo;

/// A row of ITU-T H.264's table A-1, as far as size and rate go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    pub name: &'static str,
    /// `level_idc`, the last byte of an SDP's `profile-level-id`.
    pub idc: u8,
    /// Macroblocks a second, and of a picture, at most.
    rate: u32,
    size: u32,
}

/// From the least that WebRTC's ends have in common (RFC 7742). 3.2 and 4.1 differ from their neighbours in what live encoders
/// do not use; left out, there is less to go wrong in drivers.
const LEVELS: [Level; 6] = [
    Level { name: "3.1", idc: 31, rate: 108_000, size: 3_600 },
    Level { name: "4", idc: 40, rate: 245_760, size: 8_192 },
    Level { name: "4.2", idc: 42, rate: 522_240, size: 8_704 },
    Level { name: "5", idc: 50, rate: 589_824, size: 22_080 },
    Level { name: "5.1", idc: 51, rate: 983_040, size: 36_864 },
    Level { name: "5.2", idc: 52, rate: 2_073_600, size: 36_864 },
];

impl Level {
    /// The least that holds these pictures; the highest where none does.
    pub fn of(info: &VideoInfo) -> Level {
        let size = info.width.div_ceil(16) * info.height.div_ceil(16);
        let rate = size as f64 * fps(info);
        let holds = |level: &&Level| size <= level.size as usize && rate <= f64::from(level.rate);
        LEVELS.iter().find(holds).copied().unwrap_or(LEVELS[LEVELS.len() - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::PixelFormat;

    #[test]
    fn levels_follow_the_standards_table() {
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
            let level = Level::of(&info);
            assert_eq!((level.name, level.idc), expected, "{info} at {fps}");
        }
    }
}
