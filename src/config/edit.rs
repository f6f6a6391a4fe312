//! Changes a configuration file's text, and keeps its comments, its order and its formatting.
//!
//! Changes come as JSON with the keys of the file. A changed stream's keys are merged by RFC 7396: a key that is named is
//! set, `null` removes it, tables are merged key by key. The resulting text is checked by
//! [`super::parse`].

use std::path::Path;

use serde_json::Value as Json;
use toml_edit::visit_mut::{VisitMut, visit_table_mut};
use toml_edit::{ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use super::array::{exchange, has_comments};
use super::error::{ConfigError, did_you_mean};
use super::path::to_json;
use super::schema::{self, Object};
use super::toml_value::{EditError, to_toml, value_equals};

/// A change of one stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// Adds a stream with these keys, after the others.
    Add(Object),
    /// Sets these keys of the stream of this name.
    Change { stream: String, patch: Object },
    /// Removes the stream of this name.
    Remove { stream: String },
}

impl Edit {
    /// The key path of the changed stream; `stream` for a new stream without a name.
    pub fn key(&self) -> String {
        let name = match self {
            Edit::Add(settings) => settings.get("name").and_then(Json::as_str),
            Edit::Change { stream, .. } | Edit::Remove { stream } => Some(stream.as_str()),
        };
        name.map_or_else(|| "stream".to_owned(), |name| format!("stream[{name}]"))
    }
}

/// Makes a change in the text of a file, and returns the new text.
///
/// # Errors
/// When the text is not TOML, or has no such stream, or a value cannot be written as TOML.
pub fn edit(text: &str, edit: &Edit) -> Result<String, EditError> {
    edit_document(text, |text, mut document| match edit {
        Edit::Add(object) => add(text, document, object, &edit.key()),
        Edit::Change { stream, patch } => {
            change(&mut document, stream, patch, &edit.key())?;
            Ok(document.to_string())
        }
        Edit::Remove { stream } => {
            remove(&mut document, stream)?;
            Ok(document.to_string())
        }
    })
}

/// Sets the file of a model, and the one that it had before, in the text of a configuration, and returns the new text.
///
/// # Errors
/// When the text is not TOML, or has several models and none of this name.
pub fn edit_model(text: &str, name: &str, path: &Path, previous: Option<&Path>) -> Result<String, EditError> {
    let mut patch = Object::from_iter([("path".to_owned(), to_json(path))]);
    // Without one, the key stays as it is.
    patch.extend(previous.map(|previous| ("previous".to_owned(), to_json(previous))));
    edit_document(text, |_, mut document| {
        let key = format!("model[{name}]");
        match document.entry("model").or_insert_with(|| Item::Table(Table::new())) {
            Item::Table(table) => merge(table, &patch, &key, Form::Headers)?,
            Item::Value(Value::InlineTable(table)) => merge(table, &patch, &key, Form::Inline)?,
            Item::ArrayOfTables(tables) => {
                let named = tables.iter_mut().find(|table| is_named(*table, name));
                merge(named.ok_or_else(|| EditError::NoModel(name.to_owned()))?, &patch, &key, Form::Headers)?;
            }
            Item::Value(Value::Array(models)) => {
                let mut tables = models.iter_mut().filter_map(Value::as_inline_table_mut);
                let named = tables.find(|table| is_named(*table, name));
                merge(named.ok_or_else(|| EditError::NoModel(name.to_owned()))?, &patch, &key, Form::Inline)?;
            }
            _ => return Err(EditError::NoModel(name.to_owned())),
        }
        Ok(document.to_string())
    })
}

/// Changes a document, and keeps the byte order mark and the line ends of its text.
fn edit_document(
    text: &str,
    change: impl FnOnce(&str, DocumentMut) -> Result<String, EditError>,
) -> Result<String, EditError> {
    // Some editors write a byte order mark at the start of UTF-8.
    let (mark, text) = match text.strip_prefix('\u{feff}') {
        Some(rest) => ("\u{feff}", rest),
        None => ("", text),
    };
    // The document has one kind of line end only: a file with both gets the shorter one.
    let windows = text.contains("\r\n") && text.matches('\n').count() == text.matches("\r\n").count();
    let unix = text.contains("\r\n").then(|| text.replace("\r\n", "\n"));
    // A carriage return alone is not TOML, and must not become a part of a line end: the whole text is refused.
    let unix = unix.filter(|unix| !unix.contains('\r'));
    let text = unix.as_deref().unwrap_or(text);
    let document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| EditError::Syntax(error.message().to_owned()))?;
    let changed = change(text, document)?;
    let changed = if windows { changed.replace('\n', "\r\n") } else { changed };
    Ok(format!("{mark}{changed}"))
}

