//! Motion JPEG by HTTP whose parts do not follow RFC 2046.
//!
//! GStreamer's `multipartdemux` requires a boundary before the first part and a `Content-Type` in every part, and its type
//! finder requires the boundary. Cameras that omit these still send complete JPEG images one after the other, which the JPEG
//! decoder finds by their markers.

use std::sync::atomic::{AtomicBool, Ordering};

use gstreamer as gst;
use parking_lot::Mutex;

use gst::prelude::*;

/// The most bytes at the beginning of a response that are searched for the header of a part.
const MAX_HEADER: usize = 4096;

/// Sends the data of `source`, a `souphttpsrc`, to the JPEG decoder directly if the response is multipart by its
/// `Content-Type` and its first part has no boundary or no type.
pub fn accept_bare_parts(source: &gst::Element) {
    let Some(pad) = source.static_pad("src") else { return };
    let is_multipart = std::sync::Arc::new(AtomicBool::new(false));
    let seen = std::sync::Arc::clone(&is_multipart);
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(gst::EventView::CustomDownstreamSticky(event)) = info.event().map(|event| event.view())
            && let Some(headers) = event.structure().filter(|structure| structure.name() == "http-headers")
        {
            seen.store(has_multipart_type(headers), Ordering::Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
    let beginning = Mutex::new(Vec::new());
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        if !is_multipart.load(Ordering::Relaxed) {
            return gst::PadProbeReturn::Remove;
        }
        let Some(map) = info.buffer().and_then(|buffer| buffer.map_readable().ok()) else {
            return gst::PadProbeReturn::Ok;
        };
        let mut beginning = beginning.lock();
        beginning.extend_from_slice(&map[..map.len().min(MAX_HEADER)]);
        match first_part(&beginning) {
            MultipartPart::Incomplete if beginning.len() < MAX_HEADER => gst::PadProbeReturn::Ok,
            MultipartPart::Bare => {
                drop(map);
                announce_jpeg(pad);
                gst::PadProbeReturn::Remove
            }
            MultipartPart::Typed | MultipartPart::Incomplete => gst::PadProbeReturn::Remove,
        }
    });
}

/// Sends caps downstream, which the type finder uses as its result. They must come before the segment, which has been sent
/// already: a flush removes it and the data of the type finder, and the segment is sent again.
fn announce_jpeg(pad: &gst::Pad) {
    let segment = pad.sticky_event::<gst::event::Segment>(0);
    pad.push_event(gst::event::FlushStop::new(false));
    pad.push_event(gst::event::Caps::new(&gst::Caps::new_empty_simple("image/jpeg")));
    if let Some(segment) = segment {
        pad.push_event(segment);
    }
}

fn has_multipart_type(headers: &gst::StructureRef) -> bool {
    let Ok(response) = headers.get::<gst::Structure>("response-headers") else { return false };
    response.iter().any(|(name, value)| {
        name.as_str().eq_ignore_ascii_case("content-type")
            && value.get::<String>().is_ok_and(|kind| kind.trim_start().to_ascii_lowercase().starts_with("multipart/"))
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MultipartPart {
    /// With a boundary and a type, as `multipartdemux` requires.
    Typed,
    /// Without a boundary or without a type.
    Bare,
    /// More data is needed to decide.
    Incomplete,
}

/// The kind of the first part, by the beginning of a response.
fn first_part(beginning: &[u8]) -> MultipartPart {
    let text = beginning.trim_ascii_start();
    match text {
        [] | [b'-'] => return MultipartPart::Incomplete,
        [b'-', b'-', ..] => {}
        _ => return MultipartPart::Bare,
    }
    let mut lines = text.split_inclusive(|byte| *byte == b'\n').skip(1).map(|line| line.trim_ascii_end());
    let mut complete = false;
    let typed = lines.by_ref().take_while(|line| {
        complete = line.is_empty();
        !complete
    });
    let typed = typed.into_iter().any(|line| line.to_ascii_lowercase().starts_with(b"content-type:"));
    match (typed, complete) {
        (true, _) => MultipartPart::Typed,
        (false, true) => MultipartPart::Bare,
        (false, false) => MultipartPart::Incomplete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_without_a_boundary_or_a_type_are_detected() {
        for (beginning, part) in [
            ("--frame\r\nContent-Type: image/jpeg\r\n\r\n\u{1}", MultipartPart::Typed),
            ("\r\n\r\n--frame\r\nX-Time: 1\r\ncontent-type:image/jpeg\r\n", MultipartPart::Typed),
            ("--frame\nContent-Type: image/jpeg\n\n", MultipartPart::Typed),
            ("--frame\r\n\r\n\u{1}\u{2}", MultipartPart::Bare),
            ("--frame\n\nContent-Type: x", MultipartPart::Bare),
            ("--frame\r\nContent-Length: 7\r\n\r\n", MultipartPart::Bare),
            ("Content-Type: image/jpeg\r\n\r\n", MultipartPart::Bare),
            ("\u{1}\u{2}", MultipartPart::Bare),
            ("", MultipartPart::Incomplete),
            ("\r\n-", MultipartPart::Incomplete),
            ("--frame\r\nContent-Length: 7\r\n", MultipartPart::Incomplete),
            ("--frame", MultipartPart::Incomplete),
        ] {
            assert_eq!(first_part(beginning.as_bytes()), part, "{beginning:?}");
        }
    }
}
