//! The end of a run: scores, model files and the report.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use maskcast::commands::Failure;

use super::export::{ExportPlan, ExportedFiles, export_files};
use super::reference::describe;
use crate::assess::{Assessment, assess};
use crate::data::Dataset;
use crate::evaluate::LibtorchPredictor;
use crate::exported::ExportedModel;
use crate::fit::progress::{ProgressMeter, duration_text};
use crate::fit::session::Session;
use crate::fit::{adapt, plan};
use crate::metrics::{Scores, SizeScores};
use crate::report::{ClassFacts, DatasetFacts, Environment, Machine, Report, ReportFiles, Speed, Training, shell_line};
use crate::weights::ModelFile;

/// The results of a finished run.
pub struct FinishedRun {
    pub scores: Scores,
    pub exported_files: ExportedFiles,
    pub written: ReportFiles,
    pub speed: Vec<Speed>,
}

impl FinishedRun {
    /// Measures the best weights, exports them, measures the speed of the files, and writes the report.
    ///
    /// # Errors
    /// The first failure; files that were written before are kept.
    pub fn of(session: &Session) -> Result<Self, Failure> {
        let file = session.best()?;
        let dataset = &session.dataset;
        let options = &session.config.fit;
        let threads = options.machine.loader_threads.max(1);
        let net = &session.net;
        let params = file.params.to_device(session.device());
        let mut predictor = LibtorchPredictor {
            net,
            params: &params,
            input: options.net.input,
            device: session.device(),
            precision: tch::Kind::Float,
            confidence: true,
        };
        let mut meter = ProgressMeter::new("validate", 0, dataset.val.len() as u64);
        let mut done = 0;
        let tick = || {
            done += 1;
            meter.show(done, String::new);
        };
        let assessment = assess(&mut predictor, dataset, &dataset.val, threads, &[], tick).map_err(Failure::runtime)?;
        drop(meter);

        let train = training(session);
        let provenance = provenance(session, &train, &assessment);
        // The weights are written again with their scores in the metadata.
        let mut description = file.description.clone();
        description.train = provenance.clone();
        let file = ModelFile { description, params: file.params };
        file.write(&session.folder.join(crate::fit::session::BEST)).map_err(Failure::runtime)?;

        let steps = session.config.adapt.as_ref().map(|model| model.steps.clone());
        let max_loss = adapt::accepted_int8_loss(&session.state.progress);
        let plan = ExportPlan { int8: true, steps, max_loss, ..ExportPlan::default() };
        let exported_files = export_files(&file, dataset, &session.folder.join("model.onnx"), &plan)?;
        let others = exported_files.files.iter().map(|file| file.path.as_path());
        let main = exported_files.main.as_path();
        let files: Vec<&Path> = std::iter::once(main).chain(others.filter(|path| *path != main)).collect();
        describe(&files, dataset, threads)?;
        let speed = speeds(&exported_files, dataset)?;
        let report = Report {
            title: format!("{} on {}", session.about.encoder, file_name(&dataset.root)),
            model: Some(file_name(&exported_files.main)),
            training: Some(train),
            dataset: dataset_facts(dataset, &assessment, Some(&session.shares)),
            environment: environment(&session.config.command, session.state.progress.history.seconds()),
            scores: assessment.scores.clone(),
            confusion: assessment.confusion,
            calibration: assessment.calibration,
            sizes: assessment.sizes,
            history: session.state.progress.history.clone(),
            images: assessment.images,
            speed: speed.clone(),
        };
        let written = report.write(&session.folder).map_err(Failure::runtime)?;
        Ok(FinishedRun { scores: assessment.scores, exported_files, written, speed })
    }
}

/// Prints scores, speed and the paths of the files.
pub fn print_results(finished: &FinishedRun, folder: &Path) {
    print!("{}", score_table(&finished.scores));
    for speed in &finished.speed {
        let miou = speed.miou.map_or(String::new(), |miou| format!(", val mIoU {miou:.4}"));
        println!("{} ({}): {:.0} ms per image on one core{miou}", speed.model, speed.precision, speed.median_ms);
    }
    if let Some(reason) = &finished.exported_files.int8_refused {
        println!("no int8 model: {reason}");
    }
    println!("report: {}", finished.written.html.display());
    println!("try it: maskcast segment VIDEO --model {} -o masks.mp4", finished.exported_files.main.display());
    println!("TensorBoard: tensorboard --logdir {}", folder.display());
}

