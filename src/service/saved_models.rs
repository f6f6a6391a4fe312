//! Writes the files of models that clients have changed to the configuration, so that the next start loads them.

use std::path::Path;

use crate::config::{self, ConfigErrors};
use crate::view::request::SaveError;
use crate::view::{NamedModel, Saving, ServiceView};

/// Writes the path of each model that runs another file than the configuration has, if its client asked for that, with the file
/// that ran before.
pub(super) fn save_models(path: &Path, view: &ServiceView) {
    for model in view.models().iter() {
        let Some(file) = model.unsaved() else { continue };
        let saving = match save(path, model, &file) {
            Ok(()) => {
                let (config, file) = (path.display(), file.display());
                tracing::info!(model = &*model.name, "model path written to the configuration {config}: {file}");
                Saving::Saved
            }
            Err(error) => {
                let name = &*model.name;
                tracing::warn!(
                    model = name,
                    "model path not written to the configuration, the next start loads the file before: {error}"
                );
                Saving::Failed(error.to_string())
            }
        };
        model.set_saved(&file, saving);
    }
}

/// Why the path of a model was not written.
#[derive(Debug, thiserror::Error)]
enum ModelSaveError {
    #[error("stream {0:?} has [stream.redact]: only the configuration file can change its model")]
    Redacted(String),
    #[error(transparent)]
    Save(#[from] SaveError),
}

fn save(path: &Path, model: &NamedModel, file: &Path) -> Result<(), ModelSaveError> {
    let invalid = |errors: ConfigErrors| SaveError::FileInvalid { path: path.to_path_buf(), errors };
    let before = config::read(path).map_err(invalid)?;
    let config = config::parse(&before, path).map_err(invalid)?;
    // The file may have been changed since the request.
    let redacted = config.streams_of(&model.name).find(|stream| stream.redact.is_some());
    if let Some(stream) = redacted {
        return Err(ModelSaveError::Redacted(stream.name.clone()));
    }
    let previous = model.files().previous;
    let after = config::edit_model(&before, &model.name, file, previous.as_deref()).map_err(SaveError::from)?;
    if after != before {
        config::parse(&after, path).map_err(invalid)?;
        config::replace(path, &before, &after).map_err(SaveError::from)?;
    }
    Ok(())
}
