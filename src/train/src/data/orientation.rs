//! How a picture is turned for display: the orientation in its EXIF data.

use std::fmt;
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use super::raw::is_tiff;

/// EXIF data of JPEG and PNG begin at the front: within so many bytes.
const HEAD: usize = 32 << 10;
/// And have at most so many in JPEG.
const LARGEST: usize = 64 << 10;
/// What EXIF data begin with in JPEG and in PNG.
const MARKS: [&[u8]; 2] = [b"Exif\0\0", b"eXIf"];

/// Where EXIF data are in a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Front,
    /// Anywhere, in TIFF and WebP.
    Whole,
}

fn kind(bytes: &[u8]) -> Kind {
    if is_tiff(bytes) || bytes.starts_with(b"RIFF") { Kind::Whole } else { Kind::Front }
}

/// EXIF's orientation, 1 to 8 (CIPA DC-008, tag 0x0112): how the stored picture lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Orientation {
    #[default]
    Upright,
    Mirrored,
    HalfTurned,
    MirroredHalfTurned,
    Transposed,
    /// To be turned by a quarter, clockwise.
    Clockwise,
    Transverse,
    /// To be turned by a quarter, counterclockwise.
    Counterclockwise,
}

impl fmt::Display for Orientation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Orientation::Upright => "upright",
            Orientation::Mirrored => "mirrored",
            Orientation::HalfTurned => "turned by 180°",
            Orientation::MirroredHalfTurned => "mirrored and turned by 180°",
            Orientation::Transposed | Orientation::Transverse => "mirrored and turned by 90°",
            Orientation::Clockwise | Orientation::Counterclockwise => "turned by 90°",
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
            // Readers of pictures take what the standard does not know for upright.
            _ => Orientation::Upright,
        }
    }

    /// Of a picture file in memory; upright where it does not say.
    pub fn of(bytes: &[u8]) -> Self {
        let head = &bytes[..bytes.len().min(HEAD)];
        let bytes = match kind(bytes) {
            Kind::Whole => bytes,
            Kind::Front if MARKS.iter().any(|mark| head.windows(mark.len()).any(|part| part == *mark)) => {
                &bytes[..bytes.len().min(HEAD + LARGEST)]
            }
            Kind::Front => return Orientation::Upright,
        };
        let read = exif::Reader::new().read_from_container(&mut Cursor::new(bytes));
        let number = read.ok().and_then(|exif| {
            exif.get_field(exif::Tag::Orientation, exif::In::PRIMARY).and_then(|field| field.value.get_uint(0))
        });
        number.map_or(Orientation::Upright, Orientation::of_number)
    }

    /// Of a picture file, of which no more is read than need be; upright where it cannot be read.
    pub fn of_file(path: &Path) -> Self {
        let read = || -> std::io::Result<Self> {
            let (mut file, mut bytes) = (File::open(path)?, Vec::new());
            file.by_ref().take((HEAD + LARGEST) as u64).read_to_end(&mut bytes)?;
            if kind(&bytes) == Kind::Whole {
                file.read_to_end(&mut bytes)?;
            }
            Ok(Orientation::of(&bytes))
        };
        read().unwrap_or_default()
    }

    /// Whether width and height change places.
    pub fn swaps(self) -> bool {
        use Orientation::{Clockwise, Counterclockwise, Transposed, Transverse};
        matches!(self, Transposed | Clockwise | Transverse | Counterclockwise)
    }

    /// Width and height as seen, of those that are stored.
    pub fn size(self, width: usize, height: usize) -> (usize, usize) {
        if self.swaps() { (height, width) } else { (width, height) }
    }

    /// Pixels `[height, width]` as stored, as they are seen.
    pub fn turn<T: Copy>(self, pixels: &[T], width: usize, height: usize) -> Vec<T> {
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

    /// JPEG's EXIF segment that says this orientation.
    pub fn exif_segment(number: u8) -> Vec<u8> {
        let mut segment =
            [&[0xFF, 0xE1, 0x00, 34][..], b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0"].concat();
        segment.extend([number, 0, 0, 0, 0, 0, 0, 0]);
        segment
    }

    #[test]
    fn each_orientation_is_turned_as_the_standard_says() {
        // 2×3 pixels; where the corner that is stored first is seen: EXIF's table "0th row, 0th column".
        let stored = [1, 2, 3, 4, 5, 6];
        let seen = |number| Orientation::of_number(number).turn(&stored, 2, 3);
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
        assert_eq!(Orientation::of(b"no picture"), Orientation::Upright);
    }
}
