//! `stream.tiles`: into how many tiles a frame is divided for the model.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;

use super::value::Value;
use crate::frame::Tiles;

/// Most columns and rows.
const MOST: usize = 4;

/// Columns and rows of tiles, as `"2x2"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TileGrid(Tiles);

impl TileGrid {
    /// Reads columns and rows.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let sides = text.split_once('x').and_then(|(columns, rows)| Some((number(columns)?, number(rows)?)));
        match sides {
            Some((columns, rows)) if (1..=MOST).contains(&columns) && (1..=MOST).contains(&rows) => {
                Ok(TileGrid(Tiles { columns, rows }))
            }
            Some((columns, rows)) => Err(format!("{columns}x{rows} is not from 1x1 to {MOST}x{MOST}")),
            None => Err(format!("{text:?} is not columns and rows")),
        }
    }
}

fn number(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl From<TileGrid> for Tiles {
    fn from(grid: TileGrid) -> Self {
        grid.0
    }
}

impl std::fmt::Display for TileGrid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.0.columns, self.0.rows)
    }
}

impl Serialize for TileGrid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TileGrid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        TileGrid::parse(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl JsonSchema for TileGrid {
    fn schema_name() -> Cow<'static, str> {
        "Tiles".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[1-4]x[1-4]$", "x-check": "tiles"})
    }
}

/// `"2x2"`: columns and rows.
pub(super) fn read_tiles(value: &Value) -> Option<Json> {
    const HELP: Option<&str> = Some("write columns and rows, from \"1x1\" (the whole frame) to \"4x4\"");
    match TileGrid::parse(value.string(HELP)?) {
        Ok(grid) => Some(grid.to_string().into()),
        Err(problem) => value.fail(problem, HELP),
    }
}
