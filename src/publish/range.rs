//! Converts video range to full range and back, for outputs that have only one of them.
//!
//! GStreamer's `videoconvert` does it along with a change of the matrix, but up to version 1.22 not where the matrix stays
//! the same: it then copies the samples and labels them with the other range.

use gstreamer as gst;

use super::BufferError;
use super::raw::{FrameReader, RawPool};
use crate::frame::{Colorimetry, ImageMut, VideoInfo};

/// Copies images of one shape into the other range.
pub struct RangeChange {
    from: FrameReader,
    to: RawPool,
    luma: [u8; 256],
    chroma: [u8; 256],
}

impl RangeChange {
    /// From images as `info` describes them to the other range.
    ///
    /// # Errors
    /// When GStreamer has no format for images of this shape.
    pub fn new(info: VideoInfo) -> Result<Self, BufferError> {
        let mut other = info;
        other.color.full_range = !info.color.full_range;
        // Scale and black level of ITU-T H.273, equations 20 to 25, for 8 bits.
        let table = |levels: f64, black: f64, neutral: f64| -> [u8; 256] {
            std::array::from_fn(|sample| {
                let sample = sample as f64;
                let value = if info.color.full_range {
                    (sample - neutral) * levels / 255.0 + neutral + black
                } else {
                    (sample - neutral - black) * 255.0 / levels + neutral
                };
                // `as` saturates: values outside of the range are clipped.
                value.round() as u8
            })
        };
        Ok(RangeChange {
            from: FrameReader::new(info)?,
            to: RawPool::new(other)?,
            luma: table(219.0, 16.0, 0.0),
            chroma: table(224.0, 0.0, 128.0),
        })
    }

    /// The caps of the copies.
    pub fn caps(&self) -> &gst::Caps {
        &self.to.caps
    }

    /// How the numbers of the copies map to colours.
    pub fn color(&self) -> Colorimetry {
        self.to.info.color
    }

    /// A copy of an image in the other range, with the same times.
    ///
    /// # Errors
    /// When the buffer does not hold an image of this shape, or there is no memory for the copy.
    pub fn apply(&self, buffer: &gst::BufferRef) -> Result<gst::Buffer, BufferError> {
        let (pts, dts, duration) = (buffer.pts(), buffer.dts(), buffer.duration());
        let image = self.from.view(buffer)?;
        let source = image.image();
        let mut copy = self.to.paint(&mut |target: &mut ImageMut<'_>| {
            for plane in 0..source.info.planes() {
                let table = if plane == 0 { &self.luma } else { &self.chroma };
                let (width, height) = source.info.plane_size(plane);
                let (from, to) = (&source.planes[plane], &mut target.planes[plane]);
                for row in 0..height {
                    let samples = &from.data[row * from.stride..][..width];
                    for (to, &sample) in to.data[row * to.stride..][..width].iter_mut().zip(samples) {
                        *to = table[usize::from(sample)];
                    }
                }
            }
        })?;
        let times = copy.make_mut();
        times.set_pts(pts);
        times.set_dts(dts);
        times.set_duration(duration);
        Ok(copy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Matrix, PixelFormat};

    /// Luma and chroma that come out of an image whose samples all have one value, and its time.
    fn changed(full_range: bool, format: PixelFormat, value: u8) -> (u8, u8, Option<gst::ClockTime>) {
        crate::gst::init().unwrap();
        let mut info = VideoInfo::new(format, 6, 5);
        info.color = Colorimetry::new(Matrix::Bt601, full_range);
        let change = RangeChange::new(info).unwrap();
        let mut buffer = RawPool::new(info)
            .unwrap()
            .paint(&mut |target: &mut ImageMut<'_>| target.planes.iter_mut().for_each(|plane| plane.data.fill(value)))
            .unwrap();
        buffer.make_mut().set_pts(gst::ClockTime::from_mseconds(40));
        let copy = change.apply(&buffer).unwrap();
        assert_eq!(change.to.info.color.full_range, !full_range);
        let reader = FrameReader::new(change.to.info).unwrap();
        let view = reader.view(&copy).unwrap();
        let planes = view.image().planes;
        (planes[0].data[0], planes[1].data[0], copy.pts())
    }

    #[test]
    fn samples_have_the_values_of_the_other_range() {
        let time = Some(gst::ClockTime::from_mseconds(40));
        for format in [PixelFormat::I420, PixelFormat::Nv12] {
            // Video range to full range: black, white, grey 64, and what is blacker and whiter than those.
            assert_eq!(changed(false, format, 16), (0, 1, time));
            assert_eq!(changed(false, format, 235), (255, 250, time));
            assert_eq!(changed(false, format, 240), (255, 255, time));
            assert_eq!(changed(false, format, 71), (64, 63, time));
            assert_eq!(changed(false, format, 128), (130, 128, time));
            assert_eq!(changed(false, format, 0), (0, 0, time));
            // And back.
            assert_eq!(changed(true, format, 0), (16, 16, time));
            assert_eq!(changed(true, format, 255), (235, 240, time));
            assert_eq!(changed(true, format, 64), (71, 72, time));
            assert_eq!(changed(true, format, 128), (126, 128, time));
        }
    }
}
