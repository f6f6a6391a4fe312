//! Augmentation of training images: random crop, scale, mirroring, colours, blur and noise.
//!
//! Labels are resized with OpenCV's `INTER_NEAREST_EXACT`, which samples at pixel centres like the interpolation of the
//! image. `INTER_NEAREST` samples at corners, which shifts labels by half a pixel and loses thin objects such as poles.

use clap::Args;
use maskcast::frame::Label;
use opencv::core::{Mat, Point, Rect, Scalar, Size as CvSize, Vec3b};
use opencv::imgproc::{
    INTER_AREA, INTER_LINEAR, INTER_NEAREST_EXACT, MORPH_OPEN, MORPH_RECT, gaussian_blur_def,
    get_structuring_element_def, morphology_ex_def, resize,
};
use opencv::prelude::*;
use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::data::{LabelledImage, VOID};
use super::random::Rng;
use super::size::Size;

/// Limits of the random changes; 0 disables a change.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[command(next_help_heading = "Augmentation")]
pub struct Augment {
    /// Smallest scale, relative to the model's input size
    #[arg(long, default_value_t = 0.75, value_name = "FACTOR")]
    pub scale_min: f64,
    /// Largest scale
    #[arg(long, default_value_t = 1.75, value_name = "FACTOR")]
    pub scale_max: f64,
    /// Change the aspect ratio by up to this share
    #[arg(long, default_value_t = 0.15, value_name = "SHARE")]
    pub stretch: f64,
    /// Probability of mirroring left and right; 0 if left and right have different meanings
    #[arg(long, default_value_t = 0.5, value_name = "P")]
    pub flip: f64,
    /// Change brightness by up to this share of white
    #[arg(long, default_value_t = 0.2, value_name = "SHARE")]
    pub brightness: f64,
    /// Change contrast by up to this share
    #[arg(long, default_value_t = 0.25, value_name = "SHARE")]
    pub contrast: f64,
    /// Change saturation by up to this share
    #[arg(long, default_value_t = 0.25, value_name = "SHARE")]
    pub saturation: f64,
    /// Probability of a slight blur
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    pub blur: f64,
    /// Largest standard deviation of added noise, as a share of white
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub noise: f64,
    /// Probability that a rectangle is replaced by the same rectangle of another image of the batch (CutMix)
    #[arg(long, default_value_t = 0.0, value_name = "P")]
    pub cut_mix: f64,
    /// Paste small objects of these classes from other images of the batch
    #[arg(long, value_name = "CLASS,…", value_delimiter = ',')]
    #[serde(default)]
    pub paste: Vec<String>,
    /// Probability that --paste applies to an image
    #[arg(long, default_value_t = PASTE_PROBABILITY, value_name = "P")]
    #[serde(default = "paste_probability")]
    pub paste_probability: f64,
    /// Train large void areas as this class, for masks made by `maskcast-train label`, which are void where no class fits
    #[arg(long, value_name = "CLASS")]
    #[serde(default)]
    pub void_as: Option<String>,
    /// Probability that --void-as applies to an image; with a lower value, the model predicts the class less often
    #[arg(long, default_value_t = VOID_PROBABILITY, value_name = "P")]
    #[serde(default = "void_probability")]
    pub void_probability: f64,
}

const PASTE_PROBABILITY: f64 = 0.5;

fn paste_probability() -> f64 {
    PASTE_PROBABILITY
}

const VOID_PROBABILITY: f64 = 0.3;

fn void_probability() -> f64 {
    VOID_PROBABILITY
}

