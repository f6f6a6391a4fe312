//! The H.264 encode of a stream: `appsrc ! encoder ! h264parse`, by the first encoder that works on this machine.

use std::cell::Cell;
use std::sync::Arc;

use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;

use super::OutputError;
use crate::config::{EncodeConfig, EncoderChoice};
use crate::frame::VideoInfo;
use crate::gst::{GstError, has, make, set_if_present};
use crate::stream::status::Status;
use crate::stream::timing::{Stage, Stopwatch};

/// What the encode is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Constant bitrate, no frame kept back.
    Live,
    /// Constant quality.
    File,
}

/// An H.264 encoder that Maskcast can set up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum H264 {
    Nvenc,
    X264,
    OpenH264,
}

impl H264 {
    /// GStreamer's element.
    pub fn element(self) -> &'static str {
        match self {
            H264::Nvenc => "nvh264enc",
            H264::X264 => "x264enc",
            H264::OpenH264 => "openh264enc",
        }
    }

    /// The configured encoder, or the first that this installation has and that has not `failed`. When all have, the first
    /// is tried again.
    ///
    /// # Errors
    /// Names what to install.
    pub fn choose(choice: EncoderChoice, failed: &[H264]) -> Result<H264, GstError> {
        crate::gst::init()?;
        let candidates: &[H264] = match choice {
            EncoderChoice::Auto => &[H264::Nvenc, H264::X264, H264::OpenH264],
            EncoderChoice::Nvenc => &[H264::Nvenc],
            EncoderChoice::X264 => &[H264::X264],
            EncoderChoice::OpenH264 => &[H264::OpenH264],
        };
        // The NVIDIA plugin registers its encoders only where the driver offers them. A driver may still refuse another
        // session; such an encoder is passed over once it has failed.
        let there = || candidates.iter().copied().filter(|candidate| has(candidate.element()));
        let choice = there().find(|candidate| !failed.contains(candidate)).or_else(|| there().next());
        choice.ok_or_else(|| {
            let names: Vec<&str> = candidates.iter().map(|candidate| candidate.element()).collect();
            GstError::new(format!(
                "no H.264 encoder: GStreamer has none of {} (install gstreamer1.0-plugins-ugly for x264enc)",
                names.join(", ")
            ))
        })
    }
}

/// An element that is not installed.
pub struct Missing {
    pub element: &'static str,
    /// Debian's package that has it.
    pub package: &'static str,
    /// Whether Maskcast needs it, or only some sources do.
    pub needed: bool,
}

