//! The options by which a command chooses its model.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::failure::Failure;
use crate::config::{ModelConfig, Provider, Require};
use crate::segment::engine::has_nvidia_gpu;

/// Which model, and how it is run.
#[derive(Clone, Debug, Args)]
pub struct ModelArgs {
    /// The ONNX model [default: the bundled models/street.onnx].
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Execution providers, tried in this order [default: tensorrt,cuda,cpu with an NVIDIA GPU, else cpu].
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    pub providers: Vec<ProviderArg>,
    /// "gpu": refuse to run on the CPU.
    #[arg(long, value_enum, default_value = "any")]
    pub require: RequireArg,
    /// Cores the model may use on the CPU; 0 = all.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Sessions side by side on the CPU, sharing those cores; 0 = one a core.
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
    /// The settings as a configuration would give them.
    ///
    /// # Errors
    /// When no model is given and the bundled one is not found.
    pub fn config(&self) -> Result<ModelConfig, Failure> {
        let path = match &self.model {
            Some(path) => path.clone(),
            None => crate::base::paths::default_model()
                .map_err(|places| Failure::usage(format!("the bundled model was {places}; name one with --model")))?,
        };
        let provider = |provider: &ProviderArg| match provider {
            ProviderArg::TensorRt => Provider::TensorRt,
            ProviderArg::Cuda => Provider::Cuda,
            ProviderArg::Cpu => Provider::Cpu,
        };
        let mut config = ModelConfig::with_path(path);
        config.require = if self.require == RequireArg::Gpu { Require::Gpu } else { Require::Any };
        config.providers = match self.providers.as_slice() {
            // Nobody asked for a GPU where there is none, so nobody needs to be told.
            [] if config.require == Require::Any && !has_nvidia_gpu() => vec![Provider::Cpu],
            [] => Provider::ALL.to_vec(),
            providers => providers.iter().map(provider).collect(),
        };
        config.providers_named = !self.providers.is_empty();
        (config.threads, config.workers) = (self.threads, self.workers);
        Ok(config)
    }
}
