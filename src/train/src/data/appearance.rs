//! Colours and weights of classes with a well-known name: sky is blue and faint, a person is red and strong.
//!
//! People with colour-vision deficiency can tell the colours apart: see the tests.

use std::fmt::Write;

use maskcast::frame::{Rgb, Weight};

#[cfg(test)]
mod tests;

/// What a name stands for.
struct Kind {
    color: Rgb,
    /// How strongly classes of this kind are drawn: what matters to most viewers stands out from its surroundings.
    weight: f64,
    /// In the singular and in lower case, with single spaces. The first one is that of the everyday classes.
    names: &'static [&'static str],
}

const KINDS: [Kind; 16] = [
    Kind { color: Rgb(0x40, 0x40, 0x40), weight: 0.35, names: &["other", "rest", "misc", "miscellaneous"] },
    Kind {
        color: Rgb(0xd9, 0x07, 0x07),
        weight: 1.0,
        names: &[
            "person",
            "people",
            "pedestrian",
            "human",
            "man",
            "woman",
            "child",
            "worker",
            "rider",
            "bicyclist",
            "cyclist",
            "motorcyclist",
            "driver",
            "individual",
        ],
    },
    Kind {
        color: Rgb(0xff, 0xf2, 0x36),
        weight: 1.0,
        names: &["bicycle", "bike", "cycle", "motorcycle", "motorbike", "moped", "scooter", "two wheeler"],
    },
    Kind {
        color: Rgb(0x0b, 0x29, 0xe6),
        weight: 1.0,
        names: &[
            "vehicle",
            "car",
            "auto",
            "automobile",
            "truck",
            "lorry",
            "bus",
            "van",
            "caravan",
            "trailer",
            "train",
            "tram",
            "tractor",
            "forklift",
            "boat",
            "ship",
            "airplane",
            "aeroplane",
        ],
    },
    Kind {
        color: Rgb(0xf2, 0x68, 0xff),
        weight: 1.0,
        names: &[
            "animal", "dog", "cat", "bird", "horse", "cow", "cattle", "sheep", "goat", "pig", "deer", "elephant",
            "bear",
        ],
    },
    Kind {
        color: Rgb(0xff, 0x7f, 0x06),
        weight: 0.7,
        names: &[
            "furniture",
            "chair",
            "table",
            "desk",
            "dining table",
            "diningtable",
            "bench",
            "sofa",
            "couch",
            "bed",
            "shelf",
            "bookcase",
            "cabinet",
            "cupboard",
            "wardrobe",
            "counter",
        ],
    },
    Kind {
        color: Rgb(0x96, 0x5e, 0x6e),
        weight: 0.6,
        names: &["building", "house", "skyscraper", "edifice", "roof", "construction"],
    },
    Kind { color: Rgb(0xbf, 0xa8, 0x7f), weight: 0.35, names: &["wall"] },
    Kind { color: Rgb(0x99, 0x79, 0x66), weight: 0.35, names: &["floor", "flooring", "rug", "carpet"] },
    Kind { color: Rgb(0xf0, 0xfd, 0xf1), weight: 0.35, names: &["ceiling"] },
    Kind {
        color: Rgb(0x54, 0x49, 0x6b),
        weight: 0.6,
        names: &[
            "paved",
            "road",
            "street",
            "pavement",
            "sidewalk",
            "footpath",
            "asphalt",
            "parking",
            "parking lot",
            "driveway",
            "route",
        ],
    },
    Kind {
        color: Rgb(0x47, 0x1d, 0x0e),
        weight: 0.35,
        names: &["ground", "earth", "soil", "dirt", "sand", "gravel", "rock", "mountain", "terrain", "path"],
    },
    Kind { color: Rgb(0x75, 0xbb, 0x4b), weight: 0.6, names: &["grass", "lawn", "meadow", "field", "low vegetation"] },
    Kind {
        color: Rgb(0x1b, 0x5a, 0x43),
        weight: 0.6,
        names: &[
            "plant",
            "tree",
            "vegetation",
            "bush",
            "shrub",
            "hedge",
            "forest",
            "flower",
            "crop",
            "potted plant",
            "pottedplant",
        ],
    },
    Kind { color: Rgb(0xa6, 0xed, 0xff), weight: 0.35, names: &["sky", "cloud"] },
    Kind {
        color: Rgb(0x1f, 0x8f, 0x9c),
        weight: 0.6,
        names: &["water", "sea", "river", "lake", "pond", "ocean", "swimming pool"],
    },
];

/// The colours of a class with a well-known name, the best one first: classes of one kind, such as car and bus, have shades
/// of one colour. None for other names.
pub fn colors(name: &str) -> impl Iterator<Item = Rgb> {
    /// Share of white (positive) or black (negative) that is mixed in.
    const SHADES: [f64; 5] = [0.0, 0.4, -0.35, 0.65, -0.6];
    kind(name).into_iter().flat_map(|kind| SHADES.map(|shade| mixed(kind.color, shade)))
}

/// How strongly a class of this name is drawn; 1 for names that are not well known.
pub fn weight(name: &str) -> Weight {
    kind(name).and_then(|kind| Weight::try_from(kind.weight).ok()).unwrap_or_default()
}

fn mixed(Rgb(r, g, b): Rgb, shade: f64) -> Rgb {
    let goal = if shade > 0.0 { 255.0 } else { 0.0 };
    let channel = |value: u8| (f64::from(value) + (goal - f64::from(value)) * shade.abs()).round() as u8;
    Rgb(channel(r), channel(g), channel(b))
}

/// Finds names as data sets write them: `Person`, `Parking_lot` and `cars` are compared in lower case with single spaces. `car, auto`
/// and `car;auto` (ADE20K) are known by their first name, `wall-brick` and `sky-other-merged` (COCO) by their first word.
fn kind(name: &str) -> Option<&'static Kind> {
    let first = name.split([',', ';', ':']).next().unwrap_or_default();
    let words = normalised(first);
    let known = |name: &str| KINDS.iter().find(|kind| kind.names.contains(&name));
    let singular = |name: &str| name.strip_suffix('s').and_then(known);
    let before_dash = || first.split_once('-').and_then(|(word, _)| known(&normalised(word)));
    known(&words).or_else(|| singular(&words)).or_else(before_dash)
}

fn normalised(name: &str) -> String {
    let mut words = String::new();
    for word in name.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
        let space = if words.is_empty() { "" } else { " " };
        // Fails for no String.
        let _ = write!(words, "{space}{}", word.to_lowercase());
    }
    words
}
