//! The cache of TensorRT engines. TensorRT compiles an engine in minutes, for one model, GPU, driver and version of TensorRT.
//! Each combination has its own folder in the cache, so that an engine of another combination is never loaded.

use std::fs;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::file::ModelFile;

/// The combination that an engine is compiled for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineKey {
    /// First 12 hexadecimal digits of the SHA-256 of the model file and, where it has them, its weight files.
    pub model: String,
    /// Name of the GPU as reported by the driver.
    pub gpu: String,
    /// Version of the driver.
    pub driver: String,
    /// Version of `libnvinfer.so`.
    pub tensorrt: String,
}

/// Where this machine describes its GPUs, driver and libraries. Tests set other folders.
#[derive(Clone, Debug)]
pub struct RuntimePaths {
    /// The files of the driver: `/proc/driver/nvidia`.
    pub driver: PathBuf,
    /// Folders of shared libraries.
    pub libraries: Vec<PathBuf>,
}

impl Default for RuntimePaths {
    fn default() -> Self {
        let fixed =
            ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/local/lib", "/usr/local/tensorrt/lib"];
        let own = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let libraries = std::env::split_paths(&own).chain(fixed.iter().map(PathBuf::from)).collect();
        RuntimePaths { driver: "/proc/driver/nvidia".into(), libraries }
    }
}

/// A part of the key that cannot be determined.
const UNKNOWN: &str = "unknown";

impl EngineKey {
    /// The key of a model on GPU number `device` of this machine.
    pub fn of(file: &ModelFile, device: i32, paths: &RuntimePaths) -> EngineKey {
        let mut hash = Sha256::new();
        hash.update(&file.bytes);
        file.external.iter().for_each(|data| hash.update(&data.bytes));
        let hash = hash.finalize();
        EngineKey {
            model: hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect(),
            gpu: gpu(&paths.driver, device).unwrap_or_else(|| UNKNOWN.into()),
            driver: driver(&paths.driver).unwrap_or_else(|| UNKNOWN.into()),
            tensorrt: tensorrt(&paths.libraries).unwrap_or_else(|| UNKNOWN.into()),
        }
    }

    /// The folder in `cache` for the engines of this key alone.
    pub fn folder(&self, cache: &Path) -> PathBuf {
        let sanitised = |text: &str| -> String {
            text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect()
        };
        let EngineKey { model, gpu, driver, tensorrt } = self;
        cache.join(format!("{model}_{}_driver-{}_tensorrt-{}", sanitised(gpu), sanitised(driver), sanitised(tensorrt)))
    }

    /// Whether a GPU was found.
    pub fn has_gpu(&self) -> bool {
        self.gpu != UNKNOWN
    }

    /// Whether the cache has an engine for this key.
    pub fn is_built(&self, cache: &Path) -> bool {
        let is_engine = |path: PathBuf| path.extension().is_some_and(|extension| extension == "engine");
        fs::read_dir(self.folder(cache))
            .is_ok_and(|entries| entries.filter_map(Result::ok).any(|entry| is_engine(entry.path())))
    }
}

/// Whether the kernel has a device file of an NVIDIA GPU, on a PC or a Jetson.
pub fn has_nvidia_gpu() -> bool {
    ["/dev/nvidiactl", "/dev/nvidia0", "/dev/nvmap"].iter().any(|device| Path::new(device).exists())
}

/// The name in the line `Model: NVIDIA H100 80GB HBM3` of the file of the GPU. The files are in bus order, as device numbers of
/// CUDA are with `CUDA_DEVICE_ORDER=PCI_BUS_ID`.
fn gpu(driver: &Path, device: i32) -> Option<String> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(driver.join("gpus")).ok()?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    files.sort();
    let folder = files.get(usize::try_from(device).ok()?)?;
    let text = fs::read_to_string(folder.join("information")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Model:"))?;
    Some(line.trim_start_matches("Model:").trim().to_string())
}

