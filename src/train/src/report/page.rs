//! The page of a run: the formatted values for `templates/report.html`.

use askama::Template;

use super::plot::{AxisLabels, Plot, PlotLine, color};
use super::run_facts::{Fact, environment_facts, machine};
use super::text::{NONE, count, duration, number, percent, scientific, small_percent};
use super::{ClassFacts, ImageFacts, Rank, Report, ReportError, plot, shell_line};
use crate::metrics::{RangeScores, SizeScores};

/// A number at the top of the page.
struct Tile {
    name: &'static str,
    value: String,
    unit: &'static str,
    about: &'static str,
}

/// A plot with its title, legend and note.
pub(super) struct Figure {
    pub title: String,
    /// The description for screen readers.
    pub alt: String,
    pub svg: String,
    pub legend: Vec<LegendEntry>,
    pub note: String,
}

pub(super) struct LegendEntry {
    pub color: String,
    pub name: String,
}

/// An entry of the legend of the classes, with the share of the training pixels.
struct ClassLegendEntry<'a> {
    name: &'a str,
    color: &'a str,
    share: String,
}

/// A row of the table of classes.
struct ClassRow {
    name: String,
    color: String,
    /// The IoU, 0 to 1, as the length of a bar.
    bar: f64,
    iou: String,
    recall: String,
    precision: String,
    boundary: String,
    share: String,
}

/// The recall of the objects of a class by height.
struct SizeTable<'a> {
    class: &'a str,
    rows: Vec<Vec<String>>,
}

/// A cell of the confusion matrix.
struct ConfusionCell {
    /// The strength of the colour, 0 to 1.
    heat: String,
    text: String,
    kind: &'static str,
    title: String,
}

/// A row of the confusion matrix.
struct ConfusionRow {
    name: String,
    cells: Vec<ConfusionCell>,
}

/// The images of one rank, with their formatted mIoUs.
struct ImageGroup<'a> {
    rank: &'static str,
    images: Vec<(String, &'a ImageFacts)>,
}

/// A row of the table of epochs.
struct EpochRow {
    cells: Vec<String>,
}

#[derive(Template)]
#[template(path = "report.html", config = "src/report/askama.toml")]
struct ReportPage<'a> {
    title: &'a str,
    lead: String,
    plot_style: String,
    tiles: Vec<Tile>,
    figures: Vec<Figure>,
    classes: Vec<ClassRow>,
    confusion: Vec<ConfusionRow>,
    groups: Vec<ImageGroup<'a>>,
    class_colors: Vec<ClassLegendEntry<'a>>,
    sizes: Vec<SizeTable<'a>>,
    calibration: Option<Figure>,
    bins: Vec<Vec<String>>,
    speed: Vec<Vec<String>>,
    machine: String,
    training: Vec<Fact>,
    options: Vec<Fact>,
    data: Vec<Fact>,
    environment: Vec<Fact>,
    command: &'a str,
    model: Option<&'a str>,
    use_file: String,
    epoch_head: Vec<String>,
    epochs: Vec<EpochRow>,
    version: &'static str,
}

impl Report {
    /// The page, a complete HTML document.
    ///
    /// # Errors
    /// A plot cannot be drawn.
    pub fn html(&self) -> Result<String, ReportError> {
        let (epoch_head, epochs) = self.epoch_table();
        let page = ReportPage {
            title: &self.title,
            lead: self.lead(),
            plot_style: plot::style(),
            tiles: self.tiles(),
            figures: self.curves()?,
            classes: self.class_rows(),
            confusion: self.confusion_rows(),
            groups: self.image_groups(),
            class_colors: self.class_legend(),
            sizes: self.size_tables(),
            calibration: self.calibration_figure()?,
            bins: self.bin_rows(),
            speed: self.speed_rows(),
            machine: machine(&self.environment),
            training: self.training_facts(),
            options: self.option_facts(),
            data: self.data_facts(),
            environment: environment_facts(&self.environment),
            command: &self.environment.command,
            model: self.model.as_deref(),
            use_file: shell_line([self.model.as_deref().unwrap_or("model.onnx")]),
            epoch_head,
            epochs,
            version: env!("CARGO_PKG_VERSION"),
        };
        Ok(page.render()?)
    }

    fn lead(&self) -> String {
        let trained = self.training.as_ref().map(|training| format!("{}, {}, ", training.encoder, training.strategy));
        let images = self.dataset.val_images;
        let images = if images == 1 { "1 image".into() } else { format!("{} images", count(images as u64)) };
        let (width, height) = self.dataset.size;
        let trained = trained.unwrap_or_default();
        format!("{trained}measured on {images} of {} at {width}×{height}", self.dataset.name)
    }

