//! Raw images for GStreamer: buffers from a pool, painted in place, so that a frame is written exactly once.

use gstreamer as gst;
use gstreamer_video as gst_video;

use gst::prelude::*;
use gst_video::prelude::*;
use gst_video::{VideoColorMatrix, VideoColorPrimaries, VideoTransferFunction};

use super::{BufferError, PoolProblem};
use crate::frame::{Colorimetry, Image, ImageMut, Matrix, PixelFormat, Plane, PlaneMut, VideoInfo};

/// Makes buffers of one shape.
pub struct RawPool {
    pub info: VideoInfo,
    pub caps: gst::Caps,
    layout: gst_video::VideoInfo,
    pool: gst_video::VideoBufferPool,
}

impl RawPool {
    /// # Errors
    /// When GStreamer has no format for images of this shape.
    pub fn new(info: VideoInfo) -> Result<Self, BufferError> {
        let refused = |problem| BufferError::Pool { info, problem };
        let layout = layout(&info).map_err(|_| refused(PoolProblem::UnknownFormat))?;
        let caps = layout.to_caps().map_err(|_| refused(PoolProblem::NoCaps))?;
        let pool = gst_video::VideoBufferPool::new();
        let mut config = pool.config();
        config.set_params(Some(&caps), layout.size() as u32, 2, 0);
        pool.set_config(config).map_err(|_| refused(PoolProblem::ConfigRefused))?;
        pool.set_active(true).map_err(|_| refused(PoolProblem::NoMemory))?;
        Ok(RawPool { info, caps, layout, pool })
    }

    /// A buffer with the image that `paint` draws.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn paint(&self, paint: &mut dyn FnMut(&mut ImageMut<'_>)) -> Result<gst::Buffer, BufferError> {
        let mut frame = self.frame()?;
        let strides: [usize; 3] =
            std::array::from_fn(|n| frame.plane_stride().get(n).map_or(0, |stride| stride.unsigned_abs() as usize));
        let [y, u, v, _] = frame.planes_data_mut();
        paint(&mut ImageMut {
            info: self.info,
            planes: [
                PlaneMut { data: y, stride: strides[0] },
                PlaneMut { data: u, stride: strides[1] },
                PlaneMut { data: v, stride: strides[2] },
            ],
        });
        Ok(frame.into_buffer())
    }

    /// An empty image of this shape.
    fn frame(&self) -> Result<gst_video::VideoFrame<gst_video::video_frame::Writable>, BufferError> {
        let buffer = self.pool.acquire_buffer(None).map_err(|_| BufferError::NoMemory(self.info))?;
        gst_video::VideoFrame::from_buffer_writable(buffer, &self.layout).map_err(|_| BufferError::NoMemory(self.info))
    }
}

/// Reads images of one shape in buffers.
pub struct FrameReader {
    info: VideoInfo,
    layout: gst_video::VideoInfo,
}

impl FrameReader {
    /// # Errors
    /// When GStreamer has no format for images of this shape.
    pub fn new(info: VideoInfo) -> Result<Self, BufferError> {
        let layout = layout(&info).map_err(|_| BufferError::NoFormat(info))?;
        Ok(FrameReader { info, layout })
    }

    /// A buffer of this shape, mapped for reading.
    ///
    /// # Errors
    /// When the buffer does not hold an image of this shape.
    pub fn view<'a>(&self, buffer: &'a gst::BufferRef) -> Result<ImageRegion<'a>, BufferError> {
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &self.layout)
            .map_err(|_| BufferError::OtherLayout(self.info))?;
        Ok(ImageRegion { info: self.info, frame })
    }
}

/// An image in a buffer.
pub struct ImageRegion<'a> {
    info: VideoInfo,
    frame: gst_video::VideoFrameRef<&'a gst::BufferRef>,
}

impl ImageRegion<'_> {
    pub fn image(&self) -> Image<'_> {
        let data = self.frame.planes_data();
        let strides = self.frame.plane_stride();
        let plane = |n: usize| match strides.get(n) {
            Some(&stride) => Plane { data: data[n], stride: stride.unsigned_abs() as usize },
            None => Plane { data: &[], stride: 0 },
        };
        Image { info: self.info, planes: [plane(0), plane(1), plane(2)] }
    }
}

