//! The real segmenter: a model on ONNX Runtime, on the first execution provider that works.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ort::session::Session;

use super::contract::Contract;
use super::engine::has_nvidia_gpu;
use super::file::{self, ModelFile};
use super::golden::TOLERANCE;
use super::inspect::Inspection;
use super::manifest::ModelManifest;
use super::placement::Placement;
use super::scale::{fitting_input, scale_concern};
use super::segmenter::OnnxSegmenter;
use super::session::{SessionError, open_session};
use super::unlabelled::Unlabelled;
use super::{ModelError, SegmentError, runtime};
use crate::config::{ModelConfig, Provider, Require};

/// A model that was loaded, checked and timed. Makes [`OnnxSegmenter`]s.
pub struct Model {
    pub path: PathBuf,
    pub contract: Arc<Contract>,
    /// Where it really runs.
    pub provider: Provider,
    /// What was asked for and could not be had, with the reasons.
    pub refused: Vec<(Provider, String)>,
    /// What ONNX Runtime really assigned to which provider.
    pub placement: Placement,
    /// Share of the golden frame's pixels that differ; `None` without a golden frame.
    pub golden_difference: Option<f64>,
    /// The classes of a test picture.
    pub inspection: Inspection,
    /// What may be wrong with it, a line each; also in the log.
    pub concerns: Vec<String>,
    /// Pixels of its masks whose class has no label.
    pub unlabelled: Arc<Unlabelled>,
    config: ModelConfig,
    /// The file as it was when it was loaded: a worker that has to begin anew must not find another one.
    file: Arc<ModelFile>,
    /// The session that was checked, until a worker takes it: opening one may take seconds (a TensorRT engine: minutes).
    checked: Mutex<Option<(usize, OnnxSegmenter)>>,
}

impl Model {
    /// Loads the configured model on the first provider that works and runs its golden frame. `threads` is how many the
    /// first segmenter is going to want (CPU; 0 = one a core).
    ///
    /// # Errors
    /// An unreadable or unusable model, a provider that computes something else, or a CPU where a GPU is required.
    pub fn load(config: &ModelConfig, threads: usize) -> Result<Model, ModelError> {
        runtime::load(config.runtime.as_deref()).map_err(|error| ModelError::Machine(error.0))?;
        let file = Arc::new(file::read(&config.path).map_err(|error| ModelError::Model(error.0))?);
        let mut refused = Vec::new();
        for &provider in &config.providers {
            if provider == Provider::Cpu && config.require == Require::Gpu {
                break;
            }
            match open_session(config, &file, provider, threads) {
                Ok(session) => match Self::check(config, &file, provider, session, threads) {
                    Ok(model) => {
                        if provider == Provider::Cpu && !config.providers_named && has_nvidia_gpu() {
                            let why = reasons(&refused);
                            tracing::warn!("there is an NVIDIA GPU, and the model runs on the CPU ({why})");
                        }
                        return Ok(Model { refused, ..model });
                    }
                    // What goes wrong on a GPU, or comes out wrong there, may be right elsewhere.
                    Err(ModelError::Machine(reason)) if provider != Provider::Cpu => {
                        tracing::warn!("{} does not run the model: {reason}", provider.name());
                        refused.push((provider, reason));
                    }
                    Err(ModelError::Machine(reason)) => {
                        return Err(ModelError::Model(format!("{}: {reason}", config.path.display())));
                    }
                    Err(error) => return Err(error),
                },
                Err(SessionError::Provider(reason)) => {
                    absent(config, provider, &reason);
                    refused.push((provider, reason));
                }
                Err(SessionError::Model(reason)) => {
                    let problem = format!("{}: ONNX Runtime cannot use it as a model: {reason}", config.path.display());
                    return Err(ModelError::Model(problem));
                }
            }
        }
        let why = if refused.is_empty() { "no provider is configured".into() } else { reasons(&refused) };
        let help = match config.require {
            Require::Gpu => "model.require = \"gpu\" forbids the CPU",
            Require::Any => "add \"cpu\" to model.providers to run without a GPU",
        };
        Err(ModelError::Machine(format!("{}: none of the providers can run it ({why}); {help}", config.path.display())))
    }

