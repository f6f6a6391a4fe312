//! The report of a check, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use maskcast::frame::Rgb;
use serde::Serialize;

use super::super::error::DataError;
use super::super::format::Format;
use super::super::scan;
use super::super::{Dataset, Part};
use super::facts::{CheckItem, PairFacts};

/// Largest number of lines per list in the text; the JSON contains all.
const SHOWN: usize = 10;
/// As [`SHOWN`], for frames of a recording, which are only examples.
const SHOWN_FRAMES: usize = 3;
/// Above this share of void pixels, labels are probably missing.
const MUCH_VOID: f64 = 0.5;

/// The severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Training would fail, or its result would be wrong.
    Error,
    /// The data set should be reviewed.
    Warning,
}

/// The kind of a finding. The JSON names are kept from earlier versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    EmptyPart,
    #[serde(rename = "unreadable-picture")]
    UnreadableImage,
    UnreadableLabel,
    SizeMismatch,
    UnknownValue,
    #[serde(rename = "same-picture-in-two-parts")]
    SameImageInTwoParts,
    ClassNotInTrain,
    ClassNotInVal,
    ClassNowhere,
    NearCopyInTwoParts,
    RecordingInTwoParts,
    #[serde(rename = "picture-without-label")]
    ImageWithoutLabel,
    #[serde(rename = "label-without-picture")]
    LabelWithoutImage,
    #[serde(rename = "same-picture-twice")]
    SameImageTwice,
    OnlyVoid,
    MuchVoid,
    SmoothMask,
}

impl FindingKind {
    fn severity(self) -> Severity {
        match self {
            FindingKind::EmptyPart
            | FindingKind::UnreadableImage
            | FindingKind::UnreadableLabel
            | FindingKind::SizeMismatch
            | FindingKind::UnknownValue
            | FindingKind::SameImageInTwoParts
            | FindingKind::ClassNotInTrain => Severity::Error,
            _ => Severity::Warning,
        }
    }

    fn heading(self) -> &'static str {
        match self {
            FindingKind::EmptyPart => "parts without images",
            FindingKind::UnreadableImage => "images that cannot be read",
            FindingKind::UnreadableLabel => "label images that cannot be read",
            FindingKind::SizeMismatch => "labels with another size than their images",
            FindingKind::UnknownValue => "values that belong to no class",
            FindingKind::SameImageInTwoParts => "the same image in two parts: scores would be too high",
            FindingKind::ClassNotInTrain => "classes that occur in other parts, but in no training image",
            FindingKind::ClassNotInVal => "classes that occur in no validation image: they get no score",
            FindingKind::ClassNowhere => "classes that occur in no image",
            FindingKind::NearCopyInTwoParts => "nearly the same image in two parts: scores would be too high",
            FindingKind::RecordingInTwoParts => {
                "similar frames of one recording in two parts: scores would be too high"
            }
            FindingKind::ImageWithoutLabel => "images without a label, excluded",
            FindingKind::LabelWithoutImage => "labels without an image, excluded",
            FindingKind::SameImageTwice => "the same image twice in one part",
            FindingKind::OnlyVoid => "images whose label is completely void",
            FindingKind::MuchVoid => "many void pixels",
            FindingKind::SmoothMask => {
                "black and white masks with values from 1 to 254, which count as 0 or 255, whichever is nearer"
            }
        }
    }
}

/// A finding of a check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub kind: FindingKind,
    /// Name of the image, file, class or part.
    pub name: String,
    /// The other image of two similar images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
    pub detail: String,
    /// Further pairs of similar images, if several are combined into one finding.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<SimilarPair>,
    /// A help text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Number of affected pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixels: Option<u64>,
    /// Position x, y of the first affected pixel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<(usize, usize)>,
}

impl Finding {
    pub(super) fn new(kind: FindingKind, name: impl Into<String>, detail: impl Into<String>) -> Self {
        let (name, detail) = (name.into(), detail.into());
        let severity = kind.severity();
        Finding { severity, kind, name, other: None, detail, more: Vec::new(), help: None, pixels: None, first: None }
    }
}

/// A further pair of similar images of a finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SimilarPair {
    pub name: String,
    pub other: String,
    pub detail: String,
}

/// Statistics of a class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassStatistics {
    pub name: String,
    /// `#rrggbb`
    pub color: String,
    pub pixels: u64,
    /// Share of all pixels that are not void, 0 to 1.
    pub share: f64,
    /// Number of images that contain it.
    #[serde(rename = "pictures")]
    pub images: PartCounts,
}

/// Numbers of images by part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PartCounts {
    pub train: usize,
    pub val: usize,
    pub test: usize,
    pub left_out: usize,
}

impl PartCounts {
    fn add(&mut self, part: Option<Part>) {
        *match part {
            Some(Part::Train) => &mut self.train,
            Some(Part::Val) => &mut self.val,
            Some(Part::Test) => &mut self.test,
            None => &mut self.left_out,
        } += 1;
    }
}

/// Number of images of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeCount {
    pub width: usize,
    pub height: usize,
    #[serde(rename = "pictures")]
    pub images: usize,
}

