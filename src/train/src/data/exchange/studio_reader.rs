//! Reads Label Studio's JSON: brush masks and polygons.

use std::cmp::Reverse;
use std::path::Path;

use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::super::error::LineError;
use super::super::format::SubsetRole;
use super::super::{DataError, scan};
use super::brush_mask::{BrushMask, Region, RegionShape};
use super::error::ExchangeError;
use super::found::{AnnotatedImage, Annotations, FoundClass, FoundMask, MAX_CLASSES};
use super::label_studio::LOCAL_FILES;

/// Types of results that have a shape which is not a mask.
const OTHER_SHAPES: [&str; 12] = [
    "rectanglelabels",
    "rectangle",
    "ellipselabels",
    "ellipse",
    "keypointlabels",
    "keypoint",
    "vectorlabels",
    "vector",
    "videorectangle",
    "polygon",
    "bitmask",
    "bitmasklabels",
];

#[derive(Deserialize)]
struct Task {
    #[serde(default)]
    id: Option<i64>,
    #[serde(default)]
    data: Map<String, Value>,
    #[serde(default)]
    annotations: Option<Vec<Entry>>,
    #[serde(default)]
    predictions: Option<Vec<Entry>>,
}

/// Some exports have only the numbers of predictions.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    Content(Content),
    Other(IgnoredAny),
}

#[derive(Deserialize)]
struct Content {
    result: Vec<StudioResult>,
    #[serde(default)]
    was_cancelled: bool,
    #[serde(default)]
    updated_at: Option<String>,
}

#[derive(Deserialize)]
struct StudioResult {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    value: Option<StudioValue>,
    #[serde(default)]
    original_width: Option<usize>,
    #[serde(default)]
    original_height: Option<usize>,
    #[serde(default)]
    image_rotation: Option<f64>,
}

/// The fields of values that are used.
#[derive(Default, Deserialize)]
struct StudioValue {
    #[serde(default)]
    rle: Option<Vec<u8>>,
    #[serde(default)]
    points: Option<Vec<[f32; 2]>>,
    #[serde(default)]
    brushlabels: Option<Vec<String>>,
    #[serde(default)]
    polygonlabels: Option<Vec<String>>,
    #[serde(default)]
    labels: Option<Vec<String>>,
}

/// Reads a JSON export, or the only JSON file with tasks in a folder. A task has the mask of its newest annotation that was not
/// cancelled; without annotations, of its last prediction, unless `annotated_only` is set.
///
/// # Errors
/// The file is not Label Studio's JSON, or has regions that are not masks.
pub fn read(input: &Path, annotated_only: bool) -> Result<Annotations, ExchangeError> {
    let (path, folder) = if input.is_dir() {
        let mut files = scan::files_to_depth(input, &["json"], 0)?;
        let first = match (files.pop(), files.pop()) {
            (Some(only), None) => only,
            (Some(last), Some(other)) => {
                let problem =
                    format!("there are several JSON files ({}, {}); pass one of them", name(&other), name(&last));
                return Err(ExchangeError::unsuitable(input, problem));
            }
            _ => return Err(ExchangeError::unsuitable(input, "no JSON file found; pass the exported file")),
        };
        (first, input.to_owned())
    } else {
        (input.to_owned(), input.parent().unwrap_or(Path::new(".")).to_owned())
    };
    let bytes = std::fs::read(&path).map_err(ExchangeError::read(&path))?;
    let tasks: Vec<Task> = serde_json::from_slice(&bytes)
        .map_err(|source| DataError::line(&path, source.line(), LineError::Json { format: "Label Studio", source }))?;
    let mut names: Vec<String> = Vec::new();
    let mut images = Vec::new();
    let (mut predicted, mut several) = (0, 0);
    for (number, task) in tasks.into_iter().enumerate() {
        let Some(wanted) = image_of(&task.data) else {
            let problem = format!(
                "task {} has no image in `data`; export as \"JSON\", not as \"JSON-MIN\", from a project with images",
                task.id.unwrap_or(number as i64 + 1)
            );
            return Err(ExchangeError::unsuitable(&path, problem));
        };
        let mut annotations = contents(task.annotations);
        annotations.retain(|content| !content.was_cancelled);
        several += usize::from(annotations.len() > 1);
        // The order of ISO 8601 texts is that of the times. The last one of equal times is the newest.
        annotations.reverse();
        annotations.sort_by_key(|content| Reverse(content.updated_at.clone()));
        let annotation = annotations.into_iter().next();
        let prediction = contents(task.predictions).pop().filter(|_| annotation.is_none() && !annotated_only);
        predicted += usize::from(prediction.is_some());
        let mask = match annotation.or(prediction) {
            None => FoundMask::Missing,
            Some(content) => mask(content.result, &mut names)
                .map_err(|problem| ExchangeError::unsuitable(&path, format!("{wanted}: {problem}")))?,
        };
        let part = task.data.get("part").and_then(Value::as_str).and_then(|part| SubsetRole::of(part).part());
        images.push(AnnotatedImage { wanted, is_stem: false, part, source: path.clone(), mask });
    }
    let mut notes = Vec::new();
    if predicted > 0 {
        let of = images.len();
        notes.push(format!(
            "{predicted} of {of} tasks have no annotation: their predictions are used (--annotated-only leaves them out)"
        ));
    }
    if several > 0 {
        notes.push(format!("{several} tasks have several annotations: the newest is used"));
    }
    let classes = names.into_iter().map(|name| FoundClass { name, color: None }).collect();
    let inner = scan::folder(&folder, &[super::label_studio::IMAGES])?;
    Ok(Annotations { classes, images, image_folders: inner.into_iter().collect(), notes })
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn contents(entries: Option<Vec<Entry>>) -> Vec<Content> {
    let content = |entry| match entry {
        Entry::Content(content) => Some(content),
        Entry::Other(_) => None,
    };
    entries.into_iter().flatten().filter_map(content).collect()
}

/// The path of the image of a task: of local files, of an upload, or of a URL.
fn image_of(data: &Map<String, Value>) -> Option<String> {
    let texts = ["image"].iter().filter_map(|key| data.get(*key)).chain(data.values()).filter_map(Value::as_str);
    texts.map(image_path).find(|path| scan::has_extension(Path::new(path), &super::super::image::EXTENSIONS))
}

fn image_path(url: &str) -> String {
    let path = match url.split_once(LOCAL_FILES) {
        Some((_, path)) => path.split('&').next().unwrap_or(path),
        None => {
            let path = url.split_once("://").map_or(url, |(_, path)| path);
            path.split(['?', '#']).next().unwrap_or(path)
        }
    };
    let path = scan::to_nfc(&percent_decode_str(path).decode_utf8_lossy()).replace('\\', "/");
    // An upload has eight hexadecimal digits before its name.
    match path.strip_prefix("/data/upload/").and_then(|path| path.rsplit_once('/')) {
        Some((_, file)) => match file.split_at_checked(9) {
            Some((id, rest)) if id.ends_with('-') && id[..8].bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                rest.to_owned()
            }
            _ => file.to_owned(),
        },
        None => path,
    }
}

