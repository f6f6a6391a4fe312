//! Raw video in every format that GStreamer converts.

use gstreamer as gst;

use crate::common::clip::Rgb;
use crate::{frames, model_input};

/// Seven vertical bars: white, yellow, cyan, green, magenta, red, blue.
const BARS: [[u8; 3]; 7] =
    [[255, 255, 255], [255, 255, 0], [0, 255, 255], [0, 255, 0], [255, 0, 255], [255, 0, 0], [0, 0, 255]];

const SIZE: (usize, usize) = (140, 60);

/// A source of the bars in `format`, with further elements after it.
fn bars(format: &str, more: &str) -> String {
    format!(
        "gst:videotestsrc num-buffers=2 pattern=smpte100 ! video/x-raw,format=AYUV,width={},height={} ! videoconvert \
         ! video/x-raw,format={format} {more}",
        SIZE.0, SIZE.1
    )
}

/// The formats that the installed `videoconvert` accepts.
fn formats() -> Vec<String> {
    gst::init().unwrap();
    let convert = gst::ElementFactory::find("videoconvert").unwrap();
    let template = convert.static_pad_templates().into_iter().find(|pad| pad.name_template() == "sink").unwrap();
    let caps = template.caps();
    let list = caps.structure(0).unwrap().get::<gst::List>("format").unwrap();
    list.iter().map(|format| format.get::<String>().unwrap()).collect()
}

/// Compares the seven bars, whose middles are at `at`; returns the colours when they differ.
fn difference(format: &str, image: &Rgb, at: impl Fn(usize) -> (usize, usize)) -> Option<String> {
    let seen: Vec<[u8; 3]> = (0..7).map(|bar| image.at(at(bar).0, at(bar).1)).collect();
    let matches = if format.starts_with("GRAY") {
        // The values depend on the element that produced them, so only their order is checked.
        seen.windows(2).all(|pair| pair[0][0] > pair[1][0]) && seen.iter().all(|pixel| pixel[0].abs_diff(pixel[2]) <= 2)
    } else {
        seen.iter().flatten().zip(BARS.iter().flatten()).all(|(seen, expected)| seen.abs_diff(*expected) <= 10)
    };
    (!matches).then(|| format!("{seen:?}"))
}

#[test]
fn every_raw_format_plays_unrotated_and_rotated() {
    let formats = formats();
    assert!(formats.len() > 90, "{formats:?}");
    for format in ["I420", "P010_10LE", "UYVP", "v210", "NV24", "GBR", "RGB16", "Y42B", "A444_10LE"] {
        assert!(formats.iter().any(|known| known == format), "{format} is not in {formats:?}");
    }
    let mut failures = Vec::new();
    for format in &formats {
        let mut check = |way: &str, source: &str, size: (usize, usize), at: fn(usize) -> (usize, usize)| {
            let problem = match frames(source) {
                Err(error) => Some(error.to_string()),
                Ok(frames) if frames.len() != 2 => Some(format!("{} frames", frames.len())),
                Ok(frames) => {
                    let info = frames[0].1.image().info;
                    let shape = ((info.width, info.height) != size).then(|| format!("{info}"));
                    shape.or_else(|| difference(format, &model_input(&*frames[0].1, size), at))
                }
            };
            if let Some(problem) = problem {
                failures.push(format!("{format}, {way}: {problem}"));
            }
        };
        check("unrotated", &bars(format, ""), SIZE, |bar| (20 * bar + 10, 20));
        let rotated = "! taginject tags=\"image-orientation=(string)rotate-90\"";
        // Clockwise: the left edge becomes the top.
        check("rotated", &bars(format, rotated), (SIZE.1, SIZE.0), |bar| (40, 20 * bar + 10));
    }
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Grey frames from a file of raw bytes: 0 is black and 255 is white.
#[test]
fn grey_frames_keep_their_full_range() {
    let folder = tempfile::tempdir().unwrap();
    for (size, height) in [("width=64 height=48", 48), ("width=1280 height=720", 720)] {
        for (format, bytes) in [("gray8", 1), ("gray16-le", 2)] {
            for level in [0_u8, 64, 128, 255] {
                let path = folder.path().join("grey.raw");
                let width = if height == 48 { 64 } else { 1280 };
                std::fs::write(&path, vec![level; width * height * bytes]).unwrap();
                let source = format!("gst:filesrc location={} ! rawvideoparse format={format} {size}", path.display());
                let frames = frames(&source).unwrap();
                let seen = model_input(&*frames[0].1, (8, 8)).at(4, 4);
                assert!(seen.iter().all(|seen| seen.abs_diff(level) <= 1), "{format} {size}: {level} is {seen:?}");
            }
        }
    }
}

#[test]
fn a_format_that_cannot_be_converted_is_named() {
    for source in ["gst:videotestsrc ! video/x-bayer,format=bggr", "gst:videotestsrc ! jpegenc"] {
        let error = frames(source).err().unwrap_or_else(|| panic!("{source} plays")).to_string();
        let format = if source.contains("bggr") { "video/x-bayer, format bggr" } else { "image/jpeg" };
        assert!(error.contains(format) && error.contains("I420"), "{error}");
    }
}
