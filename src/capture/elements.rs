//! The elements that read and decode each kind of source.

use std::path::Path;
use std::sync::Arc;

use gstreamer as gst;

use gst::prelude::*;

use super::network::set_up_network;
use super::tracks::{self, Tracks};
use super::trust::RefusedCertificate;
use super::{SourceError, convert};
use crate::config::{SourceSpec, SourceUri};
use crate::gst::secrets::Secrets;
use crate::gst::{GstError, make};

/// Adds the elements that read and decode the source, and links its video to the input pad of the converter. Returns the state of its tracks.
pub(super) fn add_source(
    pipeline: &gst::Pipeline,
    spec: &SourceSpec,
    converter_input: &gst::Pad,
    refused: &Arc<RefusedCertificate>,
) -> Result<Arc<Tracks>, SourceError> {
    let tracks = Arc::new(Tracks::default());
    let decoded = |uri: &str| -> Result<(), SourceError> {
        let decode = make("uridecodebin")?;
        decode.set_property("uri", uri);
        // A file that must not lose a frame is downloaded to a temporary file and read by seeking: as a stream, GStreamer
        // 1.22's MP4 demuxer loses the last frames.
        decode.set_property("download", matches!(spec.uri, SourceUri::Http(_)) && !spec.real_time);
        // Audio and subtitles are not decoded.
        decode.connect("autoplug-continue", false, |values| {
            let caps = values.get(2).and_then(|value| value.get::<gst::Caps>().ok());
            let name =
                caps.as_ref().and_then(|caps| caps.structure(0)).map_or("", |structure| structure.name().as_str());
            Some((!name.starts_with("audio/") && !name.starts_with("text/")).to_value())
        });
        let (settings, refused) = (spec.clone(), Arc::clone(refused));
        decode.connect("source-setup", false, move |values| {
            if let Some(source) = values.get(1).and_then(|value| value.get::<gst::Element>().ok()) {
                set_up_network(&source, &settings, &refused);
            }
            None
        });
        add_decoder(pipeline, &decode, converter_input, &tracks)
    };
    match &spec.uri {
        SourceUri::File(path) => {
            let path = std::path::absolute(path).map_err(|error| invalid_path(path, error.to_string()))?;
            let uri = gst::glib::filename_to_uri(&path, None)
                .map_err(|_| invalid_path(&path, "the file name cannot be converted to an address".into()))?;
            decoded(&uri)?;
        }
        SourceUri::Rtsp(url) | SourceUri::Http(url) | SourceUri::Srt(url) => decoded(url.as_str())?,
        SourceUri::V4l2(device) => {
            let source = make("v4l2src")?;
            source.set_property("device", device.to_string_lossy().as_ref());
            add_camera(pipeline, &source, converter_input, &tracks)?;
        }
        SourceUri::Libcamera(name) => {
            let source = make("libcamerasrc")?;
            if !name.is_empty() {
                source.set_property("camera-name", name);
            }
            add_camera(pipeline, &source, converter_input, &tracks)?;
        }
        SourceUri::Test(test) => {
            let source = make("videotestsrc")?;
            source.set_property_from_str("pattern", &test.pattern);
            source.set_property("is-live", spec.real_time);
            if let Some(frames) = test.frames {
                source.set_property("num-buffers", i32::try_from(frames).unwrap_or(i32::MAX));
            }
            let filter = make("capsfilter")?;
            let caps = gst::Caps::builder("video/x-raw")
                .field("format", "I420")
                .field("width", test.width as i32)
                .field("height", test.height as i32)
                .field("framerate", gst::Fraction::new(test.fps as i32, 1))
                .build();
            filter.set_property("caps", caps);
            pipeline.add_many([&source, &filter]).map_err(glib_error)?;
            source.link(&filter).map_err(glib_error)?;
            link(&static_pad(&filter, "src")?, converter_input)?;
        }
        SourceUri::Gst(description) => {
            let (bin, pad) = parse_description(spec, description)?;
            pipeline.add(&bin).map_err(glib_error)?;
            link(&pad, converter_input)?;
        }
    }
    Ok(tracks)
}

