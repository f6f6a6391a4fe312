//! Loads the weights of a file into an encoder, by name and shape.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use clap::ValueEnum;
use tch::Tensor;

use super::error::{MisfitHint, Mismatch, Mismatches, WeightsError};
use super::file::WeightsFile;
use super::naming::{Mapping, TensorDestination};
use crate::encoders::{Encoder, Variant};
use crate::net::{Net, ParamSpec, Params};

/// Which tensors of a file were loaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// The names of the network's parameters and running statistics that were loaded.
    pub taken: Vec<String>,
    /// The number of their values.
    pub numbers: i64,
    pub skipped: Vec<SkippedTensor>,
}

/// A tensor that was not loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedTensor {
    /// The name in the file.
    pub name: String,
    pub why: &'static str,
}

impl fmt::Display for LoadReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "took {} tensors ({:.1} M numbers)", self.taken.len(), self.numbers as f64 / 1e6)?;
        let mut by_reason: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for skipped in &self.skipped {
            by_reason.entry(skipped.why).or_default().push(&skipped.name);
        }
        for (why, names) in by_reason {
            let shown = names.iter().take(3).copied().collect::<Vec<_>>().join(", ");
            let more = if names.len() > 3 { ", …" } else { "" };
            write!(f, "; skipped {} ({why}): {shown}{more}", names.len())?;
        }
        Ok(())
    }
}

/// Loads the weights of a file into the encoder of a network. After an error, `params` are unchanged.
///
/// # Errors
/// The file lacks a parameter or has it in another shape, has a tensor that belongs neither to the encoder nor to its
/// classifier, or has values that are not finite. The error lists all of these, and which encoder the file looks like.
pub fn load_encoder(
    net: &Net,
    params: &mut Params,
    file: &WeightsFile,
    mapping: &Mapping,
) -> Result<LoadReport, WeightsError> {
    let specs: Vec<ParamSpec> =
        net.param_specs().into_iter().filter(|spec| spec.name.starts_with("encoder.")).collect();
    let comparison = Comparison::of(&specs, file, mapping);
    let mut mismatches = comparison.mismatches;
    for (name, tensor) in &comparison.taken {
        if !bool::try_from(tensor.isfinite().all()).unwrap_or(false) {
            mismatches.push(Mismatch::NotFinite { name: name.clone() });
        }
    }
    if !mismatches.is_empty() {
        return Err(WeightsError::Misfit {
            path: file.path.clone(),
            network: mapping.encoder.to_string(),
            mismatches: Mismatches(mismatches),
            hint: hint(mapping.encoder, file),
        });
    }
    let mut report = LoadReport { skipped: comparison.skipped, ..LoadReport::default() };
    for (name, tensor) in comparison.taken {
        let device = params.0.get(&name).map_or(tensor.device(), Tensor::device);
        report.numbers += tensor.numel() as i64;
        params.0.insert(name.clone(), tensor.to_device(device).copy());
        report.taken.push(name);
    }
    let other =
        file.other_names.iter().map(|name| SkippedTensor { name: name.clone(), why: "not part of the encoder" });
    report.skipped.extend(other);
    tracing::info!(path = %file.path.display(), encoder = %mapping.encoder, "loaded weights: {report}");
    Ok(report)
}

/// The comparison of the tensors of a file with the parameters of an encoder.
struct Comparison<'a> {
    /// Parameters and their tensors of the same shape.
    taken: Vec<(String, &'a Tensor)>,
    skipped: Vec<SkippedTensor>,
    mismatches: Vec<Mismatch>,
}

impl<'a> Comparison<'a> {
    fn of(specs: &[ParamSpec], file: &'a WeightsFile, mapping: &Mapping) -> Self {
        let wanted: BTreeMap<&str, &ParamSpec> = specs.iter().map(|spec| (spec.name.as_str(), spec)).collect();
        let mut comparison = Comparison { taken: Vec::new(), skipped: Vec::new(), mismatches: Vec::new() };
        let mut unexpected = Vec::new();
        let mut found = BTreeSet::new();
        for (name, tensor) in &file.tensors {
            match mapping.place(name) {
                TensorDestination::Skip(why) => comparison.skipped.push(SkippedTensor { name: name.clone(), why }),
                TensorDestination::Parameter(parameter) => match wanted.get(parameter.as_str()) {
                    None => unexpected.push(Mismatch::Unexpected { name: name.clone(), shape: tensor.size() }),
                    Some(spec) => {
                        if spec.shape == tensor.size() {
                            comparison.taken.push((parameter.clone(), tensor));
                        } else {
                            let (network, file) = (spec.shape.clone(), tensor.size());
                            comparison.mismatches.push(Mismatch::Shape { name: parameter.clone(), network, file });
                        }
                        found.insert(parameter);
                    }
                },
            }
        }
        for spec in specs.iter().filter(|spec| !found.contains(&spec.name)) {
            comparison.mismatches.push(Mismatch::Missing { name: spec.name.clone(), shape: spec.shape.clone() });
        }
        comparison.mismatches.append(&mut unexpected);
        comparison
    }
}

/// The encoder whose weights a file probably has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderGuess {
    pub encoder: Encoder,
    /// Whether the file fits the encoder without a mismatch.
    pub exact: bool,
}

/// The encoder that a file fits exactly, or else the one that shares most tensors with it. `None` if no encoder shares more
/// than half of them.
pub fn guess_encoder(file: &WeightsFile) -> Option<EncoderGuess> {
    let mut nearest: Option<(Encoder, f64)> = None;
    for &encoder in Encoder::value_variants() {
        let specs = Variant::from(encoder).param_specs();
        let comparison = Comparison::of(&specs, file, &Mapping::detect(encoder, file));
        if comparison.mismatches.is_empty() {
            return Some(EncoderGuess { encoder, exact: true });
        }
        let (taken, wrong) = (comparison.taken.len() as f64, comparison.mismatches.len() as f64);
        let shared = taken / (taken + wrong);
        if shared > nearest.map_or(0.5, |(_, most)| most) {
            nearest = Some((encoder, shared));
        }
    }
    nearest.map(|(encoder, _)| EncoderGuess { encoder, exact: false })
}

fn hint(encoder: Encoder, file: &WeightsFile) -> MisfitHint {
    match guess_encoder(file) {
        Some(guess) if guess.encoder == encoder => MisfitHint::SameEncoder,
        Some(EncoderGuess { encoder, exact: true }) => MisfitHint::OtherEncoder(encoder),
        Some(EncoderGuess { encoder, exact: false }) => MisfitHint::SimilarEncoder(encoder),
        None => MisfitHint::NoEncoder,
    }
}
