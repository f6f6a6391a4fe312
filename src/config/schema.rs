//! The schema of the configuration, made from the types that hold it: [`Config`] and those in it.
//!
//! Their doc comments, types, defaults and ranges define a key; the reader ([`super::validate`]), the JSON
//! Schema for editors, the documentation and the API's settings are made from them. Attributes that JSON Schema does not have
//! are written `#[schemars(extend("x-…" = …))]`:
//!
//! | attribute | meaning |
//! | --- | --- |
//! | `x-check` | the name of the function in [`super::checks`] that reads the value |
//! | `x-check-items` | the same, for the elements of an array |
//! | `x-help` | what to write, for error messages |
//! | `x-least`, `x-most` | the range of a duration |
//! | `x-default` | the default in words, where it depends on something |
//! | `x-sources` | the schemes of the sources that the key is for; all of them without it |
//! | `x-applies` | when a change takes effect: see [`Applies`]; for a table and what is in it |
//! | `x-api` | `never`: the API may not set it; `remove`: the API may only remove it (null); `x-api-help`: what to do instead |
//! | `x-secret` | the value is or may hold a secret: it is not shown |
//! | `x-named` | the elements of this array of tables have unique names, which are part of their key paths |
//! | `x-single` | the array of tables may also be written as one table, in single brackets; the elements of the array need names |

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::{Value as Json, json};

use super::error::ConfigError;
use super::root::Config;
use super::stream::StreamConfig;

/// Keys and values, as JSON has them.
pub type Object = serde_json::Map<String, Json>;

/// When a change of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applies {
    /// With the next frame, after a reload or by the API.
    NextFrame,
    /// A reload, or the API, restarts the stream.
    RestartsStream,
    /// A reload applies it; streams continue.
    Reload,
    /// The service has to be restarted.
    Restart,
}

impl Applies {
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "next-frame" => Applies::NextFrame,
            "restarts-stream" => Applies::RestartsStream,
            "reload" => Applies::Reload,
            "restart" => Applies::Restart,
            _ => return None,
        })
    }
}

/// The schema with all attributes.
pub(super) fn schema() -> &'static Object {
    static SCHEMA: LazyLock<Object> = LazyLock::new(|| {
        let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
        let mut schema = settings.into_generator().into_root_schema_for::<Config>().to_value();
        clean_schema(&mut schema);
        match schema {
            Json::Object(schema) => schema,
            _ => Object::new(),
        }
    });
    &SCHEMA
}

/// The JSON Schema (draft 2020-12) of configuration files, for editors and validators.
pub fn json_schema() -> Json {
    let schema = schema();
    let first = ["$schema", "title", "description"].into_iter().filter_map(|key| schema.get_key_value(key));
    let mut schema = first.chain(schema).map(|(key, value)| (key.clone(), value.clone())).collect();
    each_schema(&mut schema, &mut accept_single_table);
    remove_attributes(&mut schema);
    schema
}

/// Where an array of tables may be written as one table, adds the keywords for it: those of objects have no effect on arrays, and the
/// other way round.
fn accept_single_table(schema: &mut Object) {
    if !schema.contains_key("x-single") {
        return;
    }
    let Some(items) = schema.get_mut("items").and_then(Json::as_object_mut) else { return };
    let of_table = ["properties", "additionalProperties"];
    let of_table: Vec<_> =
        of_table.into_iter().filter_map(|key| Some((key.to_owned(), items.get(key)?.clone()))).collect();
    items.insert("required".into(), json!(["name"]));
    schema.insert("type".into(), json!(["object", "array"]));
    schema.extend(of_table);
}