impl Augment {
    /// Returns a message for each invalid option.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if !(self.scale_min > 0.0 && self.scale_min <= self.scale_max && self.scale_max <= 16.0) {
            problems.push(format!(
                "--scale-min {} and --scale-max {}: must be 0 < min <= max <= 16",
                self.scale_min, self.scale_max
            ));
        }
        let shares = [
            ("stretch", self.stretch),
            ("flip", self.flip),
            ("brightness", self.brightness),
            ("contrast", self.contrast),
            ("saturation", self.saturation),
            ("blur", self.blur),
            ("noise", self.noise),
            ("cut-mix", self.cut_mix),
            ("paste-probability", self.paste_probability),
            ("void-probability", self.void_probability),
        ];
        for (name, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                problems.push(format!("--{name} {share}: must be from 0 to 1"));
            }
        }
        problems
    }

    /// The indices of the classes of --paste that are among `classes`.
    pub fn pasted_classes(&self, classes: &[Label]) -> Vec<u8> {
        let index = |name: &String| classes.iter().position(|class| class.name == *name).map(|index| index as u8);
        self.paste.iter().filter_map(index).collect()
    }

    /// The index of the class of --void-as, if it is set and one of `classes`.
    pub fn void_class(&self, classes: &[Label]) -> Option<u8> {
        let name = self.void_as.as_ref()?;
        classes.iter().position(|class| class.name == *name).map(|index| index as u8)
    }
}

/// A random factor between `1 / (1 + share)` and `1 + share`, with a uniform logarithm.
fn factor(rng: &mut Rng, share: f64) -> f64 {
    let limit = (1.0 + share).ln();
    (limit * (2.0 * rng.random::<f64>() - 1.0)).exp()
}

/// Returns a random crop of `sample` with the size `crop`. At scale 1, the whole image has the size `input`, as in the
/// service. Pixels outside of the image are grey and [`VOID`].
///
/// # Errors
/// Errors of OpenCV.
pub fn apply(
    sample: &LabelledImage,
    input: Size,
    crop: Size,
    augment: &Augment,
    rng: &mut Rng,
) -> opencv::Result<LabelledImage> {
    let scale = augment.scale_min + (augment.scale_max - augment.scale_min) * rng.random::<f64>();
    let stretch = factor(rng, augment.stretch).sqrt();
    // Source pixels per pixel of the crop.
    let step_x = sample.width as f64 / (input.width as f64 * scale * stretch);
    let step_y = sample.height as f64 / (input.height as f64 * scale / stretch);
    let across = CropAxis::place(sample.width, crop.width, step_x, rng.random::<f64>());
    let down = CropAxis::place(sample.height, crop.height, step_y, rng.random::<f64>());
    let flip = rng.random::<f64>() < augment.flip;

    let source = Rect::new(across.source as i32, down.source as i32, across.taken as i32, down.taken as i32);
    let target = Rect::new(across.target as i32, down.target as i32, across.filled as i32, down.filled as i32);
    let how = if step_x.max(step_y) > 1.5 { INTER_AREA } else { INTER_LINEAR };
    let rgb = piece::<Vec3b>(&sample.rgb, sample, source, target, crop, Scalar::all(127.0), how, flip)?;
    let void = Scalar::all(f64::from(VOID));
    let labels = piece::<u8>(&sample.labels, sample, source, target, crop, void, INTER_NEAREST_EXACT, flip)?;
    let mut piece = LabelledImage { width: crop.width, height: crop.height, rgb, labels };
    recolor(&mut piece, augment, rng)?;
    Ok(piece)
}

/// Areas of void that are thinner than this share of the long side of an image are mostly borders between two classes.
const THIN: f64 = 1.0 / 32.0;

/// Labels the large void areas of `sample` as `class`: those that remain after an opening with a square whose side
/// is a 32nd of the long side.
///
/// # Errors
/// Errors of OpenCV.
pub fn label_void(sample: &mut LabelledImage, class: u8) -> opencv::Result<()> {
    let side = (sample.width.max(sample.height) as f64 * THIN).round().max(1.0) as i32;
    let square = get_structuring_element_def(MORPH_RECT, CvSize::new(side, side))?;
    let void: Vec<u8> = sample.labels.iter().map(|&label| if label == VOID { 255 } else { 0 }).collect();
    let mut large = Mat::default();
    {
        let void = Mat::new_rows_cols_with_bytes::<u8>(sample.height as i32, sample.width as i32, &void)?;
        morphology_ex_def(&void, &mut large, MORPH_OPEN, &square)?;
    }
    for (label, &large) in sample.labels.iter_mut().zip(large.data_bytes()?) {
        if large != 0 {
            *label = class;
        }
    }
    Ok(())
}

/// The position of a crop along one axis.
struct CropAxis {
    /// First source pixel, and number of source pixels.
    source: usize,
    taken: usize,
    /// First pixel of the crop that they fill, and number of these pixels.
    target: usize,
    filled: usize,
}

