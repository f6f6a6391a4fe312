//! From a file's text to a [`Config`]: TOML, `[model]`; `[server]` is read in `server.rs`, the streams in `stream.rs`.

use std::path::{Path, PathBuf};

use toml::de::DeTable;

use super::error::line_of;
use super::reader::{Document, Section, Value};
use super::server::read_server;
use super::stream::read_streams;
use super::{Config, ConfigError, ConfigErrors, ModelConfig, Provider, Require};

/// Reads and validates a configuration file.
///
/// # Errors
/// Everything that is wrong with it, or the one reason why it cannot be read. Programs end with exit code 78.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    parse(&read(path)?, path)
}

/// The text of a configuration file.
///
/// # Errors
/// The one reason why it cannot be read.
pub fn read(path: &Path) -> Result<String, ConfigErrors> {
    let bytes = std::fs::read(path)
        .map_err(|error| ConfigErrors::whole_file(path, None, format!("cannot be read: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let line = line_of(error.as_bytes(), error.utf8_error().valid_up_to());
        ConfigErrors::whole_file(path, Some(line), "is not UTF-8 text".into())
    })
}

/// Validates the text of a configuration file. `path` names it in errors, and relative paths start at its folder.
///
/// Files that the text names are looked for, and password files are read.
///
/// # Errors
/// Everything that is wrong with it: if it is no TOML, all syntax errors; otherwise all wrong, unknown and missing keys.
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigErrors> {
    parse_with(text, path, &|name| std::env::var(name).ok())
}

/// [`parse`] with the environment given, for tests.
pub(super) fn parse_with(
    text: &str,
    path: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Config, ConfigErrors> {
    match read_with(text, path, env) {
        (Some(config), errors) if errors.is_empty() => Ok(config),
        (_, errors) => Err(ConfigErrors { path: path.to_path_buf(), errors }),
    }
}

/// What can be understood of the text of a configuration file, and all that is wrong with it: with defaults for what is wrong,
/// without streams that have no name or no source. For whoever looks for more errors; nothing is to run with it.
pub fn parse_partly(text: &str, path: &Path) -> (Option<Config>, ConfigErrors) {
    let (config, errors) = read_with(text, path, &|name| std::env::var(name).ok());
    (config, ConfigErrors { path: path.to_path_buf(), errors })
}

fn read_with(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> (Option<Config>, Vec<ConfigError>) {
    // A byte order mark is how some editors say UTF-8.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (table, syntax) = DeTable::parse_recoverable(text);
    if !syntax.is_empty() {
        // What the parser made of the rest would be reported as more errors than there are.
        let error = |error: &toml::de::Error| ConfigError {
            key: String::new(),
            line: error.span().map(|span| line_of(text.as_bytes(), span.start)),
            problem: match error.span().and_then(|span| text.get(span)) {
                Some(name) if error.message() == "duplicate key" => format!("{} is given twice", name.trim()),
                _ => error.message().replace('\n', ", "),
            },
            help: None,
        };
        let mut errors: Vec<ConfigError> = syntax.iter().map(error).collect();
        errors.sort_by_key(|error| error.line);
        return (None, errors);
    }

    let doc = Document::new(text, folder_of(path), env);
    let config = read_root(&doc.root(table.get_ref()));
    (Some(config), doc.into_errors())
}

/// Where the relative paths of a configuration file begin.
pub fn folder_of(path: &Path) -> PathBuf {
    // Absolute, so that a later change of the current folder changes nothing. Fails only for an empty path.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    path.parent().map(Path::to_path_buf).unwrap_or_default()
}

fn read_root(root: &Section) -> Config {
    let model = read_model(&root.section("model"));
    let server = read_server(&root.section("server"));
    let streams = read_streams(root);
    root.finish();
    Config { model, server, streams }
}

fn read_model(section: &Section) -> ModelConfig {
    // The empty path never leaves: wherever it is used, an error was noted.
    let path = match section.get("path") {
        Some(value) => value.existing_file().unwrap_or_default(),
        None => crate::base::paths::default_model().unwrap_or_else(|help| {
            section.fail("path", "is missing, and no model was found", Some(&help));
            PathBuf::new()
        }),
    };
    let mut model = ModelConfig::with_path(path);
    if let Some(providers) = section.get("providers").and_then(|value| read_providers(&value)) {
        model.providers = providers;
        model.providers_named = true;
    }
    if let Some(value) = section.get("require") {
        model.require = value.choice(&[("any", Require::Any), ("gpu", Require::Gpu)]).unwrap_or(Require::Any);
        if model.require == Require::Gpu && model.providers == [Provider::Cpu] {
            let help = "add \"tensorrt\" or \"cuda\" to model.providers, or drop the requirement";
            let _: Option<()> = value.fail("\"gpu\" is required, but only \"cpu\" may be used", Some(help));
        }
    }
    let count = |key, most, help| section.get(key).and_then(|value| value.integer::<usize>(0..=most, help));
    model.threads = count("threads", 1024, "0 is all cores").unwrap_or(0);
    model.workers = count("workers", 256, "0 is measured at start").unwrap_or(0);
    model.max_batch = count("max_batch", 64, "0 is 1").unwrap_or(0);
    let device = section.get("device").and_then(|value| value.integer(0..=63, "the number that nvidia-smi shows"));
    model.device = device.unwrap_or(0);
    model.cache_dir = match section.get("cache_dir") {
        Some(value) => value.folder(),
        // systemd's CacheDirectory= may list several, separated by colons.
        None => section
            .doc
            .env("CACHE_DIRECTORY")
            .and_then(|list| list.split(':').next().filter(|folder| !folder.is_empty()).map(PathBuf::from)),
    };
    model.runtime = section.get("runtime").and_then(|value| value.existing_file());
    section.finish();
    model
}

fn read_providers(value: &Value) -> Option<Vec<Provider>> {
    let choices = Provider::ALL.map(|provider| (provider.name(), provider));
    let help = r#"write ["tensorrt", "cuda", "cpu"], or fewer"#;
    let values = value.list(Some(help))?;
    if values.is_empty() {
        return value.fail("must not be empty", Some(help));
    }
    let mut providers = Vec::new();
    for value in &values {
        match value.choice(&choices) {
            Some(provider) if providers.contains(&provider) => {
                let _: Option<()> = value.fail(format!("{:?} is listed twice", provider.name()), None);
            }
            Some(provider) => providers.push(provider),
            None => {}
        }
    }
    // With a wrong name among them, the list says nothing about what is required.
    (providers.len() == values.len()).then_some(providers)
}
