//! The colours of the everyday classes are computed as people with normal vision, protanopia, deuteranopia and tritanopia see
//! them, and compared by CIEDE2000.

use super::*;

const NAMES: [&str; 15] = [
    "person",
    "bicycle",
    "vehicle",
    "animal",
    "furniture",
    "building",
    "wall",
    "floor",
    "ceiling",
    "paved",
    "ground",
    "grass",
    "plant",
    "sky",
    "water",
];

/// Classes that often touch each other.
const NEIGHBOURS: [(&str, &str); 26] = [
    ("wall", "floor"),
    ("wall", "ceiling"),
    ("floor", "ceiling"),
    ("furniture", "floor"),
    ("furniture", "wall"),
    ("building", "sky"),
    ("building", "paved"),
    ("building", "plant"),
    ("building", "ground"),
    ("building", "grass"),
    ("building", "wall"),
    ("paved", "ground"),
    ("paved", "grass"),
    ("paved", "plant"),
    ("paved", "floor"),
    ("paved", "sky"),
    ("grass", "plant"),
    ("grass", "ground"),
    ("plant", "ground"),
    ("plant", "sky"),
    ("plant", "water"),
    ("ground", "sky"),
    ("ground", "water"),
    ("grass", "water"),
    ("sky", "water"),
    ("building", "water"),
];

type Matrix = [[f64; 3]; 3];

