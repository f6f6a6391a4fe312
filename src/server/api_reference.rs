//! The reference of the HTTP API as Markdown (`docs/api.md`), made from the OpenAPI document.
//!
//! The text comes from the doc comments of handlers and types and from `docs/introduction.md`. In the description of a
//! field, what follows ` Default: ` or ` Range: ` goes into a column of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use axum::http::Method;
use serde_json::Value;

use super::auth::{RequiredAccess, required_access};
use super::openapi;
use crate::base::wrapped::wrapped;
use crate::users::Role;

mod document;

use document::{body_schemas, count_references, entries, items, options, schema_name, with_parts};

const HEADER: &str = "# HTTP API\n\n<!-- Made by `make docs` from the doc comments in src/server. Do not edit. -->\n\n";

/// Where the examples send their requests.
const ADDRESS: &str = "http://127.0.0.1:8080";

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

/// The reference of all operations and schemas, in a fixed order.
///
/// # Errors
/// When the OpenAPI document cannot be converted to JSON.
pub fn markdown() -> Result<String, serde_json::Error> {
    let api = serde_json::to_value(openapi::described())?;
    let bodies = body_schemas(&api);
    let request = with_parts(&api, &bodies);
    let reference = Reference { references: count_references(&api), bodies, request, api: &api };
    Ok(reference.write())
}

struct Reference<'a> {
    api: &'a Value,
    /// How often each schema is referred to.
    references: BTreeMap<String, usize>,
    /// Schemas that are the request body of an operation.
    bodies: BTreeSet<String>,
    /// Schemas that are part of a request body: there it matters which fields are required.
    request: BTreeSet<String>,
}