/// Removes what serde and Rust's types bring along and TOML does not have: null and sizes of numbers.
fn clean_schema(schema: &mut Json) {
    each_schema(schema, &mut |schema| {
        if let Some(Json::Array(types)) = schema.get_mut("type") {
            types.retain(|kind| kind != "null");
            if let [only] = &types[..] {
                schema["type"] = only.clone();
            }
        }
        if let Some(Json::Array(branches)) = schema.get_mut("anyOf") {
            branches.retain(|branch| branch["type"] != "null");
            if let [Json::Object(only)] = &branches[..] {
                let only = only.clone();
                schema.remove("anyOf");
                let own = std::mem::replace(schema, only);
                schema.extend(own);
            }
        }
        for key in ["format", "readOnly", "writeOnly"] {
            schema.remove(key);
        }
        let is_of_tables = |value: &Json| value.as_array().is_some_and(|list| list.iter().any(Json::is_object));
        let default = schema.get("default");
        let is_no_default = |value: &Json| value.is_null() || value.is_object() || is_of_tables(value);
        if schema.contains_key("x-default") || default.is_some_and(is_no_default) {
            schema.remove("default");
        }
        let needed: Vec<String> = required(schema).map(str::to_owned).collect();
        if let Some(Json::Object(properties)) = schema.get_mut("properties") {
            for name in needed {
                // The value that replaces a missing one is not a default.
                properties.get_mut(&name).and_then(Json::as_object_mut).map(|property| property.remove("default"));
            }
            schema.insert("additionalProperties".into(), false.into());
        }
        let is_free_text = schema.get("type").is_some_and(|kind| kind == "string")
            && !["enum", "const", "pattern", "minLength"].iter().any(|key| schema.contains_key(*key));
        if is_free_text {
            schema.insert("minLength".into(), 1.into());
        }
    });
}

fn remove_attributes(schema: &mut Json) {
    each_schema(schema, &mut |schema| schema.retain(|key, _| !key.starts_with("x-")));
}

/// Calls `change` with a schema and all schemas in it, the inner ones first.
fn each_schema(schema: &mut Json, change: &mut dyn FnMut(&mut Object)) {
    let Json::Object(schema) = schema else { return };
    if let Some(Json::Object(properties)) = schema.get_mut("properties") {
        properties.values_mut().for_each(|property| each_schema(property, change));
    }
    for key in ["items", "additionalProperties"] {
        schema.get_mut(key).into_iter().for_each(|inner| each_schema(inner, change));
    }
    for key in ["anyOf", "oneOf"] {
        let branches = schema.get_mut(key).and_then(Json::as_array_mut);
        branches.into_iter().flatten().for_each(|branch| each_schema(branch, change));
    }
    change(schema);
}

/// A table of the configuration: `[model]`, `[[stream]]`, `[stream.overlay]`.
#[derive(Clone, Copy)]
pub(super) struct Table {
    /// `stream.overlay`
    pub(super) path: &'static str,
    /// Whether it is written in double brackets.
    pub(super) is_array: bool,
    pub(super) schema: &'static Object,
    /// When a change takes effect, unless a key has its own `x-applies`.
    pub(super) applies: Option<Applies>,
}

impl Table {
    /// `[stream.overlay]`, `[[stream]]`
    pub(super) fn header(&self) -> String {
        if self.is_array { format!("[[{}]]", self.path) } else { format!("[{}]", self.path) }
    }

    /// The names and schemas of its keys, without those that are tables of their own.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'static str, &'static Object)> {
        let own = |(_, schema): &(&str, &Object)| inner_table(schema).is_none();
        properties(self.schema).filter(own)
    }

    pub(super) fn key(&self, name: &str) -> Option<&'static Object> {
        properties(self.schema).find(|(key, _)| *key == name).map(|(_, schema)| schema)
    }

    pub(super) fn is_required(&self, key: &str) -> bool {
        required(self.schema).any(|name| name == key)
    }
}

