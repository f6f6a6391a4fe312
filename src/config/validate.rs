//! Validates a parsed TOML document by the schema, and reports all errors at once: unknown keys, missing keys, values of a
//! wrong type or out of range. The valid values are returned as JSON that serde reads into the types of the schema: invalid
//! values are left out, paths are absolute, durations and sizes have one form.

use serde_json::Value as Json;
use toml::de::DeTable;

use super::checks;
use super::document::{Document, join};
use super::error::did_you_mean;
use super::schema::{Object, choices, properties, required, table_by_key, text};
use super::value::Value;

/// Reads the table at the key path `key` (empty for the document).
pub(super) fn read_table<'a>(doc: &'a Document<'a>, schema: &Object, table: &'a DeTable<'a>, key: &str) -> Object {
    read_keys(doc, schema, table, key, None)
}

/// [`read_table`]; the key `known` has been read already.
fn read_keys<'a>(
    doc: &'a Document<'a>,
    schema: &Object,
    table: &'a DeTable<'a>,
    key: &str,
    known: Option<&str>,
) -> Object {
    let mut read = Object::new();
    let property = |name: &str| properties(schema).find(|(property, _)| *property == name).map(|(_, schema)| schema);
    let others = schema.get("additionalProperties").and_then(Json::as_object);
    for (written, value) in table.iter() {
        let name: &str = written.get_ref();
        let value = Value::new(doc, join(key, name), value);
        doc.mark(&value.key, written.span().start);
        match property(name).or(others) {
            _ if known == Some(name) => {}
            Some(property) => read.extend(read_value(&value, property).map(|value| (name.to_owned(), value))),
            None => unknown_key(&value, written.span().start, name, schema),
        }
    }
    for name in required(schema).filter(|name| !table.contains_key(*name)) {
        let property = property(name);
        let problem = if property.is_some_and(is_tables) { "there is none" } else { "is missing" };
        doc.section(key).fail(name, problem, property.and_then(|property| text(property, "x-help")));
    }
    read
}

fn unknown_key(value: &Value, offset: usize, name: &str, schema: &Object) {
    let known = || properties(schema).map(|(name, _)| name);
    let help = if name == "password" {
        "name a file that holds the password in password_file, or a variable in password_env".into()
    } else if let Some(table) = table_by_key(name) {
        format!("it belongs in {table}")
    } else {
        did_you_mean(name, known())
    };
    value.doc.note(&value.key, Some(offset), "unknown key".into(), Some(&help));
}

/// The value if it is valid; `None` after reporting an error.
fn read_value(value: &Value, schema: &Object) -> Option<Json> {
    let help = help(schema);
    let help = help.as_deref();
    if let Some(check) = text(schema, "x-check") {
        return checks::find(check)(value, schema);
    }
    let words = choices(schema);
    if !words.is_empty() {
        return value.choice(&words, help).map(Json::from);
    }
    let number = |key: &str| schema.get(key).and_then(Json::as_f64);
    match text(schema, "type")? {
        "boolean" => value.boolean().map(Json::from),
        "integer" => {
            let limit = |key: &str| schema.get(key).and_then(Json::as_i64);
            let range = limit("minimum").unwrap_or(i64::MIN)..=limit("maximum").unwrap_or(i64::MAX);
            value.integer(range, help).map(Json::from)
        }
        "number" => {
            let range = number("minimum").unwrap_or(f64::MIN)..=number("maximum").unwrap_or(f64::MAX);
            value.number(range, help).map(Json::from)
        }
        "string" => value.string(help).map(Json::from),
        "array" if is_tables(schema) => read_tables(value, schema, help),
        "array" => read_list(value, schema, help),
        "object" => Some(read_table(value.doc, schema, value.table()?, &value.key).into()),
        _ => None,
    }
}