    fn tiles(&self) -> Vec<Tile> {
        let scores = &self.scores;
        let tile = |name, value, unit, about| Tile { name, value, unit, about };
        let mut tiles = vec![
            tile("mIoU", percent(scores.miou), "%", "mean over classes"),
            tile("pixel accuracy", percent(scores.pixel_accuracy), "%", "of all labelled pixels"),
            tile("class accuracy", percent(scores.class_accuracy), "%", "mean recall of classes"),
            tile("boundary F1", percent(scores.boundary_f1), "%", "mean over images"),
        ];
        if let Some(calibration) = &self.calibration {
            let about = "confidence against accuracy; lower is better";
            tiles.push(tile("calibration error", percent(calibration.ece), "%", about));
        }
        if let Some(fastest) = self.speed.iter().min_by(|a, b| a.median_ms.total_cmp(&b.median_ms)) {
            tiles.push(tile("time for an image", number(fastest.median_ms), "ms", "fastest measured model"));
        }
        tiles
    }

    fn curves(&self) -> Result<Vec<Figure>, ReportError> {
        let records = &self.history.0;
        if records.is_empty() {
            return Ok(Vec::new());
        }
        // The first phase needs no mark: it begins with the plot.
        let phases = self.history.phases().into_iter().skip(1);
        let marks: Vec<(f64, String)> = phases.map(|(epoch, name)| (f64::from(epoch), name.to_owned())).collect();
        let line = |name: &str, color: usize, value: &dyn Fn(&super::EpochRecord) -> Option<f64>| {
            let points = records.iter().filter_map(|record| Some((f64::from(record.epoch), value(record)?)));
            PlotLine { name: name.into(), color, points: points.collect(), band: Vec::new() }
        };
        let mut figures = Vec::new();
        let mut add = |title: &str, note: String, plot: Plot| -> Result<(), ReportError> {
            let plot = Plot { lines: plot.lines.into_iter().filter(|line| !line.points.is_empty()).collect(), ..plot };
            if !plot.lines.is_empty() {
                figures.push(Figure::new(title, &plot, note)?);
            }
            Ok(())
        };
        let best = self.history.best();
        let note = best.map(|(epoch, miou)| format!("Best: {} % in epoch {epoch}.", percent(miou)));
        let miou = Plot {
            lines: vec![
                line("weights", 0, &|record| record.val_miou),
                line("moving average of the weights", 1, &|record| record.val_miou_ema),
            ],
            marks: marks.clone(),
            from_zero: true,
            to: Some(1.0),
            labels: AxisLabels::Percent,
            ..Plot::default()
        };
        add("mIoU on the validation set", note.unwrap_or_default(), miou)?;
        let loss = Plot {
            lines: vec![
                line("training", 0, &|record| Some(record.train_loss)),
                line("validation", 1, &|record| record.val_loss),
            ],
            marks: marks.clone(),
            ..Plot::default()
        };
        add("Loss", String::new(), loss)?;
        let groups = self.history.groups();
        let rates =
            groups.iter().enumerate().map(|(n, group)| line(group, n, &|record| record.lr.get(*group).copied()));
        let rates =
            Plot { lines: rates.collect(), marks, from_zero: true, labels: AxisLabels::Scientific, ..Plot::default() };
        add("Learning rate by group", "At the end of each epoch.".into(), rates)?;
        Ok(figures)
    }

    fn class_rows(&self) -> Vec<ClassRow> {
        let colors = self.dataset.classes.iter().map(|class| class.color.as_str()).chain(std::iter::repeat("#888888"));
        let row = |(class, color): (&crate::metrics::ClassScores, &str)| ClassRow {
            name: class.name.clone(),
            color: color.into(),
            bar: class.iou.unwrap_or(0.0),
            iou: percent(class.iou),
            recall: percent(class.recall),
            precision: percent(class.precision),
            boundary: percent(class.boundary_f1),
            share: small_percent(class.share),
        };
        self.scores.classes.iter().zip(colors).map(row).collect()
    }

