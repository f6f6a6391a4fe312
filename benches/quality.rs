//! The picture of a live stream at the RTSP client, compared with what was drawn: `cargo bench --bench quality -- CLIP…`.
//!
//! Each clip is played like a camera: decoded, segmented, drawn, encoded once and served by RTSP over TCP, in this process.
//! An output in front of the encoder keeps the drawn frames, and a sink behind it the access units, so that a frame of the
//! client is compared with exactly the one that was drawn for it. SSIM is ffmpeg's value of all planes. The delay is that from
//! the drawn frame to the access unit at the client; encode is CPU time. The rows `0.15 bit/pixel` are the settings that were
//! the default before, constant bitrate with x264's `ultrafast` as it is.

#[path = "../tests/common/mod.rs"]
mod common;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;

use common::picture::{RawFrames, mean_and_worst};
use maskcast::base::status::Status;
use maskcast::base::timing::Stage;
use maskcast::capture::GstSource;
use maskcast::config::{EncodeConfig, ModelConfig, Provider, SourceSpec, defaults_stream};
use maskcast::frame::{OwnedImage, PixelFormat, Pixels, VideoInfo};
use maskcast::overlay::OutputImage;
use maskcast::publish::frame_sink::{FrameSink, FrameSinkResult};
use maskcast::publish::live::LiveOutput;
use maskcast::publish::outputs::StreamOutputs;
use maskcast::publish::rtsp::RtspServer;
use maskcast::publish::{CaptureTime, Output, OutputError, Paint, PublishOutcome};
use maskcast::redact::ClearedFrame;
use maskcast::segment::onnx::Model;
use maskcast::segment::pool::Pool;
use maskcast::stream::overlay_state::OverlayState;
use maskcast::stream::{Pace, Stream, StreamParts};

/// Measures the quality, the bitrate and the delay of live streams, and prints them as a table
#[derive(Parser)]
struct Arguments {
    /// Video files [default: the clip of `make demo`]
    clips: Vec<PathBuf>,
    /// The model that draws the masks
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/models/street.onnx"))]
    model: PathBuf,
    /// The most seconds of each clip
    #[arg(long, default_value_t = 20.0)]
    seconds: f64,
    /// Only the default settings
    #[arg(long)]
    only_default: bool,
    /// Keep the drawn frames, the H.264 of the client and the SSIM of each frame in this folder
    #[arg(long)]
    keep: Option<PathBuf>,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

const DEMO_CLIP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.demo/vtest.avi");

fn main() -> Result<()> {
    let mut arguments = Arguments::parse();
    if arguments.clips.is_empty() {
        ensure!(Path::new(DEMO_CLIP).exists(), "give a clip, or run `make demo` first, which downloads one");
        arguments.clips.push(DEMO_CLIP.into());
    }
    let settings = ModelConfig { providers: vec![Provider::Cpu], ..ModelConfig::with_path(arguments.model.clone()) };
    let model = Arc::new(Model::load(&settings, 1)?);
    println!(
        "| clip | size | fps | settings | SSIM mean | worst frame | kbit/s | limit | encode ms | delay ms: median | 95 % | longest |\n\
         | --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for clip in &arguments.clips {
        let mut settings = vec![("default", None)];
        if !arguments.only_default {
            settings.insert(0, ("0.15 bit/pixel", Some(0.15)));
        }
        for (name, bits) in settings {
            let row = measure(clip, name, bits, &model, &arguments).with_context(|| clip.display().to_string())?;
            println!("{row}");
        }
    }
    Ok(())
}

/// What was drawn and encoded.
#[derive(Default)]
struct Tap {
    info: Option<VideoInfo>,
    /// When each frame was given to the encoder.
    drawn_at: Vec<Instant>,
    /// The number of each access unit, by its end: the client may get other parameter sets before it.
    units: HashMap<Vec<u8>, usize>,
}

/// The part of an access unit that identifies it. Slice headers contain the number of the frame.
fn end_of(unit: &[u8]) -> Vec<u8> {
    unit[unit.len().saturating_sub(512)..].to_vec()
}

/// Keeps the drawn frames that `inner` encodes.
struct TappedOutput {
    inner: LiveOutput,
    tap: Arc<Mutex<Tap>>,
    raw: Arc<Mutex<Option<RawFrames>>>,
    path: PathBuf,
    /// The most frames.
    limit: Duration,
    first: Option<Duration>,
    drawn: Option<OwnedImage>,
    /// Bits per pixel of a constant bitrate; known when the size is.
    status: Arc<Status>,
    outputs: StreamOutputs,
    bits_per_pixel: Option<f64>,
}

impl Output for TappedOutput {
    fn wanted(&mut self) -> bool {
        self.inner.wanted()
    }