impl Reference<'_> {
    fn write(&self) -> String {
        let mut out = String::from(HEADER);
        push(&mut out, text(&self.api["info"]["description"]));
        push(&mut out, "## Operations");
        let tags: Vec<&Value> = items(&self.api["tags"]).collect();
        out += "| Operation | | Access |\n| --- | --- | --- |\n";
        for tag in &tags {
            for (method, path, operation) in self.operations(text(&tag["name"])) {
                let (summary, access) = (text(&operation["summary"]), access(method, path));
                let _ = writeln!(
                    out,
                    "| `{} {path}` | [{summary}](#{}) | {access} |",
                    method.to_uppercase(),
                    anchor(summary)
                );
            }
        }
        out.push('\n');
        for tag in &tags {
            push(&mut out, &format!("## {}", title(text(&tag["name"]))));
            push(&mut out, text(&tag["description"]));
            for (method, path, operation) in self.operations(text(&tag["name"])) {
                self.operation(method, path, operation, &mut out);
            }
        }
        push(&mut out, "## Schemas");
        for (name, schema) in entries(&self.api["components"]["schemas"]) {
            if !self.is_inlined(name) && schema["enum"].is_null() {
                push(&mut out, &format!("### {name}"));
                push(&mut out, text(&schema["description"]));
                self.fields(schema, self.request.contains(name), &mut out);
            }
        }
        out.truncate(out.trim_end().len());
        out + "\n"
    }

    /// The operations of a tag, by path and then by method.
    fn operations<'a>(&'a self, tag: &'a str) -> impl Iterator<Item = (&'static str, &'a str, &'a Value)> {
        let paths = entries(&self.api["paths"]);
        let all = paths.flat_map(|(path, item)| METHODS.map(|method| (method, path.as_str(), &item[method])));
        all.filter(move |(.., operation)| items(&operation["tags"]).any(|name| name == tag))
    }

    fn operation(&self, method: &str, path: &str, operation: &Value, out: &mut String) {
        push(out, &format!("### {}", text(&operation["summary"])));
        push(out, &format!("`{} {path}`", method.to_uppercase()));
        push(out, text(&operation["description"]));
        push(out, &format!("Access: {}.", access(method, path)));
        if items(&operation["parameters"]).next().is_some() {
            *out += "| Parameter | In | Type | Default, range | Meaning |\n| --- | --- | --- | --- | --- |\n";
            for parameter in items(&operation["parameters"]) {
                let schema = &parameter["schema"];
                let (meaning, limits) = self.meaning(parameter, schema);
                let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
                let _ = writeln!(out, "| `{name}` | {place} | {} | {limits} | {meaning} |", self.type_name(schema));
            }
            out.push('\n');
        }
        self.body(&operation["requestBody"], out);
        *out += "| Status | Content | Meaning |\n| --- | --- | --- |\n";
        for (status, response) in entries(&operation["responses"]) {
            let content: Vec<String> = entries(&response["content"])
                .map(|(kind, content)| match &content["schema"] {
                    Value::Null => format!("`{kind}`"),
                    schema if kind == "application/json" => self.type_name(schema),
                    schema => format!("`{kind}`: {}", self.type_name(schema)),
                })
                .collect();
            let _ = write!(out, "| {status} | {} | {}", content.join(", "), text(&response["description"]));
            for (name, header) in entries(&response["headers"]) {
                let _ = write!(out, " Header `{name}`: {}", text(&header["description"]));
            }
            *out += " |\n";
        }
        out.push('\n');
        if let Some(command) = curl(method, path, operation) {
            push(out, &format!("```sh\n{command}\n```"));
        }
    }

    fn body(&self, body: &Value, out: &mut String) {
        let kinds: Vec<String> = entries(&body["content"]).map(|(kind, _)| format!("`{kind}`")).collect();
        let Some((_, content)) = entries(&body["content"]).next() else { return };
        let name = schema_name(&content["schema"]);
        let about = match name {
            Some(_) => self.type_name(&content["schema"]),
            None => text(&body["description"]).to_owned(),
        };
        match name.filter(|name| self.is_inlined(name)) {
            Some(name) => {
                let schema = self.schema(name);
                push(out, &format!("Request body ({}): {}", kinds.join(" or "), text(&schema["description"])));
                self.fields(schema, true, out);
            }
            None => push(out, &format!("Request body ({}): {}", kinds.join(" or "), about)),
        }
    }

    fn fields(&self, schema: &Value, is_request: bool, out: &mut String) {
        *out += "| Field | Type | Default, range | Meaning |\n| --- | --- | --- | --- |\n";
        self.field_rows("", schema, is_request, out);
        out.push('\n');
    }

    /// A row for each field, and for the fields of tables in it, named `overlay.alpha` and `push[].url`.
    fn field_rows(&self, outer: &str, schema: &Value, is_request: bool, out: &mut String) {
        for (name, field) in entries(&schema["properties"]) {
            let (meaning, mut limits) = self.meaning(field, field);
            let mut type_name = self.type_name(field);
            if is_request && items(&schema["required"]).any(|required| required == name) {
                type_name = type_name.trim_end_matches(" or null").to_owned();
                limits = if limits.is_empty() { "Required.".into() } else { format!("Required. {limits}") };
            }
            let _ = writeln!(out, "| `{outer}{name}` | {type_name} | {limits} | {meaning} |");
            for inner in [field].into_iter().chain(options(field)) {
                self.field_rows(&format!("{outer}{name}."), inner, false, out);
                self.field_rows(&format!("{outer}{name}[]."), &inner["items"], false, out);
            }
        }
    }

    /// What a field or parameter means, and its default and range.
    fn meaning(&self, described: &Value, schema: &Value) -> (String, String) {
        let own = [described].into_iter().chain(options(described)).map(|value| text(&value["description"]));
        let referred = [schema].into_iter().chain(options(schema)).filter_map(schema_name);
        let referred = referred.map(|name| text(&self.schema(name)["description"]));
        let all = own.chain(referred).find(|text| !text.is_empty()).unwrap_or_default().replace('\n', " ");
        let split = [" Default: ", " Range: "].iter().filter_map(|word| all.find(word)).min();
        let (meaning, limits) = all.split_at(split.unwrap_or(all.len()));
        let mut limits = limits.trim().to_owned();
        let bound = |key: &str| Some(&schema[key]).filter(|bound| !bound.is_null());
        let range = match (bound("minimum"), bound("maximum")) {
            (Some(least), Some(most)) => Some(format!("Range: {least} to {most}.")),
            (Some(least), None) if least.as_f64() != Some(0.0) => Some(format!("At least {least}.")),
            (None, Some(most)) => Some(format!("At most {most}.")),
            _ => None,
        };
        let length = bound("maxLength").map(|length| format!("At most {length} characters."));
        let default = bound("default").map(|default| format!("Default: `{default}`."));
        for part in default.into_iter().chain(range).chain(length) {
            limits = format!("{limits} {part}").trim().to_owned();
        }
        (cell(meaning), cell(&limits))
    }

    fn type_name(&self, schema: &Value) -> String {
        if let Some(name) = schema_name(schema) {
            return match &self.schema(name)["enum"] {
                Value::Null => format!("[{name}](#{})", anchor(name)),
                _ => self.type_name(self.schema(name)),
            };
        }
        let is_null = |schema: &&Value| schema["type"] == "null";
        if let Some(option) = options(schema).find(|option| !is_null(option)) {
            let nullable = if options(schema).any(|option| is_null(&option)) { " or null" } else { "" };
            return self.type_name(option) + nullable;
        }
        let literals: Vec<String> = items(&schema["enum"]).map(|value| format!("`{value}`")).collect();
        if !literals.is_empty() {
            return literals.join(", ");
        }
        let grouped = |schema: &Value| match self.type_name(schema) {
            name if name.contains(" or ") => format!("({name})"),
            name => name,
        };
        let one = |name: &str| match name {
            "array" => format!("array of {}", grouped(&schema["items"])),
            "object" if schema["additionalProperties"].is_object() => {
                format!("map of string to {}", grouped(&schema["additionalProperties"]))
            }
            name => name.to_owned(),
        };
        match &schema["type"] {
            Value::Array(names) => names.iter().map(text).map(one).collect::<Vec<_>>().join(" or "),
            name => one(text(name)),
        }
    }

    fn schema(&self, name: &str) -> &Value {
        &self.api["components"]["schemas"][name]
    }

    /// Whether a schema is described only where it is used: as the body of one operation.
    fn is_inlined(&self, name: &str) -> bool {
        self.bodies.contains(name) && self.references.get(name) == Some(&1)
    }
}

