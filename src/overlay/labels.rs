//! Checks the class names in the overlay settings against the labels of the model.

use std::fmt;

use crate::config::OverlayConfig;
use crate::frame::{Label, Rgb};

/// The names in `hide` and `colors` that are not labels of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLabels {
    pub unknown: Vec<UnknownLabel>,
    /// The labels of the model.
    pub known: Vec<String>,
}

/// A name that is not a label of the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownLabel {
    /// The key in `[overlay]` of the stream: `hide` or `colors`.
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

/// Name and colour of each class; `None` for a hidden class.
///
/// # Errors
/// All names that are not labels.
pub(super) fn visible(config: &OverlayConfig, labels: &[Label]) -> Result<Vec<Option<(String, Rgb)>>, UnknownLabels> {
    let hidden = config.hide.iter().flatten().map(|name| ("hide", name));
    let colored = config.colors.iter().map(|(name, _)| ("colors", name));
    let unknown: Vec<UnknownLabel> = hidden
        .chain(colored)
        .filter(|(_, name)| !labels.iter().any(|label| label.name == **name))
        .map(|(key, name)| UnknownLabel { key, name: name.clone(), suggestion: closest(name, labels) })
        .collect();
    if !unknown.is_empty() {
        return Err(UnknownLabels { unknown, known: labels.iter().map(|label| label.name.clone()).collect() });
    }
    let visible = |label: &Label| {
        let color = config.colors.iter().find(|(name, _)| *name == label.name).map_or(label.color, |(_, color)| *color);
        (!config.hides(&label.name)).then(|| (label.name.clone(), color))
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
    use crate::config::Style;

    #[test]
    fn reports_every_unknown_label_with_a_suggestion() {
        let label = |name: &str| Label { name: name.into(), color: Rgb(1, 2, 3) };
        let labels = [label("sky"), label("road"), label("Pedestrian")];
        let mut config = OverlayConfig {
            style: Style::Tint,
            alpha: 0.5,
            hide: Some(vec!["sky".into(), "raod".into(), "xyz".into()]),
            legend: true,
            colors: vec![("pedestrians".into(), Rgb(0, 0, 0)), ("road".into(), Rgb(9, 9, 9))],
        };
        let error = visible(&config, &labels).unwrap_err();
        let found: Vec<_> = error.unknown.iter().map(|u| (u.key, &*u.name, u.suggestion.as_deref())).collect();
        assert_eq!(
            found,
            [("hide", "raod", Some("road")), ("hide", "xyz", None), ("colors", "pedestrians", Some("Pedestrian"))]
        );
        assert!(error.to_string().contains("\"raod\"; did you mean \"road\"?"), "{error}");
        assert!(error.to_string().ends_with("sky, road, Pedestrian"), "{error}");

        config.hide = Some(vec!["sky".into()]);
        config.colors = vec![("road".into(), Rgb(9, 9, 9))];
        let visible = visible(&config, &labels).unwrap();
        assert_eq!(visible, [None, Some(("road".into(), Rgb(9, 9, 9))), Some(("Pedestrian".into(), Rgb(1, 2, 3)))]);
    }

    #[test]
    fn a_background_class_is_hidden_by_default() {
        let labels = ["Background", "person"].map(|name| Label { name: name.into(), color: Rgb(1, 2, 3) });
        let drawn = |hide: Option<Vec<String>>| {
            let config = OverlayConfig { hide, ..OverlayConfig::default() };
            visible(&config, &labels).unwrap().iter().map(Option::is_some).collect::<Vec<_>>()
        };
        assert_eq!(drawn(None), [false, true]);
        assert_eq!(drawn(Some(Vec::new())), [true, true]);
        assert_eq!(drawn(Some(vec!["person".into()])), [true, false]);
    }
}
