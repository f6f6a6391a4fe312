//! A GStreamer buffer that is mapped for reading and implements [`Pixels`], so that no frame is copied between decoder and
//! overlay.

use gstreamer as gst;
use gstreamer_video as gst_video;

use gst_video::prelude::*;

use super::color;
use super::error::SourceError;
use crate::frame::{Image, PixelFormat, Pixels, Plane, VideoInfo};

/// A mapped, read-only frame. Its buffer returns to its pool when the frame is dropped.
pub struct MappedFrame {
    frame: gst_video::VideoFrame<gst_video::video_frame::Readable>,
    info: VideoInfo,
}

impl MappedFrame {
    /// Maps `buffer`, whose format and planes `layout` describes.
    ///
    /// # Errors
    /// When the format is not I420 or NV12, or the buffer does not have the size that `layout` describes or cannot be read.
    pub fn new(buffer: gst::Buffer, layout: &gst_video::VideoInfo) -> Result<Self, SourceError> {
        let info = video_info(layout)?;
        let frame = gst_video::VideoFrame::from_buffer_readable(buffer, layout)
            .map_err(|_| SourceError::UnusableFrame("its memory cannot be read".into()))?;
        Ok(MappedFrame { frame, info })
    }
}

impl Pixels for MappedFrame {
    fn image(&self) -> Image<'_> {
        let data = self.frame.planes_data();
        let strides = self.frame.plane_stride();
        let plane = |n: usize| match strides.get(n) {
            Some(&stride) => Plane { data: data[n], stride: stride.unsigned_abs() as usize },
            None => Plane { data: &[], stride: 0 },
        };
        Image { info: self.info, planes: [plane(0), plane(1), plane(2)] }
    }
}

/// Converts GStreamer's description of a frame.
fn video_info(layout: &gst_video::VideoInfo) -> Result<VideoInfo, SourceError> {
    let format = match layout.format() {
        gst_video::VideoFormat::I420 => PixelFormat::I420,
        gst_video::VideoFormat::Nv12 => PixelFormat::Nv12,
        other => return Err(SourceError::UnusableFrame(format!("its format {other} is not I420 or NV12"))),
    };
    let ratio = |numerator: i32, denominator: i32| (numerator.max(0) as u32, denominator.max(1) as u32);
    let (par, fps) = (layout.par(), layout.fps());
    Ok(VideoInfo {
        width: layout.width() as usize,
        height: layout.height() as usize,
        format,
        par: ratio(par.numer(), par.denom()),
        fps: ratio(fps.numer(), fps.denom()),
        color: color::of(layout),
    })
}
