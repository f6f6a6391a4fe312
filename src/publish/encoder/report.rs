//! What of GStreamer this machine has, for `maskcast doctor`.

use gstreamer as gst;

use crate::gst::{GstError, has};

/// An element that is not installed.
pub struct Missing {
    pub element: &'static str,
    /// Debian's package that has it.
    pub package: &'static str,
    /// Whether Maskcast needs it, or only some sources and outputs do.
    pub needed: bool,
}

/// GStreamer's version, and what of the elements that Maskcast uses is missing. Encoders are the ladder's business.
///
/// # Errors
/// When GStreamer does not start.
pub fn gstreamer_report() -> Result<(String, Vec<Missing>), GstError> {
    crate::gst::init()?;
    const NEEDED: [&str; 12] = [
        "uridecodebin",
        "deinterlace",
        "videoscale",
        "videoflip",
        "videoconvert",
        "h264parse",
        "jpegenc",
        "mp4mux",
        "matroskamux",
        "rtph264pay",
        "rtspsrc",
        "v4l2src",
    ];
    const WELCOME: [&str; 9] = [
        "avdec_h264",
        "srtsrc",
        "libcamerasrc",
        "souphttpsrc",
        "rtspclientsink",
        "webrtcbin",
        "nicesink",
        "dtlssrtpenc",
        "srtpenc",
    ];
    let elements = NEEDED.iter().map(|&element| (element, true)).chain(WELCOME.iter().map(|&element| (element, false)));
    let missing = elements
        .filter(|(element, _)| !has(element))
        .map(|(element, needed)| Missing { element, package: crate::gst::package_of(element), needed })
        .collect();
    Ok((gst::version_string().to_string(), missing))
}