/// The report of a check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckReport {
    pub root: PathBuf,
    pub format: Format,
    /// Assumptions that were made when the data set was opened.
    pub notes: Vec<String>,
    #[serde(rename = "pictures")]
    pub images: PartCounts,
    /// Sorted by frequency, descending.
    pub sizes: Vec<SizeCount>,
    pub classes: Vec<ClassStatistics>,
    /// Share of all pixels, 0 to 1.
    pub void_share: f64,
    pub errors: usize,
    pub warnings: usize,
    /// Sorted by severity and kind.
    pub findings: Vec<Finding>,
    pub seconds: f64,
}

impl CheckReport {
    /// Summarises the facts of all pairs. Findings from comparisons of images are added later.
    pub(super) fn new(dataset: &Dataset, items: &[CheckItem<'_>], facts: &[PairFacts]) -> Self {
        let mut images = PartCounts::default();
        let mut sizes = BTreeMap::<(usize, usize), usize>::new();
        let mut totals = vec![(0u64, PartCounts::default()); dataset.classes.len()];
        let (mut void, mut unknown) = (0, 0);
        let mut findings = Vec::new();
        for (item, facts) in items.iter().zip(facts) {
            images.add(item.part);
            if let Some(size) = facts.image_size {
                *sizes.entry(size).or_default() += 1;
            }
            for (total, &pixels) in totals.iter_mut().zip(&facts.classes) {
                total.0 += pixels;
                if pixels > 0 {
                    total.1.add(item.part);
                }
            }
            void += facts.void;
            unknown += facts.unknown.iter().map(|unknown| unknown.pixels).sum::<u64>();
            findings.extend(pair_findings(dataset, item, facts));
        }
        let known: u64 = totals.iter().map(|(pixels, _)| pixels).sum();
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let class = |(label, (pixels, images)): (&maskcast::frame::Label, (u64, PartCounts))| {
            let Rgb(r, g, b) = label.color;
            let color = format!("#{r:02x}{g:02x}{b:02x}");
            ClassStatistics { name: label.name.clone(), color, pixels, share: share(pixels, known), images }
        };
        let mut sizes: Vec<SizeCount> =
            sizes.into_iter().map(|((width, height), images)| SizeCount { width, height, images }).collect();
        sizes.sort_by_key(|size| std::cmp::Reverse((size.images, size.width, size.height)));
        let mut report = CheckReport {
            root: dataset.root.clone(),
            format: dataset.format,
            notes: dataset.notes.clone(),
            images,
            sizes,
            classes: dataset.classes.iter().zip(totals).map(class).collect(),
            void_share: share(void, known + void + unknown),
            errors: 0,
            warnings: 0,
            findings,
            seconds: 0.0,
        };
        report.find_dataset_problems(dataset);
        report
    }

    /// Adds the findings that concern the data set as a whole.
    fn find_dataset_problems(&mut self, dataset: &Dataset) {
        let unpaired = |paths: &[PathBuf], kind: FindingKind| -> Vec<Finding> {
            paths.iter().map(|path| Finding::new(kind, scan::under(&dataset.root, path), "")).collect()
        };
        self.findings.extend(unpaired(&dataset.unpaired.images, FindingKind::ImageWithoutLabel));
        self.findings.extend(unpaired(&dataset.unpaired.labels, FindingKind::LabelWithoutImage));
        for (part, count) in [("train", self.images.train), ("val", self.images.val)] {
            if count == 0 {
                self.findings.push(Finding::new(FindingKind::EmptyPart, part, "has no images"));
            }
        }
        let classes = if self.images.train == 0 { &[][..] } else { &self.classes };
        for class in classes {
            let PartCounts { train, val, test, left_out } = class.images;
            let kind = match (train, val) {
                (0, _) if val + test > 0 => FindingKind::ClassNotInTrain,
                (0, 0) if left_out == 0 => FindingKind::ClassNowhere,
                (_, 0) if self.images.val > 0 => FindingKind::ClassNotInVal,
                _ => continue,
            };
            let detail = format!("{} pixels; images: {train} train, {val} val, {test} test", class.pixels);
            self.findings.push(Finding::new(kind, &class.name, detail));
        }
        if self.void_share > MUCH_VOID {
            let detail =
                format!("{:.1} % of all pixels are void and are excluded from training", 100.0 * self.void_share);
            self.findings.push(Finding::new(FindingKind::MuchVoid, "void", detail));
        }
    }

    /// Sorts and counts the findings.
    pub(super) fn finish(&mut self, took: Duration) {
        self.findings.sort_by_key(|finding| (finding.severity, finding.kind));
        self.errors = self.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        self.warnings = self.findings.len() - self.errors;
        self.seconds = took.as_secs_f64();
    }
}

/// Returns the findings of one pair.
fn pair_findings(dataset: &Dataset, item: &CheckItem<'_>, facts: &PairFacts) -> Vec<Finding> {
    let name = &item.pair.name;
    let label = scan::under(&dataset.root, &item.pair.label);
    let mut findings = Vec::new();
    for error in &facts.errors {
        findings.push(match error {
            DataError::Image { source, .. } => Finding::new(FindingKind::UnreadableImage, name, source.to_string()),
            DataError::Label { source, .. } => Finding::new(FindingKind::UnreadableLabel, &label, source.to_string()),
            DataError::Io { path, source } if *path == item.pair.label => {
                Finding::new(FindingKind::UnreadableLabel, &label, source.to_string())
            }
            DataError::SizeMismatch { image_size: (w, h), label_size: (lw, lh), .. } => {
                Finding::new(FindingKind::SizeMismatch, name, format!("image {w}x{h}, label {lw}x{lh}"))
            }
            other => Finding::new(FindingKind::UnreadableImage, name, other.to_string()),
        });
    }
    for unknown in &facts.unknown {
        let (x, y) = unknown.at;
        let pixels = if unknown.pixels == 1 { "1 pixel".into() } else { format!("{} pixels", unknown.pixels) };
        let detail = format!("{}: {pixels}, the first at x {x}, y {y}", unknown.value);
        let finding = Finding::new(FindingKind::UnknownValue, &label, detail);
        findings.push(Finding { pixels: Some(unknown.pixels), first: Some(unknown.at), ..finding });
    }
    if facts.more_unknown {
        findings.push(Finding::new(
            FindingKind::UnknownValue,
            &label,
            "and more unknown values; check that this is a label image",
        ));
    }
    if facts.void > 0 && facts.unknown.is_empty() && facts.classes.iter().all(|count| *count == 0) {
        findings.push(Finding::new(FindingKind::OnlyVoid, name, ""));
    }
    if facts.between > 0 {
        let finding = Finding::new(FindingKind::SmoothMask, &label, format!("{} pixels", facts.between));
        findings.push(Finding { pixels: Some(facts.between), ..finding });
    }
    findings
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PartCounts { train, val, test, left_out } = self.images;
        writeln!(f, "{}: {}", self.root.display(), self.format)?;
        write!(f, "  images  {}: {train} train, {val} val", train + val + test + left_out)?;
        for (count, what) in [(test, "test"), (left_out, "excluded")] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        writeln!(f)?;
        let size = |size: &SizeCount| format!("{}x{} ({})", size.width, size.height, size.images);
        let mut sizes: Vec<String> = self.sizes.iter().take(5).map(size).collect();
        if self.sizes.len() > 5 {
            sizes.push(format!("and {} more", self.sizes.len() - 5));
        }
        writeln!(f, "  sizes     {}", sizes.join(", "))?;
        if !self.classes.is_empty() {
            writeln!(f, "  void      {:.1} % of the pixels", 100.0 * self.void_share)?;
        }
        for note in &self.notes {
            writeln!(f, "  note      {note}")?;
        }
        self.write_classes(f)?;
        self.write_findings(f)?;
        let many = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
        write!(f, "\n{}, {} ({:.1} s)", many(self.errors, "error"), many(self.warnings, "warning"), self.seconds)
    }
}