/// All tables of the configuration, in the order in which they are documented.
pub(super) fn tables() -> &'static [Table] {
    static TABLES: LazyLock<Vec<Table>> = LazyLock::new(|| {
        fn collect(path: &str, schema: &'static Object, applies: Option<Applies>, tables: &mut Vec<Table>) {
            for (name, property) in properties(schema) {
                let Some((inner, is_array)) = inner_table(property) else { continue };
                let path: &'static str = if path.is_empty() { name } else { format!("{path}.{name}").leak() };
                let applies = applies_of(property).or(applies_of(inner)).or(applies);
                let is_array = is_array && !property.contains_key("x-single");
                tables.push(Table { path, is_array, schema: inner, applies });
                collect(path, inner, applies, tables);
            }
        }
        let mut tables = Vec::new();
        collect("", schema(), None, &mut tables);
        tables
    });
    &TABLES
}

/// The table of this path.
pub(super) fn table(path: &str) -> Option<&'static Table> {
    tables().iter().find(|table| table.path == path)
}

/// The header of the table that has this key, for keys that are found in the wrong table: in TOML, a key below
/// `[stream.overlay]` belongs to the overlay, however the lines are indented.
pub(super) fn table_by_key(key: &str) -> Option<String> {
    tables().iter().find(|table| table.keys().any(|(name, _)| name == key)).map(Table::header)
}

/// The schema of a key that is a table or an array of tables, and whether it is the latter.
fn inner_table(property: &Object) -> Option<(&Object, bool)> {
    let is_table = |schema: &&Object| schema.contains_key("properties");
    let items = property.get("items").and_then(Json::as_object).filter(is_table).map(|items| (items, true));
    Some(property).filter(is_table).map(|table| (table, false)).or(items)
}

/// The keys of a table by its schema.
pub(super) fn properties(schema: &Object) -> impl Iterator<Item = (&str, &Object)> {
    let properties = schema.get("properties").and_then(Json::as_object).into_iter().flatten();
    properties.filter_map(|(name, property)| Some((name.as_str(), property.as_object()?)))
}

/// The keys that a table must have.
pub(super) fn required(schema: &Object) -> impl Iterator<Item = &str> {
    schema.get("required").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str)
}

/// The keys of `[[stream]]` that are for some sources only, and the schemes of these.
pub(super) fn keys_by_source() -> impl Iterator<Item = (&'static str, Vec<&'static str>)> {
    let keys = table("stream").into_iter().flat_map(Table::keys);
    keys.filter_map(|(name, schema)| {
        let schemes = schema.get("x-sources")?.as_array()?;
        Some((name, schemes.iter().filter_map(Json::as_str).collect()))
    })
}

/// An attribute whose value is text.
pub(super) fn text<'s>(schema: &'s Object, attribute: &str) -> Option<&'s str> {
    schema.get(attribute).and_then(Json::as_str)
}

pub(super) fn applies_of(schema: &Object) -> Option<Applies> {
    text(schema, "x-applies").and_then(Applies::named)
}

/// The words that a key may hold; none where it is not limited to words.
pub(super) fn choices(schema: &Object) -> Vec<&str> {
    fn words(schema: &Object) -> impl Iterator<Item = &str> {
        let listed = schema.get("enum").and_then(Json::as_array).into_iter().flatten();
        listed.chain(schema.get("const")).filter_map(Json::as_str)
    }
    let branches = schema.get("oneOf").and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_object);
    words(schema).chain(branches.flat_map(words)).collect()
}

/// An error for each of these settings that only the configuration file may set, not the API. They are keys of the table
/// `table`, whose key path is `key`.
pub fn not_for_api(settings: &Object, table: &str, key: &str) -> Vec<ConfigError> {
    let Some(table) = self::table(table) else { return Vec::new() };
    let refused = |(name, value): (&String, &Json)| {
        let schema = table.key(name)?;
        let is_refused = match text(schema, "x-api")? {
            "never" => true,
            "remove" => !value.is_null(),
            _ => false,
        };
        is_refused.then(|| ConfigError {
            key: format!("{key}.{name}"),
            line: None,
            problem: "can only be set in the configuration file, not by the API".into(),
            help: text(schema, "x-api-help").map(str::to_owned),
        })
    };
    settings.iter().filter_map(refused).collect()
}