/// GStreamer's version, and what of the elements that Maskcast uses is missing.
///
/// # Errors
/// When GStreamer does not start.
pub fn gstreamer_report() -> Result<(String, Vec<Missing>), GstError> {
    crate::gst::init()?;
    const NEEDED: [&str; 10] = [
        "uridecodebin",
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
    const WELCOME: [&str; 4] = ["avdec_h264", "srtsrc", "libcamerasrc", "souphttpsrc"];
    let elements = NEEDED.iter().map(|&element| (element, true)).chain(WELCOME.iter().map(|&element| (element, false)));
    let missing = elements
        .filter(|(element, _)| !has(element))
        .map(|(element, needed)| Missing { element, package: crate::gst::package_of(element), needed })
        .collect();
    Ok((gst::version_string().to_string(), missing))
}

/// Pictures that wait for an encoder: one to have the next ready, one for the hand-over. The caller drops or waits when
/// both places are taken.
pub(super) const ENCODER_QUEUE: u64 = 2;

/// Bits a pixel of the automatic bitrate: enough for the hard edges of masks at x264's fastest preset.
const BITS_PER_PIXEL: f64 = 0.15;

/// Quality of files, as x264's constant rate factor.
const FILE_CRF: u32 = 23;

/// kbit/s for a picture size and rate.
pub fn auto_bitrate(info: &VideoInfo) -> u32 {
    let fps = if info.fps.0 == 0 { 25.0 } else { f64::from(info.fps.0) / f64::from(info.fps.1) };
    ((info.width * info.height) as f64 * fps * BITS_PER_PIXEL / 1000.0).clamp(200.0, 40_000.0) as u32
}

/// The elements of an encode, added to `pipeline` and linked; what comes out is H.264 as `caps` wants it.
pub struct EncodeChain {
    pub kind: H264,
    pub source: gst_app::AppSrc,
    /// The chain's last element.
    pub last: gst::Element,
}

/// Builds the chain for raw pictures with `caps`.
///
/// # Errors
/// Missing elements, with what to install.
pub fn build(
    pipeline: &gst::Pipeline,
    caps: &gst::Caps,
    info: &VideoInfo,
    kind: H264,
    config: &EncodeConfig,
    purpose: Purpose,
    status: &Arc<Status>,
) -> Result<EncodeChain, OutputError> {
    let source = gst_app::AppSrc::builder()
        .caps(caps)
        .format(gst::Format::Time)
        .is_live(purpose == Purpose::Live)
        .max_buffers(ENCODER_QUEUE)
        .max_bytes(0)
        .build();
    let encoder = make(kind.element())?;
    configure(&encoder, kind, info, config, purpose);
    measure(&encoder, status);
    let parse = make("h264parse")?;
    let mut elements: Vec<gst::Element> = vec![source.clone().upcast()];
    if !info.width.is_multiple_of(2) || !info.height.is_multiple_of(2) {
        // 4:2:0 H.264 has even sides only: an odd last row or column is left out.
        let crop = make("videocrop")?;
        crop.set_property("right", (info.width % 2) as i32);
        crop.set_property("bottom", (info.height % 2) as i32);
        elements.push(crop);
    }
    if kind == H264::OpenH264 {
        // Takes I420 only.
        elements.push(make("videoconvert")?);
    }
    elements.extend([encoder, parse.clone()]);
    pipeline.add_many(&elements).map_err(glib_error)?;
    gst::Element::link_many(&elements).map_err(glib_error)?;
    Ok(EncodeChain { kind, source, last: parse })
}

fn configure(encoder: &gst::Element, kind: H264, info: &VideoInfo, config: &EncodeConfig, purpose: Purpose) {
    let bitrate = if config.bitrate == 0 { auto_bitrate(info) } else { config.bitrate };
    let fps = if info.fps.0 == 0 { 25.0 } else { f64::from(info.fps.0) / f64::from(info.fps.1) };
    let keyframes = (config.keyframe_interval.as_secs_f64() * fps).round().max(1.0) as u32;
    let set = |property: &str, value: String| set_if_present(encoder, property, &value);
    match kind {
        H264::X264 => {
            set("speed-preset", config.preset.clone());
            set("key-int-max", keyframes.to_string());
            set("bframes", "0".into());
            // One thread: the streams share the cores, and a 1080p frame takes one thread about 10 ms. Larger pictures get more.
            set("threads", if info.width * info.height <= 1920 * 1088 { "1".into() } else { "0".into() });
            match purpose {
                Purpose::Live => {
                    set("tune", "zerolatency".into());
                    set("bitrate", bitrate.to_string());
                    // A keyframe may take half a second's worth of the rate; more would show as delay.
                    set("vbv-buf-capacity", "500".into());
                }
                Purpose::File if config.bitrate == 0 => {
                    set("pass", "qual".into());
                    set("quantizer", FILE_CRF.to_string());
                    // Looking ahead and weighing pictures costs as much as the encode itself at the fast presets.
                    set("rc-lookahead", "0".into());
                    set("mb-tree", "false".into());
                }
                Purpose::File => set("bitrate", bitrate.to_string()),
            }
        }
        H264::OpenH264 => {
            set("bitrate", (bitrate * 1000).to_string());
            set("gop-size", keyframes.to_string());
            set("complexity", "low".into());
            set("rate-control", if purpose == Purpose::Live { "bitrate".into() } else { "quality".into() });
        }
        H264::Nvenc => {
            set("gop-size", keyframes.to_string());
            set("bframes", "0".into());
            match purpose {
                Purpose::Live => {
                    set("preset", "low-latency-hq".into());
                    set("zerolatency", "true".into());
                    set("rc-mode", "cbr".into());
                    set("bitrate", bitrate.to_string());
                }
                Purpose::File => {
                    set("preset", "hq".into());
                    set("rc-mode", "vbr".into());
                    set("qp-const", FILE_CRF.to_string());
                }
            }
        }
    }
}

thread_local! {
    static ENCODING: Cell<Option<Stopwatch>> = const { Cell::new(None) };
}

/// Measures each picture between the encoder's two pads, which the same thread passes.
fn measure(encoder: &gst::Element, status: &Arc<Status>) {
    let (Some(sink), Some(source)) = (encoder.static_pad("sink"), encoder.static_pad("src")) else { return };
    sink.add_probe(gst::PadProbeType::BUFFER, |_, _| {
        ENCODING.set(Some(Stopwatch::start()));
        gst::PadProbeReturn::Ok
    });
    let status = Arc::clone(status);
    source.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        if let Some(watch) = ENCODING.take() {
            status.stage(Stage::Encode).record(watch.spent());
        }
        gst::PadProbeReturn::Ok
    });
}

/// Pushes a picture as soon as the encoder has room for it; that is what sets the pace where no frame may be lost.
///
/// # Errors
/// The pipeline's error, when it fails while we wait. Left to itself a blocking appsrc would wait for ever then.
pub(super) fn push_patiently(source: &gst_app::AppSrc, bus: &gst::Bus, buffer: gst::Buffer) -> Result<(), OutputError> {
    while source.current_level_buffers() >= ENCODER_QUEUE {
        let wait = gst::ClockTime::from_mseconds(2);
        if let Some(message) = bus.timed_pop_filtered(wait, &[gst::MessageType::Error])
            && let gst::MessageView::Error(error) = message.view()
        {
            return Err(crate::gst::describe(error).into());
        }
    }
    source.push_buffer(buffer).map(|_| ()).map_err(|_| {
        crate::gst::bus_error(bus).unwrap_or_else(|| GstError::new("the encoder takes no more pictures")).into()
    })
}

pub(super) fn glib_error(error: gst::glib::BoolError) -> OutputError {
    OutputError(format!("GStreamer: {}", error.message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::PixelFormat;

    #[test]
    fn bitrate_follows_size_and_rate() {
        let mut info = VideoInfo::new(PixelFormat::I420, 960, 540);
        info.fps = (25, 1);
        assert_eq!(auto_bitrate(&info), 1944);
        info.fps = (50, 1);
        assert_eq!(auto_bitrate(&info), 3888);
        assert_eq!(auto_bitrate(&VideoInfo::new(PixelFormat::I420, 16, 16)), 200);
    }

    #[test]
    fn a_missing_encoder_says_what_to_install() {
        crate::gst::init().unwrap();
        if has("nvh264enc") {
            return;
        }
        let error = H264::choose(EncoderChoice::Nvenc, &[]).unwrap_err();
        assert!(error.message.contains("nvh264enc"), "{error}");
        assert_eq!(H264::choose(EncoderChoice::Auto, &[]), Ok(H264::X264));
        assert_eq!(H264::choose(EncoderChoice::X264, &[H264::X264]), Ok(H264::X264), "better than nothing");
    }
}
