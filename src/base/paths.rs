//! Where the program finds what comes with it: the ONNX Runtime library and the bundled model, in a checkout and in an
//! installed system, without the user setting variables.

use std::path::{Path, PathBuf};

/// Folders to look in, nearest first: the ones above the running program (a checkout's `target/release` and `target`
/// lie below its root), then the working folder.
fn roots() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok().and_then(|path| path.canonicalize().ok());
    let mut roots: Vec<PathBuf> =
        program.iter().flat_map(|path| path.ancestors().skip(1).take(5)).map(Path::to_path_buf).collect();
    roots.extend(std::env::current_dir().ok());
    roots
}

/// The bundled model, `models/street.onnx`, or where it was looked for.
///
/// # Errors
/// The list of places, when it is in none of them.
pub fn default_model() -> Result<PathBuf, String> {
    let mut places: Vec<PathBuf> = roots().into_iter().map(|root| root.join("models/street.onnx")).collect();
    places.push("/usr/share/maskcast/models/street.onnx".into());
    first_file(&places)
}

/// `libonnxruntime.so*`: `$ORT_DYLIB_PATH`, a checkout's `.onnxruntime`, an installed system, in this order.
///
/// # Errors
/// The list of places, when it is in none of them.
pub fn onnx_runtime() -> Result<PathBuf, String> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|path| !path.is_empty()) {
        return first_file(&[path.into()]).map_err(|places| format!("{places}, which ORT_DYLIB_PATH names"));
    }
    let mut places: Vec<PathBuf> = roots().into_iter().map(|root| root.join(".onnxruntime/onnxruntime/capi")).collect();
    places.extend(
        ["/usr/lib/maskcast", "/usr/local/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib"]
            .map(PathBuf::from),
    );
    let libraries: Vec<PathBuf> = places.iter().filter_map(|folder| newest_library(folder)).collect();
    libraries.into_iter().next().ok_or_else(|| list(&places))
}

/// `libonnxruntime.so` in `folder`, or the versioned file when there is no such link.
fn newest_library(folder: &Path) -> Option<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so")))
        .collect();
    // The plain name sorts before the versions and is the system's own choice; else the highest version.
    found.sort();
    match found.first() {
        Some(first) if first.extension().is_some_and(|extension| extension == "so") => Some(first.clone()),
        _ => found.pop(),
    }
}

fn first_file(places: &[PathBuf]) -> Result<PathBuf, String> {
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| list(places))
}

fn list(places: &[PathBuf]) -> String {
    let mut names: Vec<String> = places.iter().map(|path| path.display().to_string()).collect();
    names.dedup();
    format!("not found in any of: {}", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_plain_library_name_before_a_version_and_the_highest_version_otherwise() {
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
