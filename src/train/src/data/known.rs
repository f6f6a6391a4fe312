//! The classes of well-known data sets.

use maskcast::frame::Rgb;

use super::colors;
use super::source_class::SourceClass;

/// Name and colour of a class.
type NamedColor = (&'static str, [u8; 3]);

fn classes(rows: &[NamedColor]) -> Vec<SourceClass> {
    let class = |(value, (name, [r, g, b])): (usize, &NamedColor)| SourceClass {
        name: name.to_string(),
        color: Some(Rgb(*r, *g, *b)),
        values: vec![value as u8],
    };
    rows.iter().enumerate().map(class).collect()
}

/// The 11 classes and void of CamVid in SegNet's numbering (Badrinarayanan, Kendall, Cipolla: SegNet, TPAMI 2017); the
/// index here is the number.
pub fn segnet11() -> Vec<SourceClass> {
    classes(&[
        ("sky", [128, 128, 128]),
        ("building", [128, 0, 0]),
        ("pole", [192, 192, 128]),
        ("road", [128, 64, 128]),
        ("pavement", [60, 40, 222]),
        ("tree", [128, 128, 0]),
        ("sign", [192, 128, 128]),
        ("fence", [64, 64, 128]),
        ("car", [64, 0, 128]),
        ("pedestrian", [64, 64, 0]),
        ("bicyclist", [0, 128, 192]),
        ("void", [0, 0, 0]),
    ])
}

/// CamVid's 32 classes (Brostow, Fauqueur, Cipolla: Semantic object classes in video, 2009), void first.
pub fn camvid32() -> Vec<SourceClass> {
    classes(&[
        ("Void", [0, 0, 0]),
        ("Animal", [64, 128, 64]),
        ("Archway", [192, 0, 128]),
        ("Bicyclist", [0, 128, 192]),
        ("Bridge", [0, 128, 64]),
        ("Building", [128, 0, 0]),
        ("Car", [64, 0, 128]),
        ("CartLuggagePram", [64, 0, 192]),
        ("Child", [192, 128, 64]),
        ("Column_Pole", [192, 192, 128]),
        ("Fence", [64, 64, 128]),
        ("LaneMkgsDriv", [128, 0, 192]),
        ("LaneMkgsNonDriv", [192, 0, 64]),
        ("Misc_Text", [128, 128, 64]),
        ("MotorcycleScooter", [192, 0, 192]),
        ("OtherMoving", [128, 64, 64]),
        ("ParkingBlock", [64, 192, 128]),
        ("Pedestrian", [64, 64, 0]),
        ("Road", [128, 64, 128]),
        ("RoadShoulder", [128, 128, 192]),
        ("Sidewalk", [0, 0, 192]),
        ("SignSymbol", [192, 128, 128]),
        ("Sky", [128, 128, 128]),
        ("SUVPickupTruck", [64, 128, 192]),
        ("TrafficCone", [0, 0, 64]),
        ("TrafficLight", [0, 64, 64]),
        ("Train", [192, 64, 128]),
        ("Tree", [128, 128, 0]),
        ("Truck_Bus", [192, 128, 192]),
        ("Tunnel", [64, 0, 64]),
        ("VegetationMisc", [192, 192, 0]),
        ("Wall", [64, 192, 0]),
    ])
}

/// Pascal VOC's classes, background first, in the colours of its colour map.
pub fn voc21() -> Vec<SourceClass> {
    let names = [
        "background",
        "aeroplane",
        "bicycle",
        "bird",
        "boat",
        "bottle",
        "bus",
        "car",
        "cat",
        "chair",
        "cow",
        "diningtable",
        "dog",
        "horse",
        "motorbike",
        "person",
        "pottedplant",
        "sheep",
        "sofa",
        "train",
        "tvmonitor",
    ];
    let class = |(name, value): (&str, u8)| SourceClass {
        name: name.to_string(),
        color: Some(colors::voc(value)),
        values: vec![value],
    };
    names.into_iter().zip(0..).map(class).collect()
}

/// Cityscapes' 19 classes for training, with the number that each has in `labelIds` images.
const CITYSCAPES: [(u8, NamedColor); 19] = [
    (7, ("road", [128, 64, 128])),
    (8, ("sidewalk", [244, 35, 232])),
    (11, ("building", [70, 70, 70])),
    (12, ("wall", [102, 102, 156])),
    (13, ("fence", [190, 153, 153])),
    (17, ("pole", [153, 153, 153])),
    (19, ("traffic light", [250, 170, 30])),
    (20, ("traffic sign", [220, 220, 0])),
    (21, ("vegetation", [107, 142, 35])),
    (22, ("terrain", [152, 251, 152])),
    (23, ("sky", [70, 130, 180])),
    (24, ("person", [220, 20, 60])),
    (25, ("rider", [255, 0, 0])),
    (26, ("car", [0, 0, 142])),
    (27, ("truck", [0, 0, 70])),
    (28, ("bus", [0, 60, 100])),
    (31, ("train", [0, 80, 100])),
    (32, ("motorcycle", [0, 0, 230])),
    (33, ("bicycle", [119, 11, 32])),
];

/// Cityscapes' classes for `labelTrainIds` images, or for `labelIds` images, in which all other numbers up to 33 are
/// void.
pub fn cityscapes(train_ids: bool) -> Vec<SourceClass> {
    let mut classes: Vec<SourceClass> = CITYSCAPES
        .iter()
        .zip(0u8..)
        .map(|((id, (name, [r, g, b])), train_id)| SourceClass {
            name: name.to_string(),
            color: Some(Rgb(*r, *g, *b)),
            values: vec![if train_ids { train_id } else { *id }],
        })
        .collect();
    if !train_ids {
        let rest = (0..34).filter(|value| CITYSCAPES.iter().all(|(id, _)| id != value)).collect();
        classes.push(SourceClass { name: "void".into(), color: None, values: rest });
    }
    classes
}
