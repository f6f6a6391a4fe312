//! `[stream.redact]`: classes that are hidden in the frame before it leaves the service.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::document::Section;
use super::duration::DurationText;

/// `bias` without the key, for a model with scores.
const DEFAULT_BIAS: f64 = 0.45;

/// How redacted pixels are hidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RedactStyle {
    /// Square cells of their mean colour.
    #[default]
    Pixelate,
    /// The same cells, with smooth transitions between them.
    Blur,
    /// Plain grey.
    Fill,
}

impl RedactStyle {
    /// The name in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            RedactStyle::Pixelate => "pixelate",
            RedactStyle::Blur => "blur",
            RedactStyle::Fill => "fill",
        }
    }
}

/// What is published when it is not certain which pixels must be hidden.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhenUnsure {
    /// The whole frame is hidden, with the reason written in it.
    #[default]
    Hide,
}

/// Classes that are hidden in every frame before it reaches an output: live streams, pushes, recordings, images. A frame is
/// published only with its own mask (`show = "matched"`); without one, the whole frame is hidden. The API cannot set it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("required" = ["classes"], "x-applies" = "restarts-stream", "x-api" = "never"))]
pub struct RedactConfig {
    /// Names of classes of the model that are hidden. A model without one of them is refused.
    #[schemars(length(min = 1), extend("x-help" = "write [\"person\"]"))]
    pub classes: Vec<String>,
    /// How they are hidden.
    pub style: RedactStyle,
    /// How far the hidden area extends beyond the pixels of the classes, as a part of the height of the frame.
    #[schemars(range(min = 0, max = 0.2), extend("x-help" = "a part of the frame's height; 0.02 is a fiftieth"))]
    pub grow: f64,
    /// How long a pixel stays hidden after one of the classes was last there, and for two more masks at least; 0: not at all.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "0s", "x-most" = "10s"))]
    pub hold: Duration,
    /// Hides more than the mask does: a pixel is also hidden where the summed probability of the classes is at least 0.5 − `bias`,
    /// even if another class is more probable. 0.45 hides from a probability of 0.05. With 0, only the mask counts. Needs a model with the output `scores`, as `maskcast-train export` makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 0.499), extend(
        "x-default" = "0.45 with scores, else 0",
        "x-help" = "0 to 0.499; 0.45 hides from a probability of 0.05 on",
    ))]
    pub bias: Option<f64>,
    /// What is published when it is not certain which pixels must be hidden.
    pub when_unsure: WhenUnsure,
}

impl Default for RedactConfig {
    /// No classes, in cells, extended by a fiftieth of the height, held for half a second.
    fn default() -> Self {
        RedactConfig {
            classes: Vec::new(),
            style: RedactStyle::default(),
            grow: 0.02,
            hold: Duration::from_millis(500),
            bias: None,
            when_unsure: WhenUnsure::default(),
        }
    }
}

impl RedactConfig {
    /// `bias`, or its default for a model with scores.
    pub fn bias(&self) -> f64 {
        self.bias.unwrap_or(DEFAULT_BIAS)
    }

    /// What `before` hides and this configuration may show, as a sentence; `None` if nothing.
    pub fn weaker_than(&self, before: &RedactConfig) -> Option<String> {
        let mut weaker: Vec<String> = Vec::new();
        for class in before.classes.iter().filter(|class| !self.classes.contains(class)) {
            weaker.push(format!("{class} is not hidden any longer"));
        }
        if self.grow < before.grow {
            weaker.push(format!("grow was {} and is {}", before.grow, self.grow));
        }
        if self.bias() < before.bias() {
            weaker.push(format!("bias was {} and is {}", before.bias(), self.bias()));
        }
        if self.hold < before.hold {
            weaker.push(format!("hold was {:?} and is {:?}", before.hold, self.hold));
        }
        if before.style == RedactStyle::Fill && self.style != RedactStyle::Fill {
            weaker.push("style was \"fill\", which shows nothing of the hidden pixels".into());
        }
        (!weaker.is_empty()).then(|| weaker.join("; "))
    }

    /// Checks that the classes differ. `section` is the table of the configuration.
    pub(super) fn check(&self, section: &Section) {
        for (i, class) in self.classes.iter().enumerate() {
            if self.classes[..i].contains(class) {
                section.fail("classes", format!("{class:?} is in the list twice"), None);
            }
        }
    }
}
