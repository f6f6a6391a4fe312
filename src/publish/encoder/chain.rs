//! The elements of an encode, and how long each picture takes in it.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;

use gst::prelude::*;

use super::level::Level;
use super::settings::configure;
use super::{ENCODER_QUEUE, H264, Purpose, glib_error};
use crate::base::status::Status;
use crate::base::timing::{Stage, Stopwatch};
use crate::config::EncodeConfig;
use crate::frame::{Colorimetry, Matrix, VideoInfo};
use crate::gst::make;
use crate::publish::OutputError;
use crate::publish::range::RangeChange;
use crate::publish::raw::colorimetry;

/// The profiles that every browser, phone and recorder plays, and that WebRTC is answered with (RFC 7742): plain baseline
/// only from encoders that do not know the constraint, and keep it all the same.
const LIVE_PROFILES: [&str; 2] = ["constrained-baseline", "baseline"];

/// The elements of an encode, added to `pipeline` and linked; what comes out is H.264.
pub struct EncodeChain {
    pub kind: H264,
    pub source: gst_app::AppSrc,
    /// The chain's last element.
    pub last: gst::Element,
}

/// The shortest side of a picture that H.264 encoders take: a macroblock. x264enc and openh264enc say nothing of it in
/// their caps; they fail at the first picture, and the reason that is given is "not negotiated".
const LEAST_SIDE: usize = 16;

/// Builds the chain for raw pictures with `caps`.
///
/// # Errors
/// Missing elements, with what to install, and a picture that is too small for any encoder.
pub fn build(
    pipeline: &gst::Pipeline,
    caps: &gst::Caps,
    info: &VideoInfo,
    kind: H264,
    config: &EncodeConfig,
    purpose: Purpose,
    status: &Arc<Status>,
) -> Result<EncodeChain, OutputError> {
    check_size(info)?;
    let encoder = make(kind.element())?;
    configure(&encoder, kind, info, config, purpose);
    measure(&encoder, status);
    assemble(pipeline, caps, info, kind, encoder, purpose)
}

fn check_size(info: &VideoInfo) -> Result<(), OutputError> {
    if info.width.min(info.height) >= LEAST_SIDE {
        return Ok(());
    }
    Err(OutputError(format!(
        "the picture is {info}; H.264 encoders take no less than {LEAST_SIDE}x{LEAST_SIDE}: set a larger picture at the \
         source, or enlarge the video first"
    )))
}

/// `appsrc ! what the encoder needs before it ! encoder ! capsfilter ! h264parse`
pub(super) fn assemble(
    pipeline: &gst::Pipeline,
    caps: &gst::Caps,
    info: &VideoInfo,
    kind: H264,
    encoder: gst::Element,
    purpose: Purpose,
) -> Result<EncodeChain, OutputError> {
    let colors = Colors::of(kind, info)?;
    let source = gst_app::AppSrc::builder()
        .caps(&colors.entering(caps))
        .format(gst::Format::Time)
        .is_live(purpose == Purpose::Live)
        .max_buffers(ENCODER_QUEUE)
        .max_bytes(0)
        .build();
    let mut elements: Vec<gst::Element> = vec![source.clone().upcast()];
    if !info.width.is_multiple_of(2) || !info.height.is_multiple_of(2) {
        // 4:2:0 H.264 has even sides only: an odd last row or column is left out.
        let crop = make("videocrop")?;
        crop.set_property("right", (info.width % 2) as i32);
        crop.set_property("bottom", (info.height % 2) as i32);
        elements.push(crop);
    }
    elements.extend(conversion(kind)?);
    elements.extend(colors.filter()?);
    let filter = make("capsfilter")?;
    filter.set_property("caps", encoded_caps(kind, info, purpose));
    let parse = make("h264parse")?;
    elements.extend([encoder, filter, parse.clone()]);
    pipeline.add_many(&elements).map_err(glib_error)?;
    gst::Element::link_many(&elements).map_err(glib_error)?;
    colors.apply(&source);
    Ok(EncodeChain { kind, source, last: parse })
}

/// What brings I420 or NV12 into the memory and format that the encoder takes. `videoconvert` hands on what needs no
/// conversion as it is; from I420 to NV12 it interleaves the chroma planes, at about a tenth of the cost of x264's
/// fastest encode of the same picture.
fn conversion(kind: H264) -> Result<Vec<gst::Element>, OutputError> {
    Ok(match kind {
        // Take both as they are.
        H264::X264 | H264::Nvenc => Vec::new(),
        // VA takes NV12, OpenH264 I420, V4L2 what the device does.
        H264::VaLowPower | H264::Va | H264::OldVa | H264::V4l2 | H264::OpenH264 => vec![make("videoconvert")?],
        // Copies into the board's own memory.
        H264::Jetson => {
            let filter = make("capsfilter")?;
            let caps = gst::Caps::builder("video/x-raw").features(["memory:NVMM"]).field("format", "NV12").build();
            filter.set_property("caps", caps);
            vec![make("nvvidconv")?, filter]
        }
    })
}