/// The version in `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 …`.
fn driver(driver: &Path) -> Option<String> {
    let text = fs::read_to_string(driver.join("version")).ok()?;
    let words = text.lines().find(|line| line.starts_with("NVRM version"))?.split_whitespace();
    words.map(str::to_string).find(|word| {
        word.contains('.') && word.split('.').all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// The version `10.3.0` in the name `libnvinfer.so.10.3.0`.
fn tensorrt(libraries: &[PathBuf]) -> Option<String> {
    libraries.iter().find_map(|folder| {
        let names = fs::read_dir(folder).ok()?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        // The longest version is the most exact.
        names
            .filter_map(|name| Some(name.strip_prefix("libnvinfer.so.")?.to_string()))
            .max_by_key(|version| (version.len(), version.clone()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::file::ExternalWeights;
    use crate::segment::file::structure::Structure;

    /// The files of a machine with two GPUs.
    fn machine(folder: &Path) -> RuntimePaths {
        let driver = folder.join("driver");
        for (bus, name) in [("0000:01:00.0", "NVIDIA H100 80GB HBM3"), ("0000:02:00.0", "NVIDIA L4")] {
            let gpu = driver.join("gpus").join(bus);
            fs::create_dir_all(&gpu).unwrap();
            fs::write(gpu.join("information"), format!("Model: \t\t {name}\nIRQ:   \t\t 42\n")).unwrap();
        }
        let version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\nGCC version:  12.2.0\n";
        fs::write(driver.join("version"), version).unwrap();
        let libraries = folder.join("lib");
        fs::create_dir_all(&libraries).unwrap();
        for name in ["libnvinfer.so.10", "libnvinfer.so.10.3.0", "libnvinfer_plugin.so.9.9.9"] {
            fs::write(libraries.join(name), "").unwrap();
        }
        RuntimePaths { driver, libraries: vec![folder.join("none"), libraries] }
    }

    fn model(bytes: &'static [u8]) -> ModelFile {
        ModelFile { bytes: bytes.into(), structure: Structure::default(), external: Vec::new(), sha256: "".into() }
    }

    #[test]
    fn the_key_depends_on_external_weights() {
        let folder = tempfile::tempdir().unwrap();
        let paths = machine(folder.path());
        let key = |weights: &[u8]| {
            let external = vec![ExternalWeights { name: "model.onnx.data".into(), bytes: weights.into() }];
            EngineKey::of(&ModelFile { external, ..model(b"model") }, 0, &paths)
        };
        assert_eq!(key(b"first"), key(b"first"));
        assert_ne!(key(b"first"), key(b"other"));
    }

    #[test]
    fn the_key_has_model_gpu_driver_and_tensorrt() {
        let folder = tempfile::tempdir().unwrap();
        let paths = machine(folder.path());
        let key = EngineKey::of(&model(b"model"), 0, &paths);
        assert_eq!((key.gpu.as_str(), key.driver.as_str()), ("NVIDIA H100 80GB HBM3", "550.54.15"));
        assert_eq!((key.tensorrt.as_str(), key.model.len()), ("10.3.0", 12));
        let cache = folder.path().join("cache");
        let name = key.folder(&cache).file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(name, format!("{}_NVIDIA-H100-80GB-HBM3_driver-550.54.15_tensorrt-10.3.0", key.model));
        // Another model or GPU has another folder.
        assert_ne!(EngineKey::of(&model(b"another"), 0, &paths).folder(&cache), key.folder(&cache));
        assert_ne!(EngineKey::of(&model(b"model"), 1, &paths).folder(&cache), key.folder(&cache));
    }

    #[test]
    fn an_engine_is_found_by_its_own_key_only() {
        let folder = tempfile::tempdir().unwrap();
        let paths = machine(folder.path());
        let (first, second) = (EngineKey::of(&model(b"model"), 0, &paths), EngineKey::of(&model(b"model"), 1, &paths));
        fs::create_dir_all(first.folder(folder.path())).unwrap();
        assert!(!first.is_built(folder.path()));
        fs::write(first.folder(folder.path()).join("TensorrtExecutionProvider_TRTKernel.engine"), "").unwrap();
        assert!(first.is_built(folder.path()) && !second.is_built(folder.path()));
    }

    #[test]
    fn a_machine_without_driver_files_has_an_unknown_key() {
        let paths = RuntimePaths { driver: "/nowhere".into(), libraries: Vec::new() };
        let key = EngineKey::of(&model(b"model"), 0, &paths);
        assert_eq!((key.gpu.as_str(), key.driver.as_str(), key.tensorrt.as_str()), (UNKNOWN, UNKNOWN, UNKNOWN));
    }
}
