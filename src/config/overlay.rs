//! `[stream.overlay]`: how the mask is drawn.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::smooth::Smooth;
use super::value::Value;
use crate::frame::{Label, Rgb, Weight};

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

/// Which classes the legend lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Legend {
    /// The drawn classes that are in the frame.
    Visible,
    /// All drawn classes.
    All,
    /// None: there is no legend.
    Off,
}

impl Legend {
    pub const ALL: [Legend; 3] = [Legend::Visible, Legend::All, Legend::Off];

    /// The name in the configuration and in the API.
    pub fn name(self) -> &'static str {
        match self {
            Legend::Visible => "visible",
            Legend::All => "all",
            Legend::Off => "off",
        }
    }
}

impl JsonSchema for Legend {
    fn schema_name() -> Cow<'static, str> {
        "Legend".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "boolean"],
            "enum": ["visible", "all", "off", true, false],
            "x-check": "legend",
        })
    }
}

/// `"visible"`, `"all"` or `"off"`; `true` means `"visible"`, `false` means `"off"`.
pub(super) fn read_legend(value: &Value) -> Option<Json> {
    const HELP: Option<&str> = Some("write \"visible\", \"all\" or \"off\"");
    if value.is_boolean() {
        let shown = value.boolean()?;
        return Some(if shown { Legend::Visible } else { Legend::Off }.name().into());
    }
    value.choice(&Legend::ALL.map(Legend::name), HELP).map(Json::from)
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
    /// Smooth masks over time so that they do not flicker: a pixel changes its class when the new class persists, or when the
    /// image changes there. Moving objects are not delayed. Sinks, events and `mask.png` get the unsmoothed masks.
    pub smooth: Smooth,
    /// Names of classes of the model that are not drawn. Without this key, the classes `background`, `other`, `void` and
    /// `unlabeled` are not drawn; `[]` draws all classes.
    #[schemars(extend("x-help" = "write [\"sky\"]", "x-default" = "classes named `background`, `other`, `void`, `unlabeled`"))]
    pub hide: Option<Vec<String>>,
    /// Draw a legend with names and colours of classes. `visible`: of the drawn classes that are in the frame. `all`: of all
    /// drawn classes. `off`: no legend. `true` is the same as `visible`, `false` as `off`.
    pub legend: Legend,
    /// Colours of classes that replace those of the model: `{ car = "#ff0000" }`.
    #[serde(with = "colors")]
    #[schemars(with = "BTreeMap<String, Color>", extend("x-default" = "the model's colours"))]
    pub colors: Vec<(String, Rgb)>,
    /// How strongly classes are drawn, instead of the weights of the model: factors of `alpha` from 0 (not drawn) to 1, as in
    /// `{ sky = 0.1, person = 1 }`. With `style = "mask-only"`, classes with a weight above 0 are opaque.
    #[serde(with = "weights")]
    #[schemars(with = "BTreeMap<String, ClassWeight>", extend("x-default" = "the model's weights, or 1"))]
    pub weights: Vec<(String, Weight)>,
}

impl Default for OverlayConfig {
    fn default() -> Self {
        OverlayConfig {
            style: Style::Tint,
            alpha: 0.45,
            smooth: Smooth::Normal,
            hide: None,
            legend: Legend::Visible,
            colors: Vec::new(),
            weights: Vec::new(),
        }
    }
}

/// Names of classes that stand for the rest of the frame, and are not drawn unless `hide` is set.
const REST: [&str; 5] = ["background", "other", "void", "unlabeled", "unlabelled"];

/// Whether a class of this name stands for the rest of the frame.
pub fn is_rest(name: &str) -> bool {
    // LabelMe writes `_background_`, torchvision `__background__`.
    REST.iter().any(|rest| name.trim_matches('_').eq_ignore_ascii_case(rest))
}

impl OverlayConfig {
    /// Whether the class of this name is in `hide`, or hidden by default.
    pub fn hides(&self, name: &str) -> bool {
        match &self.hide {
            Some(hidden) => hidden.iter().any(|hidden| hidden == name),
            None => is_rest(name),
        }
    }

    /// The colour in which a class is drawn.
    pub fn color_of(&self, label: &Label) -> Rgb {
        self.colors.iter().find(|(name, _)| *name == label.name).map_or(label.color, |(_, color)| *color)
    }

    /// How strongly a class is drawn. This does not depend on [`OverlayConfig::hides`].
    pub fn weight_of(&self, label: &Label) -> Weight {
        self.weights.iter().find(|(name, _)| *name == label.name).map_or(label.weight, |(_, weight)| *weight)
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

/// The schema of a weight.
struct ClassWeight;

impl JsonSchema for ClassWeight {
    fn schema_name() -> Cow<'static, str> {
        "Weight".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "number",
            "minimum": 0,
            "maximum": 1,
            "x-help": "0 is not drawn, 1 is drawn with the full opacity",
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

mod weights {
    use super::{Deserialize, Deserializer, SerializeMap, Serializer, Weight};

    pub fn serialize<S: Serializer>(weights: &[(String, Weight)], serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(weights.len()))?;
        weights.iter().try_for_each(|(name, weight)| map.serialize_entry(name, weight))?;
        map.end()
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(String, Weight)>, D::Error> {
        let map = serde_json::Map::deserialize(deserializer)?;
        let weight = |(name, weight): (String, serde_json::Value)| {
            serde_json::from_value(weight).map(|weight| (name, weight)).map_err(serde::de::Error::custom)
        };
        map.into_iter().map(weight).collect()
    }
}
