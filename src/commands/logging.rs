//! Where log lines go: text for people, journald's fields under systemd, JSON on request.

use clap::ValueEnum;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// journald's own fields under systemd, text elsewhere.
    Auto,
    Text,
    /// One JSON object a line.
    Json,
}

/// The variable that filters the log.
const FILTER: &str = "MASKCAST_LOG";

/// The journal's fields are `MASKCAST_STREAM`, `MASKCAST_STAGE`, `MASKCAST_SEQ`: bare names could be those of others.
const FIELD_PREFIX: &str = "MASKCAST";

const DEFAULT_FILTER: &str = "info";

/// ONNX Runtime is talkative about optimisations: only what it calls errors is passed on, unless the filter names it.
const QUIET: &str = "ort=error";

/// Starts logging.
///
/// # Errors
/// A filter that cannot be understood.
pub fn init(format: LogFormat) -> Result<(), String> {
    let filter = match std::env::var(FILTER) {
        Ok(text) if !text.trim().is_empty() => EnvFilter::try_new(full(&text))
            .map_err(|error| format!("{FILTER}={text:?} is not a log filter: {error}"))?,
        _ => EnvFilter::new(full(DEFAULT_FILTER)),
    };
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        LogFormat::Json => {
            let layer = tracing_subscriber::fmt::layer()
                .json()
                .flatten_event(true)
                .log_internal_errors(false)
                .with_writer(std::io::stderr);
            registry.with(layer).try_init()
        }
        LogFormat::Auto if under_journald() => match tracing_journald::layer() {
            Ok(layer) => registry.with(layer.with_field_prefix(Some(FIELD_PREFIX.into()))).try_init(),
            Err(_) => registry.with(text()).try_init(),
        },
        LogFormat::Auto | LogFormat::Text => registry.with(text()).try_init(),
    };
    started.map_err(|error| format!("the log cannot be started: {error}"))
}

/// The filter, and what it leaves open.
fn full(filter: &str) -> String {
    let mut directives = filter.split(',').map(str::trim);
    let decides = directives.any(|directive| directive == "off" || directive.split(['=', ':']).next() == Some("ort"));
    if decides { filter.to_owned() } else { format!("{filter},{QUIET}") }
}

/// Whether standard error is a stream to the journal (systemd.exec(5), `$JOURNAL_STREAM`): device and inode of the
/// file must be the ones that systemd has set, for the variable is inherited by whatever a shell starts, too.
fn under_journald() -> bool {
    use std::os::unix::fs::MetadataExt;
    let Ok(expected) = std::env::var("JOURNAL_STREAM") else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|file| format!("{}:{}", file.dev(), file.ino()) == expected)
}

fn text<S>() -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        // It would report it by `eprintln!`, which panics where standard error is closed.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn onnx_runtime_is_heard_where_the_filter_names_it() {
        assert_eq!(full("info"), "info,ort=error");
        assert_eq!(full("maskcast::transport=debug, warn"), "maskcast::transport=debug, warn,ort=error");
        for as_it_is in ["debug,ort=info", "info, ort::logging=warn", "off"] {
            assert_eq!(full(as_it_is), as_it_is);
        }
    }
}