    fn size_tables(&self) -> Vec<SizeTable<'_>> {
        let row = |range: &RangeScores| {
            let shares = [range.found, range.recall, range.object_recall].map(percent);
            [range.heights(), count(range.objects)].into_iter().chain(shares).collect()
        };
        let table = |scores: &'_ SizeScores| scores.ranges.iter().map(row).collect();
        self.sizes.iter().map(|scores| SizeTable { class: &scores.class, rows: table(scores) }).collect()
    }

    fn confusion_rows(&self) -> Vec<ConfusionRow> {
        let shares = self.confusion.row_shares();
        let names: Vec<&str> = self.scores.classes.iter().map(|class| class.name.as_str()).collect();
        let rows = shares.chunks_exact(self.confusion.classes.max(1)).zip(&names).enumerate();
        rows.map(|(label, (row, name))| ConfusionRow {
            name: (*name).to_owned(),
            cells: row
                .iter()
                .zip(&names)
                .enumerate()
                .map(|(class, (&share, predicted))| ConfusionCell {
                    // The square root makes errors of a few per cent visible.
                    heat: format!("{:.3}", if label == class { share } else { share.sqrt() }),
                    text: if share >= 0.005 { format!("{:.0}", 100.0 * share) } else { String::new() },
                    kind: if label == class { "right" } else { "wrong" },
                    title: format!("{name} predicted as {predicted}: {} %", small_percent(share)),
                })
                .collect(),
        })
        .collect()
    }

    fn image_groups(&self) -> Vec<ImageGroup<'_>> {
        let group = |rank: Rank| ImageGroup {
            rank: rank.name(),
            images: self
                .images
                .iter()
                .filter(|image| image.rank == rank && !image.panels.image.is_empty())
                .map(|image| (percent(image.miou), image))
                .collect(),
        };
        Rank::ALL.into_iter().map(group).filter(|group| !group.images.is_empty()).collect()
    }

    fn calibration_figure(&self) -> Result<Option<Figure>, ReportError> {
        let Some(scores) = &self.calibration else { return Ok(None) };
        let verdict = if (scores.confidence - scores.accuracy).abs() < 0.005 {
            "the model is calibrated"
        } else if scores.confidence > scores.accuracy {
            "the model is overconfident"
        } else {
            "the model is underconfident"
        };
        let note = format!(
            "Expected calibration error {} %. Mean confidence {} %, accuracy {} %: {verdict}.",
            percent(scores.ece),
            percent(scores.confidence),
            percent(scores.accuracy)
        );
        let entry = |n, name: &str| LegendEntry { color: color(n), name: name.into() };
        Ok(Some(Figure {
            title: "Accuracy by confidence".into(),
            alt: format!("Bars of accuracy by confidence against the diagonal. {note}"),
            svg: plot::calibration(scores)?,
            legend: vec![entry(0, "accuracy of the pixels in the bin"), entry(1, "perfect calibration")],
            note,
        }))
    }

    fn bin_rows(&self) -> Vec<Vec<String>> {
        let bins = self.calibration.iter().flat_map(|scores| &scores.bins).filter(|bin| bin.pixels > 0);
        bins.map(|bin| {
            let range = format!("{:.0}–{:.0}", 100.0 * bin.from, 100.0 * bin.to);
            vec![range, small_percent(bin.share), percent(bin.confidence), percent(bin.accuracy)]
        })
        .collect()
    }

    fn speed_rows(&self) -> Vec<Vec<String>> {
        let row = |speed: &super::Speed| {
            vec![
                speed.model.clone(),
                speed.precision.clone(),
                format!("{}×{}", speed.size.0, speed.size.1),
                speed.provider.clone(),
                speed.threads.to_string(),
                number(speed.median_ms),
                number(speed.p95_ms),
                number(1000.0 / speed.median_ms),
                percent(speed.miou),
            ]
        };
        self.speed.iter().map(row).collect()
    }

    fn class_legend(&self) -> Vec<ClassLegendEntry<'_>> {
        let share = |class: &ClassFacts| class.share.map_or_else(|| NONE.into(), small_percent);
        let classes = self.dataset.classes.iter();
        classes.map(|class| ClassLegendEntry { name: &class.name, color: &class.color, share: share(class) }).collect()
    }

    fn epoch_table(&self) -> (Vec<String>, Vec<EpochRow>) {
        let groups = self.history.groups();
        let names = ["epoch", "phase", "loss", "val. loss", "mIoU %", "mIoU % (average)"];
        let head = names.iter().map(|name| (*name).to_owned()).chain(groups.iter().map(|group| format!("lr {group}")));
        let head = head.chain(["time".into(), "waiting for data %".into()]).collect();
        let row = |record: &super::EpochRecord| {
            let mut cells = vec![
                record.epoch.to_string(),
                record.phase.clone(),
                number(record.train_loss),
                number(record.val_loss),
                percent(record.val_miou),
                percent(record.val_miou_ema),
            ];
            let rate = |group: &&str| record.lr.get(*group).map_or_else(|| NONE.into(), |&rate| scientific(rate));
            cells.extend(groups.iter().map(rate));
            cells.extend([duration(record.seconds), percent(record.data_wait_share)]);
            EpochRow { cells }
        };
        (head, self.history.0.iter().map(row).collect())
    }
}

impl Figure {
    /// A figure with the lines of a plot. The description contains the first and the last value of each line.
    pub fn new(title: &str, plot: &Plot, note: String) -> Result<Self, ReportError> {
        let write = |value: f64| match plot.labels {
            AxisLabels::Percent => format!("{} %", percent(value)),
            AxisLabels::Scientific => scientific(value),
            AxisLabels::Plain => number(value),
        };
        let words = plot.lines.iter().filter_map(|line| {
            let (first, last) = (line.points.first()?, line.points.last()?);
            Some(format!("{}: from {} to {}", line.name, write(first.1), write(last.1)))
        });
        let alt = format!("{title} by epoch. {}.", words.collect::<Vec<_>>().join("; "));
        let legend = plot.lines.iter().map(|line| LegendEntry { color: color(line.color), name: line.name.clone() });
        Ok(Figure { title: title.into(), alt, svg: plot.inline()?, legend: legend.collect(), note })
    }
}
