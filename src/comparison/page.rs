//! The page of a comparison: a complete HTML document without scripts and without other files.

use askama::Template;

use super::panels::{self, Panels};
use super::report::{ClassComparison, Comparison, ImageComparison};
use crate::frame::Rgb;

/// An image of the page.
pub struct PageImage {
    pub facts: ImageComparison,
    pub panels: Panels,
}

#[derive(Template)]
#[template(path = "comparison.html", config = "src/comparison/askama.toml")]
struct ComparisonPage<'a> {
    title: String,
    lead: String,
    /// Of the plots that other reports have.
    plot_style: &'static str,
    version: &'static str,
    verdict: &'static str,
    verdict_kind: &'static str,
    verdict_about: String,
    summary: &'a str,
    tiles: Vec<Tile>,
    classes: Vec<ClassRow<'a>>,
    legend: Vec<&'a ClassComparison>,
    flicker: Vec<FlickerCells<'a>>,
    flicker_note: String,
    groups: Vec<Group<'a>>,
    gained: String,
    lost: String,
    neither: String,
    void: String,
    facts: Vec<FactRow>,
    data: String,
}

struct Tile {
    name: &'static str,
    value: String,
    unit: &'static str,
    about: String,
}

struct ClassRow<'a> {
    name: &'a str,
    color: &'a str,
    old: String,
    old_bar: f64,
    new: String,
    new_bar: f64,
    difference: String,
    /// The class of the cell of the difference.
    kind: &'static str,
    share: String,
    note: String,
}

struct FlickerCells<'a> {
    smooth: &'a str,
    old: String,
    new: String,
}

struct Group<'a> {
    title: &'static str,
    images: Vec<ImageRow<'a>>,
}

struct ImageRow<'a> {
    name: &'a str,
    old: String,
    new: String,
    panels: &'a Panels,
}

struct FactRow {
    name: &'static str,
    old: String,
    new: String,
}

/// A share in percent with one decimal; `–` without a value.
fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "–".into(), |share| format!("{:.1}", 100.0 * share))
}

/// A difference in percent points with its sign.
fn points(difference: Option<f64>) -> String {
    difference.map_or_else(|| "–".into(), |difference| format!("{:+.1}", 100.0 * difference))
}