/// The scores as a table for a terminal.
pub fn score_table(scores: &Scores) -> String {
    let number = |value: Option<f64>| value.map_or("     -".into(), |value| format!("{value:6.4}"));
    let mut text = String::new();
    let width = scores.classes.iter().map(|class| class.name.chars().count()).max().unwrap_or(0).max(5);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{:width$}     IoU  precision  recall  boundary F1  share", "class");
    for class in &scores.classes {
        let _ = writeln!(
            text,
            "{:width$}  {}     {}  {}       {}  {:4.1} %",
            class.name,
            number(class.iou),
            number(class.precision),
            number(class.recall),
            number(class.boundary_f1),
            100.0 * class.share,
        );
    }
    let _ = writeln!(
        text,
        "mIoU {}, pixel accuracy {}, class accuracy {}, boundary F1 {}",
        number(scores.miou),
        number(scores.pixel_accuracy),
        number(scores.class_accuracy),
        number(scores.boundary_f1),
    );
    text
}

/// The recall of objects by height as a table for a terminal.
pub fn size_table(scores: &SizeScores, input: &str) -> String {
    let share = |value: Option<f64>| value.map_or("     -".into(), |value| format!("{:5.1} %", 100.0 * value));
    let heading = format!("height of {} at {input}", scores.class);
    let width = heading.chars().count().max(12);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{heading:width$}  objects    found  recall of pixels  mean of objects");
    for range in &scores.ranges {
        let _ = writeln!(
            text,
            "{:width$}  {:7}  {:>7}           {:>7}          {:>7}",
            range.heights(),
            range.objects,
            share(range.found),
            share(range.recall),
            share(range.object_recall),
        );
    }
    text
}

/// The facts about a data set for a report. `shares` are the shares of the classes in the training pixels.
pub fn dataset_facts(dataset: &Dataset, assessment: &Assessment, shares: Option<&[f64]>) -> DatasetFacts {
    let classes = dataset.classes.iter().enumerate();
    DatasetFacts {
        name: file_name(&dataset.root),
        train_images: dataset.train.len(),
        val_images: dataset.val.len(),
        size: assessment.size,
        void_share: assessment.void_share,
        classes: classes.map(|(index, label)| ClassFacts::new(label, shares.map(|shares| shares[index]))).collect(),
    }
}

/// The command, the machine and the time for a report. The run began `seconds` ago.
pub fn environment(command: &[String], seconds: f64) -> Environment {
    let versions = [("maskcast", env!("CARGO_PKG_VERSION")), ("libtorch", "2.13.0")];
    let started = jiff::Timestamp::now() - jiff::SignedDuration::from_secs(seconds as i64);
    // Without the path of the program, which is specific to this machine.
    let words = std::iter::once("maskcast-train").chain(command.iter().skip(1).map(String::as_str));
    Environment {
        command: shell_line(words),
        versions: versions.into_iter().map(|(name, version)| (name.to_owned(), version.to_owned())).collect(),
        machine: Machine::detect(),
        started: started.strftime("%FT%TZ").to_string(),
        seconds,
    }
}

/// How the model was trained, for a report.
pub fn training(session: &Session) -> Training {
    let options = &session.config.fit;
    let (decoder, input, crop) = (options.net.decoder(), options.net.input, options.crop());
    let widths: Vec<String> = decoder.widths.iter().map(i64::to_string).collect();
    let phases = plan::phases(options);
    let settings = serde_json::to_value(options).unwrap_or_default();
    let mut flat = BTreeMap::new();
    flatten("", &settings, &mut flat);
    Training {
        encoder: session.about.encoder.to_string(),
        decoder: format!("{} {}", value_name(&decoder.kind), widths.join("-")),
        strategy: value_name(&options.strategy),
        weights: session.state.progress.origin.clone(),
        phases: phases.iter().map(|phase| (phase.name.to_owned(), (phase.to - phase.from) as u32)).collect(),
        batch: options.batch as u32,
        crop: (crop.width as u32, crop.height as u32),
        seed: options.seed,
        parameters: session.state.params.count(&session.net) as u64,
        multiply_adds: session.net.multiply_adds(input.height as i64, input.width as i64) as u64,
        settings: flat,
    }
}

