//! Access to the parts of an OpenAPI document.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// How often each schema is referred to in the whole document.
pub(super) fn count_references(value: &Value) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    visit(value, &mut |name| *counts.entry(name.to_owned()).or_default() += 1);
    counts
}

/// The schemas that are the request body of an operation.
pub(super) fn body_schemas(api: &Value) -> BTreeSet<String> {
    let operations = entries(&api["paths"]).flat_map(|(_, item)| entries(item));
    let contents = operations.flat_map(|(_, operation)| entries(&operation["requestBody"]["content"]));
    contents.filter_map(|(_, content)| schema_name(&content["schema"])).map(str::to_owned).collect()
}

/// These schemas, with those that they consist of.
pub(super) fn with_parts(api: &Value, schemas: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open: Vec<String> = schemas.iter().cloned().collect();
    while let Some(name) = open.pop() {
        if found.insert(name.clone()) {
            visit(&api["components"]["schemas"][&name], &mut |name| open.push(name.to_owned()));
        }
    }
    found
}

fn visit(value: &Value, found: &mut impl FnMut(&str)) {
    schema_name(value).into_iter().for_each(&mut *found);
    entries(value).for_each(|(_, value)| visit(value, found));
    items(value).for_each(|value| visit(value, found));
}

/// The schema that a `$ref` refers to.
pub(super) fn schema_name(schema: &Value) -> Option<&str> {
    schema["$ref"].as_str()?.strip_prefix("#/components/schemas/")
}

/// The alternatives of `oneOf` and `anyOf`.
pub(super) fn options(schema: &Value) -> impl Iterator<Item = &Value> {
    items(&schema["oneOf"]).chain(items(&schema["anyOf"]))
}

/// The elements of an array; none for any other value.
pub(super) fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// The members of an object; none for any other value.
pub(super) fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
