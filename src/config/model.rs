//! `[model]`, or several `[[model]]`: the models and how they are run.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::devices::{Devices, schema as devices_schema};
use super::document::Section;

/// An execution provider of ONNX Runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// TensorRT on an NVIDIA GPU.
    TensorRt,
    /// CUDA on an NVIDIA GPU.
    Cuda,
    /// The CPU.
    Cpu,
}

impl Provider {
    pub const ALL: [Provider; 3] = [Provider::TensorRt, Provider::Cuda, Provider::Cpu];

    /// The name in the configuration, in metrics and in logs.
    pub fn name(self) -> &'static str {
        match self {
            Provider::TensorRt => "tensorrt",
            Provider::Cuda => "cuda",
            Provider::Cpu => "cpu",
        }
    }
}

/// The providers that may run the model (`model.require`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Require {
    /// Any provider.
    Any,
    /// Only a GPU: the model is refused if it would run on the CPU.
    Gpu,
}

/// The name of the model where the configuration gives it none.
pub const DEFAULT_MODEL: &str = "default";

/// A model and how it is run. With `[model]` there is one, which all streams share. With `[[model]]` there may be several: each has
/// a `name`, and `stream.model` selects one.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default = "ModelConfig::unnamed")]
#[schemars(extend("x-applies" = "reload"))]
pub struct ModelConfig {
    /// Unique name of the model, which `stream.model` refers to: letters, digits, `-` and `_`, at most 64 characters. `[[model]]`
    /// needs it.
    #[schemars(length(max = 64), pattern(r"^[A-Za-z0-9_-]+$"), extend(
        "x-check" = "stream-name",
        "x-default" = "`default` in `[model]`",
        "x-help" = "stream.model refers to it",
    ))]
    pub name: String,
    /// The ONNX file of the model.
    #[serde(with = "super::path")]
    #[schemars(with = "String", extend(
        "x-check" = "existing-file",
        "x-default" = "`models/everyday.onnx` beside the program, or of the package",
    ))]
    pub path: PathBuf,
    /// Execution providers of ONNX Runtime, tried in this order. Log, page and API show which one runs the model. A provider
    /// that cannot run it is logged as a warning if this key names the provider, or if the CPU runs the model although the
    /// machine has a GPU.
    #[schemars(length(min = 1), extend(
        "uniqueItems" = true,
        "x-help" = "write [\"tensorrt\", \"cuda\", \"cpu\"], or fewer",
    ))]
    pub providers: Vec<Provider>,
    /// The configuration names them: a provider that cannot be used is reported.
    #[serde(skip)]
    pub providers_named: bool,
    /// The providers that may run the model.
    pub require: Require,
    /// Number of CPU cores that ONNX Runtime may use; 0 = all.
    #[schemars(range(min = 0, max = 1024), extend("x-help" = "0 is all cores"))]
    pub threads: usize,
    /// Number of model sessions that run in parallel. On the CPU they share `threads`; 0 = the fastest number, measured at the
    /// start. On GPUs it is the number of all sessions, which are distributed evenly over the GPUs of `device`; 0 = two for each
    /// GPU. With fewer sessions than GPUs, the last GPUs of the list are not used.
    #[schemars(range(min = 0, max = 256), extend("x-help" = "0 is measured at start on the CPU, and two for each GPU"))]
    pub workers: usize,
    /// Maximum number of frames in one run of the model, each of another stream; 0 = 1. On a GPU, every run has this number
    /// of frames; if fewer frames wait, grey ones are added.
    #[schemars(range(min = 0, max = 64), extend("x-help" = "0 is 1"))]
    pub max_batch: usize,
    /// Number of the GPU, as `nvidia-smi` shows it, or a list of several: the sessions are distributed over them. Without effect on
    /// the CPU.
    #[schemars(schema_with = "devices_schema")]
    pub device: Devices,
    /// Folder in which compiled TensorRT engines are stored. Without it, they are compiled at every start.
    #[serde(with = "super::path::optional")]
    #[schemars(with = "String", extend(
        "x-check" = "folder",
        "x-default" = "`$CACHE_DIRECTORY` (set by systemd), else none",
    ))]
    pub cache_dir: Option<PathBuf>,
    /// Path of the library `libonnxruntime.so`. All models use the same library: if several models set this key, the paths
    /// must be equal.
    #[serde(with = "super::path::optional")]
    #[schemars(with = "String", extend(
        "x-check" = "existing-file",
        "x-default" = "found beside the program or in the system's folders",
    ))]
    pub runtime: Option<PathBuf>,
    /// The file that the model had before `path`, to which `maskcast model rollback` and the page return. The service writes this key
    /// when it writes a changed `path`. The file need not exist.
    #[serde(with = "super::path::optional")]
    #[schemars(with = "String", extend("x-check" = "output-file", "x-default" = "none"))]
    pub previous: Option<PathBuf>,
}

