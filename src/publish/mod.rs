//! Outputs: where a stream's pictures go once the masks are drawn.
//!
//! [`Output`] is the edge where tests put fakes. A live stream has a [`live::LiveOutput`]: one H.264 encode fanned out
//! to RTSP and WebRTC viewers and the recording, and JPEG pictures for browsers. `maskcast segment` has a [`file::FileOutput`].

use std::time::{Duration, Instant};

use crate::frame::{ImageMut, VideoInfo};
use crate::gst::GstError;

mod connection_limit;
pub mod encoder;
pub mod fanout;
pub mod file;
pub mod live;
pub mod mjpeg;
pub mod push;
mod range;
mod raw;
pub mod recording;
pub mod rtsp;
pub mod rtsp_auth;
mod rtsp_connections;
mod rtsp_ffi;
mod rtsp_mounts;
mod rtsp_players;
mod webrtc;
pub mod whep;

/// Why a picture could not be published; in one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OutputError(pub String);

impl From<GstError> for OutputError {
    fn from(error: GstError) -> Self {
        OutputError(error.message)
    }
}

/// When a picture was taken.
#[derive(Clone, Copy, Debug)]
pub struct CaptureTime {
    /// In the source's time line.
    pub pts: Duration,
    pub captured_at: Instant,
    /// A picture that stands in for frames while there are none; it enters no account.
    pub slate: bool,
}

/// What became of a picture. One that any encoder has taken counts as published, whatever became of it in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// It has been published.
    Published,
    /// An encoder has it, and enters its delay in the status when it comes out.
    Encoding,
    /// No encoder has taken it: they have not finished earlier ones.
    Busy,
}

/// Draws a picture into the output's own memory.
pub type Paint<'a> = dyn FnMut(&mut ImageMut<'_>) + 'a;

/// Where a stream's pictures go.
pub trait Output: Send {
    /// Whether anyone wants pictures now. When not, the stream neither draws nor encodes.
    fn wanted(&mut self) -> bool;

    /// Lets `paint` draw the next picture and sends it on.
    ///
    /// # Errors
    /// The picture is lost. The output tries to be ready for the next one.
    fn publish(&mut self, stamp: CaptureTime, info: VideoInfo, paint: &mut Paint<'_>) -> Result<Accepted, OutputError>;

    /// Ends all outputs properly: what was recorded stays playable.
    ///
    /// # Errors
    /// What could not be finished.
    fn finish(&mut self) -> Result<(), OutputError>;
}
