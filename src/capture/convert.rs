//! Conversion of raw video of any format to progressive, upright I420 or NV12.

use gstreamer as gst;

use gst::prelude::*;

use super::color;
use super::deinterlace::deinterlacer;
use super::error::SourceError;
use crate::gst::{GstError, make};

/// The output formats.
const FORMATS: [&str; 2] = ["I420", "NV12"];

/// `videoconvert ! capsfilter ! deinterlace ! videoflip`. Each element passes on buffers that need no change.
///
/// The order matters: `deinterlace` and `videoflip` support few formats, `videoconvert` supports all; and frames must be
/// deinterlaced before they are rotated.
pub(super) struct Converter {
    /// The input pad.
    pub input: gst::Pad,
    /// The last element, whose output is I420 or NV12.
    pub last: gst::Element,
}

impl Converter {
    /// Adds the elements to `pipeline` and links them.
    ///
    /// # Errors
    /// When an element is missing.
    pub fn add(pipeline: &gst::Pipeline) -> Result<Self, SourceError> {
        let convert = make("videoconvert")?;
        let filter = make("capsfilter")?;
        filter.set_property("caps", outgoing(None));
        let deinterlace = deinterlacer()?;
        // Phones record their orientation: the frames are rotated upright.
        let flip = make("videoflip")?;
        // The element decides whether to pass frames on unchanged only when its direction changes. Set to `auto` alone, it
        // copies every frame of a source without an orientation.
        flip.set_property_from_str("video-direction", "90r");
        flip.set_property_from_str("video-direction", "auto");
        let elements = [&convert, &filter, &deinterlace, &flip];
        let failed = |error: gst::glib::BoolError| GstError::new(format!("GStreamer: {}", error.message));
        pipeline.add_many(elements).map_err(failed)?;
        gst::Element::link_many(elements).map_err(failed)?;
        let input = convert
            .static_pad("sink")
            .ok_or_else(|| GstError::new("the GStreamer element videoconvert has no pad sink"))?;
        complete_colors(&input, filter);
        Ok(Converter { input, last: flip })
    }
}

/// Completes the colour description of the video that passes `input`, and sets the output caps of `filter` accordingly.
fn complete_colors(input: &gst::Pad, filter: gst::Element) {
    input.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let Some(gst::PadProbeData::Event(event)) = &info.data else { return gst::PadProbeReturn::Ok };
        let gst::EventView::Caps(event) = event.view() else { return gst::PadProbeReturn::Ok };
        let mut caps = event.caps_owned();
        let color = color::complete(&caps).map(|color| color.to_string());
        // Grey values stay the same when chroma is added, but videoconvert would label them as video range.
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

/// The caps of the output.
pub(super) fn output_caps() -> gst::Caps {
    outgoing(None)
}

/// The output caps of `videoconvert`, with the colour description `color` if there is one.
fn outgoing(color: Option<&str>) -> gst::Caps {
    let mut caps = gst::Caps::builder("video/x-raw").field("format", gst::List::new(FORMATS));
    if let Some(color) = color {
        caps = caps.field("colorimetry", color);
    }
    caps.build()
}

/// The format of the source's video at `input` if it cannot be converted, for an error message: `video/x-bayer, format
/// bggr`. `None` if the format is not known or can be converted.
pub(super) fn unsupported_format(input: &gst::Pad) -> Option<String> {
    let source = input.peer()?;
    let offered = source.current_caps().unwrap_or_else(|| source.query_caps(None));
    (!offered.is_any() && !offered.is_empty() && !offered.can_intersect(&input.query_caps(None)))
        .then(|| describe(&offered))
}

/// Media type, format and memory of the first structure in `caps`.
pub(super) fn describe(caps: &gst::Caps) -> String {
    let Some(fields) = caps.structure(0) else { return "empty caps".into() };
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
    use parking_lot::Mutex;
    use std::sync::Arc;

    use super::*;

    /// Collects the addresses of the pixels of all buffers that pass `pad`.
    fn watch(pad: &gst::Pad) -> Arc<Mutex<Vec<usize>>> {
        let addresses = Arc::<Mutex<Vec<usize>>>::default();
        let writer = Arc::clone(&addresses);
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            if let Some(gst::PadProbeData::Buffer(buffer)) = &info.data {
                writer.lock().push(buffer.map_readable().unwrap().as_ptr() as usize);
            }
            gst::PadProbeReturn::Ok
        });
        addresses
    }

    /// Plays five frames of raw video with these caps through the converter; the addresses of their pixels before and after.
    fn play(caps: &str) -> (Vec<usize>, Vec<usize>) {
        crate::gst::init().unwrap();
        let (pipeline, bus) = crate::gst::pipeline().unwrap();
        let description = format!("videotestsrc num-buffers=5 ! {caps},width=320,height=240,framerate=25/1 ! identity");
        let source = gst::parse::bin_from_description(&description, true).unwrap();
        let converter = Converter::add(&pipeline).unwrap();
        let sink = make("fakesink").unwrap();
        let filter = make("capsfilter").unwrap();
        filter.set_property("caps", output_caps());
        pipeline.add_many([source.upcast_ref(), &filter, &sink]).unwrap();
        source.static_pad("src").unwrap().link(&converter.input).unwrap();
        gst::Element::link_many([&converter.last, &filter, &sink]).unwrap();
        let before = watch(&converter.input);
        let after = watch(&sink.static_pad("sink").unwrap());
        pipeline.set_state(gst::State::Playing).unwrap();
        let end = bus
            .timed_pop_filtered(gst::ClockTime::from_seconds(300), &[gst::MessageType::Eos, gst::MessageType::Error]);
        assert_eq!(end.map(|message| message.type_()), Some(gst::MessageType::Eos));
        pipeline.set_state(gst::State::Null).unwrap();
        let (before, after) = (before.lock(), after.lock());
        (before.clone(), after.clone())
    }

    #[test]
    fn frames_that_need_no_conversion_are_not_copied() {
        for format in ["I420", "NV12"] {
            for colors in ["", ",colorimetry=bt709", ",colorimetry=(string)1:0:0:0", ",interlace-mode=progressive"] {
                let (before, after) = play(&format!("video/x-raw,format={format}{colors}"));
                assert_eq!(before.len(), 5);
                assert_eq!(before, after, "{format}{colors}");
            }
        }
        // The probes detect a copy: a converted frame has another address.
        let (before, after) = play("video/x-raw,format=RGB");
        assert_eq!(after.len(), 5);
        assert!(before.iter().zip(&after).all(|(before, after)| before != after));
    }
}