/// The settings of a stream that are in effect, with the keys of `[[stream]]`: without secrets, and without keys that are not
/// for its source.
pub fn stream_settings(stream: &StreamConfig) -> Object {
    // Fails for no value of the type: a test serialises all keys.
    let settings = serde_json::to_value(stream).ok().and_then(|settings| settings.as_object().cloned());
    let mut settings = settings.unwrap_or_default();
    let scheme = stream.source.uri.scheme();
    for (key, _) in keys_by_source().filter(|(_, schemes)| !schemes.contains(&scheme)) {
        settings.shift_remove(key);
    }
    settings
}

/// The schema of the settings of a table as the API takes them in a merge patch: null removes a key.
pub fn api_schema(table: &str) -> Json {
    let Some(table) = self::table(table) else { return json!({}) };
    let mut schema = Json::Object(table.schema.clone());
    each_schema(&mut schema, &mut |schema| {
        let words: Vec<Json> = choices(schema).into_iter().map(Json::from).collect();
        if schema.contains_key("oneOf") && !words.is_empty() {
            schema.remove("oneOf");
            schema.insert("type".into(), "string".into());
            schema.insert("enum".into(), words.into());
        }
        about_default(schema);
        let needed: Vec<String> = required(schema).map(str::to_owned).collect();
        for (name, property) in schema.get_mut("properties").and_then(Json::as_object_mut).into_iter().flatten() {
            if !needed.contains(name) {
                allow_null(property);
            }
            about_api(property);
            // A patch names only what it changes; the elements of an array are replaced as a whole.
            property.as_object_mut().map(|property| property.remove("required"));
        }
    });
    schema.as_object_mut().map(|schema| schema.remove("required"));
    remove_attributes(&mut schema);
    schema
}

/// Adds default and range to the description of a value. The default is not part of the schema: a client made from it could
/// send all defaults with each change.
fn about_default(schema: &mut Object) {
    let default = schema.remove("default");
    let shown = match (text(schema, "x-default"), &default) {
        (Some(words), _) => Some(words.to_owned()),
        (None, Some(Json::String(word))) => Some(format!("`{word}`")),
        (None, Some(value)) => Some(format!("`{value}`")),
        (None, None) => None,
    };
    let range = text(schema, "x-least").zip(text(schema, "x-most"));
    let range = range.map(|(least, most)| format!(" Range: `{least}` to `{most}`."));
    let default_text = shown.map(|shown| format!(" Default: {shown}."));
    if let Some(Json::String(about)) = schema.get_mut("description") {
        [default_text, range].into_iter().flatten().for_each(|part| about.push_str(&part));
    }
    schema.extend(default.map(|default| ("example".to_owned(), default)));
}

/// Adds to the description of a property what the API may not do with it.
fn about_api(property: &mut Json) {
    let limit = match property["x-api"].as_str() {
        Some("never") => "Only in responses: it can be set in the configuration file only.",
        Some("remove") => "In requests, only null is accepted, which removes the key.",
        _ => return,
    };
    let hidden = if property["x-secret"] == true { " Never in responses." } else { "" };
    let about = property["description"].as_str().unwrap_or_default();
    let about = Json::from(format!("{about} {limit}{hidden}").trim_start());
    if property["x-api"] == "never" {
        // utoipa's arrays cannot be read-only.
        *property = json!({ "oneOf": [property.take()], "description": about, "readOnly": true });
    } else {
        property["description"] = about;
    }
}

fn allow_null(property: &mut Json) {
    let kinds = match &property["type"] {
        Json::Array(kinds) => kinds.clone(),
        kind => vec![kind.clone()],
    };
    property["type"] = kinds.into_iter().chain(["null".into()]).collect();
    if let Some(words) = property.get_mut("enum").and_then(Json::as_array_mut) {
        words.push(Json::Null);
    }
}
