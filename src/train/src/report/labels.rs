//! The report of proposed masks.

use askama::Template;
use serde::Serialize;
use serde_json::Value;

use super::run_facts::{Fact, environment_facts, fact};
use super::text::{count, percent, small_percent};
use super::{ClassFacts, Environment, ProposalFacts, Rank, ReportError, plot};

/// The report of proposed masks.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelReport {
    pub title: String,
    /// The images in the source folder.
    pub images: usize,
    /// The images that have a mask now.
    pub labelled: usize,
    /// Those of them whose masks people have changed.
    pub corrected: usize,
    /// The images without a mask, each with the reason.
    pub skipped: Vec<String>,
    /// Share of the pixels of all masks that are void, 0 to 1.
    pub void_share: f64,
    /// The classes with their shares of the other pixels.
    pub classes: Vec<ClassFacts>,
    /// The classes that no teacher votes for.
    pub unseen: Vec<String>,
    /// Teachers with their class maps, and options.
    pub settings: Value,
    pub environment: Environment,
    /// Images with the least, median and most void.
    pub pictures: Vec<ProposalFacts>,
}

#[derive(Template)]
#[template(path = "label.html", config = "src/report/askama.toml")]
struct LabelPage<'a> {
    title: &'a str,
    lead: String,
    plot_style: String,
    classes: Vec<ClassRow<'a>>,
    pictures: Vec<Picture<'a>>,
    skipped: &'a [String],
    teachers: Vec<TeacherTable>,
    facts: Vec<Fact>,
    environment: Vec<Fact>,
    command: &'a str,
    version: &'static str,
}

/// A row of the table of classes.
struct ClassRow<'a> {
    name: &'a str,
    color: &'a str,
    share: String,
    note: &'static str,
}

/// An image of the page with its formatted share of void.
struct Picture<'a> {
    rank: &'static str,
    void: String,
    facts: &'a ProposalFacts,
}

/// The class map of a teacher.
struct TeacherTable {
    model: String,
    rows: Vec<(String, String)>,
}

impl LabelReport {
    /// The page, a complete HTML document.
    ///
    /// # Errors
    /// The page cannot be rendered.
    pub fn html(&self) -> Result<String, ReportError> {
        let rows = self.classes.iter().map(|class| ClassRow {
            name: &class.name,
            color: &class.color,
            share: small_percent(class.share.unwrap_or(0.0)),
            note: if self.unseen.contains(&class.name) { "no teacher votes for it" } else { "" },
        });
        let rank = |rank: Rank| match rank {
            Rank::Best => "least void",
            Rank::Median => "median",
            Rank::Worst => "most void",
        };
        let drawn = self.pictures.iter().filter(|facts| !facts.panels.image.is_empty());
        let pictures = drawn.map(|facts| Picture { rank: rank(facts.rank), void: percent(facts.void_share), facts });
        let page = LabelPage {
            title: &self.title,
            lead: format!(
                "{} of {} images have a mask; {} % of their pixels are void",
                count(self.labelled as u64),
                count(self.images as u64),
                small_percent(self.void_share)
            ),
            plot_style: plot::style(),
            classes: rows.collect(),
            pictures: pictures.collect(),
            skipped: &self.skipped,
            teachers: self.teachers(),
            facts: self.facts(),
            environment: environment_facts(&self.environment),
            command: &self.environment.command,
            version: env!("CARGO_PKG_VERSION"),
        };
        Ok(page.render()?)
    }

    fn teachers(&self) -> Vec<TeacherTable> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let row = |pair: &Value| (text(&pair[0]), text(&pair[1]));
        let table = |teacher: &Value| TeacherTable {
            model: text(&teacher["model"]),
            rows: teacher["classes"].as_array().into_iter().flatten().map(row).collect(),
        };
        self.settings["teachers"].as_array().into_iter().flatten().map(table).collect()
    }

    fn facts(&self) -> Vec<Fact> {
        let mut facts = vec![
            fact("images", count(self.images as u64)),
            fact("with a mask", count(self.labelled as u64)),
            fact("edited masks", count(self.corrected as u64)),
        ];
        let mut add = |name: &str, value: &Value| match value {
            Value::Null | Value::Object(_) => {}
            value => facts.push(fact(name, value.to_string())),
        };
        add("share of the votes that a class needs", &self.settings["agree"]);
        add("pixels that an area needs", &self.settings["min_area"]);
        for key in ["scales", "tiles", "flip", "keep_aspect"] {
            add(key, &self.settings["views"][key]);
        }
        facts
    }
}
