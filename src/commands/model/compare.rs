//! `maskcast model compare`: measures two models on the same labelled images.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};

use crate::base::atomic_file::AtomicFile;
use crate::capture::{Captured, GstSource, Source};
use crate::commands::{Failure, ModelArgs, ProviderArg, RequireArg, flicker, write_json};
use crate::comparison::dataset::{Dataset, LabelImage, LabelledFile};
use crate::comparison::page::PageImage;
use crate::comparison::panels::{self, Compared, Panels};
use crate::comparison::report::{
    ClassComparison, Comparison, DataFacts, Difference, FlickerComparison, FlickerRow, ImageComparison, ModelFacts,
    SpeedComparison, VERSION, Verdict,
};
use crate::comparison::score::{CONFIDENCE, ClassCounts, Counts, FEWEST_IMAGES, PairedCounts, interval};
use crate::comparison::{HTML_FILE, JSON_FILE, report_folder};
use crate::config::{SourceSpec, SourceUri, hex};
use crate::frame::{ClassId, Crop, Frame, Mask, Rgb, Tiles};
use crate::segment::Segmenter;
use crate::segment::onnx::Model;
use crate::segment::preprocess::Preprocessor;
use crate::segment::segmenter::OnnxSegmenter;

mod classes;

use classes::{Class, ClassTable};

/// How long the decoder may take for an image.
const SILENCE: Duration = Duration::from_secs(10);

/// Each model runs at least as often, so that the ratio of times is not that of a few runs.
const TIMED_RUNS: usize = 30;

/// Images of the report with the largest losses, and as many with the largest gains.
const SHOWN: usize = 4;

/// The models, the images and the report.
#[derive(Clone, Debug, Args)]
pub struct CompareArgs {
    /// The ONNX file that is in use.
    old: PathBuf,
    /// The ONNX file that is to replace it.
    new: PathBuf,
    /// The labelled images: the folder of a collection, or a folder with images, masks and classes.txt.
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// A file with the names of the images to use, one a line, without extension [default: the accepted images of a collection, or
    /// all images].
    #[arg(long, value_name = "FILE")]
    list: Option<PathBuf>,
    /// A clip on which flicker is measured too.
    #[arg(long, value_name = "CLIP")]
    clip: Option<PathBuf>,
    /// Folder for report.html and report.json [default: the path of the new model with the extension "compare", where the page of the
    /// service finds it].
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Fail if the new model is not as required.
    #[arg(long, value_enum, value_name = "RESULT")]
    require: Option<Required>,
    #[command(flatten)]
    options: ProviderArgs,
}

/// The execution providers.
#[derive(Clone, Debug, Args)]
struct ProviderArgs {
    /// Execution providers, tried in this order [default: tensorrt,cuda,cpu with an NVIDIA GPU, else cpu].
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    providers: Vec<ProviderArg>,
    /// Number of cores that a model may use on the CPU; 0 = all.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Required {
    /// The new model is better.
    Better,
    /// The new model is better, or the models cannot be distinguished.
    NotWorse,
}

/// A model with its session, and the classes of the comparison.
struct Side {
    model: Model,
    segmenter: OnnxSegmenter,
    /// For each class of the model, the class of the comparison.
    classes: Vec<u8>,
}

/// What both models make of the images.
struct Measured {
    counts: Vec<PairedCounts>,
    old_times: Vec<f64>,
    new_times: Vec<f64>,
}

