//! `maskcast-train data`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use maskcast::commands::Failure;
use maskcast::frame::Label;

use super::notes::print_notes;
use crate::data::cli::CheckArgs;
use crate::data::exchange::{self, ExchangeError, ExchangeFormat, ImportOptions};
use crate::data::{Dataset, Format, LabelOrientation, OpenOptions};

/// The subcommands of `maskcast-train data`.
#[derive(Debug, Subcommand)]
pub enum DataCommand {
    /// Check a data set before training: sizes, class shares, images without a label, unknown colours, damaged files,
    /// images in both train and val
    #[command(after_help = "Example: maskcast-train data check my-data --json > check.json\n\n\
        Exit code 1: the data set has errors and cannot be used for training.")]
    Check(CheckArgs),
    /// Write a data set for an annotation program, in which people correct the masks
    #[command(after_help = "Examples:\n  \
        maskcast-train label frames -o proposals --teacher models/street.onnx\n  \
        maskcast-train data export proposals --format cvat -o for-cvat\n  \
        maskcast-train data export proposals --format label-studio -o for-label-studio\n\n\
        Masks are exact, and void pixels have no annotation. The folder must be new.")]
    Export(ExportArgs),
    /// Make a data set of the annotations that an annotation program has exported
    #[command(after_help = "Examples:\n  \
        maskcast-train data import cvat-export --format cvat --classes proposals -o corrected\n  \
        maskcast-train data import project-1.json --format label-studio --classes proposals -o corrected\n\n\
        Pixels without an annotation are void, and images without an annotation are left out. The folder must be new.")]
    Import(ImportArgs),
}

/// `maskcast-train data export`
#[derive(Args, Clone, Debug)]
pub struct ExportArgs {
    /// The data set's folder, in any layout that `data check` accepts; also the folder of `maskcast-train label`
    #[arg(value_name = "DATASET")]
    data: PathBuf,
    /// The annotation program's format
    #[arg(long, value_enum)]
    format: ExchangeFormat,
    /// The new folder for images and annotations
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Layout of the data set; detected if not given
    #[arg(long, value_enum, value_name = "LAYOUT")]
    layout: Option<Format>,
    /// Classes, one per line, instead of the data set's own file, as for `data check`
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// Names or numbers of void classes, instead of void, ignore, unlabeled; `none` excludes no class
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    void: Vec<String>,
    /// Orientation of the labels of images that are rotated or mirrored by their EXIF data
    #[arg(long, value_enum, value_name = "HOW", default_value_t)]
    label_orientation: LabelOrientation,
}

/// `maskcast-train data import`
#[derive(Args, Clone, Debug)]
pub struct ImportArgs {
    /// The export: the unpacked folder (CVAT, COCO), or the JSON file (COCO, Label Studio)
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The annotation program's format
    #[arg(long, value_enum)]
    format: ExchangeFormat,
    /// The new folder for images, masks and classes
    #[arg(short, long, value_name = "DATASET")]
    output: PathBuf,
    /// The data set that was exported, or a class file: its classes and their numbers are kept, and its images are used if the
    /// export has none [default: the classes of the export, in its order]
    #[arg(long, value_name = "DATASET|FILE")]
    classes: Option<PathBuf>,
    /// Folder with the images, if the export has none
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Classes of the export whose pixels are void, in addition to void, ignore, unlabeled
    #[arg(long, value_name = "CLASS", value_delimiter = ',')]
    void: Vec<String>,
    /// The class of pixels and images without an annotation, such as `background` [default: void]
    #[arg(long, value_name = "CLASS")]
    unlabelled: Option<String>,
    /// Leave out images of Label Studio that have only predictions, which no person has corrected
    #[arg(long)]
    annotated_only: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// If the data set cannot be opened, or has errors.
pub fn data(command: &DataCommand) -> Result<(), Failure> {
    match command {
        DataCommand::Check(args) => check(args),
        DataCommand::Export(args) => export(args),
        DataCommand::Import(args) => import(args),
    }
}

fn check(args: &CheckArgs) -> Result<(), Failure> {
    let report = args.run().map_err(Failure::runtime)?;
    match report.errors {
        0 => Ok(()),
        1 => Err(Failure::runtime("the data set cannot be used for training: 1 error, listed above")),
        errors => {
            Err(Failure::runtime(format!("the data set cannot be used for training: {errors} errors, listed above")))
        }
    }
}

fn export(args: &ExportArgs) -> Result<(), Failure> {
    let options = OpenOptions {
        format: args.layout,
        classes: args.classes.clone(),
        void: (!args.void.is_empty()).then(|| args.void.iter().map(|name| name.trim().to_owned()).collect()),
        label_orientation: args.label_orientation,
        ..OpenOptions::default()
    };
    let dataset = Dataset::open(&args.data, &options).map_err(Failure::runtime)?;
    print_notes(&dataset.notes);
    let summary = exchange::export(&dataset, args.format, &args.output)?;
    println!(
        "{} images with {} exported to {}; {:.1} % of the pixels are void",
        summary.images,
        class_names(&summary.classes),
        summary.folder.display(),
        100.0 * summary.void_share
    );
    let next = match args.format {
        ExchangeFormat::Cvat => {
            "next: make a task with the labels of labels.json and the images of JPEGImages, then upload the other files as zip \
             (\"Segmentation mask 1.1\")"
        }
        ExchangeFormat::Coco => "next: import the JSON files in annotations/ and the images in images/",
        ExchangeFormat::LabelStudio => {
            "next: make a project with config.xml, serve images/ as local files, and import tasks.json"
        }
    };
    println!("{next}; docs/training.md has the steps");
    Ok(())
}

fn import(args: &ImportArgs) -> Result<(), Failure> {
    let options = ImportOptions {
        classes: args.classes.clone(),
        images: args.images.clone(),
        void: args.void.iter().map(|name| name.trim().to_owned()).collect(),
        unlabelled: args.unlabelled.clone(),
        annotated_only: args.annotated_only,
    };
    let summary = exchange::import(&args.input, args.format, &args.output, &options)?;
    print_notes(&summary.notes);
    let all = (summary.void + summary.pixels.iter().sum::<u64>()).max(1) as f64;
    let width = summary.classes.iter().map(|label| label.name.chars().count()).max().unwrap_or(0).max(5);
    println!("{:width$}  share of the pixels", "class");
    for (label, &pixels) in summary.classes.iter().zip(&summary.pixels) {
        println!("{:width$}  {:5.1} %", label.name, 100.0 * pixels as f64 / all);
    }
    println!("{:width$}  {:5.1} %", "void", 100.0 * summary.void as f64 / all);
    println!("{} images imported to {}", summary.images, summary.folder.display());
    println!("train with it: maskcast-train fit {}", summary.folder.display());
    Ok(())
}

/// The number of classes, and their names if they are few.
fn class_names(classes: &[Label]) -> String {
    let names: Vec<&str> = classes.iter().map(|label| label.name.as_str()).collect();
    match names.len() {
        count @ ..=8 => format!("{count} classes ({})", names.join(", ")),
        count => format!("{count} classes"),
    }
}

impl From<ExchangeError> for Failure {
    fn from(error: ExchangeError) -> Self {
        if error.is_wrong_use() { Failure::usage(error) } else { Failure::runtime(error) }
    }
}
