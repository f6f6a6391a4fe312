//! The command line: the commands and their arguments.

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

mod api_client;
pub mod bench;
pub mod cert;
pub mod check;
mod class_weight;
pub mod doctor;
pub mod environment;
mod failure;
mod flicker;
mod gate;
pub mod job;
pub mod listen;
pub mod logging;
pub mod manual;
pub mod model;
mod model_args;
pub mod reference;
pub mod run;
pub mod schema;
pub mod segment;
pub mod user;

pub use class_weight::class_weight;
pub use failure::{Failure, exit};
pub use logging::{LogError, LogFormat};
pub use model_args::{ModelArgs, ProviderArg, RequireArg};

use failure::{load_config, write_json};

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
        maskcast segment drive.mp4 -o out.mp4 --report report.json --mask-dir masks/ --hide sky,building\n\n\
        People are not hidden: [stream.redact] is for streams.")]
    Segment(segment::SegmentArgs),
    /// Read a configuration and its model, list all errors, and print by which outputs unredacted frames leave.
    #[command(after_help = "Example: maskcast check /etc/maskcast/maskcast.toml")]
    Check {
        /// The TOML configuration.
        config: PathBuf,
    },
    /// Print the live messages of a running service as JSON, one a line: masks or events.
    #[command(after_help = "Examples:\n  maskcast listen --stream gate --every 1s\n  \
        maskcast listen https://cameras.example.org --events --token-file token\n\n\
        Without --stream, it prints the masks of all streams that exist when it starts. It reconnects when a connection is lost, \
        and ends when the service refuses the request, for example because the stream was removed.")]
    Listen(Box<listen::ListenArgs>),
    /// Print the JSON Schema of configuration files or of messages: editors complete and check files with it.
    #[command(
        after_help = "Examples:\n  maskcast schema > maskcast.schema.json\n  maskcast schema --message event\n\n\
        Write #:schema ./maskcast.schema.json as the first line of a configuration (Taplo, Even Better TOML)."
    )]
    Schema {
        /// Write the documentation of all keys instead, as Markdown.
        #[arg(long)]
        markdown: bool,
        /// Print the schema of this message (API, sinks, webhooks, MQTT) instead.
        #[arg(long, value_name = "MESSAGE", conflicts_with = "markdown")]
        message: Option<schema::MessageKind>,
    },
    /// Check this machine: GStreamer, ONNX Runtime, providers, encoders, cameras, the model.
    #[command(after_help = "Examples:\n  maskcast doctor\n  maskcast doctor pipelines/demo.toml --json")]
    Doctor {
        /// A configuration whose model, encoders, ports and sources are checked too.
        config: Option<PathBuf>,
        /// Write JSON to standard output.
        #[arg(long)]
        json: bool,
    },
    /// Show, verify and manage model files.
    Model {
        #[command(subcommand)]
        command: model::ModelCommand,
    },
    /// Measure the model alone and the whole pipeline on this machine.
    #[command(after_help = "Examples:\n  maskcast bench\n  maskcast bench --input drive.mp4 --json bench.json\n\n\
        The limit is the time for decoding, the model and encoding alone, with all cores busy.")]
    Bench(bench::BenchArgs),
    /// Manage users and tokens.
    User {
        #[command(subcommand)]
        command: user::UserCommand,
    },
    /// Create a self-signed certificate and its key, for `[server.tls]`.
    #[command(after_help = "Example: sudo maskcast cert --host cameras.example.org -o /etc/maskcast/tls\n\n\
        Browsers show a warning once; players and programs must trust cert.pem.")]
    Cert(cert::CertArgs),
    /// Write a shell completion script to standard output.
    #[command(after_help = "Example: maskcast completions bash > /etc/bash_completion.d/maskcast")]
    Completions { shell: clap_complete::Shell },
    /// Write the manual pages into an existing folder, for packages.
    #[command(hide = true)]
    Manual { folder: PathBuf },
    /// Write a reference as Markdown to standard output. `make docs` writes the files in docs/ with it.
    #[command(hide = true)]
    Reference { topic: reference::Topic },
}

/// Runs a command to its end.
///
/// # Errors
/// The failure of the command, with its exit code.
pub fn dispatch(command: Command) -> Result<(), Failure> {
    match command {
        Command::Run { config } => run::run(&config),
        Command::Segment(args) => segment::segment(&args),
        Command::Check { config } => check::check(&config),
        Command::Listen(args) => listen::listen(&args),
        Command::Schema { markdown, message } => schema::schema(markdown, message),
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
        Command::Reference { topic } => reference::reference(topic),
    }
}

/// The final result of a command: a command whose output could not be written has failed.
///
/// # Errors
/// The failure of the command, or else that of standard output.
pub fn ended(result: Result<(), Failure>) -> Result<(), Failure> {
    let output = crate::base::output::finish().map_err(Failure::runtime);
    result.and(output)
}

/// The completion script of a program for a shell. It is returned as text, because `clap_complete` panics when it cannot
/// write.
pub fn completions(shell: clap_complete::Shell, mut command: clap::Command, program: &str) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, program, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
