//! Errors of label images and of annotations from which labels are drawn.

use std::fmt;
use std::path::PathBuf;

/// Why a label cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LabelError {
    #[error(transparent)]
    Image(#[from] LabelImageError),
    #[error(transparent)]
    Shape(#[from] ShapeError),
    #[error(
        "the run lengths describe {}x{} pixels, but the image has {}x{}",
        .run_lengths.0, .run_lengths.1, .image.0, .image.1
    )]
    RunLengthsSize { run_lengths: (usize, usize), image: (usize, usize) },
    #[error(transparent)]
    AmbiguousImage(#[from] AmbiguousImage),
}

/// A path in an annotation file that several images match equally.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path} is ambiguous: {} or {}", .first.display(), .second.display())]
pub struct AmbiguousImage {
    pub path: String,
    pub first: PathBuf,
    pub second: PathBuf,
}

/// A file format that is not used for labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherFile {
    Jpeg,
    WebP,
    NumPy,
    Unknown,
}

impl fmt::Display for OtherFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            OtherFile::Jpeg => "a JPEG file, not PNG, BMP, GIF or TIFF",
            OtherFile::WebP => "a WebP file, not PNG, BMP, GIF or TIFF",
            OtherFile::NumPy => "a NumPy array, not an image",
            OtherFile::Unknown => "not a PNG, BMP, GIF or TIFF file",
        })
    }
}

/// Why a label image cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum LabelImageError {
    #[error("the file is empty")]
    Empty,
    #[error(
        "it is {0}; other formats do not store class numbers exactly; labels must be PNG: export the labels again as PNG"
    )]
    OtherFormat(OtherFile),
    #[error("it has more than 8 bits per pixel and the value {0}; the largest class number is 255")]
    ValueTooLarge(String),
    #[error("it has {0} samples per pixel; save it with 1 (numbers) or 3 (colours)")]
    Samples(usize),
    #[error("{0}")]
    Png(#[from] png::DecodingError),
    #[error("it is too large")]
    TooLarge,
    #[error("the BMP file is damaged or of an unsupported kind ({0:?}); save it as PNG")]
    Bmp(tinybmp::ParseError),
    #[error("the BMP file is compressed; save it as PNG")]
    BmpCompressed,
    #[error("the BMP file is truncated: pixels are missing")]
    BmpTruncated,
    #[error("a BMP file with {0:?} does not store numbers exactly; save it as PNG")]
    BmpDepth(tinybmp::Bpp),
    #[error("the GIF file is damaged: {0}")]
    Gif(#[from] gif::DecodingError),
    #[error("the GIF file contains no image")]
    GifEmpty,
    #[error("the image of the GIF file does not cover its canvas; save it as PNG")]
    GifPartial,
    #[error("the GIF file is an animation; save its label as one PNG")]
    GifAnimation,
    #[error("the TIFF file cannot be read ({0}); save it as PNG")]
    Tiff(#[from] tiff::TiffError),
    #[error("the TIFF file is of an unsupported kind; save it as PNG")]
    TiffUnsupported,
    #[error("the TIFF file has a palette and several samples per pixel; save it as PNG")]
    TiffPaletteSamples,
    #[error("the TIFF file has several pages; save its label as one PNG")]
    TiffPages,
    #[error("its pixels are floating point or 64-bit numbers, not class numbers; save it as 8-bit PNG")]
    TiffNumbers,
    #[error("the number of values in the TIFF file does not match its size; save it as PNG")]
    TiffSize,
}

/// Why run lengths are invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunLengthsError {
    #[error("the run lengths add up to {sum} pixels, but {width}x{height} are {}", width * height)]
    Sum { sum: u64, width: usize, height: usize },
    /// Counts from 1.
    #[error("character {0} of the compressed run lengths is invalid")]
    Character(usize),
    #[error("the compressed run lengths are truncated")]
    Truncated,
}

/// Why an annotated shape cannot be drawn.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    #[error("a polygon has {0} numbers; it needs x and y of at least three points")]
    PolygonNumbers(usize),
    #[error(transparent)]
    RunLengths(#[from] RunLengthsError),
    #[error("a mask of {0} has no data")]
    MaskWithoutData(String),
    #[error("the mask of {label}: {source}")]
    MaskBase64 { label: String, source: base64::DecodeError },
    #[error("the mask of {label}: {source}")]
    Mask { label: String, source: LabelImageError },
    #[error("a shape of {label} is a {kind} of {points} points, which is not supported")]
    Unsupported { label: String, kind: String, points: usize },
}
