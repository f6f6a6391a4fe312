//! Changes the elements of an array and keeps the comments of the elements that remain.
//!
//! A comment on an element's line belongs to it; a comment on a line of its own belongs to the element below.

use serde_json::Value as Json;
use toml_edit::{Array, RawString, Value};

use super::toml_value::{EditError, to_toml, value_equals};

/// Whether there are comments between the brackets.
pub(super) fn has_comments(array: &Array) -> bool {
    let text = |raw: Option<&RawString>| raw.and_then(RawString::as_str).is_some_and(|text| text.contains('#'));
    array.iter().any(|value| text(value.decor().prefix()) || text(value.decor().suffix()))
        || text(Some(array.trailing()))
}

/// An element with its comments.
struct Entry {
    /// Line ends, comments and spaces above and before it.
    above: String,
    value: Value,
    /// The rest of its line after the comma.
    behind: String,
}

/// Replaces the elements by `values`. Elements that remain keep their order and comments; new ones are appended.
///
/// # Errors
/// A value that cannot be written as TOML; the array is unchanged.
pub(super) fn exchange(array: &mut Array, values: &[Json], key: &str) -> Result<(), EditError> {
    let all = values.iter().enumerate().map(|(i, value)| to_toml(value, &format!("{key}[{i}]")));
    let all: Vec<Value> = all.collect::<Result<_, _>>()?;
    let (entries, end) = take_apart(array);
    let indent = entries.last().map_or(String::new(), |entry| {
        let spaces = entry.above.rfind('\n').map_or("", |at| &entry.above[at..]);
        if spaces.is_empty() { "\n    ".to_owned() } else { spaces.to_owned() }
    });
    let mut stay = Vec::new();
    for entry in entries {
        if values.get(stay.len()).is_some_and(|value| value_equals(&entry.value, value)) {
            stay.push(entry);
        }
    }
    let new = all.into_iter().skip(stay.len());
    let new: Vec<Entry> = new.map(|value| Entry { above: indent.clone(), value, behind: String::new() }).collect();
    put_together(array, stay.into_iter().chain(new), end);
    Ok(())
}

fn take_apart(array: &mut Array) -> (Vec<Entry>, String) {
    let mut entries: Vec<Entry> = Vec::new();
    let own = |raw: Option<&RawString>| raw.and_then(RawString::as_str).unwrap_or_default().to_owned();
    // Text before a comma or a bracket: the rest of its line belongs to the element before.
    let part = |text: &str| {
        let at = text.find('\n').unwrap_or(if text.contains('#') { text.len() } else { 0 });
        (text[..at].to_owned(), text[at..].to_owned())
    };
    for value in array.iter() {
        let (prefix, suffix) = (own(value.decor().prefix()), own(value.decor().suffix()));
        let mut value = value.clone();
        value.decor_mut().clear();
        let above = match entries.last_mut() {
            Some(before) => {
                let (behind, above) = part(&prefix);
                before.behind += &behind;
                above
            }
            None => prefix,
        };
        let behind = suffix.trim_end().to_owned();
        entries.push(Entry { above, value, behind });
    }
    let trailing = own(Some(array.trailing()));
    let end = match entries.last_mut() {
        Some(last) => {
            let (behind, end) = part(&trailing);
            last.behind += &behind;
            end
        }
        None => trailing,
    };
    // The bracket is on a line of its own, or it would be part of the last comment.
    (entries, if end.contains('\n') { end } else { format!("\n{end}") })
}

fn put_together(array: &mut Array, entries: impl Iterator<Item = Entry>, end: String) {
    array.clear();
    let mut behind = String::new();
    for entry in entries {
        let mut value = entry.value;
        let above = match entry.above.contains('\n') || behind.is_empty() {
            true => entry.above,
            false => format!("\n{}", entry.above),
        };
        value.decor_mut().set_prefix(format!("{behind}{above}"));
        array.push_formatted(value);
        behind = entry.behind;
    }
    array.set_trailing_comma(!array.is_empty());
    array.set_trailing(format!("{behind}{end}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use toml_edit::DocumentMut;

    fn exchanged(text: &str, values: &Json) -> String {
        let mut document: DocumentMut = text.parse().unwrap();
        let array = document["hide"].as_array_mut().unwrap();
        exchange(array, values.as_array().unwrap(), "hide").unwrap();
        let text = document.to_string();
        let again: DocumentMut = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert!(value_equals(again["hide"].as_value().unwrap(), values), "{text}");
        text
    }

    const LIST: &str = r#"hide = [
    # Of no interest.
    "sky", # boring
    "road",
    "tree" # green
] # all
"#;

    #[test]
    fn comments_of_remaining_elements_are_kept() {
        assert_eq!(
            exchanged(LIST, &json!(["sky", "road", "tree", "car"])),
            LIST.replace("\"tree\" # green\n", "\"tree\", # green\n    \"car\",\n")
        );
        assert_eq!(
            exchanged(LIST, &json!(["sky", "tree"])),
            LIST.replace("    \"road\",\n", "").replace("\"tree\" #", "\"tree\", #")
        );
        let without = exchanged(LIST, &json!(["road", "tree"]));
        assert!(
            !without.contains("boring") && without.contains("\"road\",\n") && without.contains("# green"),
            "{without}"
        );
    }

    #[test]
    fn the_wanted_elements_are_written() {
        let one_line = "hide = [\"a\", \"b\" # both\n]\n";
        for text in [LIST, one_line, "hide = [ # none\n]\n", "hide = [\n  \"a\",\n  # later: b\n]\n"] {
            for values in [json!([]), json!(["b", "a"]), json!(["tree", "sky"]), json!(["a", "b", "c"]), json!(["x"])] {
                exchanged(text, &values);
            }
        }
    }
}
