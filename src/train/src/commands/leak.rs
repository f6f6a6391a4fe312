//! `maskcast-train eval --redact`: the share of the pixels of some classes that redaction would leave visible.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use maskcast::config::{RedactConfig, RedactStyle};
use maskcast::frame::{Crop, Frame, Mask, OwnedImage, PixelFormat, Pixels, Tiles, VideoInfo};
use maskcast::redact::{Clearance, class_bias};
use opencv::core::Mat;
use opencv::imgproc::{COLOR_RGB2YUV_I420, cvt_color_def};
use opencv::prelude::*;

use crate::data::{Dataset, LabelledImage, Pair, VOID};
use crate::evaluate::EvaluateError;
use crate::exported::ExportedModel;
use crate::loader::LoadError;

/// Grow, hold in milliseconds, and bias.
pub type Setting = (f64, u64, f64);

/// The settings that are compared.
const SETTINGS: [Setting; 6] =
    [(0.0, 0, 0.0), (0.02, 0, 0.0), (0.02, 0, 0.45), (0.02, 500, 0.0), (0.02, 500, 0.45), (0.04, 1000, 0.47)];

/// The part of the width and height of an image that a frame of a panned clip shows.
const PANNED_VIEW: f64 = 0.8;

/// The luma of the images that are redacted in place of the real ones; that of hidden pixels is another.
const VISIBLE: u8 = 235;

/// What one setting leaves visible.
#[derive(Debug, Default)]
pub struct Leak {
    /// Labelled pixels of the classes, and those of them that stay visible.
    pixels: u64,
    visible: u64,
    /// The largest share that one image leaves visible.
    worst: f64,
    /// Labelled pixels of other classes, and those of them that are hidden.
    others: u64,
    hidden_others: u64,
    images: u64,
    /// Images that are hidden as a whole.
    hidden_images: u64,
}

/// The frames of which the images are taken.
#[derive(Clone, Copy, Debug)]
pub struct Clips {
    /// Frames a second.
    pub fps: f64,
    /// Each image becomes a clip of this number of frames, which moves over it from one corner to the opposite one; 0: an image is
    /// one frame.
    pub pan: usize,
}

/// Redacts `pairs` with each setting, as the service does. Images whose names differ in the number at their end only are frames of
/// one clip, unless each image is panned; pixels are held between the frames of a clip.
///
/// # Errors
/// An image cannot be read, or the model cannot be run.
pub fn leaks(
    model: &mut ExportedModel,
    dataset: &Arc<Dataset>,
    pairs: &[Pair],
    classes: &[String],
    Clips { fps, pan }: Clips,
    mut tick: impl FnMut(),
) -> Result<Vec<(Setting, Leak)>, EvaluateError> {
    let wanted: Vec<u8> = (0_u8..)
        .zip(dataset.classes.iter())
        .filter(|(_, label)| classes.contains(&label.name))
        .map(|(class, _)| class)
        .collect();
    let has_scores = model.model.contract.has_scores();
    let settings: Vec<_> = SETTINGS.into_iter().filter(|(_, _, bias)| has_scores || *bias == 0.0).collect();
    let mut clips: BTreeMap<&str, Vec<&Pair>> = BTreeMap::new();
    for pair in pairs {
        clips.entry(if pan > 0 { &pair.name } else { clip_of(&pair.name) }).or_default().push(pair);
    }
    let mut found: Vec<_> = settings.iter().map(|setting| (*setting, Leak::default())).collect();
    let start = Instant::now();
    for (number, clip) in clips.into_values().enumerate() {
        let configs: Vec<RedactConfig> = settings.iter().map(|setting| config(classes, *setting)).collect();
        let mut clearances: Vec<Clearance> = configs.iter().map(|config| Clearance::of(Some(config))).collect();
        for (seq, (pair, step)) in
            clip.into_iter().flat_map(|pair| (0..pan.max(1)).map(move |step| (pair, step))).enumerate()
        {
            let read = dataset.read(pair).map_err(LoadError::Data)?;
            let image = if pan > 0 { view(&read, step, pan) } else { crop(&read, (0, 0), (read.width, read.height)) };
            let name = |error| LoadError::OpenCv { name: pair.name.clone(), error };
            let pts = Duration::from_secs_f64(seq as f64 / fps);
            // Clips are far apart, so that nothing is held from one to the next.
            let captured_at = start + Duration::from_secs(100_000) * number as u32 + pts;
            let info = VideoInfo::new(PixelFormat::I420, image.width, image.height);
            let frame = Frame {
                stream: "eval".into(),
                seq: seq as u64,
                pts,
                captured_at,
                pixels: Arc::new(i420(&image, info).map_err(name)?),
                bias: None,
                gate: None,
                crop: Crop::default(),
                tiles: Tiles::default(),
            };
            // Redacted instead of the image itself, so that what is hidden can be told from what is visible.
            let mut plain = OwnedImage::new(info, 0);
            plain.image_mut().planes[0].data.fill(VISIBLE);
            let plain = Frame { pixels: Arc::new(plain), ..frame.clone() };
            let mut masks: Vec<(f64, Mask)> = Vec::new();
            for (((setting, leak), config), clearance) in found.iter_mut().zip(&configs).zip(&mut clearances) {
                let bias = setting.2;
                if masks.iter().all(|(known, _)| *known != bias) {
                    masks.push((bias, model.mask(&Frame { bias: class_bias(config), ..frame.clone() })?));
                }
                let Some((_, mask)) = masks.iter().find(|(known, _)| *known == bias) else { continue };
                let decision = clearance.decide(&plain, Ok(mask));
                let is_hidden = decision.hides_all().is_some();
                let cleared = clearance.clear(&plain, &decision).to_image();
                let luma = &cleared.image().planes[0];
                let rows = luma.data.chunks(luma.stride).flat_map(|row| &row[..image.width]);
                leak.add(&image.labels, &wanted, rows.copied(), is_hidden);
            }
            if step + 1 == pan.max(1) {
                tick();
            }
        }
    }
    Ok(found)
}

