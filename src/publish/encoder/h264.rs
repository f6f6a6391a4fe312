//! The H.264 encoders that Maskcast can set up.

/// An H.264 encoder that Maskcast can set up: one of GStreamer's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum H264 {
    /// NVIDIA's GPUs.
    Nvenc,
    /// VA-API (Intel, AMD), the low-power circuit of newer Intel GPUs.
    VaLowPower,
    /// VA-API.
    Va,
    /// VA-API by GStreamer's older plugin.
    OldVa,
    /// V4L2 as NVIDIA's Jetson boards have it.
    Jetson,
    /// V4L2 devices of the kernel's own interface: Raspberry Pi up to 4, many ARM boards.
    V4l2,
    X264,
    OpenH264,
}

impl H264 {
    /// GStreamer's element.
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