/// Measures both models, writes the report, and prints the result.
///
/// # Errors
/// A model, an image or the clip cannot be used, the report cannot be written, or the new model is not as required.
pub fn compare(args: &CompareArgs) -> Result<(), Failure> {
    let data = Dataset::open(&args.data, args.list.as_deref()).map_err(Failure::runtime)?;
    let (old, new) = (args.load(&args.old)?, args.load(&args.new)?);
    let table = ClassTable::new(&data.classes, &old.contract.labels, &new.contract.labels).map_err(Failure::runtime)?;
    let side = |model: Model, classes: &[u8]| -> Result<Side, Failure> {
        let segmenter = model.segmenter(args.options.threads).map_err(Failure::runtime)?;
        Ok(Side { model, segmenter, classes: classes.to_vec() })
    };
    let (mut old, mut new) = (side(old, &table.old)?, side(new, &table.new)?);
    let measured = measure(&data, &mut old, &mut new, &table)?;
    let flicker = args.clip.as_deref().map(|clip| flicker_of(clip, &old.model, &new.model)).transpose()?;
    let comparison = args.comparison(&data, &table, (&old.model, &new.model), &measured, flicker)?;
    let folder = args.output.clone().unwrap_or_else(|| report_folder(&args.new));
    let losses: Vec<&ImageComparison> =
        comparison.images.iter().filter(|image| changed(image, -1.0)).take(SHOWN).collect();
    let gains: Vec<&ImageComparison> =
        comparison.images.iter().rev().filter(|image| changed(image, 1.0)).take(SHOWN).collect();
    let mut shown = |images: Vec<&ImageComparison>| -> Result<Vec<PageImage>, Failure> {
        images.into_iter().map(|image| page_image(image, &data, &mut old, &mut new, &table)).collect()
    };
    let html = comparison.html(&shown(losses)?, &shown(gains)?).map_err(Failure::runtime)?;
    write(&folder, &comparison, &html)?;
    print(&comparison, &folder);
    match args.require {
        Some(Required::Better) if comparison.verdict != Verdict::Better => {
            Err(Failure::runtime("the new model is not better, which --require asks for"))
        }
        Some(Required::NotWorse) if comparison.verdict == Verdict::Worse => {
            Err(Failure::runtime("the new model is worse, which --require forbids"))
        }
        _ => Ok(()),
    }
}

impl CompareArgs {
    fn load(&self, path: &Path) -> Result<Model, Failure> {
        let threads = self.options.threads;
        let args = ModelArgs {
            model: Some(path.to_path_buf()),
            providers: self.options.providers.clone(),
            require: RequireArg::Any,
            threads,
            workers: 0,
        };
        Ok(Model::load(&args.config()?, threads)?)
    }

    fn comparison(
        &self,
        data: &Dataset,
        table: &ClassTable,
        (old, new): (&Model, &Model),
        measured: &Measured,
        flicker: Option<FlickerComparison>,
    ) -> Result<Comparison, Failure> {
        let counts = &measured.counts;
        let (classes, counted) = (table.classes.len(), table.counted());
        let sum = PairedCounts::sum(counts, classes);
        let interval = interval(counts, classes, &counted);
        let difference = Difference {
            miou: sum.difference(&counted),
            low: interval.map(|interval| interval.low).filter(|low| low.is_finite()),
            high: interval.map(|interval| interval.high).filter(|high| high.is_finite()),
            confidence: CONFIDENCE,
        };
        let verdict = verdict(&difference, counts.len());
        let common = table.common();
        let facts = |path: &Path, model: &Model, counts: &Counts| -> Result<ModelFacts, Failure> {
            let input = &model.contract.input;
            Ok(ModelFacts {
                file: path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
                sha256: sha256(path)?,
                provider: model.provider.name().to_owned(),
                input: (input.width, input.height),
                miou: counts.miou(&counted),
                miou_common: counts.miou(&common),
            })
        };
        let mut images: Vec<ImageComparison> = data
            .files
            .iter()
            .zip(counts)
            .map(|(file, counts)| ImageComparison {
                name: file.name.clone(),
                old_miou: counts.old.miou(&counted),
                new_miou: counts.new.miou(&counted),
            })
            .collect();
        images.sort_by(|a, b| {
            let difference = |image: &ImageComparison| image.difference().unwrap_or(0.0);
            difference(a).total_cmp(&difference(b)).then_with(|| a.name.cmp(&b.name))
        });
        let facts = (facts(&self.old, old, &sum.old)?, facts(&self.new, new, &sum.new)?);
        Ok(Comparison {
            version: VERSION,
            at: jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            verdict,
            summary: summary(verdict, &difference, (&facts.0, &facts.1), counts.len()),
            data: DataFacts {
                folder: self.data.display().to_string(),
                list: data.list.as_ref().map(|list| list.display().to_string()),
                images: data.files.len(),
            },
            old: facts.0,
            new: facts.1,
            difference,
            classes: class_rows(table, &sum),
            flicker,
            speed: speed(measured),
            images,
        })
    }
}