    fn publish(
        &mut self,
        time: CaptureTime,
        info: VideoInfo,
        paint: &mut Paint<'_>,
    ) -> Result<PublishOutcome, OutputError> {
        if let Some(bits) = self.bits_per_pixel.take() {
            let fps = f64::from(info.fps.0) / f64::from(info.fps.1);
            let bitrate = ((info.width * info.height) as f64 * fps * bits / 1000.0) as u32;
            let config = EncodeConfig { bitrate, preset: "ultrafast".into(), ..EncodeConfig::default() };
            self.inner = LiveOutput::new(config, Arc::clone(&self.status), self.outputs.clone());
        }
        let first = *self.first.get_or_insert(time.pts);
        if time.slate || time.pts.saturating_sub(first) > self.limit {
            return Ok(PublishOutcome::Busy);
        }
        let drawn = self.drawn.get_or_insert_with(|| OwnedImage::new(info, 0));
        paint(&mut OutputImage::new(&mut drawn.image_mut()));
        let at = Instant::now();
        let outcome =
            self.inner.publish(time, info, &mut |target| target.copy(&ClearedFrame::unredacted(drawn.image())))?;
        if outcome == PublishOutcome::Encoding {
            let mut tap = self.tap.lock().unwrap();
            tap.drawn_at.push(at);
            tap.info = Some(info);
            // The encoder's thread does not wait for the disk.
            drop(tap);
            let path = self.path.clone();
            self.raw.lock().unwrap().get_or_insert_with(|| RawFrames::create(path, info)).append(&drawn.image());
        }
        Ok(outcome)
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        self.inner.finish()
    }
}

/// Numbers the access units. It is the first sink, so that the encoder starts with it.
struct Counter(Arc<Mutex<Tap>>, usize);

impl FrameSink for Counter {
    fn push(&mut self, sample: &gst::Sample, _: bool) -> FrameSinkResult {
        let Some(unit) = sample.buffer().and_then(|buffer| buffer.map_readable().ok()) else {
            return FrameSinkResult::Ended;
        };
        self.0.lock().unwrap().units.insert(end_of(&unit), self.1);
        self.1 += 1;
        FrameSinkResult::Taken
    }
}

/// The access units that a client received, with the times of their arrival.
type Units = Arc<Mutex<Vec<(Instant, Vec<u8>)>>>;

/// An RTSP client that keeps access units and when they arrived.
struct Client {
    pipeline: gst::Pipeline,
    units: Units,
}

impl Client {
    fn start(url: &str) -> Result<Client> {
        let description = format!(
            "rtspsrc location={url} protocols=tcp latency=0 ! rtph264depay ! \
             video/x-h264,stream-format=byte-stream,alignment=au ! appsink name=sink sync=false"
        );
        let Ok(pipeline) = gst::parse::launch(&description)?.downcast::<gst::Pipeline>() else {
            bail!("not a pipeline")
        };
        let sink = pipeline.by_name("sink").and_then(|sink| sink.downcast::<gst_app::AppSink>().ok());
        let units: Units = Arc::default();
        let received = Arc::clone(&units);
        let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
            let at = Instant::now();
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
            let bytes = buffer.map_readable().map_err(|_| gst::FlowError::Error)?.to_vec();
            received.lock().unwrap().push((at, bytes));
            Ok(gst::FlowSuccess::Ok)
        });
        sink.context("the client has no sink")?.set_callbacks(callbacks.build());
        pipeline.set_state(gst::State::Playing)?;
        Ok(Client { pipeline, units })
    }

    /// The access units from the first keyframe on.
    fn finish(self) -> Result<Vec<(Instant, Vec<u8>)>> {
        self.pipeline.set_state(gst::State::Null)?;
        let mut units = std::mem::take(&mut *self.units.lock().unwrap());
        // NAL unit type 7: the parameter sets before a keyframe (ITU-T H.264, table 7-1).
        let has_parameters = |unit: &[u8]| unit.windows(4).any(|bytes| bytes[..3] == [0, 0, 1] && bytes[3] & 31 == 7);
        let start = units.iter().position(|(_, unit)| has_parameters(unit)).context("the client got no keyframe")?;
        Ok(units.split_off(start))
    }
}

