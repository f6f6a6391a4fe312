//! A file's weights into an encoder, by name and shape, with nothing left unsaid.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use clap::ValueEnum;
use tch::Tensor;

use super::error::{Mismatch, Mismatches};
use super::{Mapping, TensorDestination, WeightsError, WeightsFile};
use crate::encoders::{Encoder, Variant};
use crate::net::{Net, ParamSpec, Params};

/// What became of a file's tensors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadReport {
    /// Names of the network's parameters and statistics that were taken.
    pub taken: Vec<String>,
    /// How many numbers they have.
    pub numbers: i64,
    pub skipped: Vec<SkippedTensor>,
}

/// A tensor that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SkippedTensor {
    /// As in the file.
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

/// Puts the file's weights into the network's encoder. On an error `params` are as they were.
///
/// # Errors
/// Names every parameter that the file lacks or has in another shape, every name that belongs neither to the encoder nor
/// to the classifier on top of it, and tensors with NaN; and says which encoder the file looks like.
pub fn load_encoder(
    net: &Net,
    params: &mut Params,
    file: &WeightsFile,
    mapping: &Mapping,
) -> Result<LoadReport, WeightsError> {
    let shapes: Vec<ParamSpec> =
        net.param_specs().into_iter().filter(|shape| shape.name.starts_with("encoder.")).collect();
    let fitting = Fitting::of(&shapes, file, mapping);
    let mut problems = fitting.problems;
    for (name, tensor) in &fitting.taken {
        if !bool::try_from(tensor.isfinite().all()).unwrap_or(false) {
            problems.push(Mismatch::NotFinite { name: name.clone() });
        }
    }
    if !problems.is_empty() {
        return Err(WeightsError::Misfit {
            path: file.path.clone(),
            network: mapping.encoder.to_string(),
            problems: Mismatches(problems),
            hint: hint(mapping.encoder, file),
        });
    }
    let mut report = LoadReport { skipped: fitting.skipped, ..LoadReport::default() };
    for (name, tensor) in fitting.taken {
        let device = params.0.get(&name).map_or(tensor.device(), Tensor::device);
        report.numbers += tensor.numel() as i64;
        params.0.insert(name.clone(), tensor.to_device(device).copy());
        report.taken.push(name);
    }
    report
        .skipped
        .extend(file.beside.iter().map(|name| SkippedTensor { name: name.clone(), why: "outside of the encoder" }));
    tracing::info!(path = %file.path.display(), encoder = %mapping.encoder, "{report}");
    Ok(report)
}

/// A file's tensors laid over an encoder's parameters.
struct Fitting<'a> {
    taken: Vec<(String, &'a Tensor)>,
    skipped: Vec<SkippedTensor>,
    problems: Vec<Mismatch>,
}

impl<'a> Fitting<'a> {
    fn of(shapes: &[ParamSpec], file: &'a WeightsFile, mapping: &Mapping) -> Self {
        let wanted: BTreeMap<&str, &ParamSpec> = shapes.iter().map(|shape| (shape.name.as_str(), shape)).collect();
        let mut fitting = Fitting { taken: Vec::new(), skipped: Vec::new(), problems: Vec::new() };
        let mut unexpected = Vec::new();
        let mut found = BTreeSet::new();
        for (name, tensor) in &file.tensors {
            match mapping.place(name) {
                TensorDestination::Skip(why) => fitting.skipped.push(SkippedTensor { name: name.clone(), why }),
                TensorDestination::Parameter(own) => match wanted.get(own.as_str()) {
                    None => unexpected.push(Mismatch::Unexpected { name: name.clone(), shape: tensor.size() }),
                    Some(shape) => {
                        if shape.shape == tensor.size() {
                            fitting.taken.push((own.clone(), tensor));
                        } else {
                            let (network, file) = (shape.shape.clone(), tensor.size());
                            fitting.problems.push(Mismatch::Shape { name: own.clone(), network, file });
                        }
                        found.insert(own);
                    }
                },
            }
        }
        for shape in shapes.iter().filter(|shape| !found.contains(&shape.name)) {
            fitting.problems.push(Mismatch::Missing { name: shape.name.clone(), shape: shape.shape.clone() });
        }
        fitting.problems.append(&mut unexpected);
        fitting
    }
}

/// The encoder that a file is of, if it fits one of them exactly; otherwise the nearest, if it shares most of its
/// parameters.
pub fn looks_like(file: &WeightsFile) -> Option<(Encoder, bool)> {
    let mut nearest: Option<(Encoder, f64)> = None;
    for &encoder in Encoder::value_variants() {
        let shapes = Variant::from(encoder).param_specs();
        let fitting = Fitting::of(&shapes, file, &Mapping::detect(encoder, file));
        if fitting.problems.is_empty() {
            return Some((encoder, true));
        }
        let shared = fitting.taken.len() as f64 / (fitting.taken.len() + fitting.problems.len()) as f64;
        if shared > nearest.map_or(0.5, |(_, most)| most) {
            nearest = Some((encoder, shared));
        }
    }
    nearest.map(|(encoder, _)| (encoder, false))
}

/// The last line of a mismatch: what to do.
fn hint(encoder: Encoder, file: &WeightsFile) -> String {
    match looks_like(file) {
        Some((other, _)) if other == encoder => "\nthe file is of this network, but changed".to_string(),
        Some((other, true)) => format!("\nthe file looks like {other}: use `--encoder {other}`"),
        Some((other, false)) => format!("\nthe file looks most like {other}, but changed"),
        None => "\nthe file looks like none of the encoders; give weights of this network, or train with `--strategy \
             scratch`"
            .to_string(),
    }
}