impl CropAxis {
    /// `place`, 0 to 1, is the position of the crop between the two ends. `step` is in source pixels per pixel of the crop.
    fn place(source: usize, crop: usize, step: f64, place: f64) -> Self {
        let wanted = crop as f64 * step;
        if wanted <= source as f64 {
            let taken = (wanted.round() as usize).clamp(1, source);
            let first = ((source - taken) as f64 * place).round() as usize;
            CropAxis { source: first, taken, target: 0, filled: crop }
        } else {
            let filled = ((source as f64 / step).round() as usize).clamp(1, crop);
            let first = ((crop - filled) as f64 * place).round() as usize;
            CropAxis { source: 0, taken: source, target: first, filled }
        }
    }
}

/// Resizes the rectangle `source` of an image of element type `T` to the rectangle `target` of the crop; the rest of the
/// crop has the value `outside`.
#[allow(clippy::too_many_arguments)]
fn piece<T: opencv::core::DataType>(
    bytes: &[u8],
    sample: &LabelledImage,
    source: Rect,
    target: Rect,
    crop: Size,
    outside: Scalar,
    how: i32,
    flip: bool,
) -> opencv::Result<Vec<u8>> {
    let whole = Mat::new_rows_cols_with_bytes::<T>(sample.height as i32, sample.width as i32, bytes)?;
    let view = Mat::roi(&whole, source)?;
    let mut scaled = Mat::default();
    resize(&view, &mut scaled, CvSize::new(target.width, target.height), 0.0, 0.0, how)?;
    if target.width as usize != crop.width || target.height as usize != crop.height {
        let mut padded =
            Mat::new_rows_cols_with_default(crop.height as i32, crop.width as i32, T::opencv_type(), outside)?;
        let mut place = Mat::roi_mut(&mut padded, target)?;
        scaled.copy_to(&mut place)?;
        drop(place);
        scaled = padded;
    }
    if flip {
        let mut flipped = Mat::default();
        opencv::core::flip(&scaled, &mut flipped, 1)?;
        scaled = flipped;
    }
    Ok(scaled.data_bytes()?.to_vec())
}

/// Changes brightness, contrast and saturation in one pass; then adds blur and noise.
fn recolor(piece: &mut LabelledImage, augment: &Augment, rng: &mut Rng) -> opencv::Result<()> {
    let brightness = 255.0 * augment.brightness * (2.0 * rng.random::<f64>() - 1.0);
    let contrast = factor(rng, augment.contrast);
    let saturation = factor(rng, augment.saturation);
    let (brightness, contrast, saturation) = (brightness as f32, contrast as f32, saturation as f32);
    // Contrast is relative to middle grey.
    let offset = 127.5 * (1.0 - contrast) + brightness;
    for pixel in piece.rgb.as_chunks_mut::<3>().0 {
        let [r, g, b] = pixel.map(f32::from);
        let grey = 0.299 * r + 0.587 * g + 0.114 * b;
        *pixel = [r, g, b].map(|value| ((grey + (value - grey) * saturation) * contrast + offset) as u8);
    }
    if rng.random::<f64>() < augment.blur {
        let sigma = 0.3 + 0.9 * rng.random::<f64>();
        let mut blurred = Mat::default();
        {
            let (rows, cols) = (piece.height as i32, piece.width as i32);
            let sharp = Mat::new_rows_cols_with_bytes::<Vec3b>(rows, cols, &piece.rgb)?;
            gaussian_blur_def(&sharp, &mut blurred, CvSize::new(5, 5), sigma)?;
        }
        piece.rgb.copy_from_slice(blurred.data_bytes()?);
    }
    if augment.noise > 0.0 {
        let deviation = (255.0 * augment.noise * rng.random::<f64>()) as f32;
        for value in &mut piece.rgb {
            // The sum of three uniform numbers approximates a normal distribution and is faster to compute.
            let sum: f32 = (0..3).map(|_| rng.random::<f32>() - 0.5).sum();
            *value = (f32::from(*value) + 2.0 * deviation * sum) as u8;
        }
    }
    Ok(())
}

