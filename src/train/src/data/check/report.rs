//! What a check found, for people and as JSON.

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
use super::{Facts, Item};

/// Lines that people see of a long list; the JSON has all.
const SHOWN: usize = 10;
/// The same for frames of a recording, which are examples only.
const SHOWN_FRAMES: usize = 3;
/// Above this share of void pixels, something is probably not labelled that should be.
const MUCH_VOID: f64 = 0.5;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A training would fail, or its result would be wrong.
    Error,
    /// Worth a look.
    Warning,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    EmptyPart,
    UnreadablePicture,
    UnreadableLabel,
    SizeMismatch,
    UnknownValue,
    SamePictureInTwoParts,
    ClassNotInTrain,
    ClassNotInVal,
    ClassNowhere,
    NearCopyInTwoParts,
    RecordingInTwoParts,
    PictureWithoutLabel,
    LabelWithoutPicture,
    SamePictureTwice,
    OnlyVoid,
    MuchVoid,
    SmoothMask,
}

impl Kind {
    fn severity(self) -> Severity {
        match self {
            Kind::EmptyPart
            | Kind::UnreadablePicture
            | Kind::UnreadableLabel
            | Kind::SizeMismatch
            | Kind::UnknownValue
            | Kind::SamePictureInTwoParts
            | Kind::ClassNotInTrain => Severity::Error,
            _ => Severity::Warning,
        }
    }

    fn heading(self) -> &'static str {
        match self {
            Kind::EmptyPart => "nothing to train or to validate with",
            Kind::UnreadablePicture => "pictures that cannot be read",
            Kind::UnreadableLabel => "label pictures that cannot be read",
            Kind::SizeMismatch => "labels of another size than their pictures",
            Kind::UnknownValue => "values that belong to no class",
            Kind::SamePictureInTwoParts => "the same picture in two parts: scores will be too good",
            Kind::ClassNotInTrain => "classes that no training picture shows, but others do",
            Kind::ClassNotInVal => "classes that no validation picture shows: they get no score",
            Kind::ClassNowhere => "classes that no picture shows",
            Kind::NearCopyInTwoParts => "nearly the same picture in two parts: scores will be too good",
            Kind::RecordingInTwoParts => "frames of one recording, much alike, in two parts: scores will be too good",
            Kind::PictureWithoutLabel => "pictures without a label, left out",
            Kind::LabelWithoutPicture => "labels without a picture, left out",
            Kind::SamePictureTwice => "the same picture twice in one part",
            Kind::OnlyVoid => "pictures whose label is void all over",
            Kind::MuchVoid => "much is void",
            Kind::SmoothMask => "black and white masks with values between, which count by the half they are in",
        }
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Finding {
    pub severity: Severity,
    pub kind: Kind,
    /// The picture, file, class or part.
    pub name: String,
    /// The other picture where two are too much alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub other: Option<String>,
    pub detail: String,
    /// Further pairs of pictures, where many make one finding.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<Another>,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// Pixels that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pixels: Option<u64>,
    /// The first such pixel: x, y.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first: Option<(usize, usize)>,
}

impl Finding {
    pub(super) fn new(kind: Kind, name: impl Into<String>, detail: impl Into<String>) -> Self {
        let (name, detail) = (name.into(), detail.into());
        let severity = kind.severity();
        Finding { severity, kind, name, other: None, detail, more: Vec::new(), help: None, pixels: None, first: None }
    }
}

/// A pair of pictures that is like the one which a finding names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Another {
    pub name: String,
    pub other: String,
    pub detail: String,
}

/// How much there is of a class.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClassShare {
    pub name: String,
    /// `#rrggbb`
    pub color: String,
    pub pixels: u64,
    /// Of all pixels that are not void.
    pub share: f64,
    /// Pictures that show it.
    pub pictures: PartCounts,
}

/// Numbers by part.
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

/// Pictures of one size.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SizeCount {
    pub width: usize,
    pub height: usize,
    pub pictures: usize,
}

/// All that a check found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CheckReport {
    pub root: PathBuf,
    pub format: Format,
    /// What was assumed when the data set was opened.
    pub notes: Vec<String>,
    pub pictures: PartCounts,
    /// The most frequent first.
    pub sizes: Vec<SizeCount>,
    pub classes: Vec<ClassShare>,
    /// Of all pixels.
    pub void_share: f64,
    pub errors: usize,
    pub warnings: usize,
    /// Errors first, each kind together.
    pub findings: Vec<Finding>,
    pub seconds: f64,
}

