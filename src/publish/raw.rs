//! Raw pictures for GStreamer: buffers from a pool, painted in place, so that a frame is written exactly once.

use gstreamer as gst;
use gstreamer_video as gst_video;

use gst::prelude::*;
use gst_video::prelude::*;

use super::{OutputError, Paint};
use crate::frame::{Matrix, PictureMut, PixelFormat, PlaneMut, VideoInfo};

/// Makes buffers of one shape.
pub struct RawPool {
    pub info: VideoInfo,
    pub caps: gst::Caps,
    layout: gst_video::VideoInfo,
    pool: gst_video::VideoBufferPool,
}

impl RawPool {
    /// # Errors
    /// When GStreamer does not know a picture of this shape.
    pub fn new(info: VideoInfo) -> Result<Self, OutputError> {
        let refused = |what: &str| OutputError(format!("a {info} picture cannot be made: {what}"));
        let layout = layout(&info).map_err(|_| refused("its format is unknown"))?;
        let caps = layout.to_caps().map_err(|_| refused("it has no caps"))?;
        let pool = gst_video::VideoBufferPool::new();
        let mut config = pool.config();
        config.set_params(Some(&caps), layout.size() as u32, 2, 0);
        pool.set_config(config).map_err(|_| refused("its buffer pool is refused"))?;
        pool.set_active(true).map_err(|_| refused("no memory for its buffers"))?;
        Ok(RawPool { info, caps, layout, pool })
    }

    /// A buffer with the picture that `paint` draws.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn paint(&self, paint: &mut Paint<'_>) -> Result<gst::Buffer, OutputError> {
        let no_memory = || OutputError(format!("no memory for a {} picture", self.info));
        let buffer = self.pool.acquire_buffer(None).map_err(|_| no_memory())?;
        let mut frame = gst_video::VideoFrame::from_buffer_writable(buffer, &self.layout).map_err(|_| no_memory())?;
        let strides: [usize; 3] =
            std::array::from_fn(|n| frame.plane_stride().get(n).map_or(0, |stride| stride.unsigned_abs() as usize));
        let [y, u, v, _] = frame.planes_data_mut();
        paint(&mut PictureMut {
            info: self.info,
            planes: [
                PlaneMut { data: y, stride: strides[0] },
                PlaneMut { data: u, stride: strides[1] },
                PlaneMut { data: v, stride: strides[2] },
            ],
        });
        Ok(frame.into_buffer())
    }
}

impl Drop for RawPool {
    fn drop(&mut self) {
        // Buffers that are still out go back to nowhere and are freed.
        if self.pool.set_active(false).is_err() {
            tracing::debug!("a buffer pool did not stop");
        }
    }
}

fn layout(info: &VideoInfo) -> Result<gst_video::VideoInfo, gst::glib::BoolError> {
    let format = match info.format {
        PixelFormat::I420 => gst_video::VideoFormat::I420,
        PixelFormat::Nv12 => gst_video::VideoFormat::Nv12,
    };
    let (matrix, transfer, primaries) = match info.color.matrix {
        Matrix::Bt601 => (
            gst_video::VideoColorMatrix::Bt601,
            gst_video::VideoTransferFunction::Bt601,
            gst_video::VideoColorPrimaries::Smpte170m,
        ),
        Matrix::Bt709 => (
            gst_video::VideoColorMatrix::Bt709,
            gst_video::VideoTransferFunction::Bt709,
            gst_video::VideoColorPrimaries::Bt709,
        ),
        Matrix::Bt2020 => (
            gst_video::VideoColorMatrix::Bt2020,
            gst_video::VideoTransferFunction::Bt202010,
            gst_video::VideoColorPrimaries::Bt2020,
        ),
    };
    let range = if info.color.full_range {
        gst_video::VideoColorRange::Range0_255
    } else {
        gst_video::VideoColorRange::Range16_235
    };
    let colorimetry = gst_video::VideoColorimetry::new(range, matrix, transfer, primaries);
    gst_video::VideoInfo::builder(format, info.width as u32, info.height as u32)
        .par(gst::Fraction::new(info.par.0.max(1) as i32, info.par.1.max(1) as i32))
        .fps(gst::Fraction::new(info.fps.0 as i32, info.fps.1.max(1) as i32))
        .colorimetry(&colorimetry)
        .build()
}