/// Replaces a random rectangle of `piece` by the same rectangle of `other` (Yun et al., CutMix, 2019). Both have the same
/// size.
pub fn cut_mix(piece: &mut LabelledImage, other: &LabelledImage, rng: &mut Rng) {
    // The share of the area is uniform between 0 and 1/2.
    let side = (0.5 * rng.random::<f64>()).sqrt();
    let (width, height) = ((piece.width as f64 * side) as usize, (piece.height as f64 * side) as usize);
    let left = ((piece.width - width) as f64 * rng.random::<f64>()) as usize;
    let top = ((piece.height - height) as f64 * rng.random::<f64>()) as usize;
    for row in top..top + height {
        let at = row * piece.width + left;
        piece.labels[at..at + width].copy_from_slice(&other.labels[at..at + width]);
        piece.rgb[3 * at..3 * (at + width)].copy_from_slice(&other.rgb[3 * at..3 * (at + width)]);
    }
}

/// Resizes a whole image to the input size of the model, as the service does; labels by nearest neighbour.
///
/// # Errors
/// Errors of OpenCV.
pub fn whole(sample: &LabelledImage, input: Size) -> opencv::Result<LabelledImage> {
    let all = Rect::from_point_size(Point::new(0, 0), CvSize::new(sample.width as i32, sample.height as i32));
    let target = Rect::new(0, 0, input.width as i32, input.height as i32);
    let shrink = (sample.width as f64 / input.width as f64).max(sample.height as f64 / input.height as f64);
    let how = if shrink > 1.5 { INTER_AREA } else { INTER_LINEAR };
    let rgb = piece::<Vec3b>(&sample.rgb, sample, all, target, input, Scalar::default(), how, false)?;
    let labels =
        piece::<u8>(&sample.labels, sample, all, target, input, Scalar::default(), INTER_NEAREST_EXACT, false)?;
    Ok(LabelledImage { width: input.width, height: input.height, rgb, labels })
}

/// Resizes a mask by nearest neighbour.
///
/// # Errors
/// Errors of OpenCV.
pub fn resize_mask(mask: &[u8], from: Size, to: Size) -> opencv::Result<Vec<u8>> {
    if from == to {
        return Ok(mask.to_vec());
    }
    let view = Mat::new_rows_cols_with_bytes::<u8>(from.height as i32, from.width as i32, mask)?;
    let mut out = Mat::default();
    resize(&view, &mut out, CvSize::new(to.width as i32, to.height as i32), 0.0, 0.0, INTER_NEAREST_EXACT)?;
    Ok(out.data_bytes()?.to_vec())
}

/// Resizes a plane of numbers by bilinear interpolation.
///
/// # Errors
/// Errors of OpenCV.
pub fn resize_plane(plane: &[f32], from: Size, to: Size) -> opencv::Result<Vec<f32>> {
    if from == to {
        return Ok(plane.to_vec());
    }
    let view = Mat::new_rows_cols_with_data::<f32>(from.height as i32, from.width as i32, plane)?;
    let mut out = Mat::default();
    resize(&view, &mut out, CvSize::new(to.width as i32, to.height as i32), 0.0, 0.0, INTER_LINEAR)?;
    Ok(out.data_typed::<f32>()?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_void_areas_get_the_class_and_thin_ones_stay_void() {
        // An image of 96×64 with an opening of 3 pixels: a block of void, a line of void two pixels wide, and a border.
        let (width, height) = (96, 64);
        let is_block = |x: usize, y: usize| (40..60).contains(&x) && (20..40).contains(&y);
        let is_line = |x: usize, _: usize| (10..12).contains(&x);
        let label = |n: usize| if is_block(n % width, n / width) || is_line(n % width, n / width) { VOID } else { 1 };
        let labels: Vec<u8> = (0..width * height).map(label).collect();
        let mut sample = LabelledImage { width, height, rgb: vec![0; 3 * width * height], labels };
        label_void(&mut sample, 4).unwrap();
        for (n, &label) in sample.labels.iter().enumerate() {
            let (x, y) = (n % width, n / width);
            let expected = if is_block(x, y) {
                4
            } else if is_line(x, y) {
                VOID
            } else {
                1
            };
            assert_eq!(label, expected, "{x},{y}");
        }
    }
}
