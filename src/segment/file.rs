//! A model's file: looked at before it is read, so that a file that is not an ONNX model costs neither memory nor time.
//!
//! A path may name a folder, a pipe, a device or gigabytes of something else. The kind of the file, its first bytes and the
//! lengths of its protocol buffers are checked first; only then the file is read into memory.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::SegmentError;

mod foreign;
pub mod structure;

use structure::Structure;

/// What protocol buffers, and so ONNX files, have at most, in bytes.
const LARGEST: u64 = 2 << 30;

/// Bytes at the start of a file that tell its format.
const HEAD: usize = 512;

/// A model as it was read from disk.
#[derive(Clone, Debug)]
pub struct ModelFile {
    /// The whole `.onnx` file.
    pub bytes: Bytes,
    /// Its nodes; empty for a file in ONNX Runtime's own format (`.ort`).
    pub structure: Structure,
    /// Its weights that lie in files beside it.
    pub external: Vec<ExternalWeights>,
}

/// A weight file, held in memory: ONNX Runtime would map the file instead, and a process that writes a new one over it would stop
/// the process (SIGBUS) or change the weights of a model that runs.
#[derive(Clone, Debug)]
pub struct ExternalWeights {
    /// As the model names it.
    pub name: String,
    pub bytes: Arc<[u8]>,
}

/// Reads the model at `path`.
///
/// # Errors
/// What lies at `path` instead of a model, or which of its weight files is missing; with the path.
pub fn read(path: &Path) -> Result<ModelFile, SegmentError> {
    let located = |problem: String| SegmentError(format!("{}: {problem}", path.display()));
    let (mut file, length) = open(path).map_err(located)?;
    let structure = inspect(&mut file, length).map_err(located)?;
    let external = structure.external.iter().map(|name| read_external(path, name));
    let external = external.collect::<Result<Vec<_>, _>>().map_err(located)?;
    let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
    file.take(length).read_to_end(&mut bytes).map_err(|error| located(error.to_string()))?;
    if bytes.len() as u64 != length {
        return Err(located(
            "the file became shorter while it was read; write models under another name and rename".into(),
        ));
    }
    Ok(ModelFile { bytes: bytes.into(), structure, external })
}

/// The weight files of the model at `path`; none where there is no model that can be read.
pub fn external_of(path: &Path) -> Vec<PathBuf> {
    let structure = open(path).and_then(|(mut file, length)| inspect(&mut file, length));
    structure.map(|structure| external_files(path, &structure)).unwrap_or_default()
}

/// The folder that relative names in a model start from: `.` for a file that is named without a folder.
pub fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn external_files(path: &Path, structure: &Structure) -> Vec<PathBuf> {
    structure.external.iter().map(|name| folder_of(path).join(name)).collect()
}

/// Opens a regular file that an ONNX model could be; gives its length too.
fn open(path: &Path) -> Result<(File, u64), String> {
    // Before it is opened: opening a pipe waits for its writer, and opening some devices does something.
    check_kind(&std::fs::metadata(path).map_err(|error| error.to_string())?)?;
    // Without waiting, in case that the path names something else by now.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| error.to_string())?;
    let facts = file.metadata().map_err(|error| error.to_string())?;
    check_kind(&facts)?;
    match facts.len() {
        0 => Err("the file is empty; copy or export the model again".into()),
        length if length > LARGEST => Err(format!(
            "it has {length} bytes, more than an ONNX file can have ({LARGEST}); export large weights as external data"
        )),
        length => Ok((file, length)),
    }
}

fn check_kind(facts: &Metadata) -> Result<(), String> {
    let kind = facts.file_type();
    let what = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a folder"
    } else if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(format!("it is {what}; give the path of an ONNX file"))
}

/// Reads the nodes of the file and leaves it at its start.
fn inspect(file: &mut File, length: u64) -> Result<Structure, String> {
    let failed = |error: std::io::Error| error.to_string();
    let mut head = Vec::with_capacity(HEAD);
    file.by_ref().take(HEAD as u64).read_to_end(&mut head).map_err(failed)?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    if foreign::is_ort_format(&head) {
        return Ok(Structure::default());
    }
    if let Some(problem) = foreign::named(&head) {
        return Err(format!("it is not an ONNX model but {problem}"));
    }
    let structure = structure::read(&mut *file, length)
        .map_err(|damage| format!("it is not a complete ONNX model ({damage}); copy or export it again"))?;
    file.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(structure)
}

/// Reads the weight file `name` of the model at `path`.
fn read_external(path: &Path, name: &str) -> Result<ExternalWeights, String> {
    let data = folder_of(path).join(name);
    let failed = |problem: &dyn std::fmt::Display| {
        format!("its weights are in {}: {problem}; put that file beside the model", data.display())
    };
    check_kind(&std::fs::metadata(&data).map_err(|error| failed(&error))?).map_err(|problem| failed(&problem))?;
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&data);
    let mut file = file.map_err(|error| failed(&error))?;
    let facts = file.metadata().map_err(|error| failed(&error))?;
    check_kind(&facts).map_err(|problem| failed(&problem))?;
    let length = usize::try_from(facts.len()).map_err(|error| failed(&error))?;
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, length).collect();
    if let Some(bytes) = Arc::get_mut(&mut bytes) {
        file.read_exact(bytes).map_err(|error| failed(&error))?;
    }
    Ok(ExternalWeights { name: name.into(), bytes })
}

#[cfg(test)]
mod tests;
