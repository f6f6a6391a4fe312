//! `maskcast-train reference`: describes the images of a data set in a model file, so that the service finds out whether a camera is
//! unlike them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use clap::Args;
use maskcast::commands::Failure;
use maskcast::drift::features::Features;
use maskcast::drift::reference::Reference;
use maskcast::frame::{Crop, Frame, Tiles};

use super::leak::as_frame;
use super::notes::print_notes;
use crate::data::{DataArgs, Dataset, Pair};
use crate::device::set_threads;
use crate::export::ExistingModel;
use crate::exported::ExportedModel;
use crate::fit::progress::ProgressMeter;

/// More images do not change the distributions.
const MOST_IMAGES: usize = 500;

#[derive(Debug, Args)]
#[command(after_help = "Example: maskcast-train reference model.onnx my-data -o model.onnx\n\n\
    fit and export do this for the models that they write.")]
pub struct ReferenceArgs {
    /// A model file that maskcast-train exported
    model: PathBuf,
    #[command(flatten)]
    data: DataArgs,
    /// The ONNX file to write; it may be the same
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Number of threads; 0: one per core
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

/// Describes the training images in a model file.
///
/// # Errors
/// The data set or the model cannot be read, or the file cannot be written.
pub fn reference(args: &ReferenceArgs) -> Result<(), Failure> {
    let dataset = Arc::new(args.data.open().map_err(Failure::runtime)?);
    print_notes(&dataset.notes);
    let reference = measure(&args.model, &dataset, set_threads(args.threads))?;
    let bytes = put(&reference, &args.model, &args.output)?;
    println!("{}: {bytes} bytes, describes {} images", args.output.display(), reference.images);
    Ok(())
}

/// Describes the training images of a data set in model files. The masks are those of the first file, because the files are the same
/// model.
///
/// # Errors
/// The model cannot be run on the images, or a file cannot be written.
pub fn describe(files: &[&Path], dataset: &Arc<Dataset>, threads: usize) -> Result<(), Failure> {
    let Some(first) = files.first() else { return Ok(()) };
    let reference = measure(first, dataset, threads)?;
    files.iter().try_for_each(|file| put(&reference, file, file).map(drop))
}

/// Writes the model file `from` with a description to `to`. Returns the size of the file in bytes.
fn put(reference: &Reference, from: &Path, to: &Path) -> Result<u64, Failure> {
    let text = serde_json::to_string(reference).map_err(Failure::runtime)?;
    let mut file = ExistingModel::read(from).map_err(Failure::runtime)?;
    file.set_reference(text);
    file.write(to).map_err(Failure::runtime)
}

/// Runs a model on the training images of a data set.
fn measure(model: &Path, dataset: &Arc<Dataset>, threads: usize) -> Result<Reference, Failure> {
    let mut model = ExportedModel::load(model, &dataset.classes, threads).map_err(Failure::runtime)?;
    let pairs: Vec<&Pair> = spread(&dataset.train).collect();
    let mut meter = ProgressMeter::new("describe", 0, pairs.len() as u64);
    let mut features = Vec::with_capacity(pairs.len());
    for (seq, pair) in pairs.into_iter().enumerate() {
        let image = dataset.read(pair).map_err(Failure::runtime)?;
        let pixels = as_frame(&image).map_err(|error| Failure::runtime(format!("{}: {error}", pair.name)))?;
        let frame = Frame {
            stream: "reference".into(),
            seq: seq as u64,
            pts: std::time::Duration::ZERO,
            captured_at: Instant::now(),
            pixels: Arc::new(pixels),
            bias: None,
            gate: None,
            crop: Crop::default(),
            tiles: Tiles::default(),
        };
        let mask = model.mask(&frame).map_err(Failure::runtime)?;
        features.extend(Features::of(&mask));
        meter.show(features.len() as u64, String::new);
    }
    drop(meter);
    Reference::of(&features)
        .ok_or_else(|| Failure::runtime(format!("{}: the data set has no training images", dataset.root.display())))
}

/// At most [`MOST_IMAGES`], with equal distances.
fn spread(pairs: &[Pair]) -> impl Iterator<Item = &Pair> {
    pairs.iter().step_by(pairs.len().div_ceil(MOST_IMAGES).max(1))
}