impl Leak {
    /// Adds an image. `luma` is what was published of it.
    fn add(&mut self, labels: &[u8], wanted: &[u8], luma: impl Iterator<Item = u8>, is_hidden: bool) {
        let (mut pixels, mut visible) = (0, 0);
        for (label, luma) in labels.iter().zip(luma) {
            match (wanted.contains(label), luma == VISIBLE) {
                (true, is_visible) => {
                    pixels += 1;
                    visible += u64::from(is_visible);
                }
                (false, is_visible) if *label != VOID => {
                    self.others += 1;
                    self.hidden_others += u64::from(!is_visible);
                }
                _ => {}
            }
        }
        self.pixels += pixels;
        self.visible += visible;
        self.worst = self.worst.max(visible as f64 / pixels.max(1) as f64);
        self.images += 1;
        self.hidden_images += u64::from(is_hidden);
    }
}

/// The results as a table.
pub fn leak_table(classes: &[String], leaks: &[(Setting, Leak)]) -> String {
    let mut table = format!(
        "redaction of {}: shares of pixels\n{:>6} {:>7} {:>5} {:>9} {:>9} {:>14} {:>13}\n",
        classes.join(", "),
        "grow",
        "hold",
        "bias",
        "visible",
        "worst",
        "others hidden",
        "whole images"
    );
    let percent = |part: u64, of: u64| 100.0 * part as f64 / of.max(1) as f64;
    for ((grow, hold, bias), leak) in leaks {
        table.push_str(&format!(
            "{grow:>6} {:>7} {bias:>5} {:>8.2}% {:>8.1}% {:>13.1}% {:>12.1}%\n",
            format!("{hold}ms"),
            percent(leak.visible, leak.pixels),
            100.0 * leak.worst,
            percent(leak.hidden_others, leak.others),
            percent(leak.hidden_images, leak.images),
        ));
    }
    table
}

/// What frame `step` of the `steps` frames of a panned clip shows of an image.
fn view(image: &LabelledImage, step: usize, steps: usize) -> LabelledImage {
    let shown = |side: usize| (side as f64 * PANNED_VIEW) as usize;
    let (width, height) = (shown(image.width), shown(image.height));
    let moved = |room: usize| room * step / (steps - 1).max(1);
    crop(image, (moved(image.width - width), moved(image.height - height)), (width, height))
}

