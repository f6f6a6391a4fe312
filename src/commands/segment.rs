//! `maskcast segment`: reads a video file and writes it with masks.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::job::{self, Done, SegmentJob};
use super::run::stop_on_signals;
use super::{Failure, ModelArgs, class_weight, write_json};
use crate::base::atomic_file::put_in_place;
use crate::base::status::Status;
use crate::base::timing::Stage;
use crate::config::{
    CropArea, EncodeConfig, Legend, OverlayConfig, PRESETS, Smooth, SourceSpec, SourceUri, Style, TileGrid,
};
use crate::frame::Weight;
use crate::overlay::{Overlay, UnknownLabels};
use crate::segment::golden::encode_png;
use crate::segment::onnx::Model;
use crate::segment::tuning::{ThreadPlan, TuningGoal, default_plan, default_threads};
use crate::sink::{MaskSink, SinkError, StreamMask};

#[derive(Clone, Debug, Args)]
pub struct SegmentArgs {
    /// A video file, or its URL (file://, http://, test://PATTERN?frames=N).
    pub input: String,
    /// The file to write: .mp4 or .mkv, H.264. It is created when it is complete.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    #[command(flatten)]
    pub model: ModelArgs,
    /// The part of each frame that the model gets, as fractions of its width and height. The rest of the frame has no mask; the video
    /// is not cropped. Width and height are at least 0.25.
    #[arg(long, default_value = "0,0,1,1", value_name = "X,Y,WIDTH,HEIGHT", value_parser = CropArea::parse)]
    pub crop: CropArea,
    /// Columns and rows of tiles into which each frame, or its crop, is divided for the model, to see small objects: 1x1 to 4x4.
    #[arg(long, default_value = "1x1", value_name = "COLUMNSxROWS", value_parser = TileGrid::parse)]
    pub tiles: TileGrid,
    /// How masks are drawn.
    #[arg(long, value_enum, default_value = "tint")]
    pub style: StyleArg,
    /// Opacity of the tint, 0 to 1.
    #[arg(long, default_value_t = 0.45, value_parser = parse_alpha)]
    pub alpha: f32,
    /// Smooth masks over time, so that they do not flicker. --mask-dir and the report use the unsmoothed masks.
    #[arg(long, value_enum, default_value = "normal", value_name = "STRENGTH")]
    pub smooth: SmoothArg,
    /// Classes that are not drawn, separated by commas; `--hide=` draws all. [default: background, other, void,
    /// unlabeled].
    #[arg(long, value_delimiter = ',', value_name = "LABELS")]
    pub hide: Option<Vec<String>>,
    /// How strongly classes are drawn, instead of the weights of the model, as in `sky=0.1,person=1`: factors of the opacity
    /// from 0 (not drawn) to 1.
    #[arg(long, value_delimiter = ',', value_name = "LABEL=WEIGHT", value_parser = class_weight)]
    pub weights: Vec<(String, Weight)>,
    /// The classes that the legend lists.
    #[arg(long, value_enum, default_value = "visible")]
    pub legend: LegendArg,
    /// Do not draw the legend: the same as `--legend off`.
    #[arg(long, conflicts_with = "legend")]
    pub no_legend: bool,
    /// Write counts, times and class shares to this JSON file.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Write each mask to this folder, as an 8-bit grey PNG of class indices.
    #[arg(long, value_name = "DIR")]
    pub mask_dir: Option<PathBuf>,
    /// Size of these masks: that of the frame, or of the output of the model (larger with --crop or --tiles).
    #[arg(long, value_enum, default_value = "frame")]
    pub mask_size: MaskSize,
    /// Speed preset of x264.
    #[arg(long, default_value = "ultrafast", value_parser = clap::builder::PossibleValuesParser::new(PRESETS))]
    pub preset: String,
    /// Bit rate in kbit/s; 0 = constant quality.
    #[arg(long, default_value_t = 0, value_name = "KBITS")]
    pub bitrate: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StyleArg {
    Tint,
    Contour,
    MaskOnly,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LegendArg {
    /// The drawn classes that are in the frame.
    Visible,
    /// All drawn classes.
    All,
    /// No legend.
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SmoothArg {
    Off,
    Light,
    Normal,
    Strong,
}

impl From<SmoothArg> for Smooth {
    fn from(arg: SmoothArg) -> Self {
        match arg {
            SmoothArg::Off => Smooth::Off,
            SmoothArg::Light => Smooth::Light,
            SmoothArg::Normal => Smooth::Normal,
            SmoothArg::Strong => Smooth::Strong,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MaskSize {
    Frame,
    Model,
}

fn parse_alpha(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(alpha) if (0.0..=1.0).contains(&alpha) => Ok(alpha),
        _ => Err("give a number from 0 (invisible) to 1 (opaque)".into()),
    }
}

/// Segments a file.
///
/// # Errors
/// The input cannot be read, the model cannot be run, or the output cannot be written. An existing output file stays
/// unchanged.
pub fn segment(args: &SegmentArgs) -> Result<(), Failure> {
    let source = source(&args.input)?;
    // The label does not contain the password.
    let input = source.label();
    let temporary = check_output(&args.output, &source)?;
    let config = args.model.config()?;
    let model = Arc::new(Model::load(&config, default_threads(&config, TuningGoal::Throughput))?);
    let overlay = OverlayConfig {
        style: match args.style {
            StyleArg::Tint => Style::Tint,
            StyleArg::Contour => Style::Contour,
            StyleArg::MaskOnly => Style::MaskOnly,
        },
        alpha: args.alpha,
        smooth: args.smooth.into(),
        hide: args.hide.as_ref().map(|names| names.iter().filter(|name| !name.is_empty()).cloned().collect()),
        legend: match args.legend {
            _ if args.no_legend => Legend::Off,
            LegendArg::Visible => Legend::Visible,
            LegendArg::All => Legend::All,
            LegendArg::Off => Legend::Off,
        },
        weights: args.weights.clone(),
        ..OverlayConfig::default()
    };
    Overlay::new(&overlay, &model.contract.labels).map_err(|unknown| unknown_labels(&unknown))?;
    let on_mask = args.mask_dir.as_ref().map(|dir| mask_writer(dir, args.mask_size)).transpose()?;
    let plan = default_plan(&model, TuningGoal::Throughput);
    let stop = stop_on_signals()?;
    let bar = progress_bar();
    let job = SegmentJob {
        model: &model,
        plan,
        source,
        crop: args.crop,
        tiles: args.tiles,
        output: temporary.clone(),
        overlay,
        encode: EncodeConfig { preset: args.preset.clone(), bitrate: args.bitrate, ..EncodeConfig::default() },
        on_mask,
    };
    let done = job::run(job, &stop, |status| show_progress(&bar, status));
    bar.finish_and_clear();
    let done = done.inspect_err(|_| remove_empty(&temporary))?;
    let counts = done.status.ledger.counts();
    if counts.published == 0 {
        remove_empty(&temporary);
        return Err(Failure::runtime(format!("{input}: the file has no frames that can be decoded")));
    }
    put_in_place(&temporary, &args.output)
        .map_err(|error| Failure::runtime(format!("{}: {error}", args.output.display())))?;
    if let Some(path) = &args.report {
        write_json(path, &report(args, &input, &model, plan, &done))?;
    }
    let seconds = done.elapsed.as_secs_f64();
    eprintln!(
        "{}: {} frames in {seconds:.1} s, {:.1} frames a second, {} on {}",
        args.output.display(),
        counts.published,
        counts.published as f64 / seconds,
        model.name(),
        model.provider.name()
    );
    if let Some(missing) = done.status.condition().shortfall {
        tracing::warn!(
            "the input ends early, at {:.1} s of {:.1} s (after {} frames), and may be incomplete: {input}",
            missing.reached.as_secs_f64(),
            missing.length.as_secs_f64(),
            counts.captured()
        );
    }
    if done.stopped {
        return Err(Failure::runtime("stopped before the end of the input; the output has the frames before the stop"));
    }
    Ok(())
}

/// The error with the options instead of the keys of the configuration.
fn unknown_labels(unknown: &UnknownLabels) -> Failure {
    let options = unknown.unknown.iter().map(|label| format!("--{}: {}", label.key, label.problem()));
    Failure::usage(format!("{}; its classes are {}", options.collect::<Vec<_>>().join("; "), unknown.known.join(", ")))
}

/// The source of the input, which is read as fast as possible.
fn source(input: &str) -> Result<SourceSpec, Failure> {
    let here = std::env::current_dir()
        .map_err(|error| Failure::runtime(format!("cannot determine the current folder: {error}")))?;
    let mut spec = SourceSpec::from_argument(input, &here).map_err(|(problem, help)| {
        let help = help.map_or_else(String::new, |help| format!(" ({help})"));
        // Any part of a URL may contain a password or a token.
        let is_local = input.starts_with("file:") || input.starts_with("test:");
        let is_address = input.contains("://") && !is_local;
        let shown = if is_address || input.contains(['@', '=']) { "the input" } else { input };
        let message = format!("{shown}: {problem}{help}");
        // A missing file is a failure at run time, an invalid URL is a wrong use.
        if input.contains("://") && !input.starts_with("file:") {
            Failure::usage(message)
        } else {
            Failure::runtime(message)
        }
    })?;
    let has_end = match &spec.uri {
        SourceUri::File(_) | SourceUri::Http(_) | SourceUri::Gst(_) => true,
        SourceUri::Test(test) => test.frames.is_some(),
        _ => false,
    };
    if !has_end {
        return Err(Failure::usage(format!(
            "{}: `segment` reads inputs that have an end: a file, the http URL of a file, or test://…?frames=N; `run` is for cameras",
            spec.label()
        )));
    }
    (spec.real_time, spec.looped) = (false, false);
    Ok(spec)
}

/// Checks that the output can be written and is not the input. Returns the name under which it is written until it is complete.
fn check_output(output: &Path, source: &SourceSpec) -> Result<PathBuf, Failure> {
    let shown = output.display();
    let extension = output.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    let Some(extension @ ("mp4" | "m4v" | "mov" | "mkv")) = extension.as_deref() else {
        return Err(Failure::usage(format!("{shown}: the output's name must end in .mp4 or .mkv")));
    };
    if output.is_dir() {
        return Err(Failure::usage(format!("{shown}: is a folder; give the name of a file")));
    }
    let folder = match output.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Failure::runtime(format!("{shown}: the folder {} does not exist", folder.display())));
    }
    if let (SourceUri::File(input), Ok(output)) = (&source.uri, output.canonicalize())
        && input.canonicalize().is_ok_and(|input| input == output)
    {
        return Err(Failure::usage(format!("{shown}: is the input; give another file")));
    }
    Ok(output.with_extension(format!("part.{extension}")))
}

/// Removes an unfinished file without frames. One with frames is kept.
fn remove_empty(path: &Path) {
    if std::fs::metadata(path).is_ok_and(|file| file.len() < 1024) && std::fs::remove_file(path).is_err() {
        tracing::debug!("cannot remove the unfinished file {}", path.display());
    }
}

/// Writes masks as `000000.png`, `000001.png`, …, numbered like the frames.
fn mask_writer(dir: &Path, size: MaskSize) -> Result<Box<dyn MaskSink>, Failure> {
    std::fs::create_dir_all(dir).map_err(|error| Failure::runtime(format!("{}: {error}", dir.display())))?;
    let dir = dir.to_path_buf();
    Ok(Box::new(move |StreamMask { mask, video, .. }: &StreamMask| {
        let path = dir.join(format!("{:06}.png", mask.seq));
        let (width, height, data) = match size {
            MaskSize::Frame => (video.width, video.height, &mask.resized(video.width, video.height)),
            MaskSize::Model => (mask.width, mask.height, &mask.classes),
        };
        let bytes = encode_png(data, width as u32, height as u32, png::ColorType::Grayscale);
        let written = bytes.map_err(std::io::Error::from).and_then(|bytes| std::fs::write(&path, bytes));
        written.map_err(|source| SinkError::File { path, source })
    }))
}

fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{spinner} {pos} frames {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::no_length().with_style(style)
}

fn show_progress(bar: &ProgressBar, status: &Status) {
    if bar.length().is_none()
        && let Some(frames) = status.condition().expected_frames
    {
        bar.set_length(frames);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos}/{len} frames {msg} {eta} left") {
            bar.set_style(style);
        }
    }
    bar.set_position(status.ledger.counts().published);
    bar.set_message(format!("{:.1}/s", status.rate().0));
}

/// The report; docs/segment.md describes its fields.
fn report(args: &SegmentArgs, input: &str, model: &Model, plan: ThreadPlan, done: &Done) -> serde_json::Value {
    let counts = done.status.ledger.counts();
    let dropped: serde_json::Map<_, _> =
        counts.reasons().map(|(reason, count)| (reason.name().to_string(), count.into())).collect();
    let millis = |time: std::time::Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let stages: serde_json::Map<_, _> = Stage::ALL
        .into_iter()
        .map(|stage| {
            let summary = done.status.stage(stage).summary();
            let value = json!({
                "p50": millis(summary.p50),
                "p99": millis(summary.p99),
                "total_cpu": millis(summary.cpu),
                "count": summary.count,
            });
            (stage.name().to_string(), value)
        })
        .collect();
    let pixels: u64 = done.class_pixels.iter().sum();
    let classes: serde_json::Map<_, _> = model
        .contract
        .labels
        .iter()
        .zip(done.class_pixels.iter())
        .map(|(label, &count)| (label.name.clone(), json!(count as f64 / pixels.max(1) as f64)))
        .collect();
    let seconds = done.elapsed.as_secs_f64();
    let condition = done.status.condition();
    json!({
        "input": input,
        "output": args.output,
        "complete": !done.stopped && condition.shortfall.is_none(),
        "frames_in": counts.captured(),
        "frames_out": counts.published,
        "dropped": dropped,
        "seconds": seconds,
        "fps": counts.published as f64 / seconds,
        "width": condition.first_info.map(|info| info.width),
        "height": condition.first_info.map(|info| info.height),
        "provider": model.provider.name(),
        "requested": model.requested().name(),
        "model": model.name(),
        "workers": plan.workers,
        "threads": plan.threads,
        "stage_ms": stages,
        "classes": classes,
    })
}