impl CheckReport {
    /// Sums up; what takes a comparison of pictures comes later.
    pub(super) fn new(dataset: &Dataset, items: &[Item<'_>], facts: &[Facts]) -> Self {
        let mut pictures = PartCounts::default();
        let mut sizes = BTreeMap::<(usize, usize), usize>::new();
        let mut totals = vec![(0u64, PartCounts::default()); dataset.classes.len()];
        let (mut void, mut strange) = (0, 0);
        let mut findings = Vec::new();
        for (item, facts) in items.iter().zip(facts) {
            pictures.add(item.part);
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
            strange += facts.strange.iter().map(|strange| strange.pixels).sum::<u64>();
            findings.extend(of_pair(dataset, item, facts));
        }
        let known: u64 = totals.iter().map(|(pixels, _)| pixels).sum();
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        let class = |(label, (pixels, pictures)): (&maskcast::frame::Label, (u64, PartCounts))| {
            let Rgb(r, g, b) = label.color;
            let color = format!("#{r:02x}{g:02x}{b:02x}");
            ClassShare { name: label.name.clone(), color, pixels, share: share(pixels, known), pictures }
        };
        let mut sizes: Vec<SizeCount> =
            sizes.into_iter().map(|((width, height), pictures)| SizeCount { width, height, pictures }).collect();
        sizes.sort_by_key(|size| std::cmp::Reverse((size.pictures, size.width, size.height)));
        let mut report = CheckReport {
            root: dataset.root.clone(),
            format: dataset.format,
            notes: dataset.notes.clone(),
            pictures,
            sizes,
            classes: dataset.classes.iter().zip(totals).map(class).collect(),
            void_share: share(void, known + void + strange),
            errors: 0,
            warnings: 0,
            findings,
            seconds: 0.0,
        };
        report.find_in_whole(dataset);
        report
    }

    /// What is wrong with the data set as a whole.
    fn find_in_whole(&mut self, dataset: &Dataset) {
        let without = |paths: &[PathBuf], kind: Kind| -> Vec<Finding> {
            paths.iter().map(|path| Finding::new(kind, scan::under(&dataset.root, path), "")).collect()
        };
        self.findings.extend(without(&dataset.unpaired.images, Kind::PictureWithoutLabel));
        self.findings.extend(without(&dataset.unpaired.labels, Kind::LabelWithoutPicture));
        for (part, count) in [("train", self.pictures.train), ("val", self.pictures.val)] {
            if count == 0 {
                self.findings.push(Finding::new(Kind::EmptyPart, part, "has no pictures"));
            }
        }
        let told = if self.pictures.train == 0 { &[][..] } else { &self.classes };
        for class in told {
            let PartCounts { train, val, test, left_out } = class.pictures;
            let kind = match (train, val) {
                (0, _) if val + test > 0 => Kind::ClassNotInTrain,
                (0, 0) if left_out == 0 => Kind::ClassNowhere,
                (_, 0) if self.pictures.val > 0 => Kind::ClassNotInVal,
                _ => continue,
            };
            let detail = format!("{} pixels; pictures: {train} train, {val} val, {test} test", class.pixels);
            self.findings.push(Finding::new(kind, &class.name, detail));
        }
        if self.void_share > MUCH_VOID {
            let detail = format!("{:.1} % of all pixels teach nothing", 100.0 * self.void_share);
            self.findings.push(Finding::new(Kind::MuchVoid, "void", detail));
        }
    }

    /// Sorts and counts.
    pub(super) fn finish(&mut self, took: Duration) {
        self.findings.sort_by_key(|finding| (finding.severity, finding.kind));
        self.errors = self.findings.iter().filter(|finding| finding.severity == Severity::Error).count();
        self.warnings = self.findings.len() - self.errors;
        self.seconds = took.as_secs_f64();
    }
}

/// What is wrong with one pair.
fn of_pair(dataset: &Dataset, item: &Item<'_>, facts: &Facts) -> Vec<Finding> {
    let name = &item.pair.name;
    let label = scan::under(&dataset.root, &item.pair.label);
    let mut findings = Vec::new();
    for error in &facts.errors {
        findings.push(match error {
            DataError::Picture { problem, .. } => Finding::new(Kind::UnreadablePicture, name, problem),
            DataError::Label { problem, .. } => Finding::new(Kind::UnreadableLabel, &label, problem),
            DataError::Io { path, error } if *path == item.pair.label => {
                Finding::new(Kind::UnreadableLabel, &label, error.to_string())
            }
            DataError::SizeMismatch { image_size: (w, h), label_size: (lw, lh), .. } => {
                Finding::new(Kind::SizeMismatch, name, format!("picture {w}x{h}, label {lw}x{lh}"))
            }
            other => Finding::new(Kind::UnreadablePicture, name, other.to_string()),
        });
    }
    for strange in &facts.strange {
        let (x, y) = strange.at;
        let pixels = if strange.pixels == 1 { "1 pixel".into() } else { format!("{} pixels", strange.pixels) };
        let detail = format!("{}: {pixels}, the first at x {x}, y {y}", strange.value);
        let finding = Finding::new(Kind::UnknownValue, &label, detail);
        findings.push(Finding { pixels: Some(strange.pixels), first: Some(strange.at), ..finding });
    }
    if facts.more_strange {
        findings.push(Finding::new(Kind::UnknownValue, &label, "and more such values: is this a label picture?"));
    }
    if facts.void > 0 && facts.strange.is_empty() && facts.classes.iter().all(|count| *count == 0) {
        findings.push(Finding::new(Kind::OnlyVoid, name, ""));
    }
    if facts.between > 0 {
        let finding = Finding::new(Kind::SmoothMask, &label, format!("{} pixels", facts.between));
        findings.push(Finding { pixels: Some(facts.between), ..finding });
    }
    findings
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PartCounts { train, val, test, left_out } = self.pictures;
        writeln!(f, "{}: {}", self.root.display(), self.format)?;
        write!(f, "  pictures  {}: {train} train, {val} val", train + val + test + left_out)?;
        for (count, what) in [(test, "test"), (left_out, "left out")] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        writeln!(f)?;
        let size = |size: &SizeCount| format!("{}x{} ({})", size.width, size.height, size.pictures);
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
        let with_test = self.pictures.test > 0;
        write!(f, "\n  {:longest$}  colour   share of pixels  pictures: train    val", "class")?;
        writeln!(f, "{}", if with_test { "   test" } else { "" })?;
        for class in &self.classes {
            let PartCounts { train, val, test, .. } = class.pictures;
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
            let shown = if group[0].kind == Kind::RecordingInTwoParts { SHOWN_FRAMES } else { SHOWN };
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
