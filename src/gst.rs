//! GStreamer helpers of capture and publish: initialisation, elements by name, and errors with cause and remedy.

use std::sync::Once;

use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

mod causes;
mod error;
pub(crate) mod secrets;

pub use causes::describe;
pub use error::{GstError, GstErrorKind};

use causes::{descriptor_shortage, is_missing_plugin};

/// Initialises GStreamer, and starts the thread that runs GLib's main context ([`crate::base::default_context`]). Further
/// calls have no effect.
///
/// # Errors
/// When the library cannot start, for instance because its registry cannot be read.
pub fn init() -> Result<(), GstError> {
    gst::init().map_err(|error| GstError::new(format!("GStreamer cannot start: {error}")))?;
    log_warnings();
    crate::base::default_context::serve().map_err(|error| GstError::new(error.to_string()))
}

/// Sends the warnings of GLib and its libraries to the log instead of standard error. There they have a level, and those
/// that repeat are counted: without file descriptors or memory there are dozens per second.
fn log_warnings() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        glib::log_set_default_handler(|domain, level, text| {
            let line = || format!("library warning: {}: {text}", domain.unwrap_or("GLib"));
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

/// The Debian package of an element that Maskcast uses by name.
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

/// Creates an element.
///
/// # Errors
/// [`GstErrorKind::MissingPlugin`] with the Debian package of the element, or with how to find out why its plug-in cannot
/// be loaded; [`GstErrorKind::NoDescriptors`].
pub fn make(element: &str) -> Result<gst::Element, GstError> {
    gst::ElementFactory::make(element).build().map_err(|_| match descriptor_shortage() {
        Some(shortage) => GstError::of(
            GstErrorKind::NoDescriptors,
            format!("{shortage}: the GStreamer element {element} cannot be created"),
        ),
        None if has(element) => GstError::of(
            GstErrorKind::MissingPlugin,
            format!(
                "the GStreamer element {element} is installed, but its plug-in cannot be loaded (run `gst-inspect-1.0 \
                 {element}` to see the reason)"
            ),
        ),
        None => GstError::of(
            GstErrorKind::MissingPlugin,
            format!("the GStreamer element {element} is missing (install {})", package_of(element)),
        ),
    })
}

/// Sets a property from text, if the element has it and accepts the value. Versions and builds of plug-ins differ.
pub fn set_if_present(element: &gst::Element, property: &str, value: &str) {
    if element.find_property(property).is_none() {
        return;
    }
    match property_value(element, property, value) {
        Some(value) => element.set_property_from_value(property, &value),
        None => {
            let element = element.name();
            tracing::debug!("GStreamer property not set: {element} does not accept {property}={value}");
        }
    }
}

/// Whether the element has the property and accepts the value.
pub fn accepts(element: &gst::Element, property: &str, value: &str) -> bool {
    property_value(element, property, value).is_some()
}

fn property_value(element: &gst::Element, property: &str, text: &str) -> Option<glib::Value> {
    let specification = element.find_property(property)?;
    glib::Value::deserialize_with_pspec(text, &specification).ok()
}

/// Creates a pipeline whose bus keeps only errors, missing-plugin messages and the end of the stream. Other messages are not
/// read, and would accumulate: a camera with packet loss causes a warning per frame.
///
/// # Errors
/// When the pipeline has no bus, which does not happen in practice.
pub fn pipeline() -> Result<(gst::Pipeline, gst::Bus), GstError> {
    let pipeline = gst::Pipeline::new();
    let bus = pipeline.bus().ok_or_else(|| GstError::new("a GStreamer pipeline has no bus"))?;
    bus.set_sync_handler(|_, message| match message.type_() {
        gst::MessageType::Error | gst::MessageType::Element | gst::MessageType::Eos => gst::BusSyncReply::Pass,
        _ => gst::BusSyncReply::Drop,
    });
    Ok((pipeline, bus))
}

/// Removes all messages from the bus and returns the first error. If a missing plug-in can be its cause, the error names the
/// format of the missing-plugin message; otherwise that message is ignored, because cameras also send streams that are not
/// decoded (audio, ONVIF metadata).
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
        Some(format) => Some(GstError::of(
            GstErrorKind::MissingPlugin,
            format!("GStreamer has no plug-in for {format} (try installing gstreamer1.0-libav)"),
        )),
        None => Some(error),
    }
}

/// The error of a pipeline that refused a change of state: the first one on its bus, or `otherwise` if there is none.
pub fn state_error(pipeline: &gst::Pipeline, otherwise: &str) -> GstError {
    pipeline.bus().as_ref().and_then(bus_error).unwrap_or_else(|| match descriptor_shortage() {
        Some(shortage) => GstError::of(GstErrorKind::NoDescriptors, format!("{shortage}: {otherwise}")),
        None => GstError::new(otherwise),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_missing_element_names_the_element_and_a_package() {
        init().unwrap();
        let error = make("no-such-element").unwrap_err();
        assert_eq!(error.kind, GstErrorKind::MissingPlugin, "{error}");
        assert!(error.message.contains("no-such-element") && error.message.contains("install"), "{error}");
    }

    #[test]
    fn unknown_properties_and_values_are_ignored() {
        init().unwrap();
        let queue = make("queue").unwrap();
        set_if_present(&queue, "max-size-buffers", "7");
        set_if_present(&queue, "max-size-buffers", "many");
        set_if_present(&queue, "leaky", "sideways");
        set_if_present(&queue, "no-such-property", "1");
        assert_eq!(queue.property::<u32>("max-size-buffers"), 7);
    }

    #[test]
    fn the_error_of_a_pipeline_that_cannot_start_has_the_kind_and_the_file() {
        init().unwrap();
        let pipeline = gst::Pipeline::new();
        let source = make("filesrc").unwrap();
        source.set_property("location", "/nonexistent/clip.mp4");
        let sink = make("fakesink").unwrap();
        pipeline.add_many([&source, &sink]).unwrap();
        source.link(&sink).unwrap();
        assert!(pipeline.set_state(gst::State::Playing).is_err());
        let error = state_error(&pipeline, "no reason given");
        assert_eq!(error.kind, GstErrorKind::NotFound, "{error}");
        assert!(error.message.contains("/nonexistent/clip.mp4"), "{error}");
        pipeline.set_state(gst::State::Null).unwrap();
    }
}