/// The second object merged into the first, as TOML.
pub(super) fn merged(objects: [&Object; 2], key: &str) -> Result<String, EditError> {
    let mut document = DocumentMut::new();
    for object in objects {
        merge(document.as_table_mut(), object, key, Form::Headers)?;
    }
    Ok(document.to_string())
}

/// An error for each unknown key that a patch removes. The validation does not find them, because it does not read removed
/// keys. `table` is the path of the patched table, such as `stream.overlay`; `key` is its key path in errors.
pub fn unknown_nulls(patch: &Object, table: &str, key: &str) -> Vec<ConfigError> {
    let known = schema::table(table);
    let mut errors = Vec::new();
    for (name, value) in patch {
        let inner = format!("{table}.{name}");
        let is_table = schema::table(&inner).is_some();
        let is_key = known.is_some_and(|table| table.key(name).is_some());
        match value {
            Json::Object(patch) if is_table => errors.extend(unknown_nulls(patch, &inner, &format!("{key}.{name}"))),
            Json::Null if !is_key => errors.push(ConfigError {
                key: format!("{key}.{name}"),
                line: None,
                problem: "unknown key".into(),
                help: Some(did_you_mean(name, known.into_iter().flat_map(|table| table.keys()).map(|(name, _)| name))),
            }),
            _ => {}
        }
    }
    errors
}

/// How a new table is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    /// `[stream.overlay]`, with lines of its own.
    Headers,
    /// `{ car = "#ff0000" }`
    Inline,
}

fn add(text: &str, mut document: DocumentMut, object: &Object, key: &str) -> Result<String, EditError> {
    if let Some(Item::Value(Value::Array(streams))) = document.get_mut("stream") {
        let mut table = InlineTable::new();
        merge(&mut table, object, key, Form::Inline)?;
        streams.push(table);
        return Ok(document.to_string());
    }
    // The end of the file, with its comments, stays before the new stream.
    let mut table = Table::new();
    for first in ["name", "source"] {
        // People write these first.
        if let Some((name, value)) = object.get_key_value(first) {
            merge(&mut table, &Object::from_iter([(name.clone(), value.clone())]), key, Form::Headers)?;
        }
    }
    merge(&mut table, object, key, Form::Headers)?;
    let mut tables = ArrayOfTables::new();
    tables.push(table);
    let mut new = DocumentMut::new();
    new.insert("stream", Item::ArrayOfTables(tables));
    let line_end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    Ok(format!("{text}{line_end}\n{new}"))
}

fn change(document: &mut DocumentMut, name: &str, patch: &Object, key: &str) -> Result<(), EditError> {
    let unknown = || EditError::NoStream(name.to_owned());
    match document.get_mut("stream") {
        Some(Item::ArrayOfTables(tables)) => {
            let table = tables.iter_mut().find(|table| is_named(*table, name)).ok_or_else(unknown)?;
            merge(table, patch, key, Form::Headers)
        }
        Some(Item::Value(Value::Array(streams))) => {
            let mut tables = streams.iter_mut().filter_map(Value::as_inline_table_mut);
            let table = tables.find(|table| is_named(*table, name)).ok_or_else(unknown)?;
            merge(table, patch, key, Form::Inline)
        }
        _ => Err(unknown()),
    }
}

