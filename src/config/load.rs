//! From a file's text to a [`Config`]: TOML, then each key by the schema ([`super::validate`]), then checks of several keys
//! together (`apply_dependent_defaults` of each section).

use std::path::Path;

use serde_json::Value as Json;
use toml::de::DeTable;

use super::document::{Document, Section};
use super::error::{ConfigError, ConfigErrors, line_of};
use super::model;
use super::path::folder_of;
use super::root::Config;
use super::schema::{self, Object};
use super::source::SourceSpec;
use super::validate::read_table;
use super::webhook;

/// Reads and validates a configuration file.
///
/// # Errors
/// All errors of the file, or the reason why it cannot be read. Programs exit with code 78.
pub fn load(path: &Path) -> Result<Config, ConfigErrors> {
    parse(&read(path)?, path)
}

/// The text of a configuration file.
///
/// # Errors
/// The reason why it cannot be read.
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
/// All errors: the syntax errors if it is not TOML, otherwise all invalid, unknown and missing keys.
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

/// The valid part of the text of a configuration file, and all errors. Invalid values are replaced by defaults; streams
/// without a name or a source are left out. For searching further errors only: the service must not run with the result.
pub fn parse_partly(text: &str, path: &Path) -> (Option<Config>, ConfigErrors) {
    let (config, errors) = read_with(text, path, &|name| std::env::var(name).ok());
    (config, ConfigErrors { path: path.to_path_buf(), errors })
}

fn read_with(text: &str, path: &Path, env: &dyn Fn(&str) -> Option<String>) -> (Option<Config>, Vec<ConfigError>) {
    // Some editors write a byte order mark at the start of UTF-8.
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
    let read = read_table(&doc, schema::schema(), table.get_ref(), "");
    let config = build_config(&doc.section(""), read);
    (config, doc.into_errors())
}

/// The configuration from the valid values. `None` if the schema accepts a value that its type does not: a bug, which is
/// reported as an error.
fn build_config(root: &Section, read: Object) -> Option<Config> {
    let values = read.get("stream").and_then(Json::as_array).cloned().unwrap_or_default();
    let mqtt = read.get("mqtt").cloned().unwrap_or_default();
    let mut config: Config = match serde_json::from_value(Json::Object(read)) {
        Ok(config) => config,
        Err(error) => {
            // The error's text may hold a secret.
            let problem = format!("cannot be used: a value passed the check but not its type ({:?})", error.classify());
            root.fail("", problem, None);
            return None;
        }
    };
    model::apply_to_all(&mut config.models, root);
    config.server.apply_dependent_defaults(&root.section("server"));
    config.history.apply_dependent_defaults(&root.section("history"));
    if let Some(broker) = &mut config.mqtt {
        broker.apply_dependent_defaults(&root.section("mqtt"), &mqtt);
    }
    config.mqtt = config.mqtt.filter(|_| root.section("mqtt").is_valid("url"));
    let mut streams = Vec::new();
    for (i, (mut stream, values)) in config.streams.into_iter().zip(&values).enumerate() {
        let section =
            if stream.name.is_empty() { root.element("stream", i) } else { root.element("stream", &stream.name) };
        stream.apply_dependent_defaults(&section, values, &config.models);
        if section.is_valid("source") {
            check_source_keys(&stream.source, &section);
        }
        if !stream.name.is_empty() && section.is_valid("source") {
            stream.record = stream.record.filter(|_| section.section("record").is_valid("dir"));
            streams.push(stream);
        }
    }
    config.streams = streams;
    webhook::check_all(&mut config.webhooks, root);
    Some(config)
}

/// Reports each key that is not for sources of this scheme.
fn check_source_keys(source: &SourceSpec, section: &Section) {
    for (key, schemes) in schema::keys_by_source() {
        if section.is_written(key) && !schemes.contains(&source.uri.scheme()) {
            let help = format!("it is for {} sources; remove it", schemes.join(", "));
            section.fail(key, "has no meaning for this source", Some(&help));
        }
    }
}