impl ModelConfig {
    /// The model at `path` with the default settings: any provider, no cache of TensorRT engines.
    pub fn with_path(path: impl Into<PathBuf>) -> Self {
        ModelConfig {
            name: DEFAULT_MODEL.to_owned(),
            path: path.into(),
            providers: Provider::ALL.to_vec(),
            providers_named: false,
            require: Require::Any,
            threads: 0,
            workers: 0,
            max_batch: 0,
            device: Devices::default(),
            cache_dir: None,
            runtime: None,
            previous: None,
        }
    }

    /// The path is found by [`ModelConfig::apply_dependent_defaults`].
    pub(super) fn unnamed() -> Self {
        ModelConfig::with_path("")
    }

    /// The models of a configuration that has no `[model]`.
    pub(super) fn only_unnamed() -> Vec<Self> {
        vec![ModelConfig::unnamed()]
    }

    /// Adds the defaults that depend on the machine, and checks what concerns several keys.
    pub(super) fn apply_dependent_defaults(&mut self, section: &Section) {
        // The empty path never leaves: wherever it is used, an error was noted.
        if !section.is_written("path") {
            self.path = crate::base::paths::default_model().unwrap_or_else(|error| {
                section.fail("path", "is missing, and no model was found", Some(&error.to_string()));
                PathBuf::new()
            });
        }
        self.providers_named = section.is_valid("providers");
        if !self.providers_named {
            self.providers = Provider::ALL.to_vec();
        }
        if self.require == Require::Gpu && self.providers == [Provider::Cpu] {
            let help = "add \"tensorrt\" or \"cuda\" to model.providers, or drop the requirement";
            section.fail("require", "\"gpu\" is required, but only \"cpu\" may be used", Some(help));
        }
        if !section.is_written("cache_dir") {
            // systemd's CacheDirectory= may list several, separated by colons.
            let list = section.doc().env("CACHE_DIRECTORY").unwrap_or_default();
            self.cache_dir = list.split(':').next().filter(|folder| !folder.is_empty()).map(PathBuf::from);
        }
    }
}

/// Adds the defaults that depend on the machine to all models, and checks what concerns several of them. `root` is the document.
pub(super) fn apply_to_all(models: &mut [ModelConfig], root: &Section) {
    for (i, model) in models.iter_mut().enumerate() {
        let section = section_of(model, i, root);
        model.apply_dependent_defaults(&section);
    }
    let Some((first, library)) = models.iter().find_map(|model| Some((model.name.clone(), model.runtime.clone()?)))
    else {
        return;
    };
    for (i, model) in models.iter_mut().enumerate() {
        if model.runtime.as_ref().is_some_and(|other| *other != library) {
            let problem = format!("is not that of model {first:?}, {}", library.display());
            let help = "a process has one ONNX Runtime: write the same path, or leave it out of all models but one";
            section_of(model, i, root).fail("runtime", problem, Some(help));
        }
        model.runtime = Some(library.clone());
    }
}

/// The table of a model: `model[yard]`, `model[1]` for one without a valid name, or `model`.
fn section_of<'d>(model: &ModelConfig, place: usize, root: &Section<'d>) -> Section<'d> {
    let elements = [root.element("model", &model.name), root.element("model", place)];
    elements.into_iter().find(Section::is_element).unwrap_or_else(|| root.section("model"))
}
