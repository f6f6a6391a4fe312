//! `[[stream.rule]]`: conditions on the shares of classes, which make events.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::document::Section;
use super::duration::DurationText;
use super::zone::{MOST, ZoneConfig};

/// The condition of a rule (`stream.rule.when`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// The classes cover at least `share` of the zone. The event lasts until they cover less than `release`.
    Above,
    /// The classes cover less than `share` of the zone. The event lasts until they cover `release` or more.
    Below,
    /// The classes are not in the zone: they cover less than `release`. The event lasts until they cover `share` or more.
    Absent,
    /// The classes were not in the zone and now cover at least `share` of it. The event has no duration.
    Entered,
    /// The classes were in the zone and now cover less than `release` of it. The event has no duration.
    Left,
}

impl Condition {
    /// Whether its events last. The others are moments.
    pub fn lasts(self) -> bool {
        matches!(self, Condition::Above | Condition::Below | Condition::Absent)
    }
}

/// A rule: a condition on the share of classes in a zone. While it holds, there is an event, which is sent to MQTT, webhooks and
/// API clients, and stored in the history. Changes do not restart the stream, except those of rules with `record = true`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default = "RuleConfig::unnamed")]
#[schemars(extend("required" = ["name", "classes"]))]
pub struct RuleConfig {
    /// Unique name among the rules and recorded events of the stream: a letter, then letters, digits, `-` and `_`, at most 32
    /// characters.
    #[schemars(length(min = 1, max = 32), extend("x-check" = "event-name", "x-help" = "write name = \"blocked\""))]
    pub name: String,
    /// Names of classes of the model. Their pixels are added up.
    #[schemars(length(min = 1), extend("x-help" = "write [\"person\", \"vehicle\"]"))]
    pub classes: Vec<String>,
    /// Name of a zone of the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("x-check" = "zone-name", "x-default" = "the whole frame"))]
    pub zone: Option<String>,
    /// The condition.
    pub when: Condition,
    /// The share of the pixels of the zone, from 0.0001 to 1.
    #[schemars(range(min = 0.0001, max = 1), extend("x-help" = "a share of the zone's pixels; 0.02 is a fiftieth"))]
    pub share: f64,
    /// The share at which the condition ends; the difference from `share` prevents that a share near the limit makes many
    /// events.
    #[schemars(range(min = 0, max = 1), extend(
        "x-default" = "half of `share`; for `below`: one and a half times `share`, at most halfway between `share` and 1",
        "x-help" = "a share of the zone's pixels",
    ))]
    pub release: f64,
    /// How long the condition must hold before the event begins. The start of the event is the time at which the condition
    /// began to hold.
    #[serde(rename = "for", with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "0s", "x-most" = "1d", "x-default" = "`2s`; `1m` for `absent`"))]
    pub hold: Duration,
    /// Minimum time between the end of an event and the start of the next one of this rule.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "0s", "x-most" = "1d"))]
    pub cooldown: Duration,
    /// With `stream.record.when = "event"`: the event is recorded. Not for `entered` and `left` without `post_roll`.
    pub record: bool,
    /// Length of the recording before the event.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "0s", "x-most" = "1m"))]
    pub pre_roll: Duration,
    /// Length of the recording after the event.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "0s", "x-most" = "1h"))]
    pub post_roll: Duration,
}

impl RuleConfig {
    /// A rule with the default settings in the whole frame.
    pub fn of(name: &str, classes: &[&str]) -> Self {
        RuleConfig {
            name: name.to_owned(),
            classes: classes.iter().map(ToString::to_string).collect(),
            zone: None,
            when: Condition::Above,
            share: 0.02,
            release: 0.01,
            hold: Duration::from_secs(2),
            cooldown: Duration::ZERO,
            record: false,
            pre_roll: Duration::from_secs(5),
            post_roll: Duration::from_secs(10),
        }
    }

    fn unnamed() -> Self {
        RuleConfig::of("", &[])
    }

    /// The share at which a condition ends, if none is set.
    fn default_release(&self) -> f64 {
        match self.when {
            Condition::Below => (self.share * 1.5).min(f64::midpoint(self.share, 1.0)),
            _ => self.share / 2.0,
        }
    }

    /// Adds the defaults that depend on other keys, and checks what concerns several keys.
    fn apply_dependent_defaults(&mut self, section: &Section) {
        if !section.is_written("release") {
            self.release = self.default_release();
        }
        if !section.is_written("for") && self.when == Condition::Absent {
            self.hold = Duration::from_secs(60);
        }
        if section.is_valid("release") {
            let (is_wrong, problem, help) = match self.when {
                Condition::Below => {
                    (self.release < self.share, "is less than share", "an event of when = \"below\" ends above share")
                }
                _ => (self.release > self.share, "is more than share", "the event ends below share"),
            };
            if is_wrong {
                section.fail("release", format!("{} {problem} ({})", self.release, self.share), Some(help));
            }
        }
    }
}

/// Adds defaults, and checks the rules of a stream, whose table is `stream`: `events` are the names of its recorded events.
pub(super) fn check_all(rules: &mut [RuleConfig], zones: &[ZoneConfig], events: &[&str], stream: &Section) {
    if rules.len() > MOST {
        stream.fail("rule", format!("there are {} rules, more than {MOST}", rules.len()), None);
    }
    for i in 0..rules.len() {
        let section = stream.element("rule", i);
        rules[i].apply_dependent_defaults(&section);
        let (before, rest) = rules.split_at(i);
        let rule = &rest[0];
        let is_taken = before.iter().any(|other| other.name == rule.name) || events.contains(&rule.name.as_str());
        if !rule.name.is_empty() && is_taken {
            let problem = format!("{:?} is already the name of another rule or recorded event", rule.name);
            section.fail("name", problem, Some("names must differ"));
        }
        for (n, class) in rule.classes.iter().enumerate() {
            if rule.classes[..n].contains(class) {
                section.fail(
                    "classes",
                    format!("rule {:?} has the class {class:?} twice", rule.name),
                    Some("remove one"),
                );
            }
        }
        if let Some(zone) = rule.zone.as_ref().filter(|_| section.is_valid("zone"))
            && !zones.iter().any(|known| known.name == *zone)
        {
            let names: Vec<String> = zones.iter().map(|zone| format!("{:?}", zone.name)).collect();
            let help = match names.as_slice() {
                [] => "add [[stream.zone]] with this name".to_owned(),
                names => format!("zones of this stream: {}", names.join(", ")),
            };
            section.fail("zone", format!("the stream has no zone {zone:?}"), Some(&help));
        }
    }
}