/// Who may call an operation, by the rule that the server applies.
fn access(method: &str, path: &str) -> &'static str {
    let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap_or_default();
    match required_access(&method, path) {
        RequiredAccess::Public | RequiredAccess::OptionalIdentity => "everyone",
        RequiredAccess::Role(Role::Viewer) => "viewer",
        RequiredAccess::Role(Role::Operator) => "operator",
    }
}

/// A command that sends the operation's example; `None` where a parameter or the body has none.
fn curl(method: &str, path: &str, operation: &Value) -> Option<String> {
    let mut url = format!("{ADDRESS}{path}");
    for parameter in items(&operation["parameters"]).filter(|parameter| parameter["in"] == "path") {
        let example = parameter["example"].as_str().or(parameter["schema"]["example"].as_str())?;
        url = url.replace(&format!("{{{}}}", text(&parameter["name"])), example);
    }
    let mut command = String::from("curl");
    if method != "get" {
        let _ = write!(command, " -X {}", method.to_uppercase());
    }
    if access(method, path) != "everyone" {
        command += " -H \"Authorization: Bearer $MASKCAST_TOKEN\"";
    }
    if let Some((kind, content)) = entries(&operation["requestBody"]["content"]).next() {
        let example = Some(&content["example"]).filter(|example| !example.is_null())?;
        let _ = write!(command, " \\\n  -H 'Content-Type: {kind}' -d '{example}'");
    }
    let is_file = |(kind, _): (&String, _)| kind.starts_with("image/") || kind.starts_with("video/");
    if entries(&operation["responses"]["200"]["content"]).any(is_file) {
        command += " -O";
    }
    Some(format!("{command} \\\n  {url}"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default().trim()
}

/// Adds a paragraph.
fn push(out: &mut String, text: &str) {
    if !text.is_empty() {
        let _ = write!(out, "{}\n\n", wrapped(text));
    }
}

fn cell(text: &str) -> String {
    text.trim().replace('|', "\\|")
}

/// A tag as a heading.
fn title(tag: &str) -> String {
    if tag == "webrtc" {
        return "WebRTC".into();
    }
    let (first, rest) = tag.split_at(tag.len().min(1));
    first.to_uppercase() + rest
}

/// The anchor that Markdown viewers give a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}
