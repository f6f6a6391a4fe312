//! Lists missing GStreamer elements, for `maskcast doctor`.

use gstreamer as gst;

use crate::gst::{GstError, has};

/// An element that is not installed.
pub struct MissingElement {
    pub element: &'static str,
    /// The Debian package that contains it.
    pub package: &'static str,
    /// False when only some sources and outputs need it.
    pub needed: bool,
}

/// The version of GStreamer, and the missing elements. Encoders are not included; see
/// [`H264::choose`](super::H264::choose).
///
/// # Errors
/// When GStreamer cannot be initialised.
pub fn gstreamer_report() -> Result<(String, Vec<MissingElement>), GstError> {
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
    const OPTIONAL: [&str; 9] = [
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
    let elements =
        NEEDED.iter().map(|&element| (element, true)).chain(OPTIONAL.iter().map(|&element| (element, false)));
    let missing = elements
        .filter(|(element, _)| !has(element))
        .map(|(element, needed)| MissingElement { element, package: crate::gst::package_of(element), needed })
        .collect();
    Ok((gst::version_string().to_string(), missing))
}
