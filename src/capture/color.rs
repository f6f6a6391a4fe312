//! The colour description in the caps of raw video (range, matrix, transfer function, primaries), with missing parts
//! completed.
//!
//! GStreamer's `VideoInfo` discards the whole description when its matrix is unknown, including the range, which many
//! cameras send alone. Its defaults depend on the height, so that a rotated SD frame counts as HD. Therefore the description
//! is completed before the video is converted or rotated.

use gstreamer as gst;
use gstreamer_video as gst_video;

use gst_video::{VideoColorMatrix, VideoColorRange, VideoColorimetry};

use crate::frame::{Colorimetry, Matrix, UNSPECIFIED};

/// The complete colour description of raw YUV or grey video in `caps`. Missing parts have the usual values for the size.
/// `None` for RGB, whose defaults are GStreamer's, and for caps that are not raw video.
pub(super) fn complete(caps: &gst::CapsRef) -> Option<VideoColorimetry> {
    let fields = caps.structure(0).filter(|fields| fields.name() == "video/x-raw")?;
    let format = fields.get::<&str>("format").ok()?.parse::<gst_video::VideoFormat>().ok()?;
    let kind = gst_video::VideoFormatInfo::from_format(format);
    let is_gray = kind.is_gray();
    if !kind.is_yuv() && !is_gray {
        return None;
    }
    let side = |name: &str| fields.get::<i32>(name).ok().and_then(|side| usize::try_from(side).ok());
    let (width, height) = (side("width")?, side("height")?);
    let named = fields.get::<&str>("colorimetry").ok().and_then(|text| text.parse::<VideoColorimetry>().ok());
    let range = match named.map(|named| named.range()) {
        Some(range @ (VideoColorRange::Range0_255 | VideoColorRange::Range16_235)) => range,
        // Grey images are not a video signal: their values are full range, in GStreamer as elsewhere.
        _ if is_gray => VideoColorRange::Range0_255,
        _ => VideoColorRange::Range16_235,
    };
    let matrix = match named.map(|named| named.matrix()) {
        Some(matrix) if yuv_matrix(matrix).is_some() => matrix,
        _ if is_gray => VideoColorMatrix::Bt601,
        _ => match Matrix::assumed(width, height) {
            Matrix::Bt709 => VideoColorMatrix::Bt709,
            _ => VideoColorMatrix::Bt601,
        },
    };
    let (transfer, primaries) = named
        .map_or((gst_video::VideoTransferFunction::Unknown, gst_video::VideoColorPrimaries::Unknown), |named| {
            (named.transfer(), named.primaries())
        });
    Some(VideoColorimetry::new(range, matrix, transfer, primaries))
}

/// Converts GStreamer's colour description of a YUV frame. Transfer and primaries are codes of ITU-T H.273.
pub(super) fn of(layout: &gst_video::VideoInfo) -> Colorimetry {
    let colorimetry = layout.colorimetry();
    let code = |iso: u32| u8::try_from(iso).ok().filter(|&code| code != 0).unwrap_or(UNSPECIFIED);
    Colorimetry {
        matrix: yuv_matrix(colorimetry.matrix())
            .unwrap_or_else(|| Matrix::assumed(layout.width() as usize, layout.height() as usize)),
        full_range: colorimetry.range() == VideoColorRange::Range0_255,
        transfer: code(colorimetry.transfer().to_iso()),
        primaries: code(colorimetry.primaries().to_iso()),
    }
}

/// `None` for RGB, which is not a YUV matrix, and for unknown matrices.
fn yuv_matrix(matrix: VideoColorMatrix) -> Option<Matrix> {
    match matrix {
        VideoColorMatrix::Bt601 => Some(Matrix::Bt601),
        VideoColorMatrix::Bt709 => Some(Matrix::Bt709),
        VideoColorMatrix::Bt2020 => Some(Matrix::Bt2020),
        VideoColorMatrix::Fcc => Some(Matrix::Fcc),
        VideoColorMatrix::Smpte240m => Some(Matrix::Smpte240m),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completed(format: &str, (width, height): (i32, i32), colorimetry: Option<&str>) -> Option<String> {
        crate::gst::init().unwrap();
        let mut caps = gst::Caps::builder("video/x-raw")
            .field("format", format)
            .field("width", width)
            .field("height", height)
            .build();
        if let Some(colorimetry) = colorimetry {
            caps.make_mut().set("colorimetry", colorimetry);
        }
        // As numbers, because GStreamer has names for some combinations.
        complete(&caps).map(|color| {
            use gst::glib::translate::IntoGlib;
            let (range, matrix) = (color.range().into_glib(), color.matrix().into_glib());
            format!("{range}:{matrix}:{}:{}", color.transfer().to_iso(), color.primaries().to_iso())
        })
    }

    /// GStreamer's numbers for the range (1: 0–255, 2: 16–235) and the matrix (2: FCC, 3: BT.709, 4: BT.601, 5: SMPTE
    /// 240M, 6: BT.2020), H.273's for the rest (2: unspecified).
    #[test]
    fn each_missing_part_is_completed_separately() {
        let (sd, hd, turned) = ((640, 360), (1280, 720), (480, 854));
        for (format, size, named, wanted) in [
            ("I420", sd, None, "2:4:2:2"),
            ("I420", hd, None, "2:3:2:2"),
            ("I420", turned, None, "2:4:2:2"),
            ("I420", (720, 1280), None, "2:3:2:2"),
            // The range alone, as many cameras send it.
            ("I420", sd, Some("1:0:0:0"), "1:4:2:2"),
            ("NV12", hd, Some("1:0:0:0"), "1:3:2:2"),
            ("P010_10LE", hd, Some("2:0:0:0"), "2:3:2:2"),
            // The matrix without a range; the matrix of RGB.
            ("I420", hd, Some("0:4:0:0"), "2:4:2:2"),
            ("I420", hd, Some("1:1:0:0"), "1:3:2:2"),
            ("I420", sd, Some("1:3:0:0"), "1:3:2:2"),
            ("I420", sd, Some("2:5:0:0"), "2:5:2:2"),
            ("I420", sd, Some("2:2:0:0"), "2:2:2:2"),
            // Transfer and primaries are kept in all cases.
            ("I420_10LE", hd, Some("bt2100-pq"), "2:6:16:9"),
            ("I420_10LE", hd, Some("bt2100-hlg"), "2:6:18:9"),
            ("I420", sd, Some("bt709"), "2:3:1:1"),
            ("I420", hd, Some("bt601"), "2:4:6:6"),
            ("Y444", sd, Some("no colour at all"), "2:4:2:2"),
            ("GRAY8", hd, None, "1:4:2:2"),
            ("GRAY8", sd, Some("2:4:0:0"), "2:4:2:2"),
        ] {
            assert_eq!(completed(format, size, named).as_deref(), Some(wanted), "{format} {size:?} {named:?}");
        }
        assert_eq!(completed("RGB", sd, None), None);
    }
}
