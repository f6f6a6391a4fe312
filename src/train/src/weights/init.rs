//! Initialises a U-Net with the weights of a trained one, which may have other classes.

use std::fmt;
use std::path::Path;

use maskcast::frame::Label;
use tch::{Kind, Tensor};

use super::description::ModelDescription;
use super::error::{MisfitHint, Mismatch, Mismatches, WeightsError};
use super::model_file::ModelFile;
use crate::net::{Net, Params};

/// Which weights of a trained model were used.
#[derive(Clone, Debug)]
pub struct InitReport {
    /// The number of tensors that were loaded, without the head.
    pub taken: usize,
    /// The names of the classes whose weights of the head were loaded.
    pub kept: Vec<String>,
    /// The names of the classes that keep their initial weights of the head.
    pub fresh: Vec<String>,
    /// The description of the trained model.
    pub from: ModelDescription,
}

impl fmt::Display for InitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "took {} tensors of a U-Net with the encoder {}", self.taken, self.from.encoder)?;
        if !self.kept.is_empty() {
            write!(f, "; classes in both models: {}", self.kept.join(", "))?;
        }
        if !self.fresh.is_empty() {
            write!(f, "; new classes: {}", self.fresh.join(", "))?;
        }
        Ok(())
    }
}

/// Loads the weights of `model`, which was read from the file at `path`, into `net`, whose classes are `labels`. All weights of the
/// encoder and the decoder are loaded, and those weights of the head whose class has the same name in both models (ignoring case).
/// The weights of other classes in `params` are unchanged. After an error, all `params` are unchanged.
///
/// # Errors
/// The network of the model is a different one.
pub fn init_from_model(
    net: &Net,
    params: &mut Params,
    labels: &[Label],
    model: ModelFile,
    path: &Path,
) -> Result<InitReport, WeightsError> {
    let ModelFile { description, params: old } = model;
    let mut mismatches = Vec::new();
    if description.normalise != net.normalise {
        mismatches.push(Mismatch::Normalisation);
    }
    let mut taken: Vec<(String, &Tensor)> = Vec::new();
    for spec in net.param_specs() {
        let is_head = spec.name.starts_with("head.");
        match old.0.get(&spec.name) {
            None => mismatches.push(Mismatch::Missing { name: spec.name, shape: spec.shape }),
            // The first axis of the head is the class.
            Some(tensor) if is_head && tensor.size()[1..] == spec.shape[1..] => {}
            Some(tensor) if is_head || tensor.size() != spec.shape => {
                mismatches.push(Mismatch::Shape { name: spec.name, network: spec.shape, file: tensor.size() });
            }
            Some(tensor) => taken.push((spec.name, tensor)),
        }
    }
    let known: std::collections::BTreeSet<String> = net.param_specs().into_iter().map(|spec| spec.name).collect();
    for (name, tensor) in old.0.iter().filter(|(name, _)| !known.contains(*name)) {
        mismatches.push(Mismatch::Unexpected { name: name.clone(), shape: tensor.size() });
    }
    if !mismatches.is_empty() {
        let ModelDescription { encoder, flavour, decoder, .. } = description;
        return Err(WeightsError::Misfit {
            path: path.to_path_buf(),
            network: "the network to be trained".into(),
            mismatches: Mismatches(mismatches),
            hint: MisfitHint::Model { encoder, flavour, decoder },
        });
    }

    let mut report = InitReport { taken: taken.len(), kept: Vec::new(), fresh: Vec::new(), from: description };
    for (name, tensor) in taken {
        put(params, &name, tensor);
    }
    let class_in_old = |name: &str| report.from.labels.iter().position(|label| label.name.eq_ignore_ascii_case(name));
    let old_classes: Vec<Option<usize>> = labels.iter().map(|label| class_in_old(&label.name)).collect();
    for suffix in ["weight", "bias"] {
        let name = format!("head.{suffix}");
        let (fresh, trained) = (params.get(&name).detach().to_kind(Kind::Float), old.get(&name));
        let weights_of = |(class, old_class): (usize, &Option<usize>)| match old_class {
            Some(old_class) => trained.get(*old_class as i64).to_device(fresh.device()),
            None => fresh.get(class as i64),
        };
        let head = Tensor::stack(&old_classes.iter().enumerate().map(weights_of).collect::<Vec<_>>(), 0);
        put(params, &name, &head);
    }
    for (label, old_class) in labels.iter().zip(old_classes) {
        let list = if old_class.is_some() { &mut report.kept } else { &mut report.fresh };
        list.push(label.name.clone());
    }
    tracing::info!(path = %path.display(), "loaded a trained model: {report}");
    Ok(report)
}

/// Replaces a parameter. Its device is unchanged.
fn put(params: &mut Params, name: &str, tensor: &Tensor) {
    let device = params.0.get(name).map_or(tensor.device(), Tensor::device);
    params.0.insert(name.to_string(), tensor.to_device(device).copy());
}
