//! The options of commands that run a model.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::failure::Failure;
use crate::config::{ModelConfig, Provider, Require};
use crate::segment::engine::has_nvidia_gpu;

/// The model, and how it is run.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// The ONNX model [default: the bundled models/everyday.onnx].
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Execution providers, tried in this order [default: tensorrt,cuda,cpu with an NVIDIA GPU, else cpu].
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub providers: Vec<ProviderArg>,
    /// "gpu": refuse to run on the CPU.
    #[arg(long, value_enum, default_value = "any")]
    pub require: RequireArg,
    /// Number of cores that the model may use on the CPU; 0 = all.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Parallel sessions on the CPU, which share these cores; 0 = one for each core.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub workers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProviderArg {
    #[value(name = "tensorrt")]
    TensorRt,
    Cuda,
    Cpu,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RequireArg {
    Any,
    Gpu,
}

impl ModelArgs {
    /// The options as `[model]` of a configuration.
    ///
    /// # Errors
    /// No model is given and the bundled model is not found.
    pub fn config(&self) -> Result<ModelConfig, Failure> {
        let path = match &self.model {
            Some(path) => path.clone(),
            None => crate::base::paths::default_model().map_err(|searched| {
                Failure::usage(format!("the bundled model was {searched}; give one with --model"))
            })?,
        };
        let provider = |provider: &ProviderArg| match provider {
            ProviderArg::TensorRt => Provider::TensorRt,
            ProviderArg::Cuda => Provider::Cuda,
            ProviderArg::Cpu => Provider::Cpu,
        };
        let mut config = ModelConfig::with_path(path);
        config.require = if self.require == RequireArg::Gpu { Require::Gpu } else { Require::Any };
        config.providers = match self.providers.as_slice() {
            // Without a GPU and without --providers, the CPU is expected and is not a fallback that is logged.
            [] if config.require == Require::Any && !has_nvidia_gpu() => vec![Provider::Cpu],
            [] => Provider::ALL.to_vec(),
            providers => providers.iter().map(provider).collect(),
        };
        config.providers_named = !self.providers.is_empty();
        (config.threads, config.workers) = (self.threads, self.workers);
        Ok(config)
    }
}