/// Plays a clip; returns a row of the table. `bits`: bits per pixel of a constant bitrate, or the default settings.
fn measure(clip: &Path, name: &str, bits: Option<f64>, model: &Arc<Model>, arguments: &Arguments) -> Result<String> {
    let temporary = tempfile::tempdir()?;
    let clip_name = clip.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let folder = match &arguments.keep {
        Some(folder) => folder.join(format!("{clip_name}-{}", name.replace(['/', ' '], "-"))),
        None => temporary.path().to_owned(),
    };
    std::fs::create_dir_all(&folder)?;
    let server = RtspServer::start("127.0.0.1:0".parse()?)?;
    let (outputs, status) = (StreamOutputs::default(), Arc::new(Status::quiet("clip")));
    server.add("clip", Arc::clone(&outputs.h264));
    let tap: Arc<Mutex<Tap>> = Arc::default();
    outputs.h264.add(Box::new(Counter(Arc::clone(&tap), 0)));
    let raw: Arc<Mutex<Option<RawFrames>>> = Arc::default();
    let client = Client::start(&format!("rtsp://{}/clip", server.address()))?;
    let source = SourceSpec::parse(&clip.canonicalize()?.to_string_lossy(), Path::new("/"))
        .map_err(|error| anyhow::anyhow!("{error:?}"))?;
    let config = defaults_stream("clip", source);
    let maker = Arc::clone(model);
    let pool = Pool::start(1, 1, Box::new(move || maker.segmenter(1).map(|segmenter| Box::new(segmenter) as Box<_>)))?;
    let limit = Duration::from_secs_f64(arguments.seconds);
    let output = TappedOutput {
        inner: LiveOutput::new(config.encode.clone(), Arc::clone(&status), outputs.clone()),
        tap: Arc::clone(&tap),
        raw: Arc::clone(&raw),
        path: folder.join("drawn.yuv"),
        limit,
        first: None,
        drawn: None,
        status: Arc::clone(&status),
        outputs,
        bits_per_pixel: bits,
    };
    let parts = StreamParts {
        source: Box::new(GstSource::new(config.source.clone())),
        model_share: Arc::default(),
        overlay_state: Arc::new(OverlayState::new(config.overlay.clone())),
        config,
        pace: Pace::Live,
        output: Box::new(output),
        status: Arc::clone(&status),
        zones: Arc::default(),
        mask_sinks: Vec::new(),
        tap: None,
    };
    let stream = Stream::start(parts, &pool)?;
    let started = Instant::now();
    let tick = crossbeam_channel::tick(Duration::from_millis(50));
    let mut bitrate_limit = 0;
    while !stream.is_finished() && started.elapsed() < limit + Duration::from_secs(2) {
        tick.recv()?;
        if let Some(encode) = status.encode.running() {
            bitrate_limit = encode.rate_control.limit();
        }
    }
    stream.stop();
    stream.join()?;
    let received = client.finish()?;
    let tap = tap.lock().unwrap();
    let (raw, info) = raw.lock().unwrap().take().zip(tap.info).context("no frame was drawn")?;
    let drawn = raw.finish();
    let number = |unit: &[u8]| tap.units.get(&end_of(unit)).copied().context("an access unit that was not encoded");
    let first = number(&received[0].1)?;
    let mut delays = Vec::new();
    for (n, (at, unit)) in received.iter().enumerate() {
        ensure!(number(unit)? == first + n, "the client lost access units after {}", first + n);
        delays.push((*at - tap.drawn_at[first + n]).as_secs_f64() * 1e3);
    }
    let encoded = folder.join("received.h264");
    let bytes: Vec<u8> = received.iter().flat_map(|(_, unit)| unit).copied().collect();
    std::fs::write(&encoded, &bytes)?;
    let values = drawn.ssim(&encoded, first);
    ensure!(values.len() == received.len(), "{} frames, {} compared", received.len(), values.len());
    let (mean, worst) = mean_and_worst(&values);
    delays.sort_by(f64::total_cmp);
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share).round() as usize];
    let encode = status.stage(Stage::Encode).summary();
    let fps = f64::from(info.fps.0) / f64::from(info.fps.1);
    let format = if info.format == PixelFormat::I420 { "" } else { " NV12" };
    Ok(format!(
        "| {clip_name} | {}x{}{format} | {fps:.1} | {name} | {mean:.4} | {worst:.4} | {:.0} | {bitrate_limit} | {:.2} | {:.1} | {:.1} | {:.1} |",
        info.width,
        info.height,
        bytes.len() as f64 * 8.0 / 1000.0 / (received.len() as f64 / fps),
        encode.cpu.as_secs_f64() * 1e3 / encode.count.max(1) as f64,
        at(0.5),
        at(0.95),
        at(1.0),
    ))
}