/// The rate in the caps of a stream whose source gives none. Without a rate, x264enc holds each image until it has its duration,
/// which is when the next image comes: a delay of one image, and the last image before a camera stalls would reach viewers
/// late; a file of one image would have no duration. Images have their own times, whatever the rate is.
const NOMINAL_RATE: gst::Fraction = gst::Fraction::from_integer(25);

/// The caps of the pool's images, with a rate in any case.
pub fn announced(pool: &RawPool) -> gst::Caps {
    let mut caps = pool.caps.clone();
    if pool.info.fps.0 == 0 {
        caps.make_mut().set("framerate", NOMINAL_RATE);
    }
    caps
}

/// Paints images of one shape and brings them into another: scaled as a whole, with black bars where the proportions
/// differ.
pub struct Scaler {
    from: RawPool,
    converter: gst_video::VideoConverter,
}

impl Scaler {
    /// From images like `from` to those of `to`.
    ///
    /// # Errors
    /// When GStreamer cannot convert the one into the other.
    pub fn new(from: VideoInfo, to: &RawPool) -> Result<Self, BufferError> {
        let place = placed(&from, &to.info);
        let from = RawPool::new(from)?;
        let mut config = gst_video::VideoConverterConfig::new();
        config.set_dest_x(place.x);
        config.set_dest_y(place.y);
        config.set_dest_width(Some(place.width));
        config.set_dest_height(Some(place.height));
        config.set_fill_border(true);
        let converter = gst_video::VideoConverter::new(&from.layout, &to.layout, Some(config))
            .map_err(|_| BufferError::NotScalable { from: from.info, to: to.info })?;
        Ok(Scaler { from, converter })
    }

    /// The shape that is painted.
    pub fn info(&self) -> VideoInfo {
        self.from.info
    }

    /// A buffer of `to`, which must be the pool that the scaler was made for, with the image that `paint` draws.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub fn paint(&self, to: &RawPool, paint: &mut dyn FnMut(&mut ImageMut<'_>)) -> Result<gst::Buffer, BufferError> {
        let painted = self.from.paint(paint)?;
        let unreadable = |_| BufferError::Unreadable(self.from.info);
        let painted = gst_video::VideoFrame::from_buffer_readable(painted, &self.from.layout).map_err(unreadable)?;
        let mut scaled = to.frame()?;
        self.converter.frame(&painted, &mut scaled);
        Ok(scaled.into_buffer())
    }
}

/// A part of an image, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Region {
    x: i32,
    y: i32,
    width: i32,
    height: i32,
}

/// Where an image like `from` lies in one like `to`: as large as it fits with its proportions, in the middle, at even
/// coordinates, which both chroma formats have.
fn placed(from: &VideoInfo, to: &VideoInfo) -> Region {
    let ratio = |par: (u32, u32)| f64::from(par.0.max(1)) / f64::from(par.1.max(1));
    // Width of `from` in pixels of `to`, which may be of another shape.
    let wide = from.width.max(1) as f64 * ratio(from.par) / ratio(to.par);
    let high = from.height.max(1) as f64;
    let scale = (to.width as f64 / wide).min(to.height as f64 / high);
    let fit = |size: f64, room: usize| {
        let fitted = (size * scale).round() as usize;
        // A rounding error does not make a bar.
        if fitted + 2 > room { (0, room) } else { ((room - fitted) / 4 * 2, (fitted & !1).max(2)) }
    };
    let ((x, width), (y, height)) = (fit(wide, to.width), fit(high, to.height));
    Region { x: x as i32, y: y as i32, width: width as i32, height: height as i32 }
}

impl Drop for RawPool {
    fn drop(&mut self) {
        // Buffers that are still in use are freed when they are released.
        if self.pool.set_active(false).is_err() {
            tracing::debug!("buffer pool did not stop");
        }
    }
}

