//! The EXIF orientation of an image: how it is rotated for display.

use std::fmt;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use super::signature::is_tiff;

/// In JPEG and PNG, EXIF data begin within this many bytes.
const HEAD: usize = 32 << 10;
/// Largest size of EXIF data in JPEG, in bytes.
const LARGEST: usize = 64 << 10;
/// Signatures of EXIF data in JPEG and in PNG.
const MARKS: [&[u8]; 2] = [b"Exif\0\0", b"eXIf"];

/// Where a file format stores EXIF data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ExifLocation {
    Front,
    /// Anywhere (TIFF, WebP).
    Whole,
}

fn exif_location(bytes: &[u8]) -> ExifLocation {
    if is_tiff(bytes) || bytes.starts_with(b"RIFF") { ExifLocation::Whole } else { ExifLocation::Front }
}

/// EXIF's orientation, 1 to 8 (CIPA DC-008, tag 0x0112): how the stored image is rotated and mirrored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Orientation {
    #[default]
    Upright,
    Mirrored,
    HalfTurned,
    MirroredHalfTurned,
    Transposed,
    /// Rotated by 90° clockwise for display.
    Clockwise,
    Transverse,
    /// Rotated by 90° counterclockwise for display.
    Counterclockwise,
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Orientation::Upright => "upright",
            Orientation::Mirrored => "mirrored",
            Orientation::HalfTurned => "rotated by 180°",
            Orientation::MirroredHalfTurned => "mirrored and rotated by 180°",
            Orientation::Transposed | Orientation::Transverse => "mirrored and rotated by 90°",
            Orientation::Clockwise | Orientation::Counterclockwise => "rotated by 90°",
        })
    }
}

impl Orientation {
    fn of_number(number: u32) -> Self {
        match number {
            2 => Orientation::Mirrored,
            3 => Orientation::HalfTurned,
            4 => Orientation::MirroredHalfTurned,
            5 => Orientation::Transposed,
            6 => Orientation::Clockwise,
            7 => Orientation::Transverse,
            8 => Orientation::Counterclockwise,
            // Other values are invalid; image readers treat them as upright.
            _ => Orientation::Upright,
        }
    }

    /// Reads the orientation of an image file in memory; upright if it has none.
    pub fn of(bytes: &[u8]) -> Self {
        let head = &bytes[..bytes.len().min(HEAD)];
        let bytes = match exif_location(bytes) {
            ExifLocation::Whole => bytes,
            ExifLocation::Front if MARKS.iter().any(|mark| head.windows(mark.len()).any(|part| part == *mark)) => {
                &bytes[..bytes.len().min(HEAD + LARGEST)]
            }
            ExifLocation::Front => return Orientation::Upright,
        };
        let read = exif::Reader::new().read_from_container(&mut Cursor::new(bytes));
        let number = read.ok().and_then(|exif| {
            exif.get_field(exif::Tag::Orientation, exif::In::PRIMARY).and_then(|field| field.value.get_uint(0))
        });
        number.map_or(Orientation::Upright, Orientation::of_number)
    }

    /// Reads the orientation of an image file; upright if it cannot be read. Reads only the beginning where the format
    /// allows it.
    pub fn of_file(path: &Path) -> Self {
        let read = || -> std::io::Result<Self> {
            let (mut file, mut bytes) = (File::open(path)?, Vec::new());
            file.by_ref().take((HEAD + LARGEST) as u64).read_to_end(&mut bytes)?;
            if exif_location(&bytes) == ExifLocation::Whole {
                file.read_to_end(&mut bytes)?;
            }
            Ok(Orientation::of(&bytes))
        };
        read().unwrap_or_default()
    }

    /// Whether width and height are swapped.
    pub fn swaps(self) -> bool {
        use Orientation::{Clockwise, Counterclockwise, Transposed, Transverse};
        matches!(self, Transposed | Clockwise | Transverse | Counterclockwise)
    }

    /// Converts stored width and height to those for display.
    pub fn size(self, width: usize, height: usize) -> (usize, usize) {
        if self.swaps() { (height, width) } else { (width, height) }
    }

    /// Rotates stored pixels `[height, width]` for display.
    pub fn apply<T: Copy>(self, pixels: &[T], width: usize, height: usize) -> Vec<T> {
        if self == Orientation::Upright {
            return pixels.to_vec();
        }
        let (seen_width, seen_height) = self.size(width, height);
        let at = |x: usize, y: usize| match self {
            Orientation::Upright => (x, y),
            Orientation::Mirrored => (width - 1 - x, y),
            Orientation::HalfTurned => (width - 1 - x, height - 1 - y),
            Orientation::MirroredHalfTurned => (x, height - 1 - y),
            Orientation::Transposed => (y, x),
            Orientation::Clockwise => (y, height - 1 - x),
            Orientation::Transverse => (width - 1 - y, height - 1 - x),
            Orientation::Counterclockwise => (width - 1 - y, x),
        };
        let places = (0..seen_height).flat_map(|y| (0..seen_width).map(move |x| at(x, y)));
        places.map(|(x, y)| pixels[y * width + x]).collect()
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A JPEG EXIF segment with this orientation.
    pub fn exif_segment(number: u8) -> Vec<u8> {
        let mut segment =
            [&[0xFF, 0xE1, 0x00, 34][..], b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"].concat();
        segment.extend([number, 0, 0, 0, 0, 0, 0, 0]);
        segment
    }

    #[test]
    fn orientations_are_applied_as_in_the_standard() {
        // 2×3 pixels; where the first stored corner is displayed: EXIF's table "0th row, 0th column".
        let stored = [1, 2, 3, 4, 5, 6];
        let seen = |number| Orientation::of_number(number).apply(&stored, 2, 3);
        assert_eq!(seen(1), [1, 2, 3, 4, 5, 6]);
        assert_eq!(seen(2), [2, 1, 4, 3, 6, 5]);
        assert_eq!(seen(3), [6, 5, 4, 3, 2, 1]);
        assert_eq!(seen(4), [5, 6, 3, 4, 1, 2]);
        assert_eq!(seen(5), [1, 3, 5, 2, 4, 6]);
        assert_eq!(seen(6), [5, 3, 1, 6, 4, 2]);
        assert_eq!(seen(7), [6, 4, 2, 5, 3, 1]);
        assert_eq!(seen(8), [2, 4, 6, 1, 3, 5]);
        assert_eq!(Orientation::of_number(6).size(2, 3), (3, 2));
    }

    #[test]
    fn the_orientation_is_read_from_the_file() {
        for number in 1..=8 {
            let jpeg = [&[0xFF, 0xD8][..], &exif_segment(number), &[0xFF, 0xD9]].concat();
            assert_eq!(Orientation::of(&jpeg), Orientation::of_number(number.into()), "{number}");
        }
        assert_eq!(Orientation::of(b"not an image"), Orientation::Upright);
    }
}