impl CheckReport {
    fn write_classes(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.classes.is_empty() {
            return Ok(());
        }
        let longest = self.classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max(5);
        let with_test = self.images.test > 0;
        write!(f, "\n  {:longest$}  colour   share of pixels  images: train    val", "class")?;
        writeln!(f, "{}", if with_test { "   test" } else { "" })?;
        for class in &self.classes {
            let PartCounts { train, val, test, .. } = class.images;
            let percent = 100.0 * class.share;
            write!(f, "  {:longest$}  {}  {percent:13.2} %  {train:15}  {val:5}", class.name, class.color)?;
            if with_test {
                write!(f, "  {test:5}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }

    fn write_findings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for group in self.findings.chunk_by(|a, b| a.kind == b.kind) {
            let severity = if group[0].severity == Severity::Error { "error" } else { "warning" };
            let count: usize = group.iter().map(|finding| 1 + finding.more.len()).sum();
            writeln!(f, "\n{severity}: {} ({count})", group[0].kind.heading())?;
            let shown = if group[0].kind == FindingKind::RecordingInTwoParts { SHOWN_FRAMES } else { SHOWN };
            let lines = group.iter().flat_map(|finding| {
                let first = (finding.name.as_str(), finding.other.as_deref(), finding.detail.as_str());
                let more = finding.more.iter();
                std::iter::once(first).chain(more.map(|pair| (&*pair.name, Some(&*pair.other), &*pair.detail)))
            });
            for (name, other, detail) in lines.take(shown) {
                write!(f, "  {name}")?;
                if let Some(other) = other {
                    write!(f, " and {other}")?;
                }
                writeln!(f, "{}{detail}", if detail.is_empty() { "" } else { ": " })?;
            }
            if count > shown {
                writeln!(f, "  and {} more (--json lists all)", count - shown)?;
            }
            for help in group.iter().filter_map(|finding| finding.help.as_ref()) {
                writeln!(f, "  help: {help}")?;
            }
        }
        Ok(())
    }
}
