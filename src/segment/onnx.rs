//! Loads a model with ONNX Runtime, on the first execution provider that works, and checks it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::session::Session;
use parking_lot::Mutex;

use super::contract::Contract;
use super::device_slots::{DeviceSlots, PlacedSegmenter};
use super::engine::has_nvidia_gpu;
use super::error::{FittingInput, provider_problems};
use super::file::{self, ModelFile};
use super::golden::TOLERANCE;
use super::inspect::Inspection;
use super::manifest::ModelManifest;
use super::placement::Placement;
use super::scale::{fitting_input, scale_warning};
use super::segmenter::OnnxSegmenter;
use super::session::{SessionError, open_session};
use super::unlabelled::Unlabelled;
use super::{MachineError, ModelError, ModelProblem, ProviderProblem, SegmentError, UnusableModel, runtime};
use crate::config::{ModelConfig, Provider, Require};

mod own_steps;
mod shortened;
mod timing;

use own_steps::OwnSteps;

/// A model that was loaded and checked. Creates [`OnnxSegmenter`]s.
pub struct Model {
    pub path: PathBuf,
    pub contract: Arc<Contract>,
    /// The provider that runs the model.
    pub provider: Provider,
    /// Providers that were tried before, and why each does not run the model.
    pub refused: Vec<(Provider, ProviderProblem)>,
    /// The nodes that ONNX Runtime assigned to each provider.
    pub placement: Placement,
    /// Share of pixels of the golden frame that differ, 0 to 1; `None` without a golden frame.
    pub golden_difference: Option<f64>,
    /// The mask of a test image.
    pub inspection: Inspection,
    /// Warnings about the model, one line each. They are also logged.
    pub warnings: Vec<String>,
    /// Counter of mask pixels without a label.
    pub unlabelled: Arc<Unlabelled>,
    config: ModelConfig,
    /// The steps of the model that ONNX Runtime does not compute, which `file` does not have then.
    own_steps: OwnSteps,
    /// The file as it was loaded. A worker that opens a new session must not read a file that was replaced in the meantime.
    file: Arc<ModelFile>,
    /// The session that was checked and its number of threads, until a worker takes it: opening one may take seconds (with a
    /// TensorRT engine: minutes).
    checked_session: Mutex<Option<(usize, OnnxSegmenter)>>,
    /// The GPUs of its workers.
    devices: DeviceSlots,
}

impl Model {
    /// Loads the configured model on the first provider that works and checks its golden frame. `threads` is the number of
    /// threads of the first segmenter (CPU; 0 = one for each core).
    ///
    /// # Errors
    /// The model cannot be read or used, no provider computes the right result, or a GPU is required and none works.
    pub fn load(config: &ModelConfig, threads: usize) -> Result<Model, ModelError> {
        Self::load_with(config, threads, true)
    }