/// The part of an image from `left` and `top` on, without its last column or row if their number is odd.
fn crop(image: &LabelledImage, (left, top): (usize, usize), (width, height): (usize, usize)) -> LabelledImage {
    let (width, height) = (width & !1, height & !1);
    let part = |samples: &[u8], channels: usize| -> Vec<u8> {
        let rows = samples.chunks(image.width * channels).skip(top).take(height);
        rows.flat_map(|row| &row[left * channels..(left + width) * channels]).copied().collect()
    };
    LabelledImage { width, height, rgb: part(&image.rgb, 3), labels: part(&image.labels, 1) }
}

/// The image as a camera sends it, without its last column or row if their number is odd.
///
/// # Errors
/// OpenCV cannot convert it.
pub fn as_frame(image: &LabelledImage) -> opencv::Result<OwnedImage> {
    let even = crop(image, (0, 0), (image.width, image.height));
    i420(&even, VideoInfo::new(PixelFormat::I420, even.width, even.height))
}

/// The image in planes.
fn i420(image: &LabelledImage, info: VideoInfo) -> opencv::Result<OwnedImage> {
    let rgb =
        Mat::new_rows_cols_with_bytes::<opencv::core::Vec3b>(image.height as i32, image.width as i32, &image.rgb)?;
    let mut yuv = Mat::default();
    cvt_color_def(&rgb, &mut yuv, COLOR_RGB2YUV_I420)?;
    let mut samples = yuv.data_bytes()?;
    let mut planes = OwnedImage::new(info, 0);
    for plane in planes.image_mut().planes.iter_mut().take(3) {
        let (own, rest) = samples.split_at(plane.data.len());
        plane.data.copy_from_slice(own);
        samples = rest;
    }
    Ok(planes)
}

fn config(classes: &[String], (grow, hold, bias): Setting) -> RedactConfig {
    RedactConfig {
        classes: classes.to_vec(),
        style: RedactStyle::Fill,
        grow,
        hold: Duration::from_millis(hold),
        bias: Some(bias),
        ..RedactConfig::default()
    }
}

/// The name of an image without the number at its end; the whole name if its last part is a number, as of a photograph.
fn clip_of(name: &str) -> &str {
    let clip = name.trim_end_matches(|character: char| character.is_ascii_digit());
    if clip.is_empty() || clip.ends_with('/') { name } else { clip }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbered_frames_are_a_clip_and_numbered_photographs_are_not() {
        assert_eq!(clip_of("yard-0012"), clip_of("yard-0013"));
        assert_ne!(clip_of("yard-0012"), clip_of("gate-0012"));
        assert_ne!(clip_of("val/0012"), clip_of("val/0013"));
        assert_ne!(clip_of("0012"), clip_of("0013"));
    }

    #[test]
    fn a_panned_clip_moves_from_corner_to_corner() {
        let (width, height) = (10, 5);
        let labels: Vec<u8> = (0..50).collect();
        let rgb = labels.iter().flat_map(|&label| [label, 0, 0]).collect();
        let image = LabelledImage { width, height, rgb, labels };
        let corners = |step| {
            let view = view(&image, step, 3);
            assert_eq!((view.width, view.height, view.rgb.len()), (8, 4, 96));
            assert_eq!(view.rgb[0], view.labels[0]);
            (view.labels[0], view.labels[31])
        };
        assert_eq!([corners(0), corners(1), corners(2)], [(0, 37), (1, 38), (12, 49)]);
    }

    #[test]
    fn visible_pixels_of_the_classes_and_hidden_pixels_of_others_are_counted() {
        let mut leak = Leak::default();
        let hidden = VISIBLE - 1;
        leak.add(&[1, 1, 1, 0, 0, VOID], &[1], [VISIBLE, hidden, hidden, hidden, VISIBLE, hidden].into_iter(), false);
        leak.add(&[1, 0, 0, 0, 0, 0], &[1], [hidden; 6].into_iter(), true);
        let counts = (leak.visible, leak.pixels, leak.hidden_others, leak.others);
        assert_eq!((counts, leak.images, leak.hidden_images), ((1, 4, 6, 7), 2, 1));
        assert!((leak.worst - 1.0 / 3.0).abs() < 1e-9);
        let table = leak_table(&["person".into()], &[((0.02, 500, 0.45), leak)]);
        let row = table.lines().last().unwrap().split_whitespace().collect::<Vec<_>>();
        assert_eq!(row, ["0.02", "500ms", "0.45", "25.00%", "33.3%", "85.7%", "50.0%"]);
    }
}