/// Collects the regions; `names` are the classes of the file.
fn mask(results: Vec<StudioResult>, names: &mut Vec<String>) -> Result<FoundMask, String> {
    let mut size = None;
    let mut regions = Vec::new();
    for result in results {
        let value = result.value.unwrap_or_default();
        let is_polygon = result.kind == "polygonlabels" || (result.kind == "labels" && value.points.is_some());
        if OTHER_SHAPES.contains(&result.kind.as_str()) {
            return Err(format!(
                "it has a region of the type {}, which is not a mask with a class; draw it with the brush, or as polygon with a label",
                result.kind
            ));
        }
        let shape = match (value.rle, value.points) {
            (Some(rle), _) => RegionShape::Brush(rle),
            (None, Some(points)) if is_polygon => RegionShape::Polygon(points),
            // Choices, texts and others, which have no pixels.
            _ => continue,
        };
        let labels = value.brushlabels.or(value.polygonlabels).or(value.labels).unwrap_or_default();
        let [label] = &labels[..] else {
            let found =
                if labels.is_empty() { "no class".to_owned() } else { format!("the classes {}", labels.join(", ")) };
            return Err(format!("a region has {found}; give each region one class"));
        };
        if result.image_rotation.is_some_and(|rotation| rotation != 0.0) {
            return Err("it was rotated in Label Studio, which is not supported; rotate it back".to_owned());
        }
        let found = result.original_width.zip(result.original_height);
        let Some(found) = found.filter(|&(width, height)| width > 0 && height > 0) else {
            return Err("a region has no original_width and original_height; export the annotations again".to_owned());
        };
        if *size.get_or_insert(found) != found {
            return Err("its regions were drawn in different sizes; export the annotations again".to_owned());
        }
        let label = scan::to_nfc(label);
        let place = names.iter().position(|name| *name == label).unwrap_or_else(|| {
            names.push(label);
            names.len() - 1
        });
        if place >= MAX_CLASSES {
            return Err(format!("the file has more than {MAX_CLASSES} classes; merge or remove some"));
        }
        regions.push(Region { value: place as u8 + 1, shape });
    }
    Ok(size.map_or(FoundMask::Missing, |size| FoundMask::Brush(BrushMask { size, regions })))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::brush;
    use super::*;

    fn read_json(tasks: &Value, annotated_only: bool) -> Result<Annotations, ExchangeError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("export.json");
        std::fs::write(&path, tasks.to_string()).unwrap();
        read(&path, annotated_only)
    }

    fn brush_result(class: &str, painted: &[bool]) -> Value {
        json!({
            "type": "brushlabels", "original_width": painted.len(), "original_height": 1, "image_rotation": 0,
            "value": {
                "format": "rle", "brushlabels": [class],
                "rle": brush::encode(painted.iter().copied(), painted.len()).unwrap(),
            },
        })
    }

    fn task(results: Vec<Value>) -> Value {
        json!([{ "id": 1, "data": { "image": "/data/upload/3/01234abc-a b.png" }, "annotations": [{ "result": results }] }])
    }

    fn drawn(annotations: Annotations) -> Vec<Option<Vec<u8>>> {
        let draw = |image: AnnotatedImage| match image.mask {
            FoundMask::Brush(mask) => Some(mask.draw(Path::new("x"), "a").unwrap().2),
            _ => None,
        };
        annotations.images.into_iter().map(draw).collect()
    }

    #[test]
    fn paths_of_images_are_found_in_urls() {
        for (url, path) in [
            ("/data/local-files/?d=images/sub/a%20b.png", "images/sub/a b.png"),
            ("/data/upload/12/1a2b3c4d-street-1.jpg", "street-1.jpg"),
            ("/data/upload/12/street-1.jpg", "street-1.jpg"),
            ("https://example.org/x/%C3%A4.jpg?sig=1", "example.org/x/\u{e4}.jpg"),
            ("s3://bucket/x/a.jpg", "bucket/x/a.jpg"),
        ] {
            assert_eq!(image_path(url), path);
        }
        let annotations = read_json(&task(vec![]), false).unwrap();
        assert_eq!(annotations.images[0].wanted, "a b.png");
        let error = read_json(&json!([{ "id": 7, "data": { "text": "x" } }]), false).err().unwrap();
        assert!(error.to_string().contains("task 7 has no image"), "{error}");
    }

    #[test]
    fn the_newest_annotation_is_used_and_predictions_only_without_one() {
        let result = |class: &str| vec![brush_result(class, &[true, false])];
        let tasks = json!([
            {
                "data": { "image": "a.png", "part": "val" },
                "annotations": [
                    { "result": result("new"), "updated_at": "2026-03-02T00:00:00Z" },
                    { "result": result("old"), "updated_at": "2026-03-01T00:00:00Z" },
                    { "result": result("cancelled"), "updated_at": "2026-03-03T00:00:00Z", "was_cancelled": true },
                ],
                "predictions": [{ "result": result("guess") }],
            },
            { "data": { "image": "b.png" }, "annotations": [], "predictions": [{ "result": result("guess") }] },
            { "data": { "image": "c.png" }, "predictions": [12] },
        ]);
        let annotations = read_json(&tasks, false).unwrap();
        let names: Vec<_> = annotations.classes.iter().map(|class| class.name.as_str()).collect();
        assert_eq!((names, annotations.notes.len()), (vec!["new", "guess"], 2));
        assert_eq!(annotations.images[0].part, Some(super::super::super::Part::Val));
        assert_eq!(drawn(annotations), [Some(vec![1, 0]), Some(vec![2, 0]), None]);
        assert_eq!(drawn(read_json(&tasks, true).unwrap()), [Some(vec![1, 0]), None, None]);
    }

    #[test]
    fn later_regions_and_polygons_cover_earlier_ones() {
        let polygon = json!({
            "type": "polygonlabels", "original_width": 4, "original_height": 1,
            "value": { "points": [[50, 0], [100, 0], [100, 100], [50, 100]], "polygonlabels": ["car"] },
        });
        let road = brush_result("road", &[true, true, true, false]);
        let choice = json!({ "type": "choices", "value": { "choices": ["night"] } });
        assert_eq!(drawn(read_json(&task(vec![road, choice, polygon]), false).unwrap()), [Some(vec![1, 1, 2, 2])]);
    }

    #[test]
    fn regions_that_are_not_masks_are_errors() {
        let with = |change: &dyn Fn(&mut Value)| {
            let mut result = brush_result("road", &[true, false]);
            change(&mut result);
            read_json(&task(vec![result]), false).err().map(|error| error.to_string()).unwrap_or_default()
        };
        assert_eq!(with(&|_| ()), "");
        type Change<'a> = &'a dyn Fn(&mut Value);
        let changes: [(&str, Change<'_>); 5] = [
            ("rectanglelabels", &|result| result["type"] = "rectanglelabels".into()),
            ("no class", &|result| result["value"]["brushlabels"] = json!([])),
            ("a, b", &|result| result["value"]["brushlabels"] = json!(["a", "b"])),
            ("rotated", &|result| result["image_rotation"] = 90.into()),
            ("original_width", &|result| result["original_width"] = Value::Null),
        ];
        for (word, change) in changes {
            let error = with(change);
            assert!(error.contains(word) && error.contains("a b.png"), "{word}: {error}");
        }
        let mut result = brush_result("road", &[true, false]);
        result["original_width"] = 3.into();
        let annotations = read_json(&task(vec![result]), false).unwrap();
        let FoundMask::Brush(mask) = annotations.images.into_iter().next().unwrap().mask else {
            panic!("a brush mask")
        };
        let error = mask.draw(Path::new("x.json"), "a.png").unwrap_err().to_string();
        assert!(error.contains("8 values, but 3x1 pixels have 12"), "{error}");
    }
}
