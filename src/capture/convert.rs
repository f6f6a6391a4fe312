//! What brings raw video of any format to I420 or NV12: converted, deinterlaced, upright.

use gstreamer as gst;

use gst::prelude::*;

use super::deinterlace::deinterlacer;
use super::{SourceError, color};
use crate::gst::make;

/// The formats that leave the chain.
const FORMATS: [&str; 2] = ["I420", "NV12"];

/// `videoconvert ! capsfilter ! deinterlace ! videoflip`. Each hands on buffers that need nothing done as they are.
///
/// The order matters: `deinterlace` and `videoflip` take few formats, `videoconvert` knows all; and lines can be
/// deinterlaced only before they are turned.
pub(super) struct Converter {
    /// Where the source's video enters.
    pub entry: gst::Pad,
    /// The last element; what leaves it is I420 or NV12.
    pub last: gst::Element,
}

impl Converter {
    /// Adds the elements to `pipeline` and links them.
    ///
    /// # Errors
    /// A missing element, with what to install.
    pub fn add(pipeline: &gst::Pipeline) -> Result<Self, SourceError> {
        let convert = make("videoconvert")?;
        let filter = make("capsfilter")?;
        filter.set_property("caps", outgoing(None));
        let deinterlace = deinterlacer()?;
        // Phones note how they were held; the picture is turned upright before it is used.
        let flip = make("videoflip")?;
        // It decides whether it has anything to do only when its direction changes: set to `auto` alone, it would copy every
        // frame of a source that names no orientation.
        flip.set_property_from_str("video-direction", "90r");
        flip.set_property_from_str("video-direction", "auto");
        let elements = [&convert, &filter, &deinterlace, &flip];
        let failed = |error: gst::glib::BoolError| SourceError(format!("GStreamer: {}", error.message));
        pipeline.add_many(elements).map_err(failed)?;
        gst::Element::link_many(elements).map_err(failed)?;
        let entry = convert
            .static_pad("sink")
            .ok_or_else(|| SourceError("the GStreamer element videoconvert has no pad sink".into()))?;
        complete_colors(&entry, filter);
        Ok(Converter { entry, last: flip })
    }
}

/// Completes the colour description of whatever comes through `entry`, and sets what has to leave through `filter`.
fn complete_colors(entry: &gst::Pad, filter: gst::Element) {
    entry.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::PadProbeData::Event(event)) = &info.data else { return gst::PadProbeReturn::Ok };
        let gst::EventView::Caps(event) = event.view() else { return gst::PadProbeReturn::Ok };
        let mut caps = event.caps_owned();
        let color = color::complete(&caps).map(|color| color.to_string());
        // Grey keeps its numbers when chroma is added, but videoconvert would call them video range.
        let is_gray = caps
            .structure(0)
            .and_then(|fields| fields.get::<&str>("format").ok())
            .is_some_and(|format| format.starts_with("GRAY"));
        let wanted = outgoing(color.as_deref().filter(|_| is_gray));
        if filter.property::<gst::Caps>("caps") != wanted {
            filter.set_property("caps", wanted);
        }
        if let Some(color) = color {
            caps.make_mut().set("colorimetry", color);
            let completed = gst::event::Caps::builder(&caps).seqnum(event.seqnum()).build();
            info.data = Some(gst::PadProbeData::Event(completed));
        }
        gst::PadProbeReturn::Ok
    });
}

/// The error for video that arrives in a format which `videoconvert` does not take.
pub(super) fn cannot_convert(offered: &str) -> SourceError {
    SourceError(format!(
        "the video arrives as {offered}, which cannot be converted to I420 or NV12: set the source to another format, or \
         read it by a gst: address whose last element gives video/x-raw"
    ))
}

/// The caps of what leaves the chain.
pub(super) fn made() -> gst::Caps {
    outgoing(None)
}