/// What is done to the colours of pictures before they are encoded.
enum Colors {
    /// Nothing: the encoder writes their description into the H.264, or they are as players assume.
    Keep,
    /// `videoconvert` changes the matrix, and the range with it.
    Convert(gst_video::VideoColorimetry),
    /// The matrix is right, the range is not.
    Range(Box<RangeChange>),
}

impl Colors {
    /// # Errors
    /// When GStreamer does not know a picture of this shape.
    fn of(kind: H264, info: &VideoInfo) -> Result<Self, OutputError> {
        match kind {
            H264::X264 | H264::Nvenc | H264::Jetson => return Ok(Colors::Keep),
            // They describe no colours, or not all of them; players assume video range and the matrix by the size.
            H264::VaLowPower | H264::Va | H264::OldVa | H264::V4l2 | H264::OpenH264 => {}
        }
        let assumed = Colorimetry::new(Matrix::assumed(info.width, info.height), false);
        Ok(if info.color.matrix != assumed.matrix {
            Colors::Convert(colorimetry(assumed))
        } else if info.color.full_range {
            Colors::Range(Box::new(RangeChange::new(*info)?))
        } else {
            Colors::Keep
        })
    }

    /// The caps of what enters the chain, of pictures with `caps`.
    fn entering(&self, caps: &gst::Caps) -> gst::Caps {
        let mut entering = caps.clone();
        if let Colors::Range(change) = self {
            entering.make_mut().set("colorimetry", colorimetry(change.color()).to_string());
        }
        entering
    }

    /// What makes `videoconvert` convert.
    fn filter(&self) -> Result<Option<gst::Element>, OutputError> {
        let Colors::Convert(wanted) = self else { return Ok(None) };
        let filter = make("capsfilter")?;
        filter.set_property("caps", gst::Caps::builder("video/x-raw").field("colorimetry", wanted.to_string()).build());
        Ok(Some(filter))
    }

    /// Changes pictures as they leave `source`.
    fn apply(self, source: &gst_app::AppSrc) {
        let (Colors::Range(change), Some(pad)) = (self, source.static_pad("src")) else { return };
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let Some(gst::PadProbeData::Buffer(buffer)) = &info.data else { return gst::PadProbeReturn::Ok };
            match change.apply(buffer) {
                Ok(changed) => {
                    info.data = Some(gst::PadProbeData::Buffer(changed));
                    gst::PadProbeReturn::Ok
                }
                Err(error) => {
                    crate::base::log_dedup::warn("", "publish", &format!("a picture is not encoded: {error}"));
                    gst::PadProbeReturn::Drop
                }
            }
        });
    }
}

/// What the encoder has to give: the one place for profile and level.
fn encoded_caps(kind: H264, info: &VideoInfo, purpose: Purpose) -> gst::Caps {
    let mut caps = gst::Caps::builder("video/x-h264");
    if purpose == Purpose::Live {
        caps = caps.field("profile", gst::List::new(LIVE_PROFILES));
    }
    if kind == H264::V4l2 {
        // Left open, the Raspberry Pi's driver takes level 1, and refuses pictures that are too large for it.
        caps = caps.field("level", Level::of(info).name);
    }
    caps.build()
}

thread_local! {
    static ENCODING: Cell<Option<Stopwatch>> = const { Cell::new(None) };
}

/// Pictures in an encoder that are kept in mind; one that loses some must not fill the memory.
const INSIDE: usize = 16;

/// Measures each picture between the encoder's two pads. The same thread passes both in encoders that run on the CPU;
/// where another one brings the result, there is no CPU time to tell, only how long it took.
fn measure(encoder: &gst::Element, status: &Arc<Status>) {
    let (Some(sink), Some(source)) = (encoder.static_pad("sink"), encoder.static_pad("src")) else { return };
    let entered: Arc<Mutex<VecDeque<Instant>>> = Arc::default();
    let inside = Arc::clone(&entered);
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        ENCODING.set(Some(Stopwatch::start()));
        let mut inside = inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside.len() == INSIDE {
            inside.pop_front();
        }
        inside.push_back(Instant::now());
        gst::PadProbeReturn::Ok
    });
    let status = Arc::clone(status);
    source.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        let entered = entered.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        match (ENCODING.take(), entered) {
            (Some(watch), _) => status.stage(Stage::Encode).record(watch.spent()),
            (None, Some(entered)) => status.stage(Stage::Encode).record_wall(entered.elapsed()),
            (None, None) => {}
        }
        gst::PadProbeReturn::Ok
    });
}