fn invalid_path(path: &Path, reason: String) -> SourceError {
    SourceError::InvalidPath { path: path.to_path_buf(), reason }
}

/// The name of the element that is appended to a description.
const OPEN_END: &str = "maskcast-open-end";

/// Creates the elements of a description, and their output pad.
fn parse_description(spec: &SourceSpec, description: &str) -> Result<(gst::Bin, gst::Pad), SourceError> {
    // With `identity` appended, a description may end in caps, and in elements whose pads are added later. The ghost pad is
    // created here and not by GStreamer, which would also expose pads that are linked later.
    let whole = format!("{description} ! identity name={OPEN_END}");
    let bin = gst::parse::bin_from_description(&whole, false)
        .map_err(|error| SourceError::InvalidDescription(Secrets::of(spec).hide(&error.to_string())))?;
    let end = bin.by_name(OPEN_END).ok_or(SourceError::NoOpenEnd)?;
    let pad = gst::GhostPad::with_target(&static_pad(&end, "src")?).map_err(glib_error)?;
    bin.add_pad(&pad).map_err(glib_error)?;
    Ok((bin, pad.upcast()))
}

/// Checks that GStreamer can parse the description of a `gst:` source, without opening it. Other sources always pass.
///
/// # Errors
/// When the description has an error or an unknown element.
pub fn check_description(spec: &SourceSpec) -> Result<(), SourceError> {
    let SourceUri::Gst(description) = &spec.uri else { return Ok(()) };
    crate::gst::init()?;
    parse_description(spec, description).map(drop)
}

/// Adds `source`, a camera element whose video may be raw or compressed, and a decoder for it.
fn add_camera(
    pipeline: &gst::Pipeline,
    source: &gst::Element,
    converter_input: &gst::Pad,
    tracks: &Arc<Tracks>,
) -> Result<(), SourceError> {
    let decode = make("decodebin")?;
    pipeline.add(source).map_err(glib_error)?;
    add_decoder(pipeline, &decode, converter_input, tracks)?;
    Ok(source.link(&decode).map_err(glib_error)?)
}

/// Adds a decoding bin, whose pads are added when it has found the tracks of the stream. Links its first video pad.
fn add_decoder(
    pipeline: &gst::Pipeline,
    decode: &gst::Element,
    converter_input: &gst::Pad,
    tracks: &Arc<Tracks>,
) -> Result<(), SourceError> {
    let (target, others) = (converter_input.clone(), Arc::clone(tracks));
    decode.connect_pad_added(move |decode, pad| {
        let is_video = pad
            .current_caps()
            .or_else(|| Some(pad.query_caps(None)))
            .is_some_and(|caps| caps.structure(0).is_some_and(|structure| structure.name().starts_with("video/")));
        if !is_video || target.is_linked() {
            tracks::follow_unused_track(pad, &others);
        } else if pad.link(&target).is_err() {
            let offered = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
            let problem = SourceError::FormatUnsupported(convert::describe(&offered));
            gst::element_error!(decode, gst::StreamError::Format, ("{problem}"));
        }
    });
    let (target, tracks) = (converter_input.clone(), Arc::clone(tracks));
    decode.connect_no_more_pads(move |_| {
        if !target.is_linked() {
            tracks.set_no_video();
        }
    });
    Ok(pipeline.add(decode).map_err(glib_error)?)
}

fn link(from: &gst::Pad, to: &gst::Pad) -> Result<(), SourceError> {
    match from.link(to) {
        Ok(_) => Ok(()),
        Err(gst::PadLinkError::Noformat) => {
            Err(SourceError::FormatUnsupported(convert::describe(&from.query_caps(None))))
        }
        Err(error) => Err(SourceError::NotRawVideo(error)),
    }
}

pub(super) fn static_pad(element: &gst::Element, name: &str) -> Result<gst::Pad, GstError> {
    element
        .static_pad(name)
        .ok_or_else(|| GstError::new(format!("the GStreamer element {} has no pad {name}", element.name())))
}

pub(super) fn glib_error(error: gst::glib::BoolError) -> GstError {
    GstError::new(format!("GStreamer: {}", error.message))
}
