//! A new U-Net from one that was trained before, also for other classes.

use std::fmt;
use std::path::Path;

use maskcast::frame::Label;
use tch::{Kind, Tensor};

use super::error::{Mismatch, Mismatches};
use super::{ModelDescription, ModelFile, WeightsError};
use crate::net::{Net, Params};

/// What a new model got from an old one.
#[derive(Clone, Debug)]
pub struct InitReport {
    /// Number of tensors that were taken.
    pub taken: usize,
    /// Names of the classes whose row of the head was taken.
    pub kept: Vec<String>,
    /// Names of the classes that begin fresh.
    pub fresh: Vec<String>,
    /// What the old model is.
    pub from: ModelDescription,
}

impl fmt::Display for InitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "took {} tensors of a U-Net over {}", self.taken, self.from.encoder)?;
        if !self.kept.is_empty() {
            write!(f, "; classes it knows: {}", self.kept.join(", "))?;
        }
        if !self.fresh.is_empty() {
            write!(f, "; classes new to it: {}", self.fresh.join(", "))?;
        }
        Ok(())
    }
}

/// Starts `net`, whose classes are `labels`, from the model weights at `path` (a [`ModelFile`]). Encoder and decoder
/// are taken whole; of the head, the rows of the classes that both models call by the same name (upper and lower case
/// are one), in the order of `labels`. Other rows stay as they are in `params`, which are unchanged after an error.
///
/// An exported ONNX file is refused: its batch norms are folded into the convolutions, so their statistics, and with
/// them most of what fine-tuning could adapt, are lost.
///
/// # Errors
/// If the file is no model of the trainer's, or its network is another.
pub fn init_from_model(
    net: &Net,
    params: &mut Params,
    labels: &[Label],
    path: &Path,
) -> Result<InitReport, WeightsError> {
    let ModelFile { about, params: old } = ModelFile::read(path)?;
    let mismatch = |problems: Vec<Mismatch>, hint: String| WeightsError::Misfit {
        path: path.to_path_buf(),
        network: "the network to be trained".into(),
        problems: Mismatches(problems),
        hint,
    };
    let same = format!(
        "\nthe model is a U-Net over {} of flavour {} with a {} decoder of widths {}: train with those, or without \
         `--init`",
        about.encoder,
        about.flavour,
        serde_json::to_value(about.decoder.kind)
            .ok()
            .and_then(|kind| kind.as_str().map(String::from))
            .unwrap_or_default(),
        about.decoder.widths.iter().map(i64::to_string).collect::<Vec<_>>().join(",")
    );
    if about.normalise != net.normalise {
        return Err(mismatch(Vec::new(), format!(" its input is normalised differently{same}")));
    }
    let mut problems = Vec::new();
    let mut taken: Vec<(String, &Tensor)> = Vec::new();
    for shape in net.param_specs() {
        let is_head = shape.name.starts_with("head.");
        match old.0.get(&shape.name) {
            None => problems.push(Mismatch::Missing { name: shape.name, shape: shape.shape }),
            Some(tensor) if is_head => {
                // Rows are classes; what goes into them has to be alike.
                if tensor.size()[1..] != shape.shape[1..] {
                    problems.push(Mismatch::Shape { name: shape.name, network: shape.shape, file: tensor.size() });
                }
            }
            Some(tensor) if tensor.size() != shape.shape => {
                problems.push(Mismatch::Shape { name: shape.name, network: shape.shape, file: tensor.size() });
            }
            Some(tensor) => taken.push((shape.name, tensor)),
        }
    }
    let known: std::collections::BTreeSet<String> = net.param_specs().into_iter().map(|shape| shape.name).collect();
    for (name, tensor) in old.0.iter().filter(|(name, _)| !known.contains(*name)) {
        problems.push(Mismatch::Unexpected { name: name.clone(), shape: tensor.size() });
    }
    if !problems.is_empty() {
        return Err(mismatch(problems, same));
    }

    let mut report = InitReport { taken: taken.len(), kept: Vec::new(), fresh: Vec::new(), from: about };
    for (name, tensor) in taken {
        put(params, &name, tensor);
    }
    let row_of = |name: &str| report.from.labels.iter().position(|label| label.name.eq_ignore_ascii_case(name));
    let rows: Vec<Option<usize>> = labels.iter().map(|label| row_of(&label.name)).collect();
    for suffix in ["weight", "bias"] {
        let name = format!("head.{suffix}");
        let (fresh, trained) = (params.get(&name).detach().to_kind(Kind::Float), old.get(&name));
        let row = |(class, row): (usize, &Option<usize>)| match row {
            Some(row) => trained.get(*row as i64).to_device(fresh.device()),
            None => fresh.get(class as i64),
        };
        let head = Tensor::stack(&rows.iter().enumerate().map(row).collect::<Vec<_>>(), 0);
        put(params, &name, &head);
    }
    for (label, row) in labels.iter().zip(rows) {
        let list = if row.is_some() { &mut report.kept } else { &mut report.fresh };
        list.push(label.name.clone());
    }
    tracing::info!(path = %path.display(), "{report}");
    Ok(report)
}

/// Replaces a parameter, on the device that it was on.
fn put(params: &mut Params, name: &str, tensor: &Tensor) {
    let device = params.0.get(name).map_or(tensor.device(), Tensor::device);
    params.0.insert(name.to_string(), tensor.to_device(device).copy());
}