impl Comparison {
    /// The page, with the images whose mIoU the new model lowers most, and those that it raises most.
    ///
    /// # Errors
    /// The page cannot be rendered.
    pub fn html(&self, worst: &[PageImage], improved: &[PageImage]) -> Result<String, askama::Error> {
        let difference = &self.difference;
        let interval = match (difference.low, difference.high) {
            (Some(low), Some(high)) => format!(
                "{:.0} % interval {} to {}",
                100.0 * difference.confidence,
                points(Some(low)),
                points(Some(high))
            ),
            _ => "no interval".into(),
        };
        let mut tiles = vec![
            Tile { name: "mIoU, old", value: percent(self.old.miou), unit: "%", about: self.old.file.clone() },
            Tile { name: "mIoU, new", value: percent(self.new.miou), unit: "%", about: self.new.file.clone() },
            Tile { name: "difference", value: points(difference.miou), unit: "points", about: interval },
            Tile {
                name: "time of a frame",
                value: format!("{:.2}", self.speed.ratio),
                unit: "× old",
                about: format!("{:.1} ms → {:.1} ms", self.speed.old_ms, self.speed.new_ms),
            },
        ];
        if let Some(row) = self.flicker.as_ref().and_then(|flicker| flicker.smooth.first()) {
            tiles.push(Tile {
                name: "flicker",
                value: format!("{:.2}", row.new_percent / row.old_percent.max(1e-9)),
                unit: "× old",
                about: format!("{:.2} % → {:.2} % of pixels flip", row.old_percent, row.new_percent),
            });
        }
        let flicker = self.flicker.iter().flat_map(|flicker| &flicker.smooth).map(|row| FlickerCells {
            smooth: &row.smooth,
            old: format!("{:.3}", row.old_percent),
            new: format!("{:.3}", row.new_percent),
        });
        let groups = [("Largest losses", worst), ("Largest gains", improved)];
        let groups = groups
            .into_iter()
            .filter(|(_, images)| !images.is_empty())
            .map(|(title, images)| Group { title, images: images.iter().map(ImageRow::of).collect() });
        let list = self.data.list.as_ref().map_or_else(String::new, |list| format!(", those in {list}"));
        let color = |Rgb(r, g, b): Rgb| format!("#{r:02x}{g:02x}{b:02x}");
        let page = ComparisonPage {
            title: format!("{} compared with {}", self.new.file, self.old.file),
            lead: format!("{} images of {}; {}", self.data.images, self.data.folder, self.at),
            plot_style: "",
            version: env!("CARGO_PKG_VERSION"),
            verdict: self.verdict.name(),
            verdict_kind: match self.verdict {
                super::report::Verdict::Better => "better",
                super::report::Verdict::Worse => "worse",
                super::report::Verdict::NotDistinguishable => "not-distinguishable",
            },
            verdict_about: format!("the new model, on {} images", self.data.images),
            summary: &self.summary,
            tiles,
            classes: self.classes.iter().map(ClassRow::of).collect(),
            legend: self.classes.iter().filter(|class| class.share > 0.0).collect(),
            flicker: flicker.collect(),
            flicker_note: self.flicker.as_ref().map_or_else(String::new, |flicker| {
                format!(
                    "Pixels whose class differs from that of the same point in the previous of {} masks of {}.",
                    flicker.masks, flicker.clip
                )
            }),
            groups: groups.collect(),
            gained: color(panels::GAINED),
            lost: color(panels::LOST),
            neither: color(panels::NEITHER),
            void: color(panels::NO_CLASS),
            facts: self.facts(),
            data: format!(
                "Data: {}{list}. The models ran alternately, {} times each.",
                self.data.folder, self.speed.runs
            ),
        };
        page.render()
    }

    fn facts(&self) -> Vec<FactRow> {
        let row = |name, value: &dyn Fn(&super::report::ModelFacts) -> String| FactRow {
            name,
            old: value(&self.old),
            new: value(&self.new),
        };
        vec![
            row("file", &|model| model.file.clone()),
            row("SHA-256", &|model| model.sha256.clone()),
            row("provider", &|model| model.provider.clone()),
            row("input", &|model| format!("{}x{}", model.input.0, model.input.1)),
            row("mIoU of the classes of both %", &|model| percent(model.miou_common)),
        ]
    }
}

impl<'a> ClassRow<'a> {
    fn of(class: &'a ClassComparison) -> ClassRow<'a> {
        let difference = match (class.old_iou, class.new_iou) {
            (Some(old), Some(new)) if class.share > 0.0 => Some(new - old),
            _ => None,
        };
        let mut notes = Vec::new();
        match (class.in_old, class.in_new) {
            (false, true) => notes.push("added"),
            (true, false) => notes.push("dropped"),
            (false, false) => notes.push("in neither model, not counted"),
            (true, true) => {}
        }
        if class.share == 0.0 {
            notes.push("not in the labels");
        }
        ClassRow {
            name: &class.name,
            color: &class.color,
            old: percent(class.old_iou),
            old_bar: class.old_iou.unwrap_or(0.0),
            new: percent(class.new_iou),
            new_bar: class.new_iou.unwrap_or(0.0),
            difference: points(difference),
            // Differences that are shown as 0.0 have no colour.
            kind: match difference {
                Some(difference) if difference >= 0.0005 => "gain",
                Some(difference) if difference <= -0.0005 => "loss",
                _ => "",
            },
            share: percent(Some(class.share)),
            note: notes.join(", "),
        }
    }
}

impl<'a> ImageRow<'a> {
    fn of(image: &'a PageImage) -> ImageRow<'a> {
        let PageImage { facts, panels } = image;
        ImageRow { name: &facts.name, old: percent(facts.old_miou), new: percent(facts.new_miou), panels }
    }
}
