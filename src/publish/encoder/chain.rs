//! Builds the elements of an encode, and measures how long each frame takes in the encoder.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use parking_lot::Mutex;

use gst::prelude::*;

use super::level::Level;
use super::settings::configure;
use super::{ENCODER_QUEUE, H264, Purpose, glib_error};
use crate::base::encode_status::RunningEncode;
use crate::base::status::Status;
use crate::base::timing::{Stage, Stopwatch};
use crate::config::EncodeConfig;
use crate::frame::{Colorimetry, Matrix, VideoInfo};
use crate::gst::{GstError, make};
use crate::publish::BufferError;
use crate::publish::range::RangeChange;
use crate::publish::raw::colorimetry;

/// The profiles that every browser, phone and recorder supports, and that WebRTC requires (RFC 7742, section 6.2).
/// Plain baseline is for encoders that do not signal the constraint although they keep it.
const LIVE_PROFILES: [&str; 2] = ["constrained-baseline", "baseline"];

/// The linked elements of an encode in a pipeline; the output is H.264.
pub struct EncodeChain {
    pub kind: H264,
    pub source: gst_app::AppSrc,
    /// The last element.
    pub last: gst::Element,
}

/// The shortest side of a frame that H.264 encoders accept, in pixels: one macroblock. x264enc and openh264enc do not
/// declare it in their caps; they fail at the first frame with the reason "not negotiated".
const MIN_SIDE: usize = 16;

/// Why the elements of an encode could not be built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    #[error(
        "the frame is {0}; H.264 encoders need at least {MIN_SIDE}x{MIN_SIDE}: set a larger frame size at the source, or \
         scale the video up first"
    )]
    FrameTooSmall(VideoInfo),
    /// An element is missing or cannot be linked; the message names the package to install.
    #[error(transparent)]
    Gst(#[from] GstError),
    /// The conversion of the value range does not support this format.
    #[error(transparent)]
    Range(#[from] BufferError),
}

/// Builds the chain for raw frames with `caps`.
///
/// # Errors
/// When an element is missing, or the frame is too small for H.264.
pub fn build(
    pipeline: &gst::Pipeline,
    caps: &gst::Caps,
    info: &VideoInfo,
    kind: H264,
    config: &EncodeConfig,
    purpose: Purpose,
    status: &Arc<Status>,
) -> Result<EncodeChain, EncodeError> {
    if info.width.min(info.height) < MIN_SIDE {
        return Err(EncodeError::FrameTooSmall(*info));
    }
    let encoder = make(kind.element())?;
    let rate_control = configure(&encoder, kind, info, config, purpose);
    let running = status.encode.start(kind.kind_name(), rate_control);
    measure(&encoder, status, running);
    assemble(pipeline, caps, info, kind, encoder, purpose, Level::of_stream(info, config))
}

/// Builds `appsrc ! videocrop? ! conversion? ! encoder ! capsfilter ! h264parse`.
pub(super) fn assemble(
    pipeline: &gst::Pipeline,
    caps: &gst::Caps,
    info: &VideoInfo,
    kind: H264,
    encoder: gst::Element,
    purpose: Purpose,
    level: Level,
) -> Result<EncodeChain, EncodeError> {
    let colors = ColorConversion::for_encoder(kind, info)?;
    let source = gst_app::AppSrc::builder()
        .caps(&colors.input_caps(caps))
        .format(gst::Format::Time)
        .is_live(purpose == Purpose::Live)
        .max_buffers(ENCODER_QUEUE)
        .max_bytes(0)
        .build();
    let mut elements: Vec<gst::Element> = vec![source.clone().upcast()];
    if !info.width.is_multiple_of(2) || !info.height.is_multiple_of(2) {
        // 4:2:0 H.264 needs even sides: an odd last row or column is cropped.
        let crop = make("videocrop")?;
        crop.set_property("right", (info.width % 2) as i32);
        crop.set_property("bottom", (info.height % 2) as i32);
        elements.push(crop);
    }
    elements.extend(conversion(kind)?);
    elements.extend(colors.filter()?);
    let filter = make("capsfilter")?;
    filter.set_property("caps", encoded_caps(kind, purpose, level));
    let parse = make("h264parse")?;
    elements.extend([encoder, filter, parse.clone()]);
    pipeline.add_many(&elements).map_err(glib_error)?;
    gst::Element::link_many(&elements).map_err(glib_error)?;
    colors.apply(&source);
    Ok(EncodeChain { kind, source, last: parse })
}

/// The elements that convert I420 or NV12 to the format and memory of the encoder. `videoconvert` passes frames through
/// when no conversion is needed; from I420 to NV12 it interleaves the chroma planes, which costs about a tenth of
/// x264's fastest encode of the same frame.
fn conversion(kind: H264) -> Result<Vec<gst::Element>, GstError> {
    Ok(match kind {
        // Accept both formats.
        H264::X264 | H264::Nvenc => Vec::new(),
        // VA accepts NV12, OpenH264 I420; the formats of V4L2 depend on the device.
        H264::VaLowPower | H264::Va | H264::OldVa | H264::V4l2 | H264::OpenH264 => vec![make("videoconvert")?],
        // Copies into the memory of the board.
        H264::Jetson => {
            let filter = make("capsfilter")?;
            let caps = gst::Caps::builder("video/x-raw").features(["memory:NVMM"]).field("format", "NV12").build();
            filter.set_property("caps", caps);
            vec![make("nvvidconv")?, filter]
        }
    })
}

/// How the colours of a frame are converted before the encoder.
enum ColorConversion {
    /// Not at all: the encoder writes the colorimetry into the H.264, or players assume the right one.
    None,
    /// `videoconvert` converts the matrix and the value range.
    Matrix(gst_video::VideoColorimetry),
    /// Only the value range differs.
    Range(Box<RangeChange>),
}

impl ColorConversion {
    /// # Errors
    /// When the range conversion does not support the frame format.
    fn for_encoder(kind: H264, info: &VideoInfo) -> Result<Self, EncodeError> {
        match kind {
            H264::X264 | H264::Nvenc | H264::Jetson => return Ok(ColorConversion::None),
            // They do not write the complete colorimetry. Players then assume video range, and the matrix by the frame
            // size.
            H264::VaLowPower | H264::Va | H264::OldVa | H264::V4l2 | H264::OpenH264 => {}
        }
        let assumed = Colorimetry::new(Matrix::assumed(info.width, info.height), false);
        Ok(if info.color.matrix != assumed.matrix {
            ColorConversion::Matrix(colorimetry(assumed))
        } else if info.color.full_range {
            ColorConversion::Range(Box::new(RangeChange::new(*info).map_err(EncodeError::Range)?))
        } else {
            ColorConversion::None
        })
    }

    /// The caps of the frames after the range conversion; `caps` are those before.
    fn input_caps(&self, caps: &gst::Caps) -> gst::Caps {
        let mut converted = caps.clone();
        if let ColorConversion::Range(change) = self {
            converted.make_mut().set("colorimetry", colorimetry(change.color()).to_string());
        }
        converted
    }

    /// The capsfilter that makes `videoconvert` convert the matrix.
    fn filter(&self) -> Result<Option<gst::Element>, GstError> {
        let ColorConversion::Matrix(target) = self else { return Ok(None) };
        let filter = make("capsfilter")?;
        filter.set_property("caps", gst::Caps::builder("video/x-raw").field("colorimetry", target.to_string()).build());
        Ok(Some(filter))
    }

    /// Converts the value range of frames as they leave `source`.
    fn apply(self, source: &gst_app::AppSrc) {
        let (ColorConversion::Range(change), Some(pad)) = (self, source.static_pad("src")) else { return };
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let Some(gst::PadProbeData::Buffer(buffer)) = &info.data else { return gst::PadProbeReturn::Ok };
            match change.apply(buffer) {
                Ok(changed) => {
                    info.data = Some(gst::PadProbeData::Buffer(changed));
                    gst::PadProbeReturn::Ok
                }
                Err(error) => {
                    crate::base::log_dedup::warn(
                        "",
                        "publish",
                        &format!("cannot convert a frame, it is dropped: {error}"),
                    );
                    gst::PadProbeReturn::Drop
                }
            }
        });
    }
}

