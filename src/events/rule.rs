//! A rule as it is evaluated: from `[[stream.rule]]`, or from `[[stream.record.event]]`, which is a rule with a polygon of its
//! own whose events last until the end of their post-roll.

use std::sync::Arc;
use std::time::Duration;

use crate::config::{Condition, EventConfig, RuleConfig};
use crate::frame::Label;
use crate::zones::Zone;

/// What a rule covers.
#[derive(Clone, Debug, PartialEq)]
pub enum Area {
    Frame,
    /// A zone of the stream by its name.
    Zone(Arc<str>),
    /// The polygon of a recorded event.
    Polygon(Arc<Zone>),
}

/// A rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    pub name: Arc<str>,
    pub classes: Arc<[String]>,
    pub area: Area,
    pub condition: Condition,
    /// Shares of the area, 0 to 1.
    pub share: f64,
    pub release: f64,
    /// How long the condition must hold.
    pub hold: Duration,
    pub cooldown: Duration,
    /// How long the condition must not hold before the event ends.
    pub linger: Duration,
}

impl Rule {
    /// Whether the peak of its events is the highest share; otherwise it is the lowest.
    pub fn peak_is_highest(&self) -> bool {
        !matches!(self.condition, Condition::Below | Condition::Absent | Condition::Left)
    }

    /// Whether `share` is higher than the peak so far, or lower where the peak is the lowest share.
    pub fn is_new_peak(&self, share: f64, peak: f64) -> bool {
        if self.peak_is_highest() { share > peak } else { share < peak }
    }
}

impl From<&RuleConfig> for Rule {
    fn from(config: &RuleConfig) -> Self {
        Rule {
            name: config.name.as_str().into(),
            classes: config.classes.as_slice().into(),
            area: config.zone.as_deref().map_or(Area::Frame, |zone| Area::Zone(zone.into())),
            condition: config.when,
            share: config.share,
            release: config.release,
            hold: config.hold,
            cooldown: config.cooldown,
            linger: Duration::ZERO,
        }
    }
}

/// The event continues until the share is below this part of its threshold: masks of an unchanged scene differ slightly.
const RELEASE: f64 = 0.5;

impl From<&EventConfig> for Rule {
    fn from(config: &EventConfig) -> Self {
        let polygon = || Area::Polygon(Arc::new(Zone { name: None, polygon: config.zone.clone() }));
        Rule {
            name: config.name.as_str().into(),
            classes: config.classes.as_slice().into(),
            area: if config.zone.is_empty() { Area::Frame } else { polygon() },
            condition: Condition::Above,
            share: config.share,
            release: config.share * RELEASE,
            hold: config.hold,
            cooldown: Duration::ZERO,
            linger: config.post_roll,
        }
    }
}

/// The names in `classes` that are not labels of a model.
pub fn unknown_classes<'a>(classes: &'a [String], labels: &[Label]) -> Vec<&'a str> {
    let is_known = |name: &&String| labels.iter().any(|label| label.name == **name);
    classes.iter().filter(|name| !is_known(name)).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Rgb;

    #[test]
    fn unknown_classes_are_named() {
        let labels = ["car", "person"].map(|name| Label::new(name, Rgb(1, 2, 3)));
        let event = EventConfig::of("visit", &["person", "cat", "car"]);
        assert_eq!(unknown_classes(&event.classes, &labels), ["cat"]);
    }
}
