//! The log on standard error: text, journald's fields under systemd, or JSON.

use clap::ValueEnum;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// journald's own fields under systemd, text elsewhere.
    Auto,
    /// One line of text per event.
    Text,
    /// One JSON object per line.
    Json,
}

/// Why logging cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The value of `MASKCAST_LOG` is invalid.
    #[error("{FILTER}={text:?} is not a log filter: {source}")]
    Filter { text: String, source: ParseError },
    /// Logging has been started before.
    #[error("the log cannot be started: {0}")]
    Init(#[from] TryInitError),
}

/// The environment variable with the log filter.
const FILTER: &str = "MASKCAST_LOG";

/// The journal's fields are `MASKCAST_STREAM`, `MASKCAST_STAGE`, `MASKCAST_SEQ`: names without a prefix could conflict with
/// those of other programs.
const FIELD_PREFIX: &str = "MASKCAST";

const DEFAULT_FILTER: &str = "info";

/// The default level of ONNX Runtime, which logs many messages about optimisations. A filter that names `ort` replaces it.
const QUIET: &str = "ort=error";

/// Modules with another name in earlier versions, which filters may still use: the old and the new target. The events of
/// `maskcast::stream::status` have kept their target.
const RENAMED: [(&str, &str); 7] = [
    ("maskcast::repeats", "maskcast::base::log_dedup"),
    ("maskcast::descriptors", "maskcast::base::descriptors"),
    ("maskcast::events::board", "maskcast::events::event_state"),
    ("maskcast::publish::encoder::trial", "maskcast::publish::encoder::probe"),
    ("maskcast::service::running", "maskcast::service::stream_runner"),
    ("maskcast::stream::show", "maskcast::stream::overlay_stage"),
    ("maskcast::train", "maskcast_train"),
];

/// Starts logging with the filter in `MASKCAST_LOG`. Old names of modules in it are accepted with a warning.
///
/// # Errors
/// When the filter is invalid, or logging has been started before.
pub fn init(format: LogFormat) -> Result<(), LogError> {
    let mut renamed = Vec::new();
    let filter = match std::env::var(FILTER) {
        Ok(text) if !text.trim().is_empty() => EnvFilter::try_new(full(&current_names(&text, &mut renamed)))
            .map_err(|source| LogError::Filter { text, source })?,
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
    started?;
    for (old, new) in renamed {
        tracing::warn!("log filter has the old name of a module: write {new} instead of {old} in {FILTER}");
    }
    Ok(())
}

/// The filter with the current names of modules. The old and new names that were replaced are added to `renamed`.
fn current_names(filter: &str, renamed: &mut Vec<(&'static str, &'static str)>) -> String {
    let current = |directive: &str| {
        let target = directive.trim_start();
        let entry = RENAMED.iter().find_map(|&(old, new)| {
            let rest = target.strip_prefix(old)?;
            (rest.is_empty() || rest.starts_with(['=', '[', ' ']) || rest.starts_with("::")).then_some((old, new, rest))
        });
        match entry {
            Some((old, new, rest)) => {
                renamed.push((old, new));
                format!("{new}{rest}")
            }
            None => directive.to_owned(),
        }
    };
    filter.split(',').map(current).collect::<Vec<_>>().join(",")
}

/// The filter with the default level of ONNX Runtime, unless it sets that level itself.
fn full(filter: &str) -> String {
    let mut directives = filter.split(',').map(str::trim);
    let decides = directives.any(|directive| directive == "off" || directive.split(['=', ':']).next() == Some("ort"));
    if decides { filter.to_owned() } else { format!("{filter},{QUIET}") }
}

/// Whether standard error is connected to the journal (systemd.exec(5), `$JOURNAL_STREAM`). Device and inode of the file must
/// be those in the variable, because programs that a shell starts inherit it.
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
        // Internal errors are reported with `eprintln!`, which panics if standard error is closed.
        .log_internal_errors(false)
        .with_writer(std::io::stderr)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_of_onnx_runtime_is_error_unless_the_filter_sets_it() {
        assert_eq!(full("info"), "info,ort=error");
        assert_eq!(full("maskcast::transport=debug, warn"), "maskcast::transport=debug, warn,ort=error");
        for unchanged in ["debug,ort=info", "info, ort::logging=warn", "off"] {
            assert_eq!(full(unchanged), unchanged);
        }
    }

    #[test]
    fn old_names_of_modules_in_a_filter_are_replaced() {
        let replaced = |filter: &str| {
            let mut renamed = Vec::new();
            (current_names(filter, &mut renamed), renamed.len())
        };
        assert_eq!(replaced("info, maskcast::repeats=debug"), ("info,maskcast::base::log_dedup=debug".into(), 1));
        assert_eq!(replaced("maskcast::stream::show"), ("maskcast::stream::overlay_stage".into(), 1));
        assert_eq!(replaced("maskcast::train::loader=trace,warn"), ("maskcast_train::loader=trace,warn".into(), 1));
        for current in ["maskcast::stream=debug,warn", "maskcast::stream::status=info", "maskcast::training=warn", ""] {
            assert_eq!(replaced(current), (current.into(), 0));
        }
        for (_, new) in RENAMED {
            assert!(EnvFilter::try_new(new).is_ok(), "{new}");
        }
    }
}
