//! `maskcast-train compare`: trains with several strategies and encoders, with the same data, epochs and seeds.

use std::path::{Path, PathBuf};

use clap::Args;
use maskcast::base::stop::Stop;
use maskcast::commands::Failure;
use maskcast::commands::run::stop_on_signals;

use super::finish::{duration, environment, file_name};
use crate::data::DataArgs;
use crate::encoders::Encoder;
use crate::fit::checkpoint;
use crate::fit::config::{FitOptions, RunConfig, Strategy};
use crate::fit::run::RunEnd;
use crate::fit::session::Session;
use crate::report::{CompareEntry, CompareReport, CompareRun};

#[derive(Debug, Args)]
#[command(after_help = "Example: does pretraining help?\n  \
    maskcast-train compare my-data -o runs/compare --epochs 12 --input 256x160 \\\n    \
    --strategies scratch,frozen,finetune,freeze-then-finetune --seeds 0,1\n\n\
    Each run has its own folder. A comparison that was stopped continues when the same command is run again.")]
pub struct CompareArgs {
    #[command(flatten)]
    data: DataArgs,
    /// Folder for the runs and the report
    #[arg(short, long, value_name = "FOLDER")]
    output: PathBuf,
    /// Strategies to compare [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STRATEGY,…", help_heading = "Comparison")]
    strategies: Vec<Strategy>,
    /// Encoders to compare [default: --encoder]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "ENCODER,…", help_heading = "Comparison")]
    encoders: Vec<Encoder>,
    /// Seeds of the runs of each strategy; the table shows mean and spread
    #[arg(long, value_delimiter = ',', default_value = "0", value_name = "N,…", help_heading = "Comparison")]
    seeds: Vec<u64>,
    /// Compare also with fine-tuning this trained U-Net (`best.safetensors` of a run)
    #[arg(long, value_name = "MODEL", help_heading = "Comparison")]
    from_model: Option<PathBuf>,
    #[command(flatten)]
    options: FitOptions,
}

/// One row of the table.
struct Candidate {
    label: String,
    options: FitOptions,
}

/// Trains all candidates and writes the report.
///
/// # Errors
/// The first failure; finished runs are kept.
pub fn compare(args: CompareArgs) -> Result<(), Failure> {
    let candidates = candidates(&args)?;
    let stop = stop_on_signals()?;
    let total = candidates.len() * args.seeds.len();
    let mut entries = Vec::new();
    let mut started = 0;
    for candidate in &candidates {
        let mut entry = CompareEntry {
            strategy: candidate.label.clone(),
            encoder: candidate.options.net.encoder.to_string(),
            weights: String::new(),
            runs: Vec::new(),
        };
        for &seed in &args.seeds {
            started += 1;
            eprintln!("run {started} of {total}: {} with {}, seed {seed}", entry.strategy, entry.encoder);
            let options = FitOptions { seed, ..candidate.options.clone() };
            let config = RunConfig::new(args.data.clone(), options);
            let folder = args.output.join(format!("{}-{}-{seed}", entry.encoder, entry.strategy.replace(' ', "-")));
            let Some((weights, run)) = train(config, &folder, seed, &stop)? else {
                return Err(Failure::runtime("stopped; run the same command again to continue"));
            };
            entry.weights = weights;
            entry.runs.push(run);
        }
        entries.push(entry);
        // Written after each entry, because a comparison takes hours.
        let report = report(&args, entries.clone());
        report.write(&args.output).map_err(Failure::runtime)?;
    }
    let report = report(&args, entries);
    let written = report.write(&args.output).map_err(Failure::runtime)?;
    print!("{}", table(&report));
    println!("{}", written.html.display());
    Ok(())
}

fn candidates(args: &CompareArgs) -> Result<Vec<Candidate>, Failure> {
    let all = [Strategy::Scratch, Strategy::Frozen, Strategy::Finetune, Strategy::FreezeThenFinetune];
    let strategies = if args.strategies.is_empty() { all.to_vec() } else { args.strategies.clone() };
    let encoders = if args.encoders.is_empty() { vec![args.options.net.encoder] } else { args.encoders.clone() };
    if args.options.net.weights.is_some() && encoders.len() > 1 {
        return Err(Failure::usage("--weights is a file of one encoder; compare several encoders without it"));
    }
    let mut candidates = Vec::new();
    for &encoder in &encoders {
        for &strategy in &strategies {
            let mut options = args.options.clone();
            options.net.encoder = encoder;
            options.strategy = strategy;
            if strategy == Strategy::Scratch {
                options.net.weights = None;
            }
            let label = serde_json::to_value(strategy).ok().and_then(|value| value.as_str().map(str::to_owned));
            candidates.push(Candidate { label: label.unwrap_or_default(), options });
        }
    }
    if let Some(path) = &args.from_model {
        let mut options = args.options.clone();
        options.net.init = Some(path.clone());
        options.net.weights = None;
        options.strategy = Strategy::Finetune;
        candidates.push(Candidate { label: "from a U-Net".into(), options });
    }
    let problems: Vec<String> = candidates.iter().flat_map(|candidate| candidate.options.problems()).collect();
    match problems.first() {
        Some(_) => Err(Failure::usage(problems.join("\n"))),
        None => Ok(candidates),
    }
}

/// Starts or resumes a run and trains to the end. Returns the origin of its first weights and its result; `None` if it was
/// stopped.
fn train(config: RunConfig, folder: &Path, seed: u64, stop: &Stop) -> Result<Option<(String, CompareRun)>, Failure> {
    let mut session = if folder.join(checkpoint::FILE).exists() {
        let session = Session::resume(folder, false)?;
        if session.config.fit.without_machine() != config.fit.without_machine() {
            let folder = folder.display();
            return Err(Failure::usage(format!(
                "{folder} has a run of a comparison with other options: pass another folder with -o"
            )));
        }
        session
    } else {
        Session::start(config, folder)?
    };
    if session.train(stop)? == RunEnd::Stopped {
        return Ok(None);
    }
    let progress = &session.state.progress;
    let run = CompareRun {
        seed,
        miou: progress.best.map(|(miou, _)| miou),
        seconds: progress.history.seconds(),
        history: progress.history.clone(),
    };
    Ok(Some((progress.origin.clone(), run)))
}

fn report(args: &CompareArgs, entries: Vec<CompareEntry>) -> CompareReport {
    let options = &args.options;
    let words: Vec<String> = std::env::args().collect();
    let seconds = entries.iter().flat_map(|entry| &entry.runs).map(|run| run.seconds).sum();
    CompareReport {
        title: format!("How to train a U-Net on {}", file_name(&args.data.data)),
        dataset: file_name(&args.data.data),
        budget: format!(
            "{} epochs, batches of {} crops of {}, model input {}, {} seeds",
            options.epochs,
            options.batch,
            options.crop(),
            options.net.input,
            args.seeds.len(),
        ),
        environment: environment(&words, seconds),
        entries,
    }
}

/// The table as Markdown, best first.
fn table(report: &CompareReport) -> String {
    let mut text =
        String::from("| strategy | encoder | val mIoU | spread | time of a run |\n| --- | --- | --- | --- | --- |\n");
    for entry in report.ranked() {
        let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.4}"));
        text += &format!(
            "| {} | {} | {} | {} | {} |\n",
            entry.strategy,
            entry.encoder,
            number(entry.mean()),
            number(entry.spread()),
            duration(entry.seconds()),
        );
    }
    text
}