/// Help for an error: what to write, and the default.
fn help(schema: &Object) -> Option<String> {
    let help = text(schema, "x-help")?;
    let default = schema.get("default").filter(|default| default.is_number());
    Some(default.map_or_else(|| help.to_owned(), |default| format!("{help}; the default is {default}")))
}

fn is_tables(schema: &Object) -> bool {
    schema.get("items").is_some_and(|items| items.get("properties").is_some())
}

fn read_list(value: &Value, schema: &Object, help: Option<&str>) -> Option<Json> {
    let items = schema.get("items").and_then(Json::as_object)?;
    let check = text(schema, "x-check-items").map(checks::find);
    let elements = value.list(help)?;
    if elements.is_empty() && schema.contains_key("minItems") {
        return value.fail("must not be empty", help);
    }
    let is_set = schema.get("uniqueItems").is_some_and(|unique| *unique == true);
    let mut list: Vec<Json> = Vec::new();
    for element in elements {
        let read = match check {
            Some(check) => check(&element, schema),
            None => read_value(&element, items),
        };
        match read {
            Some(read) if is_set && list.contains(&read) => element.fail(format!("{read} is listed twice"), None),
            read => read.map(|read| list.push(read)),
        };
    }
    Some(list.into())
}

/// An array of tables. Elements keep their positions; invalid values are left out of them.
fn read_tables(value: &Value, schema: &Object, help: Option<&str>) -> Option<Json> {
    let items = schema.get("items").and_then(Json::as_object)?;
    let is_single = schema.contains_key("x-single");
    let elements = if value.is_table() && is_single {
        vec![value.clone()]
    } else if value.is_table() {
        let header: Vec<&str> =
            value.key.split('.').map(|part| part.find('[').map_or(part, |end| &part[..end])).collect();
        let header = header.join(".");
        let help = format!("write [[{header}]], with two brackets");
        let _: Option<()> = value.fail(format!("is written [{header}]"), Some(&help));
        vec![value.clone().into_first()]
    } else if value.is_array() {
        value.list(None)?
    } else {
        return value.wrong_type("an array of tables", help);
    };
    if elements.is_empty() && schema.contains_key("minItems") {
        return value.fail("there is none", help);
    }
    let is_named = schema.contains_key("x-named");
    let mut names: Vec<String> = Vec::new();
    let mut list = Vec::new();
    for element in elements {
        let Some(table) = element.table() else {
            list.push(Json::Object(Object::new()));
            continue;
        };
        let mut path = element.key.clone();
        if is_single && value.is_table() {
            // Its name is a key as any other.
            list.push(read_table(element.doc, items, table, &path).into());
            continue;
        }
        let name = if is_named { read_name(&element, items, table, &names) } else { None };
        if is_single && !table.contains_key("name") {
            let help = format!("each [[{}]] needs a name", value.key);
            element.doc.note(&join(&path, "name"), Some(element.at), "is missing".into(), Some(&help));
        }
        if let Some(name) = &name {
            path = format!("{}[{name}]", value.key);
            names.push(name.clone());
        }
        element.doc.mark(&path, element.at);
        let mut read = read_keys(element.doc, items, table, &path, is_named.then_some("name"));
        read.extend(name.map(|name| ("name".to_owned(), name.into())));
        list.push(read.into());
    }
    Some(list.into())
}

/// The name of an element, which must differ from the names in `taken`.
fn read_name<'a>(element: &Value<'a>, schema: &Object, table: &'a DeTable<'a>, taken: &[String]) -> Option<String> {
    let (_, property) = properties(schema).find(|(name, _)| *name == "name")?;
    let value = Value::new(element.doc, join(&element.key, "name"), table.get("name")?);
    let read = read_value(&value, property)?;
    let name = read.as_str()?;
    if taken.iter().any(|other| other == name) {
        let kind = element.key.split('[').next().unwrap_or_default();
        return value.fail(format!("{name:?} is already the name of another {kind}"), Some("names must differ"));
    }
    Some(name.to_owned())
}
