//! `stream.crop`: the part of the frame that the model gets.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use super::value::Value;
use crate::frame::Crop;

/// Minimum width and height, as a fraction of the frame. The mask of a frame has up to 1 / [`LEAST`]² times as many pixels as that of its crop: 2048×1152 for
/// the bundled model.
const LEAST: f64 = 0.25;

const HELP: &str = "write [x, y, width, height] as fractions of the frame; [0.5, 0, 0.5, 0.5] is the upper right part, half as wide and half as high";

/// A part of the frame, as `[x, y, width, height]`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CropArea(Crop);

impl CropArea {
    /// Reads numbers that are separated by commas.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let numbers: Result<Vec<f64>, _> = text.split(',').map(|number| number.trim().parse()).collect();
        let numbers = numbers.map_err(|_| format!("{text:?} is not four numbers that are separated by commas"))?;
        CropArea::new(&numbers)
    }

    fn new(numbers: &[f64]) -> Result<Self, String> {
        let &[x, y, width, height] = numbers else {
            return Err(format!("has {} numbers, not 4", numbers.len()));
        };
        if let Some(outside) = numbers.iter().find(|number| !(0.0..=1.0).contains(*number)) {
            return Err(format!("{outside} is not between 0 and 1"));
        }
        let sides = [("x", x, "width", width, "right"), ("y", y, "height", height, "bottom")];
        for (place, start, name, length, edge) in sides {
            if length < LEAST {
                return Err(format!("{name} = {length} is less than {LEAST}"));
            }
            // Decimal fractions have rounding errors: 0.7 + 0.3 may be more than 1.
            if start + length > 1.0 + 1e-9 {
                return Err(format!(
                    "{place} + {name} = {start} + {length} is more than 1: the crop extends beyond the {edge} edge of the frame"
                ));
            }
        }
        Ok(CropArea(Crop { x, y, width, height }))
    }

    fn numbers(self) -> [f64; 4] {
        let Crop { x, y, width, height } = self.0;
        [x, y, width, height]
    }
}

impl From<CropArea> for Crop {
    fn from(area: CropArea) -> Self {
        area.0
    }
}

impl std::fmt::Display for CropArea {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [x, y, width, height] = self.numbers();
        write!(f, "[{x}, {y}, {width}, {height}]")
    }
}

impl Serialize for CropArea {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.numbers().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for CropArea {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        CropArea::new(&Vec::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for CropArea {
    fn schema_name() -> Cow<'static, str> {
        "Crop".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "array",
            "items": {"type": "number", "minimum": 0, "maximum": 1},
            "minItems": 4,
            "maxItems": 4,
            "x-check": "crop",
        })
    }
}

/// `[x, y, width, height]`
pub(super) fn read_crop(value: &Value) -> Option<Json> {
    let written = value.list(Some(HELP))?;
    let mut numbers = Vec::new();
    for number in &written {
        numbers.push(number.number(0.0..=1.0, Some(HELP))?);
    }
    match CropArea::new(&numbers) {
        Ok(area) => Some(area.numbers().to_vec().into()),
        Err(problem) => value.fail(problem, Some(HELP)),
    }
}