    /// Whether a session runs where it was opened for, and computes there what the trainer got.
    ///
    /// # Errors
    /// [`ModelError::Model`] when no provider could use the file; [`ModelError::Machine`], without the file's name, when
    /// another provider may.
    fn check(
        config: &ModelConfig,
        file: &Arc<ModelFile>,
        provider: Provider,
        session: Session,
        threads: usize,
    ) -> Result<Model, ModelError> {
        let contract = Contract::read(&session, &config.path).map_err(|error| ModelError::Model(error.0))?;
        let batch = fixed_batch(config, provider, &contract);
        let unlabelled = Arc::default();
        let mut segmenter = OnnxSegmenter::new(session, Arc::new(contract), batch).counting(&unlabelled);
        let inspection = segmenter.settle(&file.structure).map_err(|error| match error {
            ModelError::Model(problem) => ModelError::Model(format!("{}: {problem}", config.path.display())),
            machine @ ModelError::Machine(_) => machine,
        })?;
        let placement = segmenter.placement().map_err(|error| ModelError::Machine(error.0))?;
        if let Some(reason) = placement.denies(provider) {
            return Err(ModelError::Machine(reason));
        }
        let contract = segmenter.contract();
        let golden_difference = match &contract.golden {
            Some(golden) => {
                let input = &contract.input;
                if (golden.width, golden.height) != (input.width, input.height) {
                    return Err(ModelError::Model(format!(
                        "{}: its golden frame is {}x{}, its input {}x{}",
                        config.path.display(),
                        golden.width,
                        golden.height,
                        input.width,
                        input.height
                    )));
                }
                let mask = segmenter.run_rgb(&golden.rgb, 1).map_err(|error| ModelError::Machine(error.0))?.0;
                let difference = golden.difference(&mask);
                if difference > TOLERANCE {
                    let help = match fitting_input(&mut segmenter, golden) {
                        Some(keys) => format!(
                            "it comes out right with {keys}: write that into [input] of {}",
                            ModelManifest::path_for(&config.path).display()
                        ),
                        None => "use another provider or export it again".into(),
                    };
                    return Err(ModelError::Machine(format!(
                        "on {} its golden frame differs in {:.1} % of pixels from what its trainer got (at most {:.0} % is rounding); {help}",
                        provider.name(),
                        difference * 100.0,
                        TOLERANCE * 100.0
                    )));
                }
                Some(difference)
            }
            None => {
                tracing::warn!(model = %config.path.display(), "the model has no golden frame, so its results cannot be checked on this machine");
                None
            }
        };
        let mut concerns: Vec<String> = inspection.concern.iter().cloned().collect();
        concerns.extend(inspection.unlabelled(contract.labels.len()));
        if golden_difference.is_none() {
            let concern = scale_concern(&mut segmenter, &inspection).map_err(|error| ModelError::Machine(error.0))?;
            concerns.extend(concern);
        }
        for concern in &concerns {
            tracing::warn!(model = %config.path.display(), "{concern}");
        }
        if let Some(why) = &contract.output.chosen {
            tracing::warn!(model = %config.path.display(), "the mask is read from its output {}, {why}", contract.output.name);
        }
        if let Some(concern) = placement.concern(provider) {
            tracing::warn!("{}: {concern}", provider.name());
        }
        Ok(Model {
            path: config.path.clone(),
            contract,
            provider,
            refused: Vec::new(),
            placement,
            golden_difference,
            inspection,
            concerns,
            unlabelled,
            config: config.clone(),
            file: Arc::clone(file),
            checked: Mutex::new(Some((threads, segmenter))),
        })
    }

    /// A segmenter with `threads` threads of its own (CPU; 0 = a thread a core).
    ///
    /// # Errors
    /// When ONNX Runtime refuses now what it accepted at [`Model::load`].
    pub fn segmenter(&self, threads: usize) -> Result<OnnxSegmenter, SegmentError> {
        let checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner).take();
        match checked {
            Some((with, segmenter)) if with == threads => return Ok(segmenter),
            // Another plan won: that session is not needed.
            _ => {}
        }
        self.open(threads)
    }

    fn open(&self, threads: usize) -> Result<OnnxSegmenter, SegmentError> {
        match open_session(&self.config, &self.file, self.provider, threads) {
            Ok(session) => {
                let contract = Arc::clone(&self.contract);
                let batch = fixed_batch(&self.config, self.provider, &contract);
                let mut segmenter = OnnxSegmenter::new(session, contract, batch).counting(&self.unlabelled);
                if self.provider != Provider::Cpu {
                    // A GPU's first run takes seconds, which had better not be those of a frame that somebody waits for.
                    segmenter.run_grey()?;
                }
                Ok(segmenter)
            }
            Err(SessionError::Provider(reason) | SessionError::Model(reason)) => {
                Err(SegmentError(format!("{}: {reason}", self.path.display())))
            }
        }
    }

    /// Median time of a few runs with one frame, on a session of `threads` threads (CPU; 0 = a thread a core).
    ///
    /// # Errors
    /// When the model cannot be run.
    pub fn time(&self, threads: usize) -> Result<Duration, SegmentError> {
        let mut segmenter = self.borrow(threads)?;
        let time = segmenter.time(TIMED_RUNS)?;
        self.give_back(threads, segmenter);
        Ok(time)
    }

    /// Median times of this model and of `other`, which serves already, under the same conditions: sessions of as many
    /// threads, run in turn, so that the machine is as busy for one as for the other.
    ///
    /// # Errors
    /// When one of them cannot be run.
    pub fn time_beside(&self, other: &Model, threads: usize) -> Result<(Duration, Duration), SegmentError> {
        let (mut segmenter, mut beside) = (self.borrow(threads)?, other.borrow(threads)?);
        let (mut times, mut times_beside) = (Vec::new(), Vec::new());
        for _ in 0..TIMED_RUNS {
            times.push(segmenter.time(1)?);
            times_beside.push(beside.time(1)?);
        }
        times.sort_unstable();
        times_beside.sort_unstable();
        self.give_back(threads, segmenter);
        other.give_back(threads, beside);
        Ok((times[TIMED_RUNS / 2], times_beside[TIMED_RUNS / 2]))
    }

    /// The session that was checked where it has `threads` threads, else a new one.
    fn borrow(&self, threads: usize) -> Result<OnnxSegmenter, SegmentError> {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        match checked.take() {
            Some((with, segmenter)) if with == threads => Ok(segmenter),
            other => {
                *checked = other;
                drop(checked);
                self.open(threads)
            }
        }
    }

    /// Keeps a session for the worker that will want it, until the first one has taken it.
    fn give_back(&self, threads: usize, segmenter: OnnxSegmenter) {
        let mut checked = self.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.get_or_insert((threads, segmenter));
    }

    /// Frames in one run, at most.
    pub fn max_batch(&self) -> usize {
        max_batch(&self.config, &self.contract)
    }

    /// Model names are file names without the extension.
    pub fn name(&self) -> String {
        self.path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
    }

    /// The provider that was asked for first.
    pub fn requested(&self) -> Provider {
        self.config.providers.first().copied().unwrap_or(Provider::Cpu)
    }

    /// The provider that somebody will miss if another one runs.
    pub fn wanted(&self) -> Provider {
        if misses(self.config.providers_named, self.provider, has_nvidia_gpu()) {
            self.requested()
        } else {
            self.provider
        }
    }

    /// The settings it was loaded with.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }
}