/// Whether the mIoU of the image moved by more than a tenth of a point into this direction.
fn changed(image: &ImageComparison, direction: f64) -> bool {
    image.difference().is_some_and(|difference| difference * direction > 0.001)
}

fn verdict(difference: &Difference, images: usize) -> Verdict {
    match (difference.low, difference.high) {
        _ if images < FEWEST_IMAGES => Verdict::NotDistinguishable,
        (Some(low), _) if low > 0.0 => Verdict::Better,
        (_, Some(high)) if high < 0.0 => Verdict::Worse,
        _ => Verdict::NotDistinguishable,
    }
}

fn summary(verdict: Verdict, difference: &Difference, (old, new): (&ModelFacts, &ModelFacts), images: usize) -> String {
    let Difference { miou: Some(miou), low: Some(low), high: Some(high), confidence } = difference else {
        return format!("{}: {images} images do not give an interval of the difference", verdict.name());
    };
    let percent = |miou: Option<f64>| 100.0 * miou.unwrap_or(0.0);
    let figures = format!(
        "mIoU {:.1} % → {:.1} %, {:+.1} points ({:.0} % interval {:+.1} to {:+.1}, {images} images)",
        percent(old.miou),
        percent(new.miou),
        100.0 * miou,
        100.0 * confidence,
        100.0 * low,
        100.0 * high
    );
    let more = match verdict {
        Verdict::NotDistinguishable if images < FEWEST_IMAGES => {
            format!("; a verdict needs at least {FEWEST_IMAGES} images")
        }
        Verdict::NotDistinguishable => "; label more images to find out".into(),
        Verdict::Better | Verdict::Worse => String::new(),
    };
    format!("{}: {figures}{more}", verdict.name())
}

