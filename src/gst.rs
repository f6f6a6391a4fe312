//! What capture and publish share of GStreamer: start-up, elements by name, errors that say what to do.

use std::sync::Once;

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

mod causes;
mod error;

pub use causes::describe;
pub use error::{GstError, GstErrorKind};

use causes::{descriptor_shortage, is_missing_plugin};

/// Initialises GStreamer, and serves the main context in which GLib completes what GStreamer's threads begin; safe to call
/// again.
///
/// # Errors
/// When the library cannot start, for instance because its registry is unreadable.
pub fn init() -> Result<(), GstError> {
    gst::init().map_err(|error| GstError::new(format!("GStreamer cannot start: {error}")))?;
    log_warnings();
    crate::base::default_context::serve().map_err(GstError::new)
}

/// Sends the warnings that GLib and its users would print on standard error to the log, where they have a level and are
/// counted when they repeat: without file descriptors or memory there are dozens a second.
fn log_warnings() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        glib::log_set_default_handler(|domain, level, text| {
            let line = || format!("{}: {text}", domain.unwrap_or("GLib"));
            match level {
                glib::LogLevel::Error | glib::LogLevel::Critical => {
                    crate::base::log_dedup::error("", "", None, &line())
                }
                glib::LogLevel::Warning => crate::base::log_dedup::warn("", "", &line()),
                _ => glib::log_default_handler(domain, level, Some(text)),
            }
        });
    });
}

/// Debian's package of an element that Maskcast uses by name.
pub fn package_of(element: &str) -> &'static str {
    match element {
        "x264enc" => "gstreamer1.0-plugins-ugly",
        "openh264enc" | "nvh264enc" | "h264parse" | "srtsrc" | "webrtcbin" | "dtlssrtpenc" | "srtpenc" => {
            "gstreamer1.0-plugins-bad"
        }
        "rtspclientsink" => "gstreamer1.0-rtsp",
        "nicesink" => "gstreamer1.0-nice",
        "avdec_h264" => "gstreamer1.0-libav",
        "libcamerasrc" => "gstreamer1.0-libcamera",
        "jpegenc" | "multipartdemux" | "mp4mux" | "matroskamux" | "rtspsrc" | "v4l2src" | "videoflip"
        | "deinterlace" | "rtph264pay" | "rtpbin" | "souphttpsrc" | "capssetter" => "gstreamer1.0-plugins-good",
        _ => "gstreamer1.0-plugins-base",
    }
}

/// Whether this installation has the element.
pub fn has(element: &str) -> bool {
    gst::ElementFactory::find(element).is_some()
}

/// Makes an element.
///
/// # Errors
/// Names the Debian package that brings a missing element, or why one that is installed cannot be made.
pub fn make(element: &str) -> Result<gst::Element, GstError> {
    gst::ElementFactory::make(element).build().map_err(|_| {
        GstError::new(match descriptor_shortage() {
            Some(shortage) => format!("{shortage}: the GStreamer element {element} cannot be made"),
            None if has(element) => format!(
                "the GStreamer element {element} is installed, but its plug-in cannot be loaded \
                 (`gst-inspect-1.0 {element}` says why)"
            ),
            None => format!("the GStreamer element {element} is missing (install {})", package_of(element)),
        })
    })
}

/// Sets a property from text when the element has it and knows the value; versions and builds of plugins differ.
pub fn set_if_present(element: &gst::Element, property: &str, value: &str) {
    let Some(specification) = element.find_property(property) else { return };
    match gst::glib::Value::deserialize_with_pspec(value, &specification) {
        Ok(value) => element.set_property_from_value(property, &value),
        Err(_) => tracing::debug!("{}: its {property} knows no {value:?}", element.name()),
    }
}

/// A pipeline whose bus keeps errors, missing-plugin notices and the end, and nothing else. Nobody reads the rest, and on
/// a lossy camera a warning a frame would pile up for months.
///
/// # Errors
/// None in practice: every pipeline has a bus.
pub fn pipeline() -> Result<(gst::Pipeline, gst::Bus), GstError> {
    let pipeline = gst::Pipeline::new();
    let bus = pipeline.bus().ok_or_else(|| GstError::new("a GStreamer pipeline has no bus"))?;
    bus.set_sync_handler(|_, message| match message.type_() {
        gst::MessageType::Error | gst::MessageType::Element | gst::MessageType::Eos => gst::BusSyncReply::Pass,
        _ => gst::BusSyncReply::Drop,
    });
    Ok((pipeline, bus))
}

/// Takes what the bus has; the first error, if any, as one line. Missing-plugin notices name the missing format where the
/// error is about one: cameras also send streams that are not decoded (sound, ONVIF's metadata), and a connection that fails
/// later has another cause.
pub fn bus_error(bus: &gst::Bus) -> Option<GstError> {
    let mut missing = None;
    let mut error = None;
    while let Some(message) = bus.pop_filtered(&[gst::MessageType::Error, gst::MessageType::Element]) {
        match message.view() {
            gst::MessageView::Error(found) if error.is_none() => {
                error = Some((describe(found), is_missing_plugin(&found.error())));
            }
            gst::MessageView::Element(notice) => {
                let name = notice
                    .structure()
                    .filter(|s| s.name() == "missing-plugin")
                    .and_then(|s| s.get::<String>("name").ok());
                missing = missing.or(name);
            }
            _ => {}
        }
    }
    let (error, is_missing_plugin) = error?;
    match missing.filter(|_| is_missing_plugin && descriptor_shortage().is_none()) {
        Some(what) => {
            Some(GstError::new(format!("GStreamer has no plugin for it: {what} (try installing gstreamer1.0-libav)")))
        }
        None => Some(error),
    }
}

/// The error of a pipeline that refused a state change: its own words if it left any, else `otherwise`.
pub fn state_error(pipeline: &gst::Pipeline, otherwise: &str) -> GstError {
    pipeline.bus().as_ref().and_then(bus_error).unwrap_or_else(|| match descriptor_shortage() {
        Some(shortage) => GstError::new(format!("{shortage}: {otherwise}")),
        None => GstError::new(otherwise),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_element_names_a_package() {
        init().unwrap();
        let error = make("no-such-element").unwrap_err();
        assert!(error.message.contains("no-such-element") && error.message.contains("install"), "{error}");
    }

    #[test]
    fn what_an_element_does_not_know_is_left_as_it_is() {
        init().unwrap();
        let queue = make("queue").unwrap();
        set_if_present(&queue, "max-size-buffers", "7");
        set_if_present(&queue, "max-size-buffers", "many");
        set_if_present(&queue, "leaky", "sideways");
        set_if_present(&queue, "no-such-property", "1");
        assert_eq!(queue.property::<u32>("max-size-buffers"), 7);
    }

    #[test]
    fn a_pipeline_that_cannot_start_says_why() {
        init().unwrap();
        let pipeline = gst::Pipeline::new();
        let source = make("filesrc").unwrap();
        source.set_property("location", "/nonexistent/clip.mp4");
        let sink = make("fakesink").unwrap();
        pipeline.add_many([&source, &sink]).unwrap();
        source.link(&sink).unwrap();
        assert!(pipeline.set_state(gst::State::Playing).is_err());
        let error = state_error(&pipeline, "no reason given");
        assert!(error.message.contains("/nonexistent/clip.mp4"), "{error}");
        pipeline.set_state(gst::State::Null).unwrap();
    }
}
