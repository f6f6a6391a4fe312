//! `[stream.overlay]`: how the mask is drawn.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::value::Value;
use crate::frame::Rgb;

/// How the mask is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Style {
    /// Each class is tinted with its colour.
    Tint,
    /// Coloured lines along the borders of classes.
    Contour,
    /// Only the colours of the classes, without the frame.
    MaskOnly,
}

impl Style {
    pub const ALL: [Style; 3] = [Style::Tint, Style::Contour, Style::MaskOnly];

    /// The name in the configuration and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Style::Tint => "tint",
            Style::Contour => "contour",
            Style::MaskOnly => "mask-only",
        }
    }
}

/// How the mask is drawn on the frames of the stream. The page and the API can change these settings while the stream runs.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("x-applies" = "next-frame"))]
pub struct OverlayConfig {
    /// How the mask is drawn.
    pub style: Style,
    /// Opacity of the mask: 0 = invisible, 1 = opaque.
    #[serde(serialize_with = "serialize_exact")]
    #[schemars(range(min = 0, max = 1), extend("x-help" = "0 is invisible, 1 is opaque"))]
    pub alpha: f32,
    /// Names of classes of the model that are not drawn. Without this key, a class named `background` is not drawn; `[]`
    /// draws all classes.
    #[schemars(extend("x-help" = "write [\"sky\"]", "x-default" = "a class named `background`"))]
    pub hide: Option<Vec<String>>,
    /// Draw a legend with the names and colours of the visible classes.
    pub legend: bool,
    /// Colours of classes that replace those of the model: `{ car = "#ff0000" }`.
    #[serde(with = "colors")]
    #[schemars(with = "BTreeMap<String, Color>", extend("x-default" = "the model's colours"))]
    pub colors: Vec<(String, Rgb)>,
}

impl Default for OverlayConfig {
    fn default() -> Self {
        OverlayConfig { style: Style::Tint, alpha: 0.45, hide: None, legend: true, colors: Vec::new() }
    }
}

impl OverlayConfig {
    /// Whether the class of this name is not drawn.
    pub fn hides(&self, name: &str) -> bool {
        match &self.hide {
            Some(hidden) => hidden.iter().any(|hidden| hidden == name),
            None => name.eq_ignore_ascii_case("background"),
        }
    }

    /// `alpha` as it was written: 0.45, not 0.44999998807907104.
    pub fn alpha_exact(&self) -> f64 {
        exact(self.alpha)
    }
}

fn exact(number: f32) -> f64 {
    number.to_string().parse().unwrap_or(f64::from(number))
}

fn serialize_exact<S: Serializer>(number: &f32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(exact(*number))
}

/// `#rrggbb`
pub fn hex(Rgb(r, g, b): Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

fn parse_hex(text: &str) -> Option<Rgb> {
    let digits = text.strip_prefix('#').filter(|d| d.len() == 6 && d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let rgb = u32::from_str_radix(digits, 16).ok()?;
    Some(Rgb((rgb >> 16) as u8, (rgb >> 8) as u8, rgb as u8))
}

/// The schema of a colour.
struct Color;

impl JsonSchema for Color {
    fn schema_name() -> Cow<'static, str> {
        "Color".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "array"],
            "pattern": "^#[0-9A-Fa-f]{6}$",
            "items": { "type": "integer", "minimum": 0, "maximum": 255 },
            "minItems": 3,
            "maxItems": 3,
            "x-check": "color",
        })
    }
}

/// `"#rrggbb"` or `[r, g, b]`.
pub(super) fn read_color(value: &Value) -> Option<Json> {
    const HELP: Option<&str> = Some("write \"#ff8000\" or [255, 128, 0]");
    if value.is_array() {
        let channels = value.list(None)?;
        if channels.len() != 3 {
            return value.fail(format!("has {} numbers, not 3", channels.len()), HELP);
        }
        let channels: Vec<Option<i64>> = channels.iter().map(|channel| channel.integer(0..=255, HELP)).collect();
        return Some(hex(Rgb(channels[0]? as u8, channels[1]? as u8, channels[2]? as u8)).into());
    }
    let text = value.string(HELP)?;
    match parse_hex(text) {
        Some(color) => Some(hex(color).into()),
        None => value.fail(format!("{text:?} is not a colour"), HELP),
    }
}

mod colors {
    use super::{Deserialize, Deserializer, Rgb, SerializeMap, Serializer, hex, parse_hex};

    pub fn serialize<S: Serializer>(colors: &[(String, Rgb)], serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(colors.len()))?;
        colors.iter().try_for_each(|(name, color)| map.serialize_entry(name, &hex(*color)))?;
        map.end()
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Rgb)>, D::Error> {
        let map = serde_json::Map::deserialize(deserializer)?;
        let color = |(name, color): (String, serde_json::Value)| Some((name, parse_hex(color.as_str()?)?));
        Ok(map.into_iter().filter_map(color).collect())
    }
}
