//! The command line: what each command takes, and what it does.

use std::io::Write;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::base::atomic_file::AtomicFile;
use crate::config::{Config, ModelConfig, Provider, Require};
use crate::segment::engine::has_nvidia_gpu;
use crate::segment::onnx::ModelError;
use crate::service::ServiceError;

pub mod bench;
pub mod cert;
pub mod check;
pub mod doctor;
pub mod environment;
pub mod job;
pub mod logging;
pub mod manual;
pub mod model;
pub mod run;
pub mod segment;
pub mod user;

/// Exit codes.
pub mod exit {
    /// Something failed at run time.
    pub const FAILURE: u8 = 1;
    /// Wrong use of the command line.
    pub const USAGE: u8 = 2;
    /// The configuration cannot work (`EX_CONFIG` of sysexits.h): restarting does not help.
    pub const CONFIG: u8 = 78;
}

/// Why a command ends without success.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    /// For people, a line a problem.
    pub message: String,
}

impl Failure {
    pub fn runtime(problem: impl std::fmt::Display) -> Self {
        Failure { code: exit::FAILURE, message: problem.to_string() }
    }

    pub fn usage(problem: impl std::fmt::Display) -> Self {
        Failure { code: exit::USAGE, message: problem.to_string() }
    }

    pub fn config(problem: impl std::fmt::Display) -> Self {
        Failure { code: exit::CONFIG, message: problem.to_string() }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        match error {
            ServiceError::Configuration(problem) => Failure::config(problem),
            ServiceError::Runtime(problem) => Failure::runtime(problem),
            error @ ServiceError::Stopped => Failure::runtime(error),
        }
    }
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        Failure::runtime(error)
    }
}

/// Live semantic segmentation for cameras.
#[derive(Debug, Parser)]
#[command(
    version,
    about,
    after_help = "Exit codes: 0 clean end, 1 failure at run time, 2 wrong use, 78 configuration error.\n\
    MASKCAST_LOG filters the log, for instance MASKCAST_LOG=debug or MASKCAST_LOG=maskcast::stream=debug,warn."
)]
pub struct Cli {
    /// How the log is written to standard error.
    #[arg(long, value_enum, default_value = "auto", global = true)]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// journald's own fields under systemd, text elsewhere.
    Auto,
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service: capture all streams, segment them, publish them.
    #[command(after_help = "Example: maskcast run pipelines/demo.toml\n\
        Stops on SIGTERM or Ctrl-C; recordings stay playable. A second signal ends at once.")]
    Run {
        /// The TOML configuration.
        config: PathBuf,
    },
    /// Segment a video file into a new file, as fast as the machine goes and without losing a frame.
    #[command(after_help = "Examples:\n  maskcast segment drive.mp4 -o drive-masks.mp4\n  \
        maskcast segment drive.mp4 -o out.mp4 --report report.json --mask-dir masks/ --hide sky,building")]
    Segment(segment::SegmentArgs),
    /// Read a configuration and its model, and list everything that is wrong.
    #[command(after_help = "Example: maskcast check /etc/maskcast/maskcast.toml")]
    Check {
        /// The TOML configuration.
        config: PathBuf,
    },
    /// Say what this machine offers: GStreamer, ONNX Runtime, providers, encoders, cameras, the model.
    #[command(after_help = "Examples:\n  maskcast doctor\n  maskcast doctor pipelines/demo.toml --json")]
    Doctor {
        /// A configuration whose model, ports and sources are looked at too.
        config: Option<PathBuf>,
        /// Write JSON to standard output.
        #[arg(long)]
        json: bool,
    },
    /// Look at a model file.
    Model {
        #[command(subcommand)]
        command: model::ModelCommand,
    },
    /// Measure the bare model against the whole pipeline, on this machine, side by side.
    #[command(after_help = "Examples:\n  maskcast bench\n  maskcast bench --input drive.mp4 --json bench.json\n\n\
        The limit is what decoding, the model and encoding cost alone, with all cores busy and nothing between them.")]
    Bench(bench::BenchArgs),
    /// Manage users and tokens.
    User {
        #[command(subcommand)]
        command: user::UserCommand,
    },
    /// Make a self-signed certificate and its key, for `[server.tls]`.
    #[command(after_help = "Example: sudo maskcast cert --host cameras.example.org -o /etc/maskcast/tls\n\n\
        Browsers warn of it once; players and programs must trust cert.pem.")]
    Cert(cert::CertArgs),
    /// Write a shell completion script to standard output.
    #[command(after_help = "Example: maskcast completions bash > /etc/bash_completion.d/maskcast")]
    Completions { shell: clap_complete::Shell },
    /// Write the manual pages into a folder that exists. Packages are made with it.
    #[command(hide = true)]
    Manual { folder: PathBuf },
}

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

/// Runs a command to its end.
///
/// # Errors
/// What went wrong, and the exit code for it.
pub fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run { config } => run::run(&config),
        Command::Segment(args) => segment::segment(&args),
        Command::Check { config } => check::check(&config),
        Command::Doctor { config, json } => doctor::doctor(config.as_deref(), json),
        Command::Model { command } => model::model(&command),
        Command::Bench(args) => bench::bench(&args),
        Command::User { command } => user::user(command),
        Command::Cert(args) => cert::cert(&args),
        Command::Completions { shell } => {
            print!("{}", completions(shell, Cli::command(), "maskcast"));
            Ok(())
        }
        Command::Manual { folder } => manual::write(Cli::command(), &folder)
            .map_err(|error| Failure::runtime(format!("{}: {error}", folder.display()))),
    }
}

/// A command's result, with what standard output says about itself: a command whose output was lost has failed.
///
/// # Errors
/// Those of the command; else an output that could not be written.
pub fn ended(result: Result<(), Failure>) -> Result<(), Failure> {
    let output = crate::base::output::finish().map_err(Failure::runtime);
    result.and(output)
}

/// A shell's completions of a program. `clap_complete` itself panics where it cannot write.
pub fn completions(shell: clap_complete::Shell, mut command: clap::Command, program: &str) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, program, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// Reads a configuration; its errors end the program with exit code 78.
fn load_config(path: &std::path::Path) -> Result<Config, Failure> {
    crate::config::load(path).map_err(Failure::config)
}

/// Writes `value` as indented JSON to `path`, in one step: what was there stays until the new file is complete.
fn write_json(path: &std::path::Path, value: &serde_json::Value) -> Result<(), Failure> {
    let located = |error: std::io::Error| Failure::runtime(format!("{}: {error}", path.display()));
    let text = serde_json::to_string_pretty(value).map_err(Failure::runtime)?;
    let mut file = AtomicFile::create(path, 0o666).map_err(located)?;
    file.write_all((text + "\n").as_bytes()).and_then(|()| file.commit()).map_err(located)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