/// Runs both models on all images, in turn as the first, and counts the pixels by class.
fn measure(data: &Dataset, old: &mut Side, new: &mut Side, table: &ClassTable) -> Result<Measured, Failure> {
    let bar = progress_bar(data.files.len());
    let mut measured = Measured { counts: Vec::new(), old_times: Vec::new(), new_times: Vec::new() };
    let runs_of_image = TIMED_RUNS.div_ceil(data.files.len());
    for (n, file) in data.files.iter().enumerate() {
        let label = data.label(file).map_err(Failure::runtime)?;
        let frame = frame(&file.image, n as u64)?;
        check_size(file, &frame, &label)?;
        let mut masks = None;
        for run in 0..runs_of_image {
            let (old, new) = if (n + run) % 2 == 0 {
                let old = old.mask(&frame)?;
                (old, new.mask(&frame)?)
            } else {
                let new = new.mask(&frame)?;
                (old.mask(&frame)?, new)
            };
            measured.old_times.push(old.1.as_secs_f64() * 1e3);
            measured.new_times.push(new.1.as_secs_f64() * 1e3);
            masks = Some((old.0, new.0));
        }
        let Some((old_mask, new_mask)) = masks else { continue };
        let labels = table.labels(&label.values);
        let counts = |mask: &Mask, side: &Side| {
            Counts::of(&labels, &side.classes_of(mask.resized(label.width, label.height)), table.classes.len())
        };
        measured.counts.push(PairedCounts { old: counts(&old_mask, old), new: counts(&new_mask, new) });
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(measured)
}

fn progress_bar(images: usize) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} images {eta} left");
    ProgressBar::new(images as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

impl Side {
    /// The mask of a frame, and the time that the model took.
    fn mask(&mut self, frame: &Frame) -> Result<(Mask, Duration), Failure> {
        let located =
            |error: &dyn std::fmt::Display| Failure::runtime(format!("{}: {error}", self.model.path.display()));
        let segmented = self.segmenter.segment(std::slice::from_ref(frame)).map_err(|error| located(&error))?;
        let mask = segmented.masks.into_iter().next().ok_or_else(|| located(&"the model made no mask"))?;
        Ok((mask, segmented.run.wall))
    }

    /// The classes of the comparison for those of the model.
    fn classes_of(&self, classes: Vec<ClassId>) -> Vec<u8> {
        let of = |class: ClassId| self.classes.get(usize::from(class)).copied().unwrap_or(classes::NONE);
        classes.into_iter().map(of).collect()
    }
}

/// The image as a frame of a camera.
fn frame(image: &Path, seq: u64) -> Result<Frame, Failure> {
    let located = |error: &dyn std::fmt::Display| Failure::runtime(format!("{}: {error}", image.display()));
    let mut spec = SourceSpec::new(SourceUri::File(std::path::absolute(image).map_err(|error| located(&error))?));
    (spec.real_time, spec.looped) = (false, false);
    let mut capture = GstSource::new(spec).open().map_err(|error| located(&error))?;
    let Captured::Frame(frame) = capture.next(SILENCE).map_err(|error| located(&error))? else {
        return Err(located(&"the file has no image that can be decoded"));
    };
    Ok(Frame {
        stream: "compare".into(),
        seq,
        pts: frame.pts,
        captured_at: Instant::now(),
        pixels: frame.pixels,
        bias: None,
        gate: None,
        crop: Crop::default(),
        tiles: Tiles::default(),
    })
}

fn check_size(file: &LabelledFile, frame: &Frame, label: &LabelImage) -> Result<(), Failure> {
    let info = frame.info();
    if (info.width, info.height) == (label.width, label.height) {
        return Ok(());
    }
    Err(Failure::runtime(format!(
        "{}: the label is {}x{}, but the image is {info}; convert the data set with `maskcast-train data export --format cvat`",
        file.label.display(),
        label.width,
        label.height
    )))
}

fn flicker_of(clip: &Path, old: &Model, new: &Model) -> Result<FlickerComparison, Failure> {
    eprintln!("measuring the flicker of {}", clip.display());
    let (old, new) = (flicker::measure(clip, old)?, flicker::measure(clip, new)?);
    let rows = old.smooth.iter().zip(&new.smooth).map(|(old, new)| FlickerRow {
        smooth: old.smooth.to_owned(),
        old_percent: old.flips_percent,
        new_percent: new.flips_percent,
    });
    Ok(FlickerComparison { masks: old.masks, smooth: rows.collect(), clip: old.clip })
}

fn class_rows(table: &ClassTable, sum: &PairedCounts) -> Vec<ClassComparison> {
    let labelled: u64 = sum.old.0.iter().map(|class| class.labelled).sum();
    let counts = sum.old.0.iter().zip(&sum.new.0);
    let row = |(class, (old, new)): (&Class, (&ClassCounts, &ClassCounts))| ClassComparison {
        name: class.name.clone(),
        color: hex(class.color),
        in_data: class.in_data,
        in_old: class.in_old,
        in_new: class.in_new,
        share: old.labelled as f64 / labelled.max(1) as f64,
        old_iou: old.iou(),
        new_iou: new.iou(),
    };
    table.classes.iter().zip(counts).map(row).collect()
}

fn speed(measured: &Measured) -> SpeedComparison {
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(0.0)
    };
    let ratios = measured.old_times.iter().zip(&measured.new_times).map(|(old, new)| new / old.max(1e-9)).collect();
    SpeedComparison {
        runs: measured.old_times.len(),
        old_ms: median(measured.old_times.clone()),
        new_ms: median(measured.new_times.clone()),
        ratio: median(ratios),
    }
}

