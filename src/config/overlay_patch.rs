//! Changes of overlay settings: applied while a stream runs, and written back to the configuration file.

use std::path::PathBuf;

use serde_json::Value as Json;
use toml::de::DeTable;

use super::document::Document;
use super::edit::{merged, unknown_nulls};
use super::error::ConfigError;
use super::overlay::OverlayConfig;
use super::schema::{self, Object};
use super::toml_value::EditError;
use super::validate::read_table;

/// Applies a JSON merge patch (RFC 7396) to the settings; keys that are `null` in the patch get their default. `key` is the
/// key path of the settings in errors.
///
/// # Errors
/// All errors of the patch.
pub fn patched_overlay(overlay: &OverlayConfig, patch: &Object, key: &str) -> Result<OverlayConfig, Vec<ConfigError>> {
    let unknown = unknown_nulls(patch, "stream.overlay", key);
    if !unknown.is_empty() {
        return Err(unknown);
    }
    let text = merged([&overlay_object(overlay), patch], key).map_err(|error| match error {
        EditError::Value(error) => vec![error],
        error => vec![whole(key, error.to_string())],
    })?;
    let table = DeTable::parse(&text).map_err(|error| vec![whole(key, error.message().replace('\n', ", "))])?;
    let schema = schema::table("stream.overlay").map(|table| table.schema);
    let document = Document::new(&text, PathBuf::new(), &|_| None);
    let read = schema.map(|schema| read_table(&document, schema, table.get_ref(), key)).unwrap_or_default();
    let mut errors = document.into_errors();
    // The lines are those of a text that was made here.
    errors.iter_mut().for_each(|error| error.line = None);
    if !errors.is_empty() {
        return Err(errors);
    }
    serde_json::from_value(Json::Object(read)).map_err(|error| vec![whole(key, error.to_string())])
}

fn whole(key: &str, problem: String) -> ConfigError {
    ConfigError { key: key.to_owned(), line: None, problem, help: None }
}

/// The settings with the keys of the file.
pub fn overlay_object(overlay: &OverlayConfig) -> Object {
    let object = serde_json::to_value(overlay).ok().and_then(|object| object.as_object().cloned());
    let mut object = object.unwrap_or_default();
    object.retain(|_, value| !value.is_null());
    object
}

/// The merge patch that changes `from` to `to`; empty if they are equal.
pub fn overlay_difference(from: &OverlayConfig, to: &OverlayConfig) -> Object {
    let (from, to) = (overlay_object(from), overlay_object(to));
    let mut patch = difference(&from, &to);
    // A table within is merged, not replaced.
    for (key, changed) in &mut patch {
        if let (Json::Object(changed), Some(Json::Object(before))) = (changed, from.get(key)) {
            *changed = difference(before, changed);
        }
    }
    patch
}

fn difference(from: &Object, to: &Object) -> Object {
    let gone = from.keys().filter(|key| !to.contains_key(*key)).map(|key| (key.clone(), Json::Null));
    let other = to.iter().filter(|(key, value)| from.get(*key) != Some(value));
    gone.chain(other.map(|(key, value)| (key.clone(), value.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{Legend, Rgb, Style};
    use crate::frame::Weight;

    fn patched(overlay: &OverlayConfig, patch: Json) -> Result<OverlayConfig, Vec<String>> {
        let Json::Object(patch) = patch else { panic!("no object") };
        patched_overlay(overlay, &patch, "stream[gate].overlay")
            .map_err(|errors| errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_patch_changes_what_it_names_and_null_is_the_default() {
        let default = OverlayConfig::default();
        let patch = json!({"style": "contour", "alpha": 0.3, "hide": ["sky"], "legend": "all", "weights": {"sky": 0.2, "car": 1},
                           "colors": {"car": "#ff0000", "a b": [1, 2, 3]}});
        let all = patched(&default, patch).unwrap();
        assert_eq!((all.style, all.alpha, all.legend), (Style::Contour, 0.3, Legend::All));
        assert_eq!(all.hide.as_deref(), Some(&["sky".to_owned()][..]));
        assert!(
            all.colors.contains(&("car".into(), Rgb(255, 0, 0))) && all.colors.contains(&("a b".into(), Rgb(1, 2, 3)))
        );
        let weight = |number: f64| Weight::try_from(number).unwrap();
        assert_eq!(all.weights, [("car".to_owned(), Weight::FULL), ("sky".to_owned(), weight(0.2))]);
        assert_eq!(patched(&all, json!({})).unwrap(), all);
        let changed = patched(&all, json!({"weights": {"car": null, "sky": 0.5}})).unwrap();
        assert_eq!(changed.weights, [("sky".to_owned(), weight(0.5))]);
        for (written, legend) in [(json!(true), Legend::Visible), (json!(false), Legend::Off)] {
            assert_eq!(patched(&all, json!({"legend": written})).unwrap().legend, legend);
        }
        let fewer = patched(&all, json!({"colors": {"car": null}, "alpha": 1})).unwrap();
        assert_eq!((fewer.colors, fewer.alpha), (vec![("a b".into(), Rgb(1, 2, 3))], 1.0));
        let nothing =
            json!({"style": null, "alpha": null, "hide": null, "legend": null, "colors": null, "weights": null});
        assert_eq!(patched(&all, nothing).unwrap(), default);
    }

    #[test]
    fn everything_wrong_with_a_patch_is_reported_at_once() {
        let errors = patched(
            &OverlayConfig::default(),
            json!({"style": "tnit", "alpha": 7, "hide": "sky", "opacity": 1, "colors": {"car": "red"},
                   "legend": "everything", "weights": {"car": 2, "sky": "faint"}}),
        )
        .unwrap_err();
        for start in [
            "stream[gate].overlay.alpha: 7 is not between 0 and 1",
            "stream[gate].overlay.colors.car: \"red\" is not a colour",
            "stream[gate].overlay.hide: must be an array",
            "stream[gate].overlay.legend: \"everything\" is not one of",
            "stream[gate].overlay.opacity: unknown key",
            "stream[gate].overlay.weights.car: 2 is not between 0 and 1",
            "stream[gate].overlay.weights.sky: must be a number",
            "stream[gate].overlay.style: \"tnit\" is not one of",
        ] {
            assert!(errors.iter().any(|error| error.starts_with(start)), "{start}: {errors:#?}");
        }
        assert_eq!(errors.len(), 8, "{errors:#?}");
    }

    #[test]
    fn applying_the_difference_gives_the_new_settings() {
        let from = patched(
            &OverlayConfig::default(),
            json!({"hide": ["a"], "colors": {"x": "#000001", "y": "#000002"},
                                                      "weights": {"x": 0.5, "y": 0.5}}),
        )
        .unwrap();
        let settings = json!({"alpha": 0.7, "colors": {"y": "#000003"}, "weights": {"x": 0.5}});
        let to = patched(&OverlayConfig::default(), settings).unwrap();
        let wanted = json!({"alpha": 0.7, "hide": null, "colors": {"x": null, "y": "#000003"}, "weights": {"y": null}});
        assert_eq!(Json::Object(overlay_difference(&from, &to)), wanted);
        assert_eq!(patched(&from, wanted).unwrap(), to);
        assert!(overlay_difference(&to, &to).is_empty());
    }
}