fn is_named(table: &dyn TableLike, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

fn remove(document: &mut DocumentMut, name: &str) -> Result<(), EditError> {
    let unknown = || EditError::NoStream(name.to_owned());
    match document.get_mut("stream") {
        Some(Item::ArrayOfTables(tables)) => {
            let at = tables.iter().position(|table| is_named(table, name)).ok_or_else(unknown)?;
            let removed = tables.remove(at);
            keep_comments(document, &removed);
            Ok(())
        }
        Some(Item::Value(Value::Array(streams))) => {
            let named = |value: &Value| value.as_inline_table().is_some_and(|table| is_named(table, name));
            let at = streams.iter().position(named).ok_or_else(unknown)?;
            streams.remove(at);
            Ok(())
        }
        _ => Err(unknown()),
    }
}

/// Keeps the comments above a removed table that an empty line separates from it: they are not about it. They move to the next
/// table of the file.
fn keep_comments(document: &mut DocumentMut, removed: &Table) {
    let prefix = removed.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    let Some(end) = prefix.rfind("\n\n").map(|at| at + 2).filter(|&end| prefix[..end].contains('#')) else { return };
    let comments = &prefix[..end];
    let mut find = Next { after: removed.position().unwrap_or(isize::MAX), next: None };
    find.visit_document_mut(document);
    match find.next {
        Some(at) => Prepend { at, text: comments }.visit_document_mut(document),
        None => {
            // The empty line separated them from the table.
            let trailing = document.trailing().as_str().unwrap_or_default();
            let comments = if trailing.trim().is_empty() { &comments[..comments.len() - 1] } else { comments };
            let trailing = format!("{comments}{trailing}");
            document.set_trailing(trailing);
        }
    }
}

/// Finds the next table of the file.
struct Next {
    after: isize,
    next: Option<isize>,
}

impl VisitMut for Next {
    fn visit_table_mut(&mut self, table: &mut Table) {
        if let Some(at) = table.position().filter(|&at| at > self.after && !table.is_implicit() && !table.is_dotted()) {
            self.next = Some(self.next.map_or(at, |next| next.min(at)));
        }
        visit_table_mut(self, table);
    }
}

/// Inserts text before the table at a position.
struct Prepend<'a> {
    at: isize,
    text: &'a str,
}

impl VisitMut for Prepend<'_> {
    fn visit_table_mut(&mut self, table: &mut Table) {
        if table.position() == Some(self.at) && !table.is_implicit() && !table.is_dotted() {
            let before = table.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
            let prefix = format!("{}{}", self.text, before.strip_prefix('\n').unwrap_or(before));
            table.decor_mut().set_prefix(prefix);
        }
        visit_table_mut(self, table);
    }
}

/// Merges a patch into a table of the text (RFC 7396).
fn merge(table: &mut dyn TableLike, patch: &Object, key: &str, form: Form) -> Result<(), EditError> {
    for (name, value) in patch {
        let key = format!("{key}.{name}");
        match value {
            Json::Null => {
                table.remove(name);
            }
            Json::Object(inner) => match table.get_mut(name).and_then(Item::as_table_like_mut) {
                Some(known) => merge(known, inner, &key, Form::Inline)?,
                None if form == Form::Headers => {
                    let mut new = Table::new();
                    new.decor_mut().set_prefix("\n");
                    merge(&mut new, inner, &key, Form::Inline)?;
                    table.insert(name, Item::Table(new));
                }
                None => {
                    let mut new = InlineTable::new();
                    merge(&mut new, inner, &key, Form::Inline)?;
                    close_up(table);
                    table.insert(name, Item::Value(new.into()));
                }
            },
            value => match table.get_mut(name).and_then(Item::as_value_mut) {
                // Unchanged, with the comments between its brackets.
                Some(known) if value_equals(known, value) => {}
                Some(Value::Array(known)) if value.is_array() && has_comments(known) => {
                    let Json::Array(values) = value else { continue };
                    exchange(known, values, &key)?;
                }
                Some(known) => {
                    let decor = known.decor().clone();
                    *known = to_toml(value, &key)?;
                    *known.decor_mut() = decor;
                }
                None => {
                    close_up(table);
                    table.insert(name, Item::Value(to_toml(value, &key)?));
                }
            },
        }
    }
    Ok(())
}