/// GStreamer's colour description of such images; what the source left open is as usual for the matrix.
pub(super) fn colorimetry(color: Colorimetry) -> gst_video::VideoColorimetry {
    let (matrix, usual_transfer, usual_primaries) = match color.matrix {
        Matrix::Bt601 => (VideoColorMatrix::Bt601, VideoTransferFunction::Bt601, VideoColorPrimaries::Smpte170m),
        Matrix::Bt709 => (VideoColorMatrix::Bt709, VideoTransferFunction::Bt709, VideoColorPrimaries::Bt709),
        Matrix::Bt2020 => (VideoColorMatrix::Bt2020, VideoTransferFunction::Bt202010, VideoColorPrimaries::Bt2020),
        Matrix::Fcc => (VideoColorMatrix::Fcc, VideoTransferFunction::Bt709, VideoColorPrimaries::Bt470m),
        Matrix::Smpte240m => {
            (VideoColorMatrix::Smpte240m, VideoTransferFunction::Smpte240m, VideoColorPrimaries::Smpte240m)
        }
    };
    // What the source names is passed on: a PQ image stays one.
    let transfer = match VideoTransferFunction::from_iso(u32::from(color.transfer)) {
        VideoTransferFunction::Unknown => usual_transfer,
        known => known,
    };
    let primaries = match VideoColorPrimaries::from_iso(u32::from(color.primaries)) {
        VideoColorPrimaries::Unknown => usual_primaries,
        known => known,
    };
    let range =
        if color.full_range { gst_video::VideoColorRange::Range0_255 } else { gst_video::VideoColorRange::Range16_235 };
    gst_video::VideoColorimetry::new(range, matrix, transfer, primaries)
}

fn layout(info: &VideoInfo) -> Result<gst_video::VideoInfo, gst::glib::BoolError> {
    let format = match info.format {
        PixelFormat::I420 => gst_video::VideoFormat::I420,
        PixelFormat::Nv12 => gst_video::VideoFormat::Nv12,
    };
    gst_video::VideoInfo::builder(format, info.width as u32, info.height as u32)
        .par(gst::Fraction::new(info.par.0.max(1) as i32, info.par.1.max(1) as i32))
        .fps(gst::Fraction::new(info.fps.0 as i32, info.fps.1.max(1) as i32))
        .colorimetry(&colorimetry(info.color))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_keeps_its_proportions_in_another() {
        let shape = |width, height, par| VideoInfo { par, ..VideoInfo::new(PixelFormat::I420, width, height) };
        let place = |from: (usize, usize), to: (usize, usize)| {
            let place = placed(&shape(from.0, from.1, (1, 1)), &shape(to.0, to.1, (1, 1)));
            (place.x, place.y, place.width, place.height)
        };
        assert_eq!(place((320, 180), (640, 360)), (0, 0, 640, 360));
        assert_eq!(place((320, 240), (640, 360)), (80, 0, 480, 360));
        assert_eq!(place((1920, 1080), (640, 480)), (0, 60, 640, 360));
        assert_eq!(place((360, 640), (640, 360)), (218, 0, 202, 360));
        assert_eq!(place((641, 361), (640, 360)), (0, 0, 640, 360));
        // 720x576 pixels that are shown as 16:9.
        let anamorphic = placed(&shape(720, 576, (64, 45)), &shape(640, 360, (1, 1)));
        assert_eq!(anamorphic, Region { x: 0, y: 0, width: 640, height: 360 });
    }

    /// White becomes white, and the bars are black.
    #[test]
    fn a_scaled_image_lies_between_black_bars() {
        crate::gst::init().unwrap();
        let to = RawPool::new(VideoInfo::new(PixelFormat::Nv12, 640, 360)).unwrap();
        let scaler = Scaler::new(VideoInfo::new(PixelFormat::I420, 320, 240), &to).unwrap();
        let mut white = |image: &mut ImageMut<'_>| {
            assert_eq!((image.info.width, image.info.height), (320, 240));
            image.planes[0].data.fill(235);
            image.planes[1..].iter_mut().for_each(|plane| plane.data.fill(128));
        };
        let buffer = scaler.paint(&to, &mut white).unwrap();
        let frame = gst_video::VideoFrame::from_buffer_readable(buffer, &to.layout).unwrap();
        let stride = frame.plane_stride()[0] as usize;
        let luma = frame.plane_data(0).unwrap();
        let row = &luma[180 * stride..180 * stride + 640];
        assert!(row[..78].iter().chain(&row[562..]).all(|&y| y == 16), "{row:?}");
        assert!(row[82..558].iter().all(|&y| y.abs_diff(235) <= 1), "{row:?}");
    }
}
