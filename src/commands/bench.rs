//! `maskcast bench`: compares the throughput of the pipeline with the limit of the machine.
//!
//! Each round measures decoding alone, the model alone (all workers), encoding alone, and the whole pipeline, so that the load
//! of other programs affects all of them. If the workers run `B` frames a second on all `C` cores, and decoding and encoding
//! cost `d` and `e` seconds of CPU time for each frame, then a frame takes `1/B + (d + e)/C` seconds of the whole machine, and
//! the inverse is the limit of the throughput.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::job::{self, SegmentJob};
use super::{Failure, ModelArgs, flicker, gate, write_json};
use crate::base::status::Status;
use crate::base::stop::Stop;
use crate::base::timing::Stage;
use crate::capture::{Captured, GstSource, Source};
use crate::config::{Config, CropArea, EncodeConfig, OverlayConfig, SourceSpec, SourceUri, TestSource, TileGrid};
use crate::frame::Pixels;
use crate::publish::file::FileOutput;
use crate::publish::{CaptureTime, Output};
use crate::redact::ClearedFrame;
use crate::segment::onnx::Model;
use crate::segment::tuning::{self, ThreadPlan, TuningGoal};

#[derive(Clone, Debug, Args)]
pub struct BenchArgs {
    /// A configuration: the model of its first stream is used, and its first file source as the clip.
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub model: ModelArgs,
    /// The clip to run [default: the first file source of the configuration, or a 960x540 test pattern, H.264].
    #[arg(long, value_name = "FILE")]
    pub input: Option<PathBuf>,
    /// Measure the flicker of the masks of this clip instead: the share of pixels whose class differs from that of the same point
    /// in the previous mask, for each value of `smooth`.
    #[arg(long, value_name = "CLIP", conflicts_with_all = ["input", "rounds"])]
    pub flicker: Option<PathBuf>,
    /// Measure the motion gate (`stream.gate`) on these clips instead: how many runs of the model it saves, and whether masks and
    /// events differ from those of a model that runs for every frame.
    #[arg(long, value_name = "CLIP", num_args = 1.., conflicts_with_all = ["input", "rounds", "flicker"])]
    pub gate: Vec<PathBuf>,
    /// Number of rounds, of which the median is taken.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Also write the result to this JSON file.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Number of frames of the test pattern.
const TEST_FRAMES: u64 = 150;

/// Number of decoded frames that are kept for encoding alone.
const KEPT: usize = 32;

/// Time for which the model alone is measured in each round.
const MODEL_TIME: Duration = Duration::from_secs(2);

/// The measurements of one round.
#[derive(Clone, Copy)]
struct Round {
    /// Frames a second of the model alone, all workers together.
    model_fps: f64,
    /// Seconds of CPU time for each frame.
    decode: f64,
    /// Seconds of CPU time for each frame.
    encode: f64,
    pipeline_fps: f64,
}

impl Round {
    /// The limit of the throughput on `cores` cores, in frames a second.
    fn limit(&self, cores: f64) -> f64 {
        1.0 / (1.0 / self.model_fps + (self.decode + self.encode) / cores)
    }
}

/// Measures, prints the results, and writes them as JSON.
///
/// # Errors
/// The clip or the model cannot be run, or the JSON file cannot be written.
pub fn bench(args: &BenchArgs) -> Result<(), Failure> {
    let config = args.config.as_deref().map(super::load_config).transpose()?;
    let of_first_stream =
        |config: &Config| config.streams.first().and_then(|stream| config.model(&stream.model)).cloned();
    let settings = match config.as_ref().and_then(of_first_stream) {
        Some(settings) => settings,
        None => args.model.config()?,
    };
    let model = Arc::new(Model::load(&settings, tuning::default_threads(&settings, TuningGoal::Throughput))?);
    if let Some(clip) = &args.flicker {
        let result = flicker::measure(clip, &model)?;
        result.print();
        let result = serde_json::to_value(result).map_err(Failure::runtime)?;
        return args.json.as_deref().map_or(Ok(()), |path| write_json(path, &result));
    }
    if !args.gate.is_empty() {
        let result = gate::measure(&args.gate, &model)?;
        return args.json.as_deref().map_or(Ok(()), |path| write_json(path, &result));
    }
    let plan = tuning::default_plan(&model, TuningGoal::Throughput);
    let folder = tempfile::Builder::new()
        .prefix("maskcast-bench-")
        .tempdir()
        .map_err(|error| Failure::runtime(format!("cannot create a temporary folder: {error}")))?;
    let configured = config.iter().flat_map(|config| &config.streams).find_map(|stream| match &stream.source.uri {
        SourceUri::File(path) => Some(path.clone()),
        _ => None,
    });
    let (clip, name) = match args.input.clone().or(configured) {
        Some(clip) => (clip.clone(), clip.display().to_string()),
        None => (test_clip(folder.path())?, "test pattern 960x540".to_string()),
    };
    let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    eprintln!(
        "{name}; {} on {}; {} workers of {} threads; {cores} cores",
        model.name(),
        model.provider.name(),
        plan.workers,
        plan.threads
    );
    let mut rounds = Vec::new();
    for n in 1..=args.rounds {
        let round = measure(&model, plan, &clip, folder.path())?;
        eprintln!(
            "round {n}: model alone {:.1}/s, decode {:.2} ms, encode {:.2} ms, pipeline {:.1}/s = {:.1} % of the limit",
            round.model_fps,
            round.decode * 1e3,
            round.encode * 1e3,
            round.pipeline_fps,
            100.0 * round.pipeline_fps / round.limit(cores)
        );
        rounds.push(round);
    }
    let median = |value: &dyn Fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let model_fps = median(&|round| round.model_fps);
    let pipeline_fps = median(&|round| round.pipeline_fps);
    let limit_fps = median(&|round| round.limit(cores));
    // The ratio is taken within a round, because both values have the same load of other programs.
    let share = median(&|round| round.pipeline_fps / round.limit(cores));
    println!("model alone     {model_fps:8.1} frames a second");
    println!("limit           {limit_fps:8.1} frames a second (model, decode and encode alone)");
    println!("whole pipeline  {pipeline_fps:8.1} frames a second");
    println!("share of limit  {:8.1} %", share * 100.0);
    println!("share of model  {:8.1} %", median(&|round| round.pipeline_fps / round.model_fps) * 100.0);
    if let Some(path) = &args.json {
        let value = json!({
            "clip": name,
            "model": model.name(),
            "provider": model.provider.name(),
            "workers": plan.workers,
            "threads": plan.threads,
            "cores": cores,
            "rounds": args.rounds,
            "model_fps": model_fps,
            "decode_ms": median(&|round| round.decode) * 1e3,
            "encode_ms": median(&|round| round.encode) * 1e3,
            "limit_fps": limit_fps,
            "pipeline_fps": pipeline_fps,
            "share_of_limit": share,
            "share_of_model": median(&|round| round.pipeline_fps / round.model_fps),
        });
        write_json(path, &value)?;
    }
    Ok(())
}

fn measure(model: &Arc<Model>, plan: ThreadPlan, clip: &Path, folder: &Path) -> Result<Round, Failure> {
    let (decode, kept) = decode_alone(clip)?;
    let model_fps = tuning::measure(model, plan, MODEL_TIME).map_err(Failure::runtime)?.fps;
    let encode = encode_alone(&kept, folder)?;
    drop(kept);
    let job = SegmentJob {
        model,
        plan,
        source: file_source(clip),
        crop: CropArea::default(),
        tiles: TileGrid::default(),
        output: folder.join("pipeline.mp4"),
        overlay: OverlayConfig::default(),
        encode: EncodeConfig::default(),
        on_mask: None,
    };
    let done = job::run(job, &Stop::default(), |_| {})?;
    let pipeline_fps = done.status.ledger.counts().published as f64 / done.elapsed.as_secs_f64();
    Ok(Round { model_fps, decode, encode, pipeline_fps })
}

/// A source that reads `clip` once, as fast as possible.
fn file_source(clip: &Path) -> SourceSpec {
    let mut spec = SourceSpec::new(SourceUri::File(clip.to_path_buf()));
    (spec.real_time, spec.looped) = (false, false);
    spec
}

/// Seconds of CPU time for each frame of decoding alone, and the first [`KEPT`] frames.
fn decode_alone(clip: &Path) -> Result<(f64, Vec<Arc<dyn Pixels>>), Failure> {
    let located = |error: &dyn std::fmt::Display| Failure::runtime(format!("{}: {error}", clip.display()));
    let mut capture = GstSource::new(file_source(clip)).open().map_err(|error| located(&error))?;
    let (mut cpu, mut frames, mut kept) = (Duration::ZERO, 0_u32, Vec::new());
    loop {
        match capture.next(Duration::from_secs(10)).map_err(|error| located(&error))? {
            Captured::Frame(frame) => {
                cpu += frame.decode.cpu;
                frames += 1;
                if kept.len() < KEPT {
                    // Copied, because the decoder needs its buffers back.
                    kept.push(Arc::new(crate::frame::OwnedImage::copy_of(&frame.pixels.image())) as Arc<dyn Pixels>);
                }
            }
            Captured::Silence | Captured::NoKeyframe(_) => return Err(located(&"no frame for 10 s")),
            Captured::End if frames == 0 => return Err(located(&"the file has no frames that can be decoded")),
            Captured::End => return Ok((cpu.as_secs_f64() / f64::from(frames), kept)),
        }
    }
}

/// Seconds of CPU time for each frame of encoding alone, with the settings of `segment`.
fn encode_alone(kept: &[Arc<dyn Pixels>], folder: &Path) -> Result<f64, Failure> {
    let status = Arc::new(Status::quiet("encode"));
    let mut output = FileOutput::new(folder.join("encode.mp4"), EncodeConfig::default(), Arc::clone(&status))
        .map_err(Failure::runtime)?;
    let frames = kept.iter().chain(kept.iter().rev()).cycle().take(4 * KEPT);
    for (n, pixels) in frames.enumerate() {
        let image = pixels.image();
        let time = CaptureTime { pts: Duration::from_millis(40 * n as u64), captured_at: Instant::now(), slate: false };
        output
            .publish(time, image.info, &mut |target| target.copy(&ClearedFrame::unredacted(image)))
            .map_err(Failure::runtime)?;
    }
    output.finish().map_err(Failure::runtime)?;
    let summary = status.stage(Stage::Encode).summary();
    Ok(summary.cpu.as_secs_f64() / summary.count.max(1) as f64)
}

/// Encodes a test pattern as a clip.
fn test_clip(folder: &Path) -> Result<PathBuf, Failure> {
    let path = folder.join("clip.mp4");
    let test = TestSource { pattern: "smpte".into(), width: 960, height: 540, fps: 25, frames: Some(TEST_FRAMES) };
    let mut spec = SourceSpec::new(SourceUri::Test(test));
    spec.real_time = false;
    let mut capture = GstSource::new(spec).open().map_err(Failure::runtime)?;
    let status = Arc::new(Status::quiet("clip"));
    let mut output = FileOutput::new(path.clone(), EncodeConfig::default(), status).map_err(Failure::runtime)?;
    while let Captured::Frame(frame) = capture.next(Duration::from_secs(10)).map_err(Failure::runtime)? {
        let image = frame.pixels.image();
        let time = CaptureTime { pts: frame.pts, captured_at: frame.captured_at, slate: false };
        output
            .publish(time, image.info, &mut |target| target.copy(&ClearedFrame::unredacted(image)))
            .map_err(Failure::runtime)?;
    }
    output.finish().map_err(Failure::runtime)?;
    Ok(path)
}
