//! `maskcast-train label`: proposes label masks by the votes of models.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use maskcast::commands::Failure;
use maskcast::frame::Label;

use super::finish::{environment, file_name};
use crate::data::{BareImage, LabelledImage, VOID, bare_images, class_list};
use crate::fit::progress::ProgressMeter;
use crate::label::{
    Destination, ImageFiles, ImageResult, LabelError, LabelOptions, LabelledFile, Labeller, LoadedModel, TeacherSpec,
    Tiles, ViewOptions, label_images, read_mask,
};
use crate::report::{ClassFacts, LabelReport, ProposalFacts, ReportError, choose};

/// The number of images of each rank in the report.
const SHOWN: usize = 3;

const TEACHER_HELP: &str = "\
An ONNX model that votes; models of other trainers need a manifest (NAME.toml beside NAME.onnx). Repeat the option for several
models.
  map=FILE     the class map, a TOML file; classes that it does not list are matched by name:
                 decides = [\"person\"]       # only this teacher can label pixels as person
                 [classes]
                 bus = \"vehicle\"            # class of the model = class of the data set
                 tvmonitor = \"void\"         # votes for void
                 background = \"abstain\"     # does not vote for these pixels
                 [votes]
                 vehicle = 2                # a vote for vehicle counts twice
  weight=N     multiplies all votes of the teacher";

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    maskcast-train label frames -o proposals --teacher models/street.onnx --flip --scales 1,1.5\n  \
    maskcast-train label photos -o everyday --classes classes.txt --flip --tiles 2x2 \\\n    \
    --teacher things.onnx,map=things.toml --teacher rooms.onnx,map=rooms.toml\n\n\
    The result is a data set: maskcast-train fit proposals -o runs/first. Masks that were edited are kept.\n\
    Exit code 1: some images could not be read; all others have masks.")]
pub struct LabelArgs {
    /// Folder with images; labels are not read
    #[arg(value_name = "IMAGES")]
    images: PathBuf,
    /// The folder for images, masks, classes and report; an interrupted run is continued
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// The classes of the masks, one per line [default: those of the first teacher]
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// A model that votes, and its class map; may be given several times
    #[arg(long = "teacher", value_name = "MODEL.onnx[,map=FILE][,weight=N]", required = true, long_help = TEACHER_HELP)]
    teachers: Vec<TeacherSpec>,
    /// Also vote on the mirror image of each view; do not use if left and right have different meanings
    #[arg(long)]
    flip: bool,
    /// Scales of the views: 1 is the whole image, 1.5 is four parts, each two thirds as wide and high
    #[arg(long, value_name = "FACTORS", value_delimiter = ',', default_value = "1")]
    scales: Vec<f64>,
    /// Grids of tiles that also vote, COLUMNSxROWS; tiles overlap by an eighth
    #[arg(long, value_name = "GRIDS", value_delimiter = ',')]
    tiles: Vec<Tiles>,
    /// Extend views to the aspect ratio of the model's input, with a grey border, instead of stretching them as the service does
    #[arg(long)]
    keep_aspect: bool,
    /// Share of the votes that the winning class needs; otherwise the pixel is void (255)
    #[arg(long, value_name = "SHARE", default_value_t = 0.7)]
    agree: f64,
    /// Connected areas of fewer pixels are void
    #[arg(long, value_name = "PIXELS", default_value_t = 30)]
    min_area: usize,
    /// Folder with a mask for each image: its labelled pixels are kept, and the models label only the void ones
    #[arg(long, value_name = "MASKS")]
    fill: Option<PathBuf>,
    /// How images are put into the output folder
    #[arg(long, value_enum, default_value_t)]
    copy: ImageFiles,
    /// Generate all masks again, except edited ones
    #[arg(long)]
    redo: bool,
    /// Number of images that are labelled at the same time; 0: one per core
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

/// Makes the masks, prints their statistics, and writes the report.
///
/// # Errors
/// The first failure, or that images could not be read.
pub fn label(args: &LabelArgs) -> Result<(), Failure> {
    let began = Instant::now();
    let options = LabelOptions {
        views: ViewOptions {
            flip: args.flip,
            scales: args.scales.clone(),
            tiles: args.tiles.clone(),
            keep_aspect: args.keep_aspect,
        },
        agree: args.agree,
        min_area: args.min_area,
        fill: args.fill.clone(),
    };
    let problems = options.problems();
    if !problems.is_empty() {
        return Err(Failure::usage(problems.join("\n")));
    }
    let images = bare_images(&args.images).map_err(Failure::runtime)?;
    let named = args.classes.as_deref().map(class_list).transpose().map_err(Failure::runtime)?;
    let (labeller, classes) = labeller(args, named, options)?;
    let threads = match args.threads {
        0 => std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        threads => threads,
    };
    let unseen: Vec<String> = labeller.unseen().into_iter().map(str::to_owned).collect();
    if !unseen.is_empty() {
        eprintln!("note: no teacher votes for {}", unseen.join(", "));
    }

    let labeller = Arc::new(labeller);
    let destination = Destination { folder: args.output.clone(), files: args.copy, redo: args.redo };
    let mut totals = Totals::new(classes.len());
    let mut meter = ProgressMeter::new("label", 0, images.len() as u64);
    let count = images.len();
    let show = |file: LabelledFile| {
        totals.add(file, &meter);
        let void = totals.void_share();
        meter.show(totals.seen, || format!("{:.1} % void", 100.0 * void));
    };
    label_images(Arc::clone(&labeller), &args.images, images, &destination, threads, show)?;
    drop(meter);

    let words: Vec<String> = std::env::args().collect();
    let report = LabelReport {
        title: format!("Proposed masks of {}", file_name(&args.images)),
        images: count,
        labelled: totals.files.len(),
        corrected: totals.corrected,
        skipped: totals.skipped.clone(),
        void_share: totals.void_share(),
        classes: classes
            .iter()
            .zip(totals.shares())
            .map(|(label, share)| ClassFacts::new(label, Some(share)))
            .collect(),
        unseen,
        settings: labeller.settings(),
        environment: environment(&words, began.elapsed().as_secs_f64()),
        pictures: totals.pictures(&classes).map_err(Failure::runtime)?,
    };
    let written = report.write(&args.output).map_err(Failure::runtime)?;
    print_results(&report, &totals, &args.output, &written.html);
    match totals.skipped.len() {
        0 => Ok(()),
        skipped => Err(Failure::runtime(format!("{skipped} of {count} images have no mask; they are listed above"))),
    }
}

impl From<LabelError> for Failure {
    fn from(error: LabelError) -> Self {
        match error {
            LabelError::Output(error) if error.is_wrong_use() => Failure::usage(error),
            error => Failure::runtime(error),
        }
    }
}

/// Loads the teachers. Without `named` classes, those of the first teacher are used.
fn labeller(
    args: &LabelArgs,
    named: Option<Vec<Label>>,
    options: LabelOptions,
) -> Result<(Labeller, Vec<Label>), Failure> {
    let models: Vec<LoadedModel> =
        args.teachers.iter().cloned().map(LoadedModel::load).collect::<Result<_, _>>().map_err(Failure::runtime)?;
    let classes = match (named, models.first()) {
        (Some(classes), _) => classes,
        (None, Some(model)) => model.labels().to_vec(),
        (None, None) => return Err(Failure::usage("--teacher: pass at least one model")),
    };
    // All wrong class maps are reported together.
    let (mut teachers, mut problems) = (Vec::new(), Vec::new());
    for model in models {
        match model.teacher(&classes) {
            Ok(teacher) => teachers.push(teacher),
            Err(error) => problems.push(error.to_string()),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::usage(problems.join("\n")));
    }
    Ok((Labeller::new(teachers, classes.clone(), options), classes))
}

/// What was done, and the pixels of the masks.
struct Totals {
    /// Pixels by class.
    pixels: Vec<u64>,
    void: u64,
    seen: u64,
    made: usize,
    corrected: usize,
    skipped: Vec<String>,
    /// The images with a mask, with the share of void; `None` if the mask cannot be read as it is.
    files: Vec<(LabelledPaths, Option<f64>)>,
}

/// An image and its mask.
struct LabelledPaths {
    name: String,
    image: PathBuf,
    mask: PathBuf,
}

impl Totals {
    fn new(classes: usize) -> Self {
        Totals { pixels: vec![0; classes], void: 0, seen: 0, made: 0, corrected: 0, skipped: vec![], files: vec![] }
    }

    fn add(&mut self, file: LabelledFile, meter: &ProgressMeter) {
        self.seen += 1;
        let mask = match file.result {
            ImageResult::Labelled(mask) => {
                self.made += 1;
                Some(mask)
            }
            ImageResult::Kept(by_people) => {
                self.corrected += usize::from(by_people);
                read_mask(&file.mask_path).map(|(_, _, mask)| mask)
            }
            ImageResult::Skipped(why) => {
                meter.line(&format!("skipped: {why}"));
                self.skipped.push(why.to_string());
                return;
            }
        };
        let share = mask.map(|mask| {
            let mut counts = [0u64; 256];
            mask.iter().for_each(|&label| counts[usize::from(label)] += 1);
            self.pixels.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            let void = counts[usize::from(VOID)];
            self.void += void;
            void as f64 / mask.len().max(1) as f64
        });
        self.files.push((LabelledPaths { name: file.name, image: file.image_path, mask: file.mask_path }, share));
    }

    /// Share of the pixels that are void, 0 to 1.
    fn void_share(&self) -> f64 {
        let all = self.void + self.pixels.iter().sum::<u64>();
        self.void as f64 / all.max(1) as f64
    }

    /// The shares of the classes in the pixels that are not void.
    fn shares(&self) -> Vec<f64> {
        let all = self.pixels.iter().sum::<u64>().max(1);
        self.pixels.iter().map(|&count| count as f64 / all as f64).collect()
    }

    /// The images with the least, median and most void.
    fn pictures(&self, classes: &[Label]) -> Result<Vec<ProposalFacts>, ReportError> {
        let scores: Vec<Option<f64>> = self.files.iter().map(|(_, void)| void.map(|void| 1.0 - void)).collect();
        let mut pictures = Vec::new();
        for (rank, index) in choose(&scores, SHOWN) {
            let LabelledPaths { name, image, mask } = &self.files[index].0;
            let source = BareImage { name: name.clone(), path: image.clone() };
            // A mask that a person has saved in another size is not shown.
            if let (Ok(pixels), Some((width, height, labels))) = (source.read(), read_mask(mask))
                && (pixels.width, pixels.height) == (width, height)
            {
                let labelled = LabelledImage { width, height, rgb: pixels.rgb, labels };
                pictures.push(ProposalFacts::new(name.as_str(), rank, &labelled, classes)?);
            }
        }
        Ok(pictures)
    }
}

fn print_results(report: &LabelReport, totals: &Totals, folder: &Path, page: &Path) {
    let width = report.classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max(5);
    println!("{:width$}  share of the pixels that are not void", "class");
    for class in &report.classes {
        println!("{:width$}  {:5.1} %", class.name, 100.0 * class.share.unwrap_or(0.0));
    }
    let kept = totals.files.len() - totals.made - totals.corrected;
    println!(
        "{} masks made, {kept} kept from earlier runs, {} edited masks kept; {:.1} % void",
        totals.made,
        totals.corrected,
        100.0 * report.void_share
    );
    println!("report: {}", page.display());
    println!("train with it: maskcast-train fit {}", folder.display());
}