fn page_image(
    image: &ImageComparison,
    data: &Dataset,
    old: &mut Side,
    new: &mut Side,
    table: &ClassTable,
) -> Result<PageImage, Failure> {
    let Some(file) = data.files.iter().find(|file| file.name == image.name) else {
        return Err(Failure::runtime(format!("{}: the image is not in the data set", image.name)));
    };
    let label = data.label(file).map_err(Failure::runtime)?;
    let frame = frame(&file.image, 0)?;
    let size @ (width, height) = panels::size(label.width, label.height);
    let mut rgb = vec![0; 3 * width * height];
    Preprocessor::new(width, height).run(&frame.pixels.image(), &mut rgb).map_err(Failure::runtime)?;
    let labels = panels::scaled(&table.labels(&label.values), (label.width, label.height), size);
    let drawn = |side: &mut Side| -> Result<Vec<u8>, Failure> {
        let (mask, _) = side.mask(&frame)?;
        Ok(side.classes_of(mask.resized(width, height)))
    };
    let (old, new) = (drawn(old)?, drawn(new)?);
    let compared = Compared { width, height, rgb: &rgb, label: &labels, old: &old, new: &new };
    let colors: Vec<Rgb> = table.classes.iter().map(|class| class.color).collect();
    Ok(PageImage { facts: image.clone(), panels: Panels::draw(&compared, &colors).map_err(Failure::runtime)? })
}

fn sha256(path: &Path) -> Result<String, Failure> {
    let bytes = std::fs::read(path).map_err(|error| Failure::runtime(format!("{}: {error}", path.display())))?;
    Ok(hex::encode(Sha256::digest(bytes)))
}

fn write(folder: &Path, comparison: &Comparison, html: &str) -> Result<(), Failure> {
    let located = |path: &Path, error: std::io::Error| Failure::runtime(format!("{}: {error}", path.display()));
    std::fs::create_dir_all(folder).map_err(|error| located(folder, error))?;
    let page = folder.join(HTML_FILE);
    AtomicFile::create(&page, 0o666)
        .and_then(|mut file| file.write_all(html.as_bytes()).and_then(|()| file.commit()))
        .map_err(|error| located(&page, error))?;
    // The JSON is last: who finds it finds the page that belongs to it.
    write_json(&folder.join(JSON_FILE), &serde_json::to_value(comparison).map_err(Failure::runtime)?)
}

/// Prints the table of classes and the result.
fn print(comparison: &Comparison, folder: &Path) {
    let percent = |iou: Option<f64>| iou.map_or_else(|| "-".into(), |iou| format!("{:.1}", 100.0 * iou));
    println!("{:<20} {:>9} {:>9} {:>11} {:>8}", "class", "old IoU %", "new IoU %", "difference", "share %");
    for class in &comparison.classes {
        let difference = match (class.old_iou, class.new_iou) {
            (Some(old), Some(new)) if class.share > 0.0 => format!("{:+.1}", 100.0 * (new - old)),
            _ => "-".into(),
        };
        let note = match (class.in_old, class.in_new) {
            (false, true) => "  added",
            (true, false) => "  dropped",
            (false, false) => "  in neither model",
            (true, true) => "",
        };
        println!(
            "{:<20} {:>9} {:>9} {difference:>11} {:>8.1}{note}",
            class.name,
            percent(class.old_iou),
            percent(class.new_iou),
            100.0 * class.share
        );
    }
    let SpeedComparison { old_ms, new_ms, ratio, .. } = comparison.speed;
    let (old, new) = (&comparison.old, &comparison.new);
    println!(
        "time      {old_ms:.1} ms on {} → {new_ms:.1} ms on {}, {ratio:.2} times the old",
        old.provider, new.provider
    );
    if let Some(row) = comparison.flicker.as_ref().and_then(|flicker| flicker.smooth.first()) {
        println!("flicker   {:.3} % → {:.3} % of pixels flip in a mask", row.old_percent, row.new_percent);
    }
    println!("report    {}", folder.join(HTML_FILE).display());
    println!("{}", comparison.summary);
}
