//! Outputs for frames: where the frames of a stream go once the masks are drawn.
//!
//! [`Output`] is the interface at which tests use fakes. A live stream has a [`live::LiveOutput`]: one H.264 encode for all
//! [`FrameSink`](frame_sink::FrameSink)s of H.264, and JPEG images for browsers. The kinds of sinks are listed in
//! [`FRAME_SINKS`](frame_sinks::FRAME_SINKS). `maskcast segment` has a [`file::FileOutput`].

use std::time::{Duration, Instant};

use crate::frame::VideoInfo;
use crate::overlay::OutputImage;

mod buffer_error;
mod clock;
mod connection_limit;
pub mod encoder;
mod error;
pub mod fanout;
pub mod file;
pub mod frame_sink;
pub mod frame_sink_kind;
pub mod frame_sinks;
pub mod jpeg_broadcast;
pub mod live;
pub mod mjpeg;
pub mod outputs;
pub mod push;
mod range;
mod raw;
pub mod recording;
pub mod rtsp;
pub mod rtsp_auth;
mod rtsp_connections;
mod rtsp_ffi;
mod rtsp_media;
mod rtsp_mounts;
mod rtsp_players;
pub mod runs;
mod webrtc;
pub mod whep;

pub use buffer_error::{BufferError, PoolProblem};
pub use error::{EncoderFault, OutputError};

/// When a frame was captured.
#[derive(Clone, Copy, Debug)]
pub struct CaptureTime {
    /// The frame's time in the source's time line.
    pub pts: Duration,
    pub captured_at: Instant,
    /// Whether it is a slate, which is published while the source sends no frames and is not counted.
    pub slate: bool,
}

/// What an output did with a frame. A frame that one encoder has taken counts as published, whether another one took it or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// It has been published.
    Published,
    /// An encoder has it, and records its delay in the status when it comes out.
    Encoding,
    /// No encoder has taken it: they have not finished earlier frames.
    Busy,
}

/// Draws a frame into memory of the output.
pub type Paint<'a> = dyn FnMut(&mut OutputImage<'_, '_>) + 'a;

/// Where the frames of a stream go.
pub trait Output: Send {
    /// Whether any sink needs frames now. If none does, the stream neither draws nor encodes.
    fn wanted(&mut self) -> bool;

    /// Has `paint` draw the next frame, and sends it on.
    ///
    /// # Errors
    /// The frame is lost. The output tries to be ready for the next one.
    fn publish(
        &mut self,
        time: CaptureTime,
        info: VideoInfo,
        paint: &mut Paint<'_>,
    ) -> Result<PublishOutcome, OutputError>;

    /// Ends the output: files are completed, connections are closed.
    ///
    /// # Errors
    /// What could not be completed.
    fn finish(&mut self) -> Result<(), OutputError>;
}
