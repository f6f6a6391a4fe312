//! The search for the ONNX Runtime library and the bundled model, in a checkout and in an installed system; the state folders.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

/// A file that is in none of the places where it was searched. The text completes "NAME was …".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound {
    /// The files or folders that were searched, in this order.
    pub places: Vec<PathBuf>,
    /// The environment variable that names the only place.
    pub variable: Option<&'static str>,
}

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<String> = self.places.iter().map(|path| path.display().to_string()).collect();
        names.dedup();
        write!(f, "not found in any of: {}", names.join(", "))?;
        self.variable.map_or(Ok(()), |variable| write!(f, ", which {variable} names"))
    }
}

impl std::error::Error for NotFound {}

/// The folders to search, nearest first: those above the running program (in a checkout, `target/release` is below the
/// root), then the working folder.
fn roots() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
    let mut roots: Vec<PathBuf> =
        program.iter().flat_map(|path| path.ancestors().skip(1).take(5)).map(Path::to_path_buf).collect();
    roots.extend(std::env::current_dir().ok());
    roots
}

/// Searches the bundled model, `models/everyday.onnx`.
///
/// # Errors
/// When it is in none of the places.
pub fn default_model() -> Result<PathBuf, NotFound> {
    let mut places: Vec<PathBuf> = roots().into_iter().map(|root| root.join("models/everyday.onnx")).collect();
    places.push("/usr/share/maskcast/models/everyday.onnx".into());
    first_file(places)
}

/// The environment variable with the path of the ONNX Runtime library.
const RUNTIME_VARIABLE: &str = "ORT_DYLIB_PATH";

/// Searches `libonnxruntime.so*`: in `$ORT_DYLIB_PATH`, in a checkout's `.onnxruntime`, in an installed system, in this
/// order.
///
/// # Errors
/// When it is in none of the places.
pub fn onnx_runtime() -> Result<PathBuf, NotFound> {
    if let Some(path) = std::env::var_os(RUNTIME_VARIABLE).filter(|path| !path.is_empty()) {
        return first_file(vec![path.into()]).map_err(|error| NotFound { variable: Some(RUNTIME_VARIABLE), ..error });
    }
    let mut places: Vec<PathBuf> = roots().into_iter().map(|root| root.join(".onnxruntime/onnxruntime/capi")).collect();
    places.extend(
        ["/usr/lib/maskcast", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"]
            .map(PathBuf::from),
    );
    let libraries: Vec<PathBuf> = places.iter().filter_map(|folder| newest_library(folder)).collect();
    libraries.into_iter().next().ok_or(NotFound { places, variable: None })
}

/// `libonnxruntime.so` in `folder`, or the file with the highest version if there is no such link.
fn newest_library(folder: &Path) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so")))
        .collect();
    // The plain name sorts before the names with versions.
    found.sort();
    match found.first() {
        Some(first) if first.extension().is_some_and(|extension| extension == "so") => Some(first.clone()),
        _ => found.pop(),
    }
}

fn first_file(places: Vec<PathBuf>) -> Result<PathBuf, NotFound> {
    places.iter().find(|path| path.is_file()).cloned().ok_or(NotFound { places, variable: None })
}

/// The state folders of the service in the value of `STATE_DIRECTORY`: systemd's `StateDirectory=` may list several, separated by
/// colons. Relative paths are not used.
pub fn state_folders(list: &OsStr) -> impl Iterator<Item = PathBuf> {
    std::env::split_paths(list).filter(|folder| folder.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_without_a_version_is_preferred_then_the_highest_version() {
        let folder = tempfile::tempdir().unwrap();
        let touch = |name: &str| std::fs::write(folder.path().join(name), b"").unwrap();
        assert_eq!(newest_library(folder.path()), None);
        touch("libonnxruntime_providers_shared.so");
        touch("libonnxruntime.so.1.24.1");
        touch("libonnxruntime.so.1.32.0");
        assert!(newest_library(folder.path()).unwrap().ends_with("libonnxruntime.so.1.32.0"));
        touch("libonnxruntime.so");
        assert!(newest_library(folder.path()).unwrap().ends_with("libonnxruntime.so"));
    }
}