/// One unless configured: a batch on a CPU takes as long as its frames one by one, and a GPU, which does the frames of a
/// batch of eight in half the time of single ones, runs every batch in full (see [`OnnxSegmenter`]).
fn max_batch(config: &ModelConfig, contract: &Contract) -> usize {
    if contract.input.dynamic_batch { config.max_batch.max(1) } else { 1 }
}

/// Pictures that every run on `provider` has.
fn fixed_batch(config: &ModelConfig, provider: Provider, contract: &Contract) -> usize {
    if provider == Provider::Cpu { 1 } else { max_batch(config, contract) }
}

/// Whether a fall back to `actual` is missed: where the configuration names the providers (`named`), and on a machine with a
/// GPU that does not run the model. Where there is none and nobody asks for one, the CPU is what was wanted.
fn misses(named: bool, actual: Provider, has_gpu: bool) -> bool {
    named || (actual == Provider::Cpu && has_gpu)
}

fn reasons(refused: &[(Provider, String)]) -> String {
    let reasons: Vec<String> =
        refused.iter().map(|(provider, reason)| format!("{}: {reason}", provider.name())).collect();
    reasons.join("; ")
}

/// A machine without a GPU is nothing to warn of, unless somebody wants one: which provider runs is told at the end.
fn absent(config: &ModelConfig, provider: Provider, reason: &str) {
    let name = provider.name();
    if config.providers_named {
        tracing::warn!("model.providers: {name} does not run the model: {reason}");
    } else {
        tracing::debug!("{name} does not run the model: {reason}");
    }
}

/// Runs of which the median counts.
const TIMED_RUNS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_models_are_timed_with_as_many_threads() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/street.onnx");
        let load = |threads: usize| {
            let config = ModelConfig { providers: vec![Provider::Cpu], threads: 3, ..ModelConfig::with_path(&path) };
            Model::load(&config, threads).unwrap()
        };
        let kept = |model: &Model| model.checked.lock().unwrap().as_ref().map(|(threads, _)| *threads);
        let (before, next) = (load(1), load(1));
        // The worker of the model that serves has taken the session that was checked.
        let _worker = before.segmenter(1).unwrap();
        assert_eq!(kept(&before), None);
        next.time_beside(&before, 1).unwrap();
        assert_eq!((kept(&next), kept(&before)), (Some(1), Some(1)));
        // Timed with others, the session for the worker stays.
        next.time(2).unwrap();
        assert_eq!(kept(&next), Some(1));
    }

    #[test]
    fn a_gpu_that_does_not_run_the_model_is_missed_whoever_asked() {
        for (named, actual, has_gpu, missed) in [
            (false, Provider::Cpu, false, false),
            (false, Provider::Cpu, true, true),
            (false, Provider::Cuda, true, false),
            (true, Provider::Cpu, false, true),
            (true, Provider::Cuda, true, true),
        ] {
            assert_eq!(misses(named, actual, has_gpu), missed, "{named} {actual:?} {has_gpu}");
        }
    }
}