/// From linear RGB to what is seen, for complete deficiency: Machado, Oliveira, Fernandes: A Physiologically-based Model for
/// Simulation of Color Vision Deficiency, IEEE TVCG 15(6), 2009, table of severity 1.0.
const VISIONS: [(&str, Matrix); 4] = [
    ("normal vision", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    ("protanopia", [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    (
        "deuteranopia",
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ),
    ("tritanopia", [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
];

fn applied(matrix: &Matrix, vector: [f64; 3]) -> [f64; 3] {
    matrix.map(|row| row.iter().zip(vector).map(|(factor, value)| factor * value).sum())
}

/// CIELAB (D65) of an sRGB colour as it is seen with `vision`.
fn lab(Rgb(r, g, b): Rgb, vision: &Matrix) -> [f64; 3] {
    let linear = [r, g, b].map(|channel| match f64::from(channel) / 255.0 {
        value if value <= 0.04045 => value / 12.92,
        value => ((value + 0.055) / 1.055).powf(2.4),
    });
    let seen = applied(vision, linear).map(|value| value.clamp(0.0, 1.0));
    let to_xyz =
        [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]];
    let [x, y, z] = applied(&to_xyz, seen);
    let [x, y, z] = [x / 0.95047, y, z / 1.08883]
        .map(|value| if value > 216.0 / 24389.0 { value.cbrt() } else { (24389.0 / 27.0 * value + 16.0) / 116.0 });
    [116.0 * y - 16.0, 500.0 * (x - y), 200.0 * (y - z)]
}

/// The colour difference CIEDE2000: Sharma, Wu, Dalal, Color Research & Application 30(1), 2005.
fn ciede2000([l1, a1, b1]: [f64; 3], [l2, a2, b2]: [f64; 3]) -> f64 {
    let share = |chroma: f64| (chroma.powi(7) / (chroma.powi(7) + 25f64.powi(7))).sqrt();
    let g = 0.5 * (1.0 - share((a1.hypot(b1) + a2.hypot(b2)) / 2.0));
    let (a1, a2) = (a1 * (1.0 + g), a2 * (1.0 + g));
    let (c1, c2) = (a1.hypot(b1), a2.hypot(b2));
    let hue = |a: f64, b: f64| b.atan2(a).to_degrees().rem_euclid(360.0);
    let (h1, h2) = (hue(a1, b1), hue(a2, b2));
    let dh = if c1 * c2 == 0.0 { 0.0 } else { (h2 - h1 + 180.0).rem_euclid(360.0) - 180.0 };
    let (dl, dc, dh) = (l2 - l1, c2 - c1, 2.0 * (c1 * c2).sqrt() * (dh / 2.0).to_radians().sin());
    let (l, c) = ((l1 + l2) / 2.0, (c1 + c2) / 2.0);
    let h = match (h1 + h2) / 2.0 {
        _ if c1 * c2 == 0.0 => h1 + h2,
        mean if (h1 - h2).abs() <= 180.0 => mean,
        mean if mean < 180.0 => mean + 180.0,
        mean => mean - 180.0,
    };
    let cos = |degrees: f64| degrees.to_radians().cos();
    let t = 1.0 - 0.17 * cos(h - 30.0) + 0.24 * cos(2.0 * h) + 0.32 * cos(3.0 * h + 6.0) - 0.2 * cos(4.0 * h - 63.0);
    let rotation = 30.0 * (-((h - 275.0) / 25.0).powi(2)).exp();
    let rt = -(2.0 * rotation).to_radians().sin() * 2.0 * share(c);
    let sl = 1.0 + 0.015 * (l - 50.0).powi(2) / (20.0 + (l - 50.0).powi(2)).sqrt();
    let (dl, dc, dh) = (dl / sl, dc / (1.0 + 0.045 * c), dh / (1.0 + 0.015 * c * t));
    (dl * dl + dc * dc + dh * dh + rt * dc * dh).sqrt()
}

#[test]
fn the_colour_difference_is_that_of_the_published_test_data() {
    // Sharma, Wu, Dalal, table 1.
    for (a, b, expected) in [
        ([50.0, 2.6772, -79.7751], [50.0, 0.0, -82.7485], 2.0425),
        ([50.0, -1.3802, -84.2814], [50.0, 0.0, -82.7485], 1.0000),
        ([50.0, 0.0, 0.0], [50.0, -1.0, 2.0], 2.3669),
        ([50.0, 2.5, 0.0], [73.0, 25.0, -18.0], 27.1492),
        ([50.0, 2.5, 0.0], [61.0, -5.0, 29.0], 22.8977),
        ([60.2574, -34.0099, 36.2677], [60.4626, -34.1751, 39.4387], 1.2644),
        ([2.0776, 0.0795, -1.1350], [0.9033, -0.0636, -0.5514], 0.9082),
    ] {
        let found = ciede2000(a, b);
        assert!((found - expected).abs() < 1e-4, "{a:?} {b:?}: {found}, not {expected}");
    }
}

/// The least difference of two classes over all kinds of vision, and the kind.
fn difference(a: &str, b: &str) -> (f64, &'static str) {
    let color = |name: &str| colors(name).next().unwrap();
    let seen =
        |(vision, matrix): &(&'static str, Matrix)| (ciede2000(lab(color(a), matrix), lab(color(b), matrix)), *vision);
    VISIONS.iter().map(seen).min_by(|a, b| a.0.total_cmp(&b.0)).unwrap()
}

#[test]
fn people_with_colour_vision_deficiency_can_tell_classes_apart() {
    let is_strong = |name: &str| weight(name) == Weight::FULL;
    assert_eq!(NAMES.iter().filter(|name| is_strong(name)).count(), 4);
    let mut too_similar = Vec::new();
    for (n, a) in NAMES.iter().enumerate() {
        for b in &NAMES[..n] {
            let are_neighbours = NEIGHBOURS.contains(&(a, b)) || NEIGHBOURS.contains(&(b, a));
            // A difference of 2.3 can just be seen (Mahy, Van Eycken, Oosterlinck, 1994) with the colours side by side.
            let wanted = match (is_strong(a), is_strong(b)) {
                (true, true) => 21.0,
                (true, false) | (false, true) => 14.0,
                _ if are_neighbours => 13.0,
                _ => 7.5,
            };
            let (found, vision) = difference(a, b);
            if found < wanted {
                too_similar.push(format!("{a} and {b}: {found:.1} of {wanted} with {vision}"));
            }
        }
    }
    assert!(too_similar.is_empty(), "{too_similar:#?}");
}

#[test]
fn colours_are_those_that_people_expect() {
    let hue = |name: &str| {
        let Rgb(r, g, b) = colors(name).next().unwrap();
        let [r, g, b] = [r, g, b].map(f64::from);
        (3f64.sqrt() * (g - b)).atan2(2.0 * r - g - b).to_degrees().rem_euclid(360.0)
    };
    for (name, from, to) in [
        ("vehicle", 215.0, 250.0),
        ("sky", 185.0, 215.0),
        ("water", 165.0, 190.0),
        ("grass", 75.0, 110.0),
        ("plant", 120.0, 160.0),
        ("bicycle", 40.0, 60.0),
        ("furniture", 20.0, 45.0),
        ("ground", 10.0, 40.0),
    ] {
        assert!((from..to).contains(&hue(name)), "{name}: hue {}", hue(name));
    }
    assert!(hue("person") < 10.0 || hue("person") > 350.0);
}

#[test]
fn names_of_data_sets_are_known() {
    let base = |name: &str| colors(name).next();
    for (name, same) in [
        ("Car", "vehicle"),
        ("cars", "vehicle"),
        ("Truck", "vehicle"),
        ("Pedestrian", "person"),
        ("person, individual, someone", "person"),
        ("car;auto;automobile", "vehicle"),
        ("sky-other-merged", "sky"),
        ("wall-brick", "wall"),
        ("floor_wood", "floor_wood"),
        ("Parking_lot", "paved"),
        ("potted  plant", "plant"),
        ("Road", "paved"),
        ("grass", "grass"),
        ("glass", "glass"),
        ("bus", "vehicle"),
    ] {
        assert_eq!((base(name), weight(name)), (base(same), weight(same)), "{name}");
    }
    for name in ["traffic light", "glass", "carpenter", "", "s", "floor_wood"] {
        assert_eq!((base(name), weight(name)), (None, Weight::FULL), "{name:?}");
    }
    assert!(weight("sky") < weight("building") && weight("building") < weight("person"));
}
