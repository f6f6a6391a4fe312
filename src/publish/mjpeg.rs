//! JPEG images for browsers: one encode for each stream, however many clients watch it.

use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;

use super::encoder::{ENCODER_QUEUE, glib_error, push_blocking};
use super::frame_sink::FrameSink;
use super::frame_sink_kind::{FrameSinkKind, ViewerCount, start_none};
pub use super::jpeg_broadcast::JpegBroadcast;
use super::jpeg_broadcast::JpegSink;
use super::range::RangeChange;
use super::raw::RawPool;
use super::runs::OutputRun;
use super::{BufferError, EncoderFault, OutputError};
use crate::frame::Matrix;
use crate::gst::{bus_error, make, state_error};

/// Each browser gets the newest JPEG image when it is ready for it.
pub static KIND: FrameSinkKind = FrameSinkKind {
    name: "mjpeg",
    start: start_none,
    viewers: Some(ViewerCount { about: "Open MJPEG responses.", count: |outputs| outputs.jpeg.viewers() }),
};

/// `appsrc ! square pixels ! full-range BT.601 ! jpegenc ! appsink`
pub struct JpegEncoder {
    /// For frames that are BT.601 already, but in video range.
    range: Option<RangeChange>,
    pipeline: gst::Pipeline,
    bus: gst::Bus,
    source: gst_app::AppSrc,
}

impl JpegEncoder {
    /// Starts to encode frames of the shape of `pool`; JPEG images go to `viewers` until `run` is revoked.
    ///
    /// # Errors
    /// A missing element, with what to install.
    pub fn start(pool: &RawPool, quality: u32, viewers: &JpegBroadcast, run: &OutputRun) -> Result<Self, OutputError> {
        let (pipeline, bus) = crate::gst::pipeline()?;
        // Any other matrix is converted below, and the range with it.
        let color = pool.info.color;
        let range =
            (color.matrix == Matrix::Bt601 && !color.full_range).then(|| RangeChange::new(pool.info)).transpose()?;
        let source = gst_app::AppSrc::builder()
            .caps(range.as_ref().map_or(&pool.caps, RangeChange::caps))
            .format(gst::Format::Time)
            .max_buffers(ENCODER_QUEUE)
            .max_bytes(0)
            .build();
        // JFIF has one kind of YUV, full-range BT.601, and no pixel aspect ratio that browsers apply.
        let scale = make("videoscale")?;
        let convert = make("videoconvert")?;
        let filter = make("capsfilter")?;
        let jfif = gst::Caps::builder("video/x-raw")
            .field("format", "I420")
            .field("colorimetry", "1:4:0:0")
            .field("pixel-aspect-ratio", gst::Fraction::new(1, 1))
            .build();
        filter.set_property("caps", jfif);
        let encoder = make("jpegenc")?;
        encoder.set_property("quality", quality as i32);
        let mut viewers = JpegSink { viewers: viewers.clone(), run: run.clone() };
        let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            viewers.push(&sample, true);
            Ok(gst::FlowSuccess::Ok)
        });
        let sink = gst_app::AppSink::builder().sync(false).max_buffers(1).callbacks(callbacks.build()).build();
        let elements = [source.upcast_ref(), &scale, &convert, &filter, &encoder, sink.upcast_ref()];
        pipeline.add_many(elements).map_err(glib_error)?;
        gst::Element::link_many(elements).map_err(glib_error)?;
        pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| state_error(&pipeline, "the JPEG encoder does not start"))?;
        Ok(JpegEncoder { range, pipeline, bus, source })
    }

    /// Whether the encoder queue has room.
    pub fn has_room(&self) -> bool {
        self.source.current_level_buffers() < ENCODER_QUEUE
    }

    /// The encoder's failure, if it has failed.
    pub fn failure(&self) -> Option<EncoderFault> {
        bus_error(&self.bus).map(EncoderFault::from)
    }

    /// Encodes a frame. False if two frames wait already: then this one is dropped.
    ///
    /// # Errors
    /// The encoder has failed and cannot be used again.
    pub fn push(&self, buffer: gst::Buffer) -> Result<bool, EncoderFault> {
        if let Some(error) = self.failure() {
            return Err(error);
        }
        if !self.has_room() {
            return Ok(false);
        }
        match self.source.push_buffer(self.ranged(buffer)?) {
            Ok(_) => Ok(true),
            Err(_) => Err(EncoderFault::Closed),
        }
    }

    /// Encodes a frame, and waits until there is room for it.
    ///
    /// # Errors
    /// The encoder has failed and cannot be used again.
    pub fn push_blocking(&self, buffer: gst::Buffer) -> Result<(), EncoderFault> {
        Ok(push_blocking(&self.source, &self.bus, self.ranged(buffer)?)?)
    }

    /// The frame in the range of JPEG.
    fn ranged(&self, buffer: gst::Buffer) -> Result<gst::Buffer, BufferError> {
        match &self.range {
            Some(range) => range.apply(&buffer),
            None => Ok(buffer),
        }
    }
}

