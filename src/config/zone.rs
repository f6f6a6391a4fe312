//! `[[stream.zone]]`: named parts of the frame.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::document::Section;
use super::value::Value;
use crate::frame::Crop;
use crate::zones::find_crossings;

/// A part of the frame in which the shares of classes are measured. Rules refer to it by its name. Changes do not restart the
/// stream.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
#[schemars(extend("required" = ["name", "polygon"]))]
pub struct ZoneConfig {
    /// Unique name in the stream, at most 64 characters. It may contain spaces and letters of any alphabet.
    #[schemars(length(min = 1, max = 64), extend("x-check" = "zone-name", "x-help" = "write name = \"Loading bay\""))]
    pub name: String,
    /// Corners of the polygon, as fractions of the width and height of the frame: `[[0, 0.5], [1, 0.5], [1, 1], [0, 1]]` is
    /// the lower half. A pixel of the mask belongs to the zone if its centre is inside the polygon.
    #[schemars(length(min = 3, max = 100), extend("x-check" = "zone"))]
    pub polygon: Vec<[f64; 2]>,
}

/// Maximum number of zones, and of rules, of a stream: all of them are evaluated for every mask.
pub(super) const MOST: usize = 64;

/// Checks that the names of the zones of a stream, whose table is `stream`, differ.
pub(super) fn check_all(zones: &[ZoneConfig], stream: &Section) {
    if zones.len() > MOST {
        stream.fail("zone", format!("there are {} zones, more than {MOST}", zones.len()), None);
    }
    for (i, zone) in zones.iter().enumerate() {
        if !zone.name.is_empty() && zones[..i].iter().any(|other| other.name == zone.name) {
            let problem = format!("{:?} is already the name of another zone", zone.name);
            stream.element("zone", i).fail("name", problem, Some("names must differ"));
        }
    }
}

pub(super) fn read_zone_name(value: &Value) -> Option<Json> {
    let name = value.string(None)?;
    if name.trim() != name || name.is_empty() {
        return value.fail("begins or ends with a space, or is empty", None);
    }
    if name.chars().any(char::is_control) {
        return value.fail("contains control characters", None);
    }
    if name.chars().count() > 64 {
        return value.fail(format!("has {} characters, more than 64", name.chars().count()), None);
    }
    Some(name.into())
}

/// Minimum area of a zone as a share of the frame; a smaller one is an error.
const LEAST_AREA: f64 = 1e-4;

/// Maximum number of corners.
const MOST_CORNERS: usize = 100;

/// The corners of a polygon.
pub(super) fn read_polygon(value: &Value) -> Option<Json> {
    const HELP: Option<&str> = Some("write the corners, [[0, 0.5], [1, 0.5], [1, 1], [0, 1]] is the lower half");
    let corners = value.list(HELP)?;
    if corners.len() < 3 {
        return value.fail(format!("has {} corners, fewer than 3", corners.len()), HELP);
    }
    if corners.len() > MOST_CORNERS {
        return value.fail(format!("has {} corners, more than {MOST_CORNERS}", corners.len()), HELP);
    }
    let mut polygon: Vec<[f64; 2]> = Vec::new();
    for corner in &corners {
        let numbers = corner.list(HELP)?;
        if numbers.len() != 2 {
            return corner.fail(format!("has {} numbers, not 2", numbers.len()), HELP);
        }
        let help = Some("fractions of the frame's width and height");
        polygon.push([numbers[0].number(0.0..=1.0, help)?, numbers[1].number(0.0..=1.0, help)?]);
    }
    let area = area(&polygon);
    if area < LEAST_AREA {
        // Rounding errors give a line a very small area.
        let problem = if area < 1e-9 {
            "covers nothing".to_owned()
        } else {
            format!("covers less than {} % of the frame", LEAST_AREA * 100.0)
        };
        return value.fail(problem, HELP);
    }
    Some(polygon.into_iter().map(|corner| Json::from(corner.to_vec())).collect())
}

/// Whether a polygon has less than [`LEAST_AREA`] of the frame inside of a crop.
pub(super) fn is_outside(polygon: &[[f64; 2]], crop: Crop) -> bool {
    !crop.is_whole() && area_in(polygon, crop) < LEAST_AREA
}

/// The area of a polygon by the even-odd rule, as a share of the frame.
fn area(polygon: &[[f64; 2]]) -> f64 {
    area_in(polygon, Crop::default())
}

/// The area of the part of a polygon that is inside of a crop, as a share of the frame: what the polygon has of many thin rows.
fn area_in(polygon: &[[f64; 2]], crop: Crop) -> f64 {
    const ROWS: usize = 4096;
    let mut crossings = Vec::new();
    let mut lengths = 0.0;
    for row in 0..ROWS {
        let y = crop.y + (row as f64 + 0.5) / ROWS as f64 * crop.height;
        find_crossings(polygon, y, &mut crossings);
        let inside = |x: f64| x.clamp(crop.x, crop.x + crop.width);
        lengths += crossings.chunks_exact(2).map(|pair| inside(pair[1]) - inside(pair[0])).sum::<f64>();
    }
    lengths / ROWS as f64 * crop.height
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_follows_the_even_odd_rule() {
        let half = area(&[[0.0, 0.0], [1.0, 1.0], [1.0, 0.0], [0.0, 1.0]]);
        assert!((half - 0.5).abs() < 1e-3, "two triangles that touch in the middle: {half}");
        let all = area(&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]);
        assert!((all - 1.0).abs() < 1e-9, "{all}");
        assert!(area(&[[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]) < 1e-9, "a line");
    }

    #[test]
    fn the_area_in_a_crop_is_that_of_both() {
        let crop = Crop { x: 0.5, y: 0.25, width: 0.5, height: 0.5 };
        let triangle = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]];
        let found = area_in(&triangle, crop);
        // The crop without the triangle of it below the diagonal, whose sides are a quarter.
        assert!((found - (0.25 - 0.25 * 0.25 / 2.0)).abs() < 1e-3, "{found}");
        let left = [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]];
        assert!(is_outside(&left, crop) && !is_outside(&left, Crop { x: 0.49, ..crop }));
        assert!(!is_outside(&left, Crop::default()));
    }
}
