//! The files of a model, which are watched for changes.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::segment::file;
use crate::segment::manifest::ModelManifest;

/// Length and modification time of a file; `None` if it does not exist.
type FileVersion = Option<(u64, SystemTime)>;

/// The state of a model's file, its manifest and its weight files; it differs after any of them was written.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ModelFilesVersion {
    pub(super) model: FileVersion,
    manifest: FileVersion,
    external: Vec<FileVersion>,
}

/// The files of a model, which are checked for changes.
pub(super) struct WatchedModelFiles {
    model: PathBuf,
    /// Weight files that the model refers to, as of `parsed`.
    external: Vec<PathBuf>,
    parsed: FileVersion,
}

impl WatchedModelFiles {
    pub(super) fn of(model: &Path) -> WatchedModelFiles {
        WatchedModelFiles { model: model.to_path_buf(), external: Vec::new(), parsed: None }
    }

    pub(super) fn version(&mut self) -> ModelFilesVersion {
        let model = file_version(&self.model);
        if model != self.parsed {
            (self.external, self.parsed) = (file::external_of(&self.model), model);
        }
        let external = self.external.iter().map(|path| file_version(path)).collect();
        ModelFilesVersion { model, manifest: file_version(&ModelManifest::path_for(&self.model)), external }
    }
}

fn file_version(path: &Path) -> FileVersion {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.modified().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_manifest_or_weight_file_has_another_version() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        let mut files = WatchedModelFiles::of(&path);
        let missing = files.version();
        std::fs::write(&path, "one").unwrap();
        let first = files.version();
        // A node, and a tensor whose data is in the file "w".
        let tensor = b"\x6a\x0d\x0a\x08location\x12\x01w";
        let mut graph = b"\x0a\x02\x22\x00\x2a".to_vec();
        graph.push(tensor.len() as u8);
        graph.extend(tensor);
        let model = [&[0x3a, graph.len() as u8], graph.as_slice()].concat();
        std::fs::write(&path, model).unwrap();
        let second = files.version();
        std::fs::write(folder.path().join("model.toml"), "manifest").unwrap();
        let third = files.version();
        std::fs::write(folder.path().join("w"), "weights").unwrap();
        let fourth = files.version();
        std::fs::write(folder.path().join("w"), "other weights").unwrap();
        let versions = [missing, first, second, third, fourth, files.version()];
        for (n, version) in versions.iter().enumerate() {
            assert!(versions[..n].iter().all(|before| before != version), "{n}");
        }
    }
}
