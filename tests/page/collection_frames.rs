//! A collection of frames for tests of the page, and what is expected of labels after strokes.

use std::path::{Path, PathBuf};

use jiff::{Timestamp, ToSpan};
use maskcast::collect::record::{CollectedModel, FrameId, FrameRecord, Reason};
use maskcast::collect::store::{Collection, NewFrame};
use maskcast::frame::{Label, Rgb};
use png::Transformations;

use super::common::clip::ffmpeg;

pub const WIDTH: usize = 320;
pub const HEIGHT: usize = 240;

/// Clip of a fixed camera (`make demo`).
const CLIP: &str = ".demo/vtest.avi";

/// The classes of the collection; those of the model of [`super::common::service::folder`].
pub const CLASSES: [(&str, Rgb); 3] = [("red", Rgb(255, 0, 0)), ("green", Rgb(0, 128, 0)), ("blue", Rgb(0, 0, 255))];

/// A label, `[HEIGHT × WIDTH]`.
pub type Pixels = Vec<u8>;

/// What the model proposed: green with a blue rectangle.
pub fn proposal() -> Pixels {
    let is_blue = |x: usize, y: usize| (40..100).contains(&x) && (50..120).contains(&y);
    (0..WIDTH * HEIGHT).map(|at| if is_blue(at % WIDTH, at / WIDTH) { 2 } else { 1 }).collect()
}

/// Fills the collection of the stream `gate` with frames of the clip, a minute apart, the newest first in the result.
pub fn collect(folder: &Path, count: usize) -> Vec<FrameRecord> {
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join(CLIP);
    assert!(clip.exists(), "{CLIP} is missing, run `make demo`");
    let pictures = folder.join("picture-%03d.jpg");
    let (size, number) = (format!("fps=1,scale={WIDTH}:{HEIGHT}"), count.to_string());
    ffmpeg(&["-i", clip.to_str().unwrap(), "-vf", &size, "-frames:v", &number, pictures.to_str().unwrap()]);
    let collection = Collection::open(&gate(folder)).unwrap();
    let labels = CLASSES.map(|(name, color)| Label::new(name, color));
    let add = |n: usize| {
        let jpeg = std::fs::read(folder.join(format!("picture-{:03}.jpg", n + 1))).unwrap();
        let frame = NewFrame {
            stream: "gate",
            captured: Timestamp::now() - ((60 * (count - n)) as i64).seconds(),
            model: CollectedModel { name: "default".into(), sha256: String::new() },
            reason: [Reason::Uncertain, Reason::Novel, Reason::Random][n % 3],
            uncertainty: 0.5,
            novelty: 0.4,
            confidence: Some(0.7),
            width: WIDTH as u32,
            height: HEIGHT as u32,
            hash: format!("{n:016x}"),
            // Grey: a collection without pictures to compare with would get one of the stream at once.
            thumbnail: vec![128; 864],
            jpeg: &jpeg,
            mask: &proposal(),
            labels: &labels,
        };
        collection.add(&frame).unwrap()
    };
    let mut frames: Vec<FrameRecord> = (0..count).map(add).collect();
    frames.reverse();
    frames
}

/// The folder of the collection of the stream `gate`.
pub fn gate(folder: &Path) -> PathBuf {
    folder.join("collected/gate")
}

/// The label of a frame on the disk: the index of each pixel.
pub fn label(folder: &Path, id: &FrameId) -> Pixels {
    let path = gate(folder).join(format!("SegmentationClass/{id}.png"));
    let mut decoder = png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap()));
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

/// A label as the body of a request.
pub fn png(pixels: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, WIDTH as u32, HEIGHT as u32);
    encoder.set_color(png::ColorType::Grayscale);
    encoder.write_header().unwrap().write_image_data(pixels).unwrap();
    bytes
}

/// A line with round ends, in pixels of the frame.
#[derive(Clone, Debug)]
pub struct Stroke {
    pub path: Vec<(f64, f64)>,
    pub radius: f64,
    pub class: u8,
}

/// Whether a label has the stroke on `before`. Pixels within `tolerance` of the border of the stroke may have either value: the places of
/// a pointer are whole pixels of the window.
pub fn has_stroke(label: &[u8], before: &[u8], stroke: &Stroke, tolerance: f64) -> Result<(), String> {
    for at in 0..WIDTH * HEIGHT {
        let (x, y) = ((at % WIDTH) as f64 + 0.5, (at / WIDTH) as f64 + 0.5);
        let distance = distance(&stroke.path, x, y);
        let expected = if distance <= stroke.radius - tolerance {
            stroke.class
        } else if distance >= stroke.radius + tolerance {
            before[at]
        } else {
            continue;
        };
        if label[at] != expected {
            return Err(format!("column {x}, row {y}: {} instead of {expected} ({stroke:?})", label[at]));
        }
    }
    Ok(())
}

fn distance(path: &[(f64, f64)], x: f64, y: f64) -> f64 {
    let to_segment = |(x1, y1): (f64, f64), (x2, y2): (f64, f64)| {
        let (dx, dy) = (x2 - x1, y2 - y1);
        let length = dx * dx + dy * dy;
        let along = if length == 0.0 { 0.0 } else { (((x - x1) * dx + (y - y1) * dy) / length).clamp(0.0, 1.0) };
        (x - x1 - along * dx).hypot(y - y1 - along * dy)
    };
    path.windows(2).map(|ends| to_segment(ends[0], ends[1])).fold(f64::INFINITY, f64::min)
}
