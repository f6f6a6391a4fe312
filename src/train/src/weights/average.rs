//! The average of two trained models.

use std::path::{Path, PathBuf};

use maskcast::frame::Label;

use super::model_file::ModelFile;

/// Why two models cannot be averaged.
#[derive(Debug, thiserror::Error)]
pub enum AverageError {
    #[error(
        "{}: the model has another encoder, decoder or classes; only weights of the same network can be averaged",
        .0.display()
    )]
    OtherNetwork(PathBuf),
}

/// Averages the weights of a model with those of another, which was read from `path`; they get `share`, 0 to 1 (Wortsman et al., *Robust
/// fine-tuning of zero-shot models*, CVPR 2022: the average of a model before and after fine-tuning is better than both on other
/// images).
///
/// # Errors
/// The other model is of another network.
pub fn average(model: &mut ModelFile, other: &ModelFile, path: &Path, share: f64) -> Result<(), AverageError> {
    let (own, others) = (&model.description, &other.description);
    let names = |labels: &[Label]| labels.iter().map(|label| label.name.clone()).collect::<Vec<_>>();
    if (own.encoder, &own.decoder, own.normalise) != (others.encoder, &others.decoder, others.normalise)
        || names(&own.labels) != names(&others.labels)
    {
        return Err(AverageError::OtherNetwork(path.to_path_buf()));
    }
    for (name, tensor) in &mut model.params.0 {
        *tensor = &*tensor * (1.0 - share) + other.params.get(name) * share;
    }
    Ok(())
}
