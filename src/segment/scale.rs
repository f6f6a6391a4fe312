//! Finds normalisation that a manifest cannot mean, by running the model with another one.

use super::SegmentError;
use super::contract::{Contract, InputPixels};
use super::golden::{Golden, TOLERANCE};
use super::inspect::{Inspection, test_picture};
use super::manifest::{ChannelOrder, ManifestInput};
use super::normalisation;
use super::segmenter::OnnxSegmenter;

/// `[input]` of the manifest that normalises; `None` where bytes go in as they are.
fn normalising(contract: &Contract) -> Option<&ManifestInput> {
    match contract.input.pixels {
        InputPixels::Bytes => None,
        InputPixels::Single(_) | InputPixels::Half(_) => contract.manifest.as_ref()?.input.as_ref(),
    }
}

/// A warning where a test picture of all colours is of one class, and of several with the other scale of pixel values.
///
/// # Errors
/// When the model cannot be run.
pub(super) fn scale_concern(segmenter: &mut OnnxSegmenter, seen: &Inspection) -> Result<Option<String>, SegmentError> {
    let contract = segmenter.contract();
    let Some(input) = normalising(&contract).filter(|_| seen.is_single()) else { return Ok(None) };
    let white = if input.white < 100.0 { 255.0 } else { 1.0 };
    let other = ManifestInput { white, ..input.clone() };
    if normalisation::check(&other).is_err() {
        return Ok(None);
    }
    let picture = test_picture(contract.input.width, contract.input.height);
    let with_other = Inspection::new(segmenter.run_normalised(&picture, &other)?, None);
    if with_other.is_single() {
        return Ok(None);
    }
    Ok(Some(format!(
        "a test picture of all colours is of one class ({}) with white = {} in [input] of its manifest, and of several with white = {white} ({}); write the one that the model was trained with",
        seen.describe(&contract.labels),
        input.white,
        with_other.describe(&contract.labels)
    )))
}

/// The change of `[input]` with which the golden frame comes out as its trainer got it.
pub(super) fn fitting_input(segmenter: &mut OnnxSegmenter, golden: &Golden) -> Option<String> {
    let contract = segmenter.contract();
    let input = normalising(&contract)?;
    let plain = ManifestInput::default();
    let imagenet = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]);
    let scaled = |white: f32, (mean, std): ([f32; 3], [f32; 3])| ManifestInput {
        white,
        mean: mean.map(|mean| mean * white),
        std: std.map(|std| std * white),
        ..input.clone()
    };
    let mut candidates = vec![input.clone()];
    candidates.extend([1.0, 255.0].map(|white| ManifestInput { white, ..input.clone() }));
    candidates.extend([1.0, 255.0].map(|white| ManifestInput {
        white,
        mean: plain.mean,
        std: plain.std,
        ..input.clone()
    }));
    candidates.extend([scaled(1.0, imagenet), scaled(2.0, ([0.5; 3], [0.5; 3]))]);
    let orders = [ChannelOrder::Rgb, ChannelOrder::Bgr];
    let candidates =
        candidates.into_iter().flat_map(|manifest| orders.map(|order| ManifestInput { order, ..manifest.clone() }));
    let fitting =
        candidates.filter(|manifest| manifest != input && normalisation::check(manifest).is_ok()).find(|manifest| {
            segmenter.run_normalised(&golden.rgb, manifest).is_ok_and(|mask| golden.difference(&mask) <= TOLERANCE)
        })?;
    let mut keys = Vec::new();
    if fitting.white != input.white {
        keys.push(format!("white = {}", fitting.white));
    }
    if fitting.mean != input.mean {
        keys.push(format!("mean = {:?}", fitting.mean));
    }
    if fitting.std != input.std {
        keys.push(format!("std = {:?}", fitting.std));
    }
    if fitting.order != input.order {
        keys.push(format!("order = {:?}", if fitting.order == ChannelOrder::Rgb { "rgb" } else { "bgr" }));
    }
    Some(keys.join(", "))
}