/// The caps of the encoder's output: the only place that sets profile and level.
fn encoded_caps(kind: H264, purpose: Purpose, level: Level) -> gst::Caps {
    let mut caps = gst::Caps::builder("video/x-h264");
    if purpose == Purpose::Live {
        caps = caps.field("profile", gst::List::new(LIVE_PROFILES));
    }
    if kind == H264::V4l2 {
        // Without it the driver of the Raspberry Pi selects level 1 and rejects frames that exceed it.
        caps = caps.field("level", level.name);
    }
    caps.build()
}

thread_local! {
    static ENCODING: Cell<Option<Stopwatch>> = const { Cell::new(None) };
}

/// The most start times that are stored. An encoder that drops frames must not make the queue grow.
const MAX_START_TIMES: usize = 16;

/// Measures the time of each frame between the pads of the encoder, and the bitrate. CPU encoders deliver the result on the thread that
/// pushed the frame, so that the CPU time can be measured. With other encoders only the elapsed time is known.
fn measure(encoder: &gst::Element, status: &Arc<Status>, running: Arc<RunningEncode>) {
    let (Some(sink), Some(source)) = (encoder.static_pad("sink"), encoder.static_pad("src")) else { return };
    let start_times: Arc<Mutex<VecDeque<Instant>>> = Arc::default();
    let started = Arc::clone(&start_times);
    sink.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
        ENCODING.set(Some(Stopwatch::start()));
        let mut started = started.lock();
        if started.len() == MAX_START_TIMES {
            started.pop_front();
        }
        started.push_back(Instant::now());
        gst::PadProbeReturn::Ok
    });
    let status = Arc::clone(status);
    source.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
            status.encode.record(&running, buffer.size());
        }
        let started = start_times.lock().pop_front();
        match (ENCODING.take(), started) {
            (Some(watch), _) => status.stage(Stage::Encode).record(watch.spent()),
            (None, Some(started)) => status.stage(Stage::Encode).record_wall(started.elapsed()),
            (None, None) => {}
        }
        gst::PadProbeReturn::Ok
    });
}