/// Removes the space before the closing brace, where a comma will follow.
fn close_up(table: &mut dyn TableLike) {
    let Some(last) = table.iter_mut().last().and_then(|(_, item)| item.as_value_mut()) else { return };
    if last.decor().suffix().and_then(|suffix| suffix.as_str()).is_some_and(|suffix| suffix.trim().is_empty()) {
        last.decor_mut().set_suffix("");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Json) -> Object {
        let Json::Object(object) = value else { panic!("{value} is not an object") };
        object
    }

    fn change(stream: &str, patch: Json) -> Edit {
        Edit::Change { stream: stream.into(), patch: object(patch) }
    }

    const FILE: &str = r##"# All cameras of the yard.

[model] # the one that is bundled
path = "m.onnx"

# The gate.
[[stream]]
name = "gate"   # never rename
source = 'rtsp://10.0.0.7/a'
overlay.alpha = 0.3

# About both streams.

# The yard, from above.
[[stream]]
source = "test://"
name = "yard"
max_latency = "2s"
[stream.overlay]
# The sky is of no interest.
hide = [
    "sky", # blue
]
style = "tint"

[server]
http = "127.0.0.1:8080"
# The end.
"##;

    #[test]
    fn a_change_leaves_everything_else_as_it_was_written() {
        let patch = json!({
            "source": "rtsp://10.0.0.8/b", "show": "matched",
            "overlay": {"alpha": 0.5, "colors": {"car": "#ff0000"}}, "record": {"dir": "/srv/gate"},
        });
        let wanted = FILE.replace("'rtsp://10.0.0.7/a'", "\"rtsp://10.0.0.8/b\"").replace(
            "overlay.alpha = 0.3\n",
            concat!(
                "overlay.alpha = 0.5\noverlay.colors = { car = \"#ff0000\" }\nshow = \"matched\"\n",
                "\n[stream.record]\ndir = \"/srv/gate\"\n"
            ),
        );
        assert_eq!(edit(FILE, &change("gate", patch)).unwrap(), wanted);
    }

    #[test]
    fn a_value_that_is_written_already_is_not_written_again_and_null_removes() {
        let same = json!({"max_latency": "2s", "overlay": {"hide": ["sky"], "style": "tint"}, "show": null});
        assert_eq!(edit(FILE, &change("yard", same)).unwrap(), FILE);
        let less = edit(FILE, &change("yard", json!({"overlay": {"style": null}, "max_latency": null}))).unwrap();
        assert_eq!(less, FILE.replace("style = \"tint\"\n", "").replace("max_latency = \"2s\"\n", ""));
        let none = edit(FILE, &change("yard", json!({"overlay": null}))).unwrap();
        assert!(!none.contains("[stream.overlay]") && none.contains("[server]"), "{none}");
    }

    #[test]
    fn a_new_stream_comes_last_and_its_name_first() {
        let new = json!({"encode": {"bitrate": 800}, "name": "door", "source": "test://ball", "loop": null, "max_mask_age": 2.5});
        let wanted = format!(
            "{FILE}\n[[stream]]\nname = \"door\"\nsource = \"test://ball\"\nmax_mask_age = 2.5\n\n[stream.encode]\nbitrate = 800\n"
        );
        assert_eq!(edit(FILE, &Edit::Add(object(new))).unwrap(), wanted);
    }

    #[test]
    fn a_removed_stream_takes_only_its_own_comments() {
        let without_gate = edit(FILE, &Edit::Remove { stream: "gate".into() }).unwrap();
        assert!(
            without_gate.starts_with("# All cameras of the yard.\n\n[model] # the one that is bundled"),
            "{without_gate}"
        );
        assert!(!without_gate.contains("# The gate.") && without_gate.contains("# The yard, from above.\n[[stream]]"));
        let without_yard = edit(FILE, &Edit::Remove { stream: "yard".into() }).unwrap();
        let (before, _) = FILE.split_once("# The yard").unwrap();
        assert_eq!(without_yard, format!("{before}[server]\nhttp = \"127.0.0.1:8080\"\n# The end.\n"));
        let unknown = edit(FILE, &Edit::Remove { stream: "door".into() });
        assert_eq!(unknown, Err(EditError::NoStream("door".into())));
    }

    #[test]
    fn the_file_of_a_model_is_set_in_every_form_of_its_table() {
        let set = |text: &str| edit_model(text, "yard", Path::new("/m/new.onnx"), Some(Path::new("/m/old.onnx")));
        for (text, wanted) in [
            (
                "[model]\npath = \"a.onnx\" # the model\nworkers = 2\n",
                "[model]\npath = \"/m/new.onnx\" # the model\nworkers = 2\nprevious = \"/m/old.onnx\"\n",
            ),
            ("model = { path = \"a.onnx\" }\n", "model = { path = \"/m/new.onnx\", previous = \"/m/old.onnx\" }\n"),
            (
                "[[model]]\nname = \"a\"\npath = \"a.onnx\"\n[[model]]\nname = \"yard\"\npath = \"b.onnx\"\n",
                "[[model]]\nname = \"a\"\npath = \"a.onnx\"\n[[model]]\nname = \"yard\"\npath = \"/m/new.onnx\"\n\
                 previous = \"/m/old.onnx\"\n",
            ),
        ] {
            assert_eq!(set(text).as_deref(), Ok(wanted));
        }
        // Without the table, the bundled model ran.
        let added = set("[server]\nhttp = \"127.0.0.1:1\"\n").unwrap();
        assert!(added.contains("[model]\npath = \"/m/new.onnx\"\nprevious = \"/m/old.onnx\"\n"), "{added}");
        let unknown = set("[[model]]\nname = \"a\"\npath = \"a.onnx\"\n");
        assert_eq!(unknown, Err(EditError::NoModel("yard".into())));
    }

    #[test]
    fn adding_and_removing_a_stream_leaves_nothing_behind() {
        let new =
            || object(json!({"name": "door", "source": "test://", "record": {"dir": "rec"}, "encode": {"bitrate": 8}}));
        let ends = ["", "\n", "\n# The end.\n", "# The end.", "\n\n# The end.\n# Really.\n"];
        for text in ends.map(|end| format!("{FILE}{end}")) {
            let mut now = text.clone();
            for _ in 0..3 {
                now = edit(&edit(&now, &Edit::Add(new())).unwrap(), &Edit::Remove { stream: "door".into() }).unwrap();
            }
            assert_eq!(now.trim_end(), text.trim_end());
            assert!(now.len() <= text.len() + 1, "{now:?} of {text:?}");
        }
    }

    #[test]
    fn streams_in_a_list_stay_in_a_list() {
        let text = "stream = [{ name = \"a\", source = \"test://\" }] # all\n[model]\npath = \"m\"\n";
        let added =
            edit(text, &Edit::Add(object(json!({"name": "b", "source": "test://", "overlay": {"alpha": 1}})))).unwrap();
        let wanted = "stream = [{ name = \"a\", source = \"test://\" }, { name = \"b\", overlay = { alpha = 1 }, source = \"test://\" }] # all\n";
        assert_eq!(added.lines().next().unwrap().len(), wanted.trim_end().len(), "{added}");
        let changed = edit(&added, &change("a", json!({"overlay": {"legend": false}}))).unwrap();
        assert!(changed.contains("{ name = \"a\", source = \"test://\", overlay = { legend = false } }"), "{changed}");
        let removed = edit(&changed, &Edit::Remove { stream: "b".into() }).unwrap();
        assert!(!removed.contains("\"b\"") && removed.ends_with("# all\n[model]\npath = \"m\"\n"), "{removed}");
    }

    #[test]
    fn a_value_that_toml_does_not_have_is_named() {
        let Err(EditError::Value(error)) = edit(FILE, &change("gate", json!({"overlay": {"hide": ["a", null]}})))
        else {
            panic!("a null in a list")
        };
        assert_eq!(error.to_string(), "stream[gate].overlay.hide[1]: must not be null in a list");
        assert!(matches!(edit("[[stream", &Edit::Remove { stream: "a".into() }), Err(EditError::Syntax(_))));
    }

    #[test]
    fn an_unknown_key_cannot_be_removed() {
        let patch = json!({"": null, "show": null, "overlay": {"alhpa": null, "alpha": null, "colors": {"car": null}},
                           "encode": null, "record": {"event": null}, "push": null, "x": 1});
        let errors = unknown_nulls(&object(patch), "stream", "stream[gate]");
        let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(keys, ["stream[gate].", "stream[gate].overlay.alhpa"]);
        assert_eq!(errors[1].help.as_deref(), Some("did you mean alpha?"));
    }

    #[test]
    fn a_byte_order_mark_and_windows_line_ends_stay() {
        let text = "\u{feff}[[stream]]\r\nname = \"a\" # one\r\nsource = \"test://\"\r\n";
        let changed = edit(text, &change("a", json!({"source": "test://ball"}))).unwrap();
        assert_eq!(changed, text.replace("test://", "test://ball"));
    }

    #[test]
    fn a_stray_carriage_return_is_not_toml() {
        let text = "[[stream]]\r\nname = \"a\"\r\r\n";
        assert!(matches!(edit(text, &Edit::Remove { stream: "a".into() }), Err(EditError::Syntax(_))));
    }

    #[test]
    fn a_file_with_both_kinds_of_line_ends_keeps_its_comments() {
        let text = "# All.\r\n\r\n# One.\n[[stream]]\r\nname = \"a\"\n[server]\n";
        let changed = edit(text, &Edit::Remove { stream: "a".into() }).unwrap();
        assert_eq!(changed, "# All.\n\n[server]\n");
    }
}
