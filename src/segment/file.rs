//! Reads a model file, after a check that costs little memory and time for files that are not ONNX models.
//!
//! A path may name a folder, a pipe, a device or gigabytes of other data. The kind of the file, its first bytes and the
//! lengths of its protocol buffers are checked before the file is read into memory.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

mod foreign;
pub mod structure;

use structure::{ModelFileDamage, Structure};

/// Largest size of a protocol buffer, and so of an ONNX file, in bytes.
const MAX_BYTES: u64 = 2 << 30;

/// Bytes at the start of a file that identify its format.
const HEAD: usize = 512;

/// Why a file is not a model that can be read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ModelFileProblem {
    #[error("{0}")]
    Io(#[source] Arc<std::io::Error>),
    #[error("it is {0}; give the path of an ONNX file")]
    Kind(FileKind),
    #[error("the file is empty; copy or export the model again")]
    Empty,
    #[error("it has {0} bytes, more than an ONNX file can have ({MAX_BYTES}); export large weights as external data")]
    TooLarge(u64),
    #[error("the file became shorter while it was read; write models under another name and rename them")]
    Truncated,
    /// What the file is instead, and what to do.
    #[error("it is not an ONNX model but {0}")]
    Foreign(&'static str),
    #[error("it is not a complete ONNX model ({0}); copy or export it again")]
    Damaged(#[from] ModelFileDamage),
    #[error("its weights are in {}: {problem}; put that file beside the model", .path.display())]
    Weights {
        path: PathBuf,
        #[source]
        problem: Box<ModelFileProblem>,
    },
}

impl From<std::io::Error> for ModelFileProblem {
    fn from(error: std::io::Error) -> Self {
        ModelFileProblem::Io(error.into())
    }
}

/// What a path names when it is not a regular file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Folder,
    Pipe,
    Socket,
    Device,
}

impl std::fmt::Display for FileKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            FileKind::Folder => "a folder",
            FileKind::Pipe => "a named pipe",
            FileKind::Socket => "a socket",
            FileKind::Device => "a device",
        })
    }
}

/// The content of a model file and of its weight files.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// The whole `.onnx` file.
    pub bytes: Bytes,
    /// The nodes of the graph; empty for a file in the format of ONNX Runtime (`.ort`).
    pub structure: Structure,
    /// Weights in files beside the model.
    pub external: Vec<ExternalWeights>,
    /// SHA-256 of the `.onnx` file as it was read, in hexadecimal digits.
    pub sha256: Arc<str>,
}

/// The content of a weight file. ONNX Runtime would map the file instead: a program that overwrites it would then end this
/// process (SIGBUS) or change the weights of a running model.
#[derive(Clone, Debug)]
pub struct ExternalWeights {
    /// The name in the model.
    pub name: String,
    pub bytes: Arc<[u8]>,
}

/// Reads the model at `path`.
///
/// # Errors
/// The file is not a model, or one of its weight files is missing.
pub fn read(path: &Path) -> Result<ModelFile, ModelFileProblem> {
    let (mut file, length) = open(path)?;
    let structure = read_structure(&mut file, length)?;
    let external = structure.external.iter().map(|name| read_external(path, name));
    let external = external.collect::<Result<Vec<_>, _>>()?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(ModelFileProblem::Truncated);
    }
    let sha256 = hex::encode(Sha256::digest(&bytes)).into();
    Ok(ModelFile { bytes: bytes.into(), structure, external, sha256 })
}

/// The paths of the weight files of the model at `path`; empty when the model cannot be read.
pub fn external_of(path: &Path) -> Vec<PathBuf> {
    let structure = open(path).and_then(|(mut file, length)| read_structure(&mut file, length));
    structure.map(|structure| external_files(path, &structure)).unwrap_or_default()
}

/// The folder that names in the model are relative to: `.` for a path without a folder.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn external_files(path: &Path, structure: &Structure) -> Vec<PathBuf> {
    structure.external.iter().map(|name| folder_of(path).join(name)).collect()
}

/// Opens a regular file of a size that an ONNX model can have. Returns the file and its length in bytes.
fn open(path: &Path) -> Result<(File, u64), ModelFileProblem> {
    // Checked before the file is opened: opening a pipe blocks until it has a writer, and opening some devices has effects.
    check_kind(&std::fs::metadata(path)?)?;
    // O_NONBLOCK in case that the path was replaced in the meantime.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    check_kind(&metadata)?;
    match metadata.len() {
        0 => Err(ModelFileProblem::Empty),
        length if length > MAX_BYTES => Err(ModelFileProblem::TooLarge(length)),
        length => Ok((file, length)),
    }
}

fn check_kind(metadata: &Metadata) -> Result<(), ModelFileProblem> {
    let kind = metadata.file_type();
    Err(ModelFileProblem::Kind(if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        FileKind::Folder
    } else if kind.is_fifo() {
        FileKind::Pipe
    } else if kind.is_socket() {
        FileKind::Socket
    } else {
        FileKind::Device
    }))
}

/// Reads the nodes of the file and seeks back to its start.
fn read_structure(file: &mut File, length: u64) -> Result<Structure, ModelFileProblem> {
    let mut head = Vec::with_capacity(HEAD);
    file.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    file.seek(SeekFrom::Start(0))?;
    if foreign::is_ort_format(&head) {
        return Ok(Structure::default());
    }
    if let Some(format) = foreign::format_and_remedy(&head) {
        return Err(ModelFileProblem::Foreign(format));
    }
    let structure = structure::read(&mut *file, length)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(structure)
}

/// Reads the weight file `name` of the model at `path`.
fn read_external(path: &Path, name: &str) -> Result<ExternalWeights, ModelFileProblem> {
    let weights = folder_of(path).join(name);
    match read_weights(&weights) {
        Ok(bytes) => Ok(ExternalWeights { name: name.into(), bytes }),
        Err(problem) => Err(ModelFileProblem::Weights { path: weights, problem: problem.into() }),
    }
}

fn read_weights(path: &Path) -> Result<Arc<[u8]>, ModelFileProblem> {
    check_kind(&std::fs::metadata(path)?)?;
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    check_kind(&metadata)?;
    let length = usize::try_from(metadata.len()).map_err(|_| ModelFileProblem::TooLarge(metadata.len()))?;
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
    if let Some(bytes) = Arc::get_mut(&mut bytes) {
        file.read_exact(bytes)?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
