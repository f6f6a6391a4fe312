//! Detects whether labels have the displayed or the stored orientation of their images. An image with an EXIF
//! orientation is rotated when it is read; annotation programs differ in whether they rotate it before it is labelled.
//!
//! The sizes decide if an image is rotated by 90° and is not square. Otherwise the content decides: with the correct
//! orientation, the image has more contrast across the borders between labels than with the other one. If neither
//! decides, opening the data set fails.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::Pair;
use super::drawing::LabelSource;
use super::error::DatasetProblem;
use super::image::{self, Rgb8};
use super::orientation::Orientation;
use super::raw::{RawLabel, RawPixels};

/// The orientation of labels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LabelOrientation {
    /// Detected from sizes and image content; an error if neither decides
    #[default]
    Auto,
    /// The orientation in which images are displayed, after EXIF rotation
    Upright,
    /// The orientation in which images are stored, before EXIF rotation
    Stored,
}

/// Largest number of images whose content is compared with their labels.
const MAX_COMPARED: usize = 32;
/// Distance in pixels between the two positions that are compared across a border; larger than 1 because images are
/// slightly blurred.
const BORDER_DISTANCE: usize = 2;
/// With fewer images than this, a difference may be chance, and a larger one is required.
const FEW_IMAGES: usize = 4;

/// The orientation of a label as detected from sizes or content.
#[derive(Clone, Copy, Debug, PartialEq)]
enum DetectedOrientation {
    Upright,
    Stored,
}

impl DetectedOrientation {
    fn description(self) -> &'static str {
        match self {
            DetectedOrientation::Upright => "as the images are displayed",
            DetectedOrientation::Stored => "as the images are stored, and are rotated with them",
        }
    }
}

/// The EXIF orientation by image path, for labels that must be rotated; and notes for display.
type Rotations = (HashMap<PathBuf, Orientation>, Vec<String>);

/// Finds the pairs whose labels must be rotated with their images.
///
/// # Errors
/// [`DatasetProblem::LabelOrientation`] if the orientation cannot be determined.
pub fn find(pairs: &[&Pair], labels: &LabelSource, wanted: LabelOrientation) -> Result<Rotations, DatasetProblem> {
    let oriented = find_oriented(pairs);
    if oriented.is_empty() {
        return Ok((HashMap::new(), Vec::new()));
    }
    let count = oriented.len();
    let all = |detected: DetectedOrientation| match detected {
        DetectedOrientation::Upright => HashMap::new(),
        DetectedOrientation::Stored => {
            oriented.iter().map(|(pair, orientation)| (pair.image.clone(), *orientation)).collect()
        }
    };
    let note = |detected: DetectedOrientation, why: &str| {
        format!(
            "{count} images are rotated or mirrored by their EXIF data; their labels are assumed to be oriented {}: \
             {why}",
            detected.description()
        )
    };
    match wanted {
        LabelOrientation::Upright => {
            return Ok((
                all(DetectedOrientation::Upright),
                vec![note(DetectedOrientation::Upright, "--label-orientation upright")],
            ));
        }
        LabelOrientation::Stored => {
            return Ok((
                all(DetectedOrientation::Stored),
                vec![note(DetectedOrientation::Stored, "--label-orientation stored")],
            ));
        }
        LabelOrientation::Auto => {}
    }
    let sizes: Vec<SizeEvidence> =
        oriented.iter().map(|(pair, orientation)| detect_from_size(pair, *orientation, labels)).collect();
    let [upright, stored] = [DetectedOrientation::Upright, DetectedOrientation::Stored]
        .map(|detected| sizes.iter().filter(|size| **size == SizeEvidence::Decides(detected)).count());
    let open: Vec<(&Pair, Orientation)> = oriented
        .iter()
        .zip(&sizes)
        .filter(|(_, size)| **size == SizeEvidence::Ambiguous)
        .map(|(item, _)| *item)
        .collect();
    let from_content = detect_from_content(&open, labels);
    let rest = match (open.is_empty(), from_content, upright, stored) {
        // All sizes decide.
        (true, ..) => None,
        (_, Some(detected), ..) => Some(detected),
        (_, None, 1.., 0) => Some(DetectedOrientation::Upright),
        (_, None, 0, 1..) => Some(DetectedOrientation::Stored),
        (_, None, ..) => return Err(undecided(&open)),
    };
    let detected = |size: &SizeEvidence| match size {
        SizeEvidence::Decides(detected) => Some(*detected),
        SizeEvidence::Ambiguous => rest,
        SizeEvidence::Mismatch => None,
    };
    let found: Vec<Option<DetectedOrientation>> = sizes.iter().map(detected).collect();
    let rotations: HashMap<PathBuf, Orientation> = oriented
        .iter()
        .zip(&found)
        .filter(|(_, detected)| **detected == Some(DetectedOrientation::Stored))
        .map(|((pair, orientation), _)| (pair.image.clone(), *orientation))
        .collect();
    let why = match (from_content, upright + stored) {
        (Some(_), 0) => "in this orientation, the labels fit the edges in the images".to_string(),
        (Some(_), n) => format!(
            "{n} sizes match only in this orientation, and the labels of the others fit the edges in the images"
        ),
        (None, n) => format!("{n} sizes match only in this orientation"),
    };
    let all_are = |detected: DetectedOrientation| found.iter().flatten().all(|other| *other == detected);
    let text = match (
        found.iter().flatten().next(),
        all_are(DetectedOrientation::Upright),
        all_are(DetectedOrientation::Stored),
    ) {
        // The sizes of labels and images differ: reading the pair returns the error.
        (None, ..) => return Ok((rotations, Vec::new())),
        (_, true, _) => note(DetectedOrientation::Upright, &why),
        (_, _, true) => note(DetectedOrientation::Stored, &why),
        _ => format!(
            "{count} images are rotated or mirrored by their EXIF data; {} of their labels are oriented as the images \
             are stored, and are rotated with them, the others as the images are displayed: detected from sizes and \
             edges",
            rotations.len()
        ),
    };
    Ok((rotations, vec![text]))
}