/// The caps of what `videoconvert` has to make, with a colour description of its own or with the source's.
fn outgoing(color: Option<&str>) -> gst::Caps {
    let mut caps = gst::Caps::builder("video/x-raw").field("format", gst::List::new(FORMATS));
    if let Some(color) = color {
        caps = caps.field("colorimetry", color);
    }
    caps.build()
}

/// The format in which the source offers its video to `entry`, for an error message: `video/x-bayer, format bggr`. `None`
/// where it is not known, or raw video of a format that can be converted.
pub(super) fn unusable(entry: &gst::Pad) -> Option<String> {
    let source = entry.peer()?;
    let offered = source.current_caps().unwrap_or_else(|| source.query_caps(None));
    (!offered.is_any() && !offered.is_empty() && !offered.can_intersect(&entry.query_caps(None)))
        .then(|| describe(&offered))
}

/// Media type, format and memory of the first kind in `caps`.
pub(super) fn describe(caps: &gst::Caps) -> String {
    let Some(fields) = caps.structure(0) else { return "nothing".into() };
    let mut text = fields.name().to_string();
    if let Some(format) = fields.value("format").ok().and_then(|format| format.serialize().ok()) {
        text += &format!(", format {format}");
    }
    if let Some(memory) =
        caps.features(0).filter(|features| !features.is_equal(&gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY))
    {
        text += &format!(", {memory}");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Where the pixels of the buffers lie that pass through `pad`.
    fn watch(pad: &gst::Pad) -> Arc<Mutex<Vec<usize>>> {
        let addresses = Arc::<Mutex<Vec<usize>>>::default();
        let writer = Arc::clone(&addresses);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
                writer.lock().unwrap().push(buffer.map_readable().unwrap().as_ptr() as usize);
            }
            gst::PadProbeReturn::Ok
        });
        addresses
    }

    /// Plays five frames of raw video with these caps through the chain; where their pixels lay before and after it.
    fn play(caps: &str) -> (Vec<usize>, Vec<usize>) {
        crate::gst::init().unwrap();
        let (pipeline, bus) = crate::gst::pipeline().unwrap();
        let description = format!("videotestsrc num-buffers=5 ! {caps},width=320,height=240,framerate=25/1 ! identity");
        let source = gst::parse::bin_from_description(&description, true).unwrap();
        let converter = Converter::add(&pipeline).unwrap();
        let sink = make("fakesink").unwrap();
        let filter = make("capsfilter").unwrap();
        filter.set_property("caps", made());
        pipeline.add_many([source.upcast_ref(), &filter, &sink]).unwrap();
        source.static_pad("src").unwrap().link(&converter.entry).unwrap();
        gst::Element::link_many([&converter.last, &filter, &sink]).unwrap();
        let before = watch(&converter.entry);
        let after = watch(&sink.static_pad("sink").unwrap());
        pipeline.set_state(gst::State::Playing).unwrap();
        let end = bus
            .timed_pop_filtered(gst::ClockTime::from_seconds(300), &[gst::MessageType::Eos, gst::MessageType::Error]);
        assert_eq!(end.map(|message| message.type_()), Some(gst::MessageType::Eos));
        pipeline.set_state(gst::State::Null).unwrap();
        let (before, after) = (before.lock().unwrap(), after.lock().unwrap());
        (before.clone(), after.clone())
    }

    #[test]
    fn what_needs_no_conversion_is_handed_on_without_a_copy() {
        for format in ["I420", "NV12"] {
            for colors in ["", ",colorimetry=bt709", ",colorimetry=(string)1:0:0:0", ",interlace-mode=progressive"] {
                let (before, after) = play(&format!("video/x-raw,format={format}{colors}"));
                assert_eq!(before.len(), 5);
                assert_eq!(before, after, "{format}{colors}");
            }
        }
        // The probes can tell: what needs a conversion lies elsewhere.
        let (before, after) = play("video/x-raw,format=RGB");
        assert_eq!(after.len(), 5);
        assert!(before.iter().zip(&after).all(|(before, after)| before != after));
    }
}