/// The description of the initial weights, which begins with a path and a colon, with the name of the file only.
fn without_path(weights: &str) -> String {
    match weights.split_once(": ") {
        Some((path, report)) => format!("{}: {report}", file_name(Path::new(path))),
        None => weights.to_owned(),
    }
}

/// The metadata `maskcast.train` of the exported model: its origin and its scores.
fn provenance(session: &Session, training: &Training, assessment: &Assessment) -> serde_json::Value {
    let epochs = session.state.progress.history.0.len();
    // Models are published: their metadata must not contain folders of this machine.
    let without_folders: Vec<String> = session.config.command.iter().map(|word| without_folder(word)).collect();
    let command = environment(&without_folders, 0.0).command;
    let mut train = serde_json::json!({
        "encoder": training.encoder,
        "decoder": training.decoder,
        "strategy": training.strategy,
        "weights": without_path(&training.weights),
        "data": {
            "name": file_name(&session.dataset.root),
            "train": session.dataset.train.len(),
            "val": session.dataset.val.len(),
        },
        "epochs": epochs,
        "seed": training.seed,
        "command": command,
        "version": env!("CARGO_PKG_VERSION"),
        "metrics": {
            "input": session.config.fit.net.input.to_string(),
            "miou": assessment.scores.miou,
            "pixel_accuracy": assessment.scores.pixel_accuracy,
            "boundary_f1": assessment.scores.boundary_f1,
        },
    });
    if let Some(model) = &session.config.adapt {
        let before = session.state.progress.before.as_ref().and_then(|before| before.miou);
        train["parent"] = serde_json::json!({"file": model.name, "sha256": model.sha256, "miou": before});
    }
    train
}

/// Removes the folders from a word of a command line that is an absolute path, or an option with one (`--init=/a/b`).
/// Other words are returned unchanged.
fn without_folder(word: &str) -> String {
    let (option, value) = match word.split_once('=') {
        Some((option, value)) if option.starts_with("--") => (format!("{option}="), value),
        _ => (String::new(), word),
    };
    let path = Path::new(value);
    if path.is_absolute() { option + &file_name(path) } else { word.to_owned() }
}

/// Measures the speed of each file with one thread.
fn speeds(exported_files: &ExportedFiles, dataset: &Dataset) -> Result<Vec<Speed>, Failure> {
    let mut speeds = Vec::new();
    for file in &exported_files.files {
        let mut model = ExportedModel::load(&file.path, &dataset.classes, 1).map_err(Failure::runtime)?;
        speeds.push(model.speed(file.precision, file.miou).map_err(Failure::runtime)?);
    }
    Ok(speeds)
}

/// The name of an option's value on the command line.
fn value_name(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Adds nested options to `into` under names such as `loss.dice`.
fn flatten(prefix: &str, value: &serde_json::Value, into: &mut BTreeMap<String, String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                let name = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                flatten(&name, field, into);
            }
        }
        serde_json::Value::Null => {}
        serde_json::Value::String(text) => {
            into.insert(prefix.to_owned(), text.clone());
        }
        value => {
            into.insert(prefix.to_owned(), value.to_string());
        }
    }
}

/// The name of a file or folder without its parent folders.
pub fn file_name(path: &Path) -> String {
    let path: PathBuf = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// Formats a duration in seconds.
pub fn duration(seconds: f64) -> String {
    duration_text(Duration::from_secs_f64(seconds.max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::{without_folder, without_path};

    #[test]
    fn the_description_of_initial_weights_has_no_folder() {
        assert_eq!(without_path("/home/a/runs/x/best.safetensors: took 3 tensors"), "best.safetensors: took 3 tensors");
        assert_eq!(without_path("random"), "random");
    }

    #[test]
    fn folders_are_removed_from_the_command_in_the_metadata() {
        let words = ["fit", "/data/street", "runs/a", "--init=/home/b/c.safetensors", "--crop=64x64", "/"];
        let expected = ["fit", "street", "runs/a", "--init=c.safetensors", "--crop=64x64", "/"];
        assert_eq!(words.map(without_folder), expected);
    }
}
