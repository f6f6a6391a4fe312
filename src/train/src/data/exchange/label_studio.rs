//! Writes Label Studio's JSON (<https://labelstud.io/guide/predictions>): a task for each image, with a brush mask for each class,
//! as predictions, which people correct.
//!
//! | file | content |
//! | --- | --- |
//! | `tasks.json` | the tasks; the image is a path of Label Studio's local files, relative to the output folder |
//! | `config.xml` | the labelling interface of the project |
//! | `images/` | the images |

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use maskcast::frame::{Label, Rgb};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::brush;
use super::error::ExchangeError;
use super::item::{AnnotationWriter, ExportItem};
use super::new_folder::write_file;

pub const IMAGES: &str = "images";
/// The path under which Label Studio serves files of the computer that it runs on.
pub const LOCAL_FILES: &str = "/data/local-files/?d=";
/// The names of the image and of the brush in the interface.
const IMAGE: &str = "image";
const BRUSH: &str = "tag";
/// Characters that are kept in a path.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'.').remove(b'-').remove(b'_').remove(b'~');

/// Writes the files. Tasks are written as they come, so that they need no memory.
pub struct Writer {
    path: PathBuf,
    tasks: BufWriter<File>,
    count: usize,
    classes: Vec<Label>,
}

impl Writer {
    /// Writes the interface.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn new(folder: &Path, classes: &[Label]) -> Result<Self, ExchangeError> {
        write_file(&folder.join("config.xml"), config(classes).as_bytes())?;
        let path = folder.join("tasks.json");
        let mut tasks = BufWriter::new(File::create(&path).map_err(ExchangeError::write(&path))?);
        write!(tasks, "[").map_err(ExchangeError::write(&path))?;
        Ok(Writer { path, tasks, count: 0, classes: classes.to_vec() })
    }
}

impl AnnotationWriter for Writer {
    fn add(&mut self, item: &ExportItem<'_>) -> Result<(), ExchangeError> {
        let mut present = [false; 256];
        item.labels.iter().for_each(|&label| present[usize::from(label)] = true);
        let mut regions = Vec::new();
        for (index, class) in self.classes.iter().enumerate().filter(|(index, _)| present[*index]) {
            let painted = item.labels.iter().map(|&label| usize::from(label) == index);
            let Some(rle) = brush::encode(painted, item.labels.len()) else {
                let problem = "the image has too many pixels for a brush mask of Label Studio; scale it down";
                return Err(ExchangeError::unsuitable(Path::new(item.file), problem));
            };
            regions.push(json!({
                "id": format!("class{index}"),
                "type": "brushlabels",
                "from_name": BRUSH,
                "to_name": IMAGE,
                "original_width": item.width,
                "original_height": item.height,
                "image_rotation": 0,
                "value": { "format": "rle", "rle": rle, "brushlabels": [class.name] },
            }));
        }
        let url = format!("{LOCAL_FILES}{}", utf8_percent_encode(&format!("{IMAGES}/{}", item.file), PATH));
        let mut data = json!({ IMAGE: url });
        if let Some(part) = item.part {
            data["part"] = part.name().into();
        }
        let task = json!({ "data": data, "predictions": [{ "model_version": "maskcast", "result": regions }] });
        let comma = if self.count == 0 { "\n" } else { ",\n" };
        self.count += 1;
        write!(self.tasks, "{comma}{task}").map_err(ExchangeError::write(&self.path))
    }

    fn finish(mut self: Box<Self>) -> Result<(), ExchangeError> {
        writeln!(self.tasks, "\n]").map_err(ExchangeError::write(&self.path))?;
        self.tasks.flush().map_err(ExchangeError::write(&self.path))
    }
}

/// The labelling interface.
fn config(classes: &[Label]) -> String {
    let label = |Label { name, color: Rgb(r, g, b), .. }: &Label| {
        format!("    <Label value=\"{}\" background=\"#{r:02x}{g:02x}{b:02x}\"/>\n", escaped(name))
    };
    let labels: String = classes.iter().map(label).collect();
    format!(
        "<View>\n  <Image name=\"{IMAGE}\" value=\"${IMAGE}\" zoom=\"true\" zoomControl=\"true\"/>\n  \
         <BrushLabels name=\"{BRUSH}\" toName=\"{IMAGE}\">\n{labels}  </BrushLabels>\n</View>\n"
    )
}

/// Text as an attribute in XML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
