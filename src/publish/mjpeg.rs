//! JPEG pictures for browsers: one encode a stream, however many look; each viewer gets the newest when it is ready
//! for it, so a slow one sees fewer pictures and nobody else notices.

use bytes::Bytes;
use gstreamer as gst;
use gstreamer_app as gst_app;
use tokio::sync::watch;

use gst::prelude::*;

use super::OutputError;
use super::encoder::glib_error;
use crate::gst::{make, state_error};

/// The newest JPEG of a stream. Lives as long as the stream; encoders come and go.
#[derive(Clone)]
pub struct Gallery {
    newest: watch::Sender<Option<Bytes>>,
}

impl Default for Gallery {
    fn default() -> Self {
        Gallery { newest: watch::Sender::new(None) }
    }
}

impl Gallery {
    /// A viewer's end: holds the newest picture only. While one exists, pictures are drawn and encoded.
    pub fn look(&self) -> watch::Receiver<Option<Bytes>> {
        let mut viewer = self.newest.subscribe();
        // A picture that was drawn for somebody long gone is not shown as if it were new.
        viewer.mark_unchanged();
        viewer
    }

    /// Shows all viewers a new picture.
    pub fn publish(&self, jpeg: Bytes) {
        self.newest.send_replace(Some(jpeg));
    }

    pub fn viewers(&self) -> usize {
        self.newest.receiver_count()
    }
}

/// `appsrc ! jpegenc ! appsink`
pub struct JpegEncoder {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
}

impl JpegEncoder {
    /// Starts encoding raw pictures with `caps` into `gallery`.
    ///
    /// # Errors
    /// A missing element, with what to install.
    pub fn start(caps: &gst::Caps, quality: u32, gallery: &Gallery) -> Result<Self, OutputError> {
        let pipeline = gst::Pipeline::new();
        let source =
            gst_app::AppSrc::builder().caps(caps).format(gst::Format::Time).max_buffers(2).max_bytes(0).build();
        let encoder = make("jpegenc")?;
        encoder.set_property("quality", quality as i32);
        let gallery = gallery.clone();
        let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let map = sample.buffer().and_then(|buffer| buffer.map_readable().ok()).ok_or(gst::FlowError::Error)?;
            gallery.publish(Bytes::copy_from_slice(&map));
            Ok(gst::FlowSuccess::Ok)
        });
        let sink = gst_app::AppSink::builder().sync(false).max_buffers(1).callbacks(callbacks.build()).build();
        let elements = [source.upcast_ref(), &encoder, sink.upcast_ref()];
        pipeline.add_many(elements).map_err(glib_error)?;
        gst::Element::link_many(elements).map_err(glib_error)?;
        pipeline
            .set_state(gst::State::Playing)
            .map_err(|_| state_error(&pipeline, "the JPEG encoder does not start"))?;
        Ok(JpegEncoder { pipeline, source })
    }

    /// Encodes a picture, unless two are waiting: then this one is left out.
    pub fn push(&self, buffer: gst::Buffer) {
        if self.source.current_level_buffers() < 2 && self.source.push_buffer(buffer).is_err() {
            tracing::debug!("a JPEG encoder takes no more pictures");
        }
    }
}

impl Drop for JpegEncoder {
    fn drop(&mut self) {
        if self.pipeline.set_state(gst::State::Null).is_err() {
            tracing::debug!("a JPEG encoder did not stop");
        }
    }
}
