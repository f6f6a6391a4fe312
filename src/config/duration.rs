//! Durations in the configuration: `"500ms"`, `"3s"`, `"1.5m"`, `"1h"`, `"7d"`.

use std::borrow::Cow;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serializer};

pub(super) const HELP: &str = r#"write "500ms", "3s", "1m" or a number of seconds"#;

/// Parses a duration. `None` if it has no unit or an unknown one, is negative, or is too large.
pub fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(digits);
    let seconds_per_unit = match unit.trim_start() {
        "ms" => 0.001,
        "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return None,
    };
    from_seconds(number.parse::<f64>().ok()? * seconds_per_unit)
}

/// Rounds to whole milliseconds, so that 0.1 s is exactly 100 ms.
pub(super) fn from_seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64((seconds * 1000.0).round() / 1000.0).ok()
}

/// The shortest text that `parse` reads as the same duration; exact for whole milliseconds.
pub fn show(duration: Duration) -> String {
    let millis = duration.as_millis();
    match millis {
        0 => "0s".into(),
        _ if millis.is_multiple_of(86_400_000) => format!("{}d", millis / 86_400_000),
        _ if millis.is_multiple_of(3_600_000) => format!("{}h", millis / 3_600_000),
        _ if millis.is_multiple_of(60_000) => format!("{}m", millis / 60_000),
        _ if millis.is_multiple_of(1000) => format!("{}s", millis / 1000),
        _ => format!("{millis}ms"),
    }
}

pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&show(*duration))
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| serde::de::Error::custom("not a duration"))
}

/// For `#[serde(with = …)]` on an `Option<Duration>`.
pub(super) mod optional {
    use super::{Deserializer, Duration, Serializer};

    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        super::deserialize(deserializer).map(Some)
    }
}

/// The schema of a duration. Its range is in `x-least` and `x-most`, written as durations.
pub(super) struct DurationText;

impl JsonSchema for DurationText {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "number"],
            "pattern": r"^\s*[0-9.]+\s*(ms|s|m|min|h|d)\s*$",
            "minimum": 0,
            "x-check": "duration",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read() {
        for (text, millis) in [
            ("500ms", 500),
            ("3s", 3000),
            ("1m", 60_000),
            ("1h", 3_600_000),
            ("7d", 604_800_000),
            ("1.5s", 1500),
            (" 2 s ", 2000),
            ("0s", 0),
        ] {
            assert_eq!(parse(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(from_seconds(0.1), Some(Duration::from_millis(100)));
    }

    #[test]
    fn text_that_is_not_a_duration() {
        for text in ["", "5", "s", "soon", "-1s", "1.2.3s", "5 parsecs", "9e9h", "1s 2s"] {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(parse(&format!("{}h", "9".repeat(40))), None);
        assert_eq!(from_seconds(f64::NAN), None);
        assert_eq!(from_seconds(-1.0), None);
    }

    #[test]
    fn shown_as_written() {
        for text in ["0s", "250ms", "3s", "90s", "2m", "1h", "25h", "7d"] {
            assert_eq!(show(parse(text).unwrap()), text);
        }
    }
}