/// Returns the pairs whose images have an EXIF orientation.
fn find_oriented<'a>(pairs: &[&'a Pair]) -> Vec<(&'a Pair, Orientation)> {
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let read = |pairs: &[&'a Pair]| -> Vec<(&'a Pair, Orientation)> {
        let oriented = pairs.iter().map(|pair| (*pair, Orientation::of_file(&pair.image)));
        oriented.filter(|(_, orientation)| *orientation != Orientation::Upright).collect()
    };
    std::thread::scope(|scope| {
        let parts = pairs.chunks(pairs.len().div_ceil(threads).max(1));
        let threads: Vec<_> = parts.map(|part| scope.spawn(move || read(part))).collect();
        let joined = threads.into_iter().map(|thread| thread.join());
        joined.flat_map(|part| part.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

/// What follows from the sizes of an image and its label.
#[derive(Clone, Copy, Debug, PartialEq)]
enum SizeEvidence {
    Decides(DetectedOrientation),
    /// The label has the size of the image in both orientations.
    Ambiguous,
    /// The size matches in neither orientation, or the label cannot be read; reading the pair returns the error.
    Mismatch,
}

fn detect_from_size(pair: &Pair, orientation: Orientation, labels: &LabelSource) -> SizeEvidence {
    let (Ok(stored), Ok(label)) = (image::stored_size(&pair.image), labels.size(pair)) else {
        return SizeEvidence::Mismatch;
    };
    let displayed = orientation.size(stored.0, stored.1);
    match (label == stored, label == displayed) {
        (true, true) => SizeEvidence::Ambiguous,
        (true, false) => SizeEvidence::Decides(DetectedOrientation::Stored),
        (false, true) => SizeEvidence::Decides(DetectedOrientation::Upright),
        (false, false) => SizeEvidence::Mismatch,
    }
}

/// Detects the orientation from the content of the images; `None` if the result is not clear.
fn detect_from_content(open: &[(&Pair, Orientation)], labels: &LabelSource) -> Option<DetectedOrientation> {
    let count = open.len().min(MAX_COMPARED);
    let (mut scores, mut same) = (Vec::new(), 0);
    for (pair, orientation) in (0..count).map(|n| open[n * open.len() / count]) {
        let (Ok(image), Ok(raw)) = (image::read(&pair.image), labels.read(pair)) else { continue };
        let unrotated = label_ids(&raw);
        let rotated_raw = raw.rotated(orientation);
        let rotated = label_ids(&rotated_raw);
        // A label without objects, or a symmetric one, is the same in both orientations.
        if unrotated.0 == rotated.0 {
            same += 1;
            continue;
        }
        if let (Some(upright), Some(stored)) = (border_contrast(&image, &unrotated), border_contrast(&image, &rotated))
        {
            scores.push((stored - upright) / (stored + upright).max(1e-9));
        }
    }
    // If all labels are the same in both orientations, the result has no effect.
    if same > 0 && same == open.len() { Some(DetectedOrientation::Upright) } else { decide(&scores) }
}

/// Decides for all images. A score, -1 to 1, is the relative difference between the contrast at the borders of rotated
/// and unrotated labels; it is negative if the unrotated labels fit better.
fn decide(scores: &[f64]) -> Option<DetectedOrientation> {
    let n = scores.len() as f64;
    if scores.is_empty() {
        return None;
    }
    let mean = scores.iter().sum::<f64>() / n;
    let clear = if scores.len() < FEW_IMAGES {
        mean.abs() > 0.3 && scores.iter().all(|score| score.signum() == mean.signum())
    } else {
        let variance = scores.iter().map(|score| (score - mean).powi(2)).sum::<f64>() / (n - 1.0);
        mean.abs() > 0.05 && mean.abs() > 3.0 * (variance / n).sqrt()
    };
    clear.then_some(if mean > 0.0 { DetectedOrientation::Stored } else { DetectedOrientation::Upright })
}

/// Returns the labels as numbers, equal for equal labels: `[height, width]`, width, height.
fn label_ids(raw: &RawLabel) -> (Vec<u32>, usize, usize) {
    let label_ids = match &raw.pixels {
        RawPixels::Gray(label_ids) | RawPixels::Indexed(label_ids, _) => {
            label_ids.iter().map(|value| u32::from(*value)).collect()
        }
        RawPixels::Colors(colors) => colors.iter().map(|c| u32::from_be_bytes([0, c.0, c.1, c.2])).collect(),
    };
    (label_ids, raw.width, raw.height)
}

/// The mean contrast across the borders of labels, in sums of the differences of red, green and blue; `None` if the
/// sizes differ or there is no border.
fn border_contrast(image: &Rgb8, (label_ids, width, height): &(Vec<u32>, usize, usize)) -> Option<f64> {
    let (width, height) = (*width, *height);
    if (image.width, image.height) != (width, height) || width <= 2 * BORDER_DISTANCE || height <= 2 * BORDER_DISTANCE {
        return None;
    }
    let color = |at: usize| &image.rgb[3 * at..3 * at + 3];
    let difference =
        |a: usize, b: usize| -> u64 { color(a).iter().zip(color(b)).map(|(a, b)| u64::from(a.abs_diff(*b))).sum() };
    let (mut sum, mut count) = (0u64, 0u64);
    for y in BORDER_DISTANCE..height - BORDER_DISTANCE {
        for x in BORDER_DISTANCE..width - BORDER_DISTANCE {
            let at = y * width + x;
            for step in [1, width] {
                if label_ids[at] != label_ids[at + step] {
                    sum += difference(at + BORDER_DISTANCE * step, at - (BORDER_DISTANCE - 1) * step);
                    count += 1;
                }
            }
        }
    }
    // 1 is added so that noise in images without contrast has no effect.
    (count > 0).then(|| 1.0 + sum as f64 / count as f64)
}

fn undecided(open: &[(&Pair, Orientation)]) -> DatasetProblem {
    let (first, orientation) = open[0];
    DatasetProblem::LabelOrientation {
        count: open.len(),
        first: first.image.clone(),
        orientation: orientation.to_string(),
    }
}

#[cfg(test)]
mod tests;
