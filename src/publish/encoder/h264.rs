//! The supported H.264 encoders.

/// A supported H.264 encoder: one GStreamer element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum H264 {
    /// NVIDIA GPUs.
    Nvenc,
    /// VA-API: the low-power encoder of newer Intel GPUs.
    VaLowPower,
    /// VA-API: Intel and AMD GPUs.
    Va,
    /// VA-API with the older GStreamer plugin.
    OldVa,
    /// NVIDIA Jetson boards with NVIDIA's V4L2 elements.
    Jetson,
    /// V4L2 memory-to-memory devices: Raspberry Pi up to 4, many ARM boards.
    V4l2,
    X264,
    OpenH264,
}

impl H264 {
    /// The name of the GStreamer element.
    pub fn element(self) -> &'static str {
        match self {
            H264::Nvenc => "nvh264enc",
            H264::VaLowPower => "vah264lpenc",
            H264::Va => "vah264enc",
            H264::OldVa => "vaapih264enc",
            H264::Jetson => "nvv4l2h264enc",
            H264::V4l2 => "v4l2h264enc",
            H264::X264 => "x264enc",
            H264::OpenH264 => "openh264enc",
        }
    }
}