    /// The same, with all steps of the model by ONNX Runtime also where the service computes the last ones itself; for comparisons.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub fn load_whole(config: &ModelConfig, threads: usize) -> Result<Model, ModelError> {
        Self::load_with(config, threads, false)
    }

    fn load_with(config: &ModelConfig, threads: usize, with_own_steps: bool) -> Result<Model, ModelError> {
        runtime::load(config.runtime.as_deref()).map_err(MachineError::from)?;
        let file = file::read(&config.path).map_err(|problem| UnusableModel::new(&config.path, problem))?;
        let file = Arc::new(file);
        let mut refused = Vec::new();
        for &provider in &config.providers {
            if provider == Provider::Cpu && config.require == Require::Gpu {
                break;
            }
            if provider == Provider::Cpu
                && with_own_steps
                && let Some(model) = Self::load_with_own_steps(config, &file, threads)
            {
                return Ok(model.chosen(refused));
            }
            match open_session(config, &file, provider, config.device.first(), threads) {
                Ok(session) => match Self::check(config, &file, provider, session, threads, OwnSteps::default()) {
                    Ok(model) => return Ok(model.chosen(refused)),
                    // Another provider may work when a GPU fails or computes a wrong result.
                    Err(CheckError::Provider(problem)) if provider != Provider::Cpu => {
                        log_refused(provider, &problem);
                        refused.push((provider, problem));
                    }
                    Err(CheckError::Provider(problem)) => {
                        return Err(UnusableModel::new(&config.path, problem).into());
                    }
                    Err(CheckError::Model(error)) => return Err(error.into()),
                },
                Err(SessionError::Provider(reason)) => {
                    let problem = ProviderProblem::Unavailable(reason);
                    log_unavailable(config, provider, &problem);
                    refused.push((provider, problem));
                }
                Err(SessionError::Model(reason)) => {
                    return Err(UnusableModel::new(&config.path, ModelProblem::Load(reason)).into());
                }
                Err(SessionError::Runtime(error)) => return Err(MachineError::from(error).into()),
            }
        }
        Err(MachineError::NoProvider { path: config.path.clone(), refused, require: config.require }.into())
    }

    /// The model after the providers before it were refused.
    fn chosen(self, refused: Vec<(Provider, ProviderProblem)>) -> Model {
        if self.provider == Provider::Cpu && !self.config.providers_named && has_nvidia_gpu() {
            let reasons = provider_problems(&refused);
            tracing::warn!("the model runs on the CPU although there is an NVIDIA GPU ({reasons})");
        }
        Model { refused, ..self }
    }

    /// SHA-256 of its file, in hexadecimal digits.
    pub fn sha256(&self) -> &str {
        &self.file.sha256
    }

    /// Whether the windows of the first convolution of the model are made without ONNX Runtime.
    pub fn has_own_stem(&self) -> bool {
        self.own_steps.stem.is_some()
    }

    /// Whether the last steps of the model are computed without ONNX Runtime.
    pub fn has_own_head(&self) -> bool {
        self.own_steps.head.is_some()
    }

    /// Checks that a session runs on its provider and that the golden frame has the mask that the trainer computed.
    ///
    /// # Errors
    /// The model cannot be used by any provider, or not by this one.
    fn check(
        config: &ModelConfig,
        file: &Arc<ModelFile>,
        provider: Provider,
        session: Session,
        threads: usize,
        own_steps: OwnSteps,
    ) -> Result<Model, CheckError> {
        let contract = Contract::read_with(&session, &config.path, own_steps.tensors())?;
        let batch = fixed_batch(config, provider, &contract);
        let unlabelled = Arc::default();
        let mut segmenter = OnnxSegmenter::new(session, Arc::new(contract), batch)
            .with_head(own_steps.head.clone())
            .with_stem(own_steps.stem.clone())
            .with_counter(&unlabelled)
            .named(&name_of(&config.path));
        let inspection = segmenter
            .interpret_output(&file.structure)
            .map_err(ProviderProblem::from)?
            .map_err(|problem| UnusableModel::new(&config.path, problem))?;
        let placement = segmenter.placement().map_err(ProviderProblem::from)?;
        if let Some(mismatch) = placement.mismatch(provider) {
            return Err(ProviderProblem::from(mismatch).into());
        }
        // Before the golden frame, which then checks runs as the service makes them.
        segmenter.bind_memory(provider, config.device.first());
        let contract = segmenter.contract();
        let golden_difference = match &contract.golden {
            Some(golden) => {
                let input = &contract.input;
                let (golden_size, input_size) = ((golden.width, golden.height), (input.width, input.height));
                if golden_size != input_size {
                    let problem = ModelProblem::GoldenSize { golden: golden_size, input: input_size };
                    return Err(UnusableModel::new(&config.path, problem).into());
                }
                let (mask, _) = segmenter.run_rgb(&golden.rgb, 1).map_err(ProviderProblem::from)?;
                let difference = golden.difference(&mask);
                if difference > TOLERANCE {
                    let manifest = ModelManifest::path_for(&config.path);
                    let fitting_input =
                        fitting_input(&mut segmenter, golden).map(|keys| FittingInput { keys, manifest });
                    return Err(ProviderProblem::GoldenFrame { provider, difference, fitting_input }.into());
                }
                Some(difference)
            }
            None => {
                tracing::warn!(
                    model = %config.path.display(),
                    "the model has no golden frame, so its results cannot be checked on this machine"
                );
                None
            }
        };
        let mut warnings: Vec<String> = inspection.warning.iter().cloned().collect();
        warnings.extend(inspection.unlabelled(contract.labels.len()));
        if golden_difference.is_none() {
            warnings.extend(scale_warning(&mut segmenter, &inspection).map_err(ProviderProblem::from)?);
        }
        let path = config.path.display();
        for warning in &warnings {
            tracing::warn!(model = %path, "the model may give wrong masks: {warning}");
        }
        if let Some(reason) = &contract.output.choice_reason {
            tracing::warn!(model = %path, "the mask is read from output {}, {reason}", contract.output.name);
        }
        if let Some(warning) = placement.warning(provider) {
            tracing::warn!(model = %path, provider = provider.name(), "the provider runs only part of the model: {warning}");
        }
        Ok(Model {
            path: config.path.clone(),
            contract,
            provider,
            refused: Vec::new(),
            placement,
            golden_difference,
            inspection,
            warnings,
            unlabelled,
            config: config.clone(),
            own_steps,
            file: Arc::clone(file),
            checked_session: Mutex::new(Some((threads, segmenter))),
            devices: DeviceSlots::new(&config.device),
        })
    }

    /// Creates the segmenter of a worker, with its own session of `threads` threads (CPU; 0 = one for each core), on the GPU of the
    /// model that has the fewest.
    ///
    /// # Errors
    /// ONNX Runtime cannot open the session again that it opened in [`Model::load`], or another GPU of the model computes a wrong
    /// mask.
    pub fn worker(&self, threads: usize) -> Result<PlacedSegmenter, SegmentError> {
        let slot = self.devices.take();
        let segmenter = match slot.device == self.config.device.first() {
            true => self.segmenter(threads)?,
            false => self.open(threads, slot.device)?,
        };
        Ok(PlacedSegmenter { segmenter, _slot: slot })
    }

    /// Creates a segmenter with its own session of `threads` threads (CPU; 0 = one for each core), on the first GPU of the model.
    ///
    /// # Errors
    /// ONNX Runtime cannot open the session again that it opened in [`Model::load`].
    pub fn segmenter(&self, threads: usize) -> Result<OnnxSegmenter, SegmentError> {
        let checked = self.checked_session.lock().take();
        match checked {
            Some((with, segmenter)) if with == threads => return Ok(segmenter),
            // Another thread count was chosen: the checked session is not needed.
            _ => {}
        }
        self.open(threads, self.config.device.first())
    }

    fn open(&self, threads: usize, device: i32) -> Result<OnnxSegmenter, SegmentError> {
        let failed = |source| SegmentError::Session { path: self.path.clone(), source };
        let session = open_session(&self.config, &self.file, self.provider, device, threads).map_err(failed)?;
        let contract = Arc::clone(&self.contract);
        let batch = fixed_batch(&self.config, self.provider, &contract);
        let mut segmenter = OnnxSegmenter::new(session, contract, batch)
            .with_head(self.own_steps.head.clone())
            .with_stem(self.own_steps.stem.clone())
            .with_counter(&self.unlabelled)
            .named(&self.name());
        // The first run allocates memory, and takes seconds on a GPU, so it is done before the first frame.
        segmenter.run_grey()?;
        segmenter.bind_memory(self.provider, device);
        if self.provider != Provider::Cpu && device != self.config.device.first() {
            self.check_device(&mut segmenter, device)?;
        }
        Ok(segmenter)
    }

    /// Checks the golden frame on another GPU than the first, on which the model was loaded.
    fn check_device(&self, segmenter: &mut OnnxSegmenter, device: i32) -> Result<(), SegmentError> {
        let Some(golden) = &self.contract.golden else { return Ok(()) };
        let (mask, _) = segmenter.run_rgb(&golden.rgb, 1)?;
        let difference = golden.difference(&mask);
        if difference <= TOLERANCE {
            return Ok(());
        }
        let problem = format!(
            "on GPU {device}, the mask of the golden frame differs in {:.1} % of pixels; remove it from model.device",
            difference * 100.0
        );
        Err(SegmentError::Session { path: self.path.clone(), source: SessionError::Provider(problem) })
    }

    /// The checked session if it has `threads` threads, else a new one.
    fn take_session(&self, threads: usize) -> Result<OnnxSegmenter, SegmentError> {
        let mut checked = self.checked_session.lock();
        match checked.take() {
            Some((with, segmenter)) if with == threads => Ok(segmenter),
            other => {
                *checked = other;
                drop(checked);
                self.open(threads, self.config.device.first())
            }
        }
    }

    /// Keeps a session for the first worker, unless one is kept already.
    fn return_session(&self, threads: usize, segmenter: OnnxSegmenter) {
        let mut checked = self.checked_session.lock();
        checked.get_or_insert((threads, segmenter));
    }

    /// Largest number of frames in one run.
    pub fn max_batch(&self) -> usize {
        max_batch(&self.config, &self.contract)
    }

    /// The name of the model: its file name without the extension.
    pub fn name(&self) -> String {
        name_of(&self.path)
    }

    /// The first provider in the configuration.
    pub fn requested(&self) -> Provider {
        self.config.providers.first().copied().unwrap_or(Provider::Cpu)
    }

    /// The provider that the model should run on; differs from [`Model::provider`] when that is a fallback.
    pub fn expected_provider(&self) -> Provider {
        if is_fallback(self.config.providers_named, self.provider, has_nvidia_gpu()) {
            self.requested()
        } else {
            self.provider
        }
    }

    /// The settings that the model was loaded with.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
}

