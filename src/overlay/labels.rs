//! Checks the class names in the overlay settings against the labels of the model.

use std::fmt;

use crate::config::OverlayConfig;
use crate::frame::{Label, Rgb, Weight};

/// The names in `hide`, `colors` and `weights` that are not labels of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLabels {
    pub unknown: Vec<UnknownLabel>,
    /// The labels of the model.
    pub known: Vec<String>,
}

/// A name that is not a label of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLabel {
    /// The key in `[overlay]` of the stream: `hide`, `colors` or `weights`.
    pub key: &'static str,
    pub name: String,
    /// The most similar label, if one is similar enough.
    pub suggestion: Option<String>,
}

impl fmt::Display for UnknownLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "overlay.{}: {}", self.key, self.problem())
    }
}

impl UnknownLabel {
    /// The problem without the key.
    pub fn problem(&self) -> String {
        let did_you_mean = self.suggestion.as_ref().map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
        format!("the model has no class {:?}{did_you_mean}", self.name)
    }
}

impl fmt::Display for UnknownLabels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for unknown in &self.unknown {
            write!(f, "{unknown}; ")?;
        }
        write!(f, "its classes are {}", self.known.join(", "))
    }
}

impl std::error::Error for UnknownLabels {}

/// A class as it is drawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DrawnClass {
    pub name: String,
    pub color: Rgb,
    /// More than 0.
    pub weight: Weight,
}

/// The appearance of each class by class index; `None` for a hidden class.
///
/// # Errors
/// All names that are not labels.
pub(super) fn visible(config: &OverlayConfig, labels: &[Label]) -> Result<Vec<Option<DrawnClass>>, UnknownLabels> {
    let hidden = config.hide.iter().flatten().map(|name| ("hide", name));
    let colored = config.colors.iter().map(|(name, _)| ("colors", name));
    let weighted = config.weights.iter().map(|(name, _)| ("weights", name));
    let unknown: Vec<UnknownLabel> = hidden
        .chain(colored)
        .chain(weighted)
        .filter(|(_, name)| !labels.iter().any(|label| label.name == **name))
        .map(|(key, name)| UnknownLabel { key, name: name.clone(), suggestion: closest(name, labels) })
        .collect();
    if !unknown.is_empty() {
        return Err(UnknownLabels { unknown, known: labels.iter().map(|label| label.name.clone()).collect() });
    }
    let visible = |label: &Label| {
        let weight = config.weight_of(label);
        let is_drawn = weight > Weight::NONE && !config.hides(&label.name);
        is_drawn.then(|| DrawnClass { name: label.name.clone(), color: config.color_of(label), weight })
    };
    Ok(labels.iter().map(visible).collect())
}

/// The label that is most similar to `name` (Jaro-Winkler similarity of at least 0.8).
fn closest(name: &str, labels: &[Label]) -> Option<String> {
    let name = name.to_lowercase();
    let similarity = |label: &Label| strsim::jaro_winkler(&name, &label.name.to_lowercase());
    let best = labels.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)))?;
    (similarity(best) >= 0.8).then(|| best.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(number: f64) -> Weight {
        Weight::try_from(number).unwrap()
    }

    #[test]
    fn reports_every_unknown_label_with_a_suggestion() {
        let labels = ["sky", "road", "Pedestrian"].map(|name| Label::new(name, Rgb(1, 2, 3)));
        let mut config = OverlayConfig {
            hide: Some(vec!["sky".into(), "raod".into(), "xyz".into()]),
            colors: vec![("pedestrians".into(), Rgb(0, 0, 0)), ("road".into(), Rgb(9, 9, 9))],
            weights: vec![("road".into(), weight(0.5)), ("skye".into(), weight(0.5))],
            ..OverlayConfig::default()
        };
        let error = visible(&config, &labels).unwrap_err();
        let found: Vec<_> = error.unknown.iter().map(|u| (u.key, &*u.name, u.suggestion.as_deref())).collect();
        assert_eq!(
            found,
            [
                ("hide", "raod", Some("road")),
                ("hide", "xyz", None),
                ("colors", "pedestrians", Some("Pedestrian")),
                ("weights", "skye", Some("sky"))
            ]
        );
        assert!(error.to_string().contains("\"raod\"; did you mean \"road\"?"), "{error}");
        assert!(error.to_string().ends_with("sky, road, Pedestrian"), "{error}");

        config.hide = Some(vec!["sky".into()]);
        config.colors = vec![("road".into(), Rgb(9, 9, 9))];
        config.weights = vec![("road".into(), weight(0.5))];
        let drawn = |name: &str, color, weight| Some(DrawnClass { name: name.into(), color, weight });
        assert_eq!(
            visible(&config, &labels).unwrap(),
            [None, drawn("road", Rgb(9, 9, 9), weight(0.5)), drawn("Pedestrian", Rgb(1, 2, 3), Weight::FULL)]
        );
    }

    #[test]
    fn the_rest_of_the_frame_is_hidden_by_default() {
        let names = ["Background", "person", "other", "_background_", "void", "unlabeled", "another"];
        let labels = names.map(|name| Label::new(name, Rgb(1, 2, 3)));
        let drawn = |hide: Option<Vec<String>>| {
            let config = OverlayConfig { hide, ..OverlayConfig::default() };
            visible(&config, &labels).unwrap().into_iter().flatten().map(|class| class.name).collect::<Vec<_>>()
        };
        assert_eq!(drawn(None), ["person", "another"]);
        assert_eq!(drawn(Some(Vec::new())), names);
        assert_eq!(drawn(Some(vec!["person".into()])).len(), names.len() - 1);
    }

    #[test]
    fn a_weight_of_the_stream_replaces_that_of_the_model_and_0_hides() {
        let label = |name: &str, number: f64| Label { weight: weight(number), ..Label::new(name, Rgb(1, 2, 3)) };
        let labels = [label("sky", 0.2), label("road", 0.4), label("tree", 0.0), label("wall", 0.0)];
        let weights = [("road", 0.0), ("tree", 0.7)].map(|(name, number)| (name.to_owned(), weight(number))).into();
        let config = OverlayConfig { weights, ..OverlayConfig::default() };
        let drawn = visible(&config, &labels).unwrap();
        let weights: Vec<Option<f64>> =
            drawn.iter().map(|class| class.as_ref().map(|class| class.weight.get())).collect();
        assert_eq!(weights, [Some(0.2), None, Some(0.7), None]);
    }
}
