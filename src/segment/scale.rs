//! Detects a wrong normalisation in a manifest by running the model with others.

use super::SegmentError;
use super::contract::{Contract, InputPixels};
use super::golden::{Golden, TOLERANCE};
use super::inspect::{Inspection, test_image};
use super::manifest::{ChannelOrder, ManifestInput};
use super::normalisation;
use super::segmenter::OnnxSegmenter;

/// `[input]` of the manifest; `None` when the input is bytes, which are not normalised.
fn normalised_input(contract: &Contract) -> Option<&ManifestInput> {
    match contract.input.pixels {
        InputPixels::Bytes => None,
        InputPixels::Single(_) | InputPixels::Half(_) => contract.manifest.as_ref()?.input.as_ref(),
    }
}

/// A warning when the mask of the test image has one class, and several with the other scale of pixel values.
///
/// # Errors
/// The model cannot be run.
pub(super) fn scale_warning(
    segmenter: &mut OnnxSegmenter,
    inspection: &Inspection,
) -> Result<Option<String>, SegmentError> {
    let contract = segmenter.contract();
    let Some(input) = normalised_input(&contract).filter(|_| inspection.is_single()) else { return Ok(None) };
    let white = if input.white < 100.0 { 255.0 } else { 1.0 };
    let other = ManifestInput { white, ..input.clone() };
    if normalisation::check(&other).is_err() {
        return Ok(None);
    }
    let image = test_image(contract.input.width, contract.input.height);
    let with_other = Inspection::new(segmenter.run_normalised(&image, &other)?, None);
    if with_other.is_single() {
        return Ok(None);
    }
    Ok(Some(format!(
        "the mask of a test image of all colours has one class ({}) with white = {} in [input] of its manifest, and several with white = {white} ({}); write the value that the model was trained with",
        inspection.describe(&contract.labels),
        input.white,
        with_other.describe(&contract.labels)
    )))
}

/// The keys of `[input]` with which the model computes the mask of the golden frame, as TOML.
pub(super) fn fitting_input(segmenter: &mut OnnxSegmenter, golden: &Golden) -> Option<String> {
    let contract = segmenter.contract();
    let input = normalised_input(&contract)?;
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