/// Largest number of frames in one run; 1 unless configured. A batch on a CPU takes as long as its frames one by one. A GPU
/// runs a batch of eight in half of the time of eight single frames, but always a full batch (see [`OnnxSegmenter`]).
fn max_batch(config: &ModelConfig, contract: &Contract) -> usize {
    if contract.input.dynamic_batch { config.max_batch.max(1) } else { 1 }
}

/// Number of images in every run on `provider`.
fn fixed_batch(config: &ModelConfig, provider: Provider, contract: &Contract) -> usize {
    if provider == Provider::Cpu { 1 } else { max_batch(config, contract) }
}

/// Whether a model that runs on `actual` has fallen back to it: the configuration names the providers (`named`), or the
/// machine has a GPU and the model runs on the CPU. Without a GPU and without named providers, the CPU is expected.
fn is_fallback(named: bool, actual: Provider, has_gpu: bool) -> bool {
    named || (actual == Provider::Cpu && has_gpu)
}

/// Why a session does not pass the check.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    /// No provider can use the model.
    #[error(transparent)]
    Model(#[from] UnusableModel),
    /// This provider cannot use the model; another may.
    #[error(transparent)]
    Provider(#[from] ProviderProblem),
}

fn log_refused(provider: Provider, problem: &ProviderProblem) {
    tracing::warn!(provider = provider.name(), "an execution provider does not run the model: {problem}");
}

/// Logs a provider that is not installed: as a warning only when the configuration names it, because a machine without a GPU
/// is usual.
fn log_unavailable(config: &ModelConfig, provider: Provider, problem: &ProviderProblem) {
    if config.providers_named {
        log_refused(provider, problem);
    } else {
        tracing::debug!(provider = provider.name(), "an execution provider does not run the model: {problem}");
    }
}

fn name_of(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_a_fallback_when_there_is_a_gpu_or_providers_are_named() {
        for (named, actual, has_gpu, fallback) in [
            (false, Provider::Cpu, false, false),
            (false, Provider::Cpu, true, true),
            (false, Provider::Cuda, true, false),
            (true, Provider::Cpu, false, true),
            (true, Provider::Cuda, true, true),
        ] {
            assert_eq!(is_fallback(named, actual, has_gpu), fallback, "{named} {actual:?} {has_gpu}");
        }
    }
}