#[cfg(test)]
impl JpegEncoder {
    /// Makes the encoder hold every frame from now on, as one that hangs does.
    pub fn block(&self) {
        let encoder = self.pipeline.iterate_elements().into_iter().flatten();
        let encoder = encoder.into_iter().find(|element| element.type_().name() == "GstJpegEnc").unwrap();
        let hold = |_: &gst::Pad, _: &mut gst::PadProbeInfo<'_>| gst::PadProbeReturn::Ok;
        encoder.static_pad("src").unwrap().add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, hold);
    }
}

impl Drop for JpegEncoder {
    fn drop(&mut self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            tracing::debug!("JPEG encoder did not stop");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Colorimetry, PixelFormat, VideoInfo};
    use crate::publish::runs::OutputRuns;

    /// Red as BT.709 video-range YUV, in pixels twice as wide as high, comes back red and of the right shape.
    #[test]
    fn colours_and_shape_survive_jfif() {
        crate::gst::init().unwrap();
        let mut info = VideoInfo::new(PixelFormat::I420, 64, 64);
        (info.par, info.fps) = ((2, 1), (25, 1));
        info.color = Colorimetry::new(Matrix::Bt709, false);
        let pool = RawPool::new(info).unwrap();
        let broadcast = JpegBroadcast::default();
        let mut viewer = broadcast.subscribe();
        let encoder = JpegEncoder::start(&pool, 95, &broadcast, &OutputRuns::default().begin()).unwrap();
        let mut red = |target: &mut crate::frame::ImageMut<'_>| {
            for (plane, value) in target.planes.iter_mut().zip([63, 102, 240]) {
                plane.data.fill(value);
            }
        };
        assert_eq!(encoder.push(pool.paint(&mut red).unwrap()), Ok(true));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let wait = async { tokio::time::timeout(std::time::Duration::from_secs(600), viewer.changed()).await };
        runtime.block_on(wait).expect("a frame comes").unwrap();
        let jpeg = viewer.borrow().clone().unwrap();

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("red.jpg");
        std::fs::write(&path, &jpeg).unwrap();
        let spec = crate::config::SourceSpec::from_argument(
            &format!("gst:filesrc location={} ! jpegdec ! videoconvert ! video/x-raw,format=I420", path.display()),
            folder.path(),
        );
        let source = crate::capture::GstSource::new(spec.unwrap());
        let mut capture = crate::capture::Source::open(&source).unwrap();
        let crate::capture::Captured::Frame(frame) = capture.next(std::time::Duration::from_secs(600)).unwrap() else {
            panic!("the JPEG decodes")
        };
        let image = frame.pixels.image();
        assert_eq!(image.info.width, 2 * image.info.height);
        assert!(image.info.color.full_range);
        // Full-range BT.601 red: 76, 85, 255.
        for (plane, value) in image.planes.iter().zip([76_u8, 85, 255]) {
            assert!(
                plane.data[plane.stride * 5 + 5].abs_diff(value) <= 3,
                "{} for {value}",
                plane.data[plane.stride * 5 + 5]
            );
        }
    }
}
