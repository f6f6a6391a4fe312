//! From the camera to the screen: `make delay`.
//!
//! A test camera (RTSP, H.264, 640×360, 15 frames a second) draws a number on each frame and keeps its capture time. The
//! service runs the bundled model; headless Chromium reads the number from the displayed frame, by WebRTC and as MJPEG.
//! Both times are from the clock of this machine. The delay includes the camera's encoder, the connection to it (RTSP over
//! TCP; packets in order pass the jitter buffer of `stream.latency` without waiting), decoding, drawing, encoding, the
//! browser's decoder, and its wait for the next screen refresh (60 Hz). Frames of a full-rate stream do not wait for the
//! model; it only uses CPU time.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../../tests/faulty_camera/mod.rs"]
mod faulty_camera;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Parser;
use serde::Deserialize;
use serde_json::{Value, json};

use common::browser::Browser;
use common::http::get_json;
use common::service::Service;
use faulty_camera::Camera;

/// Measures the delay from the camera to the browser's screen, and prints it as a table
#[derive(Parser)]
struct Arguments {
    /// Duration of the measurement of each transport, seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// `latency` of the stream: the jitter buffer of the connection to the camera
    #[arg(long, default_value = "100ms")]
    latency: String,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// Time at the start that is not measured: the connection is made, and the jitter buffer adapts.
const SETTLING: Duration = Duration::from_secs(5);

const CAMERA: &str = "name = \"gate\"\nsize = [640, 360]\nfps = 15\ncolor = \"blue\"\n";

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let camera = Camera::start(&toml::from_str(CAMERA)?)?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("maskcast.toml");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/models/everyday.onnx");
    let text = format!(
        "[model]\npath = {model:?}\nproviders = [\"cpu\"]\n[server]\nhttp = \"127.0.0.1:0\"\nrtsp = \"127.0.0.1:0\"\n\
         [[stream]]\nname = \"gate\"\nsource = \"{}\"\nlatency = \"{}\"\noverlay = {{ legend = false }}\n",
        camera.url(),
        arguments.latency
    );
    std::fs::write(&config, text)?;
    let mut service = Service::run(&config, &[]);
    service.program.wait_for_message("ready");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let watched = Duration::from_secs(arguments.seconds);
    println!(
        "| transport | first frame after | frames | median | 95 % | longest |\n| --- | ---: | ---: | ---: | ---: | ---: |"
    );
    for (transport, name) in [("whep", "WebRTC"), ("mjpeg", "MJPEG")] {
        let watched = runtime.block_on(measure(&service, transport, watched))?;
        let delays = delays(&camera, &watched.seen)?;
        let at = |share: f64| delays[((delays.len() - 1) as f64 * share).round() as usize];
        println!(
            "| {name} | {:.0} ms | {} | {:.0} ms | {:.0} ms | {:.0} ms |",
            watched.first_ms,
            delays.len(),
            at(0.5),
            at(0.95),
            at(1.0)
        );
    }
    print_conditions(&service)
}

/// The measurement of the browser.
#[derive(Deserialize)]
struct Measurement {
    /// Frame numbers, and the time at which each one was first displayed, milliseconds since 1970.
    seen: Vec<(u16, f64)>,
    /// Number of frames that could not be read.
    unread: usize,
    /// Time from the start of the player to the first frame, milliseconds.
    first_ms: f64,
}

async fn measure(service: &Service, transport: &str, watched: Duration) -> Result<Measurement> {
    let browser = Browser::start().await;
    browser.client.goto(&format!("{}healthz", service.page)).await?;
    browser.client.execute(include_str!("read.js"), vec![json!(transport), json!("gate")]).await?;
    let first = "const { seen, error } = window.reading; if (error) throw new Error(error); return seen.length > 0;";
    browser.until("the first frame", first).await;
    tokio::time::sleep(SETTLING).await;
    browser.run("window.reading.seen = []; window.reading.unread = 0; return true;").await;
    tokio::time::sleep(watched).await;
    let answer = "const { seen, unread, first_ms } = window.reading; return { seen, unread, first_ms };";
    let watched: Measurement = serde_json::from_value(browser.run(answer).await)?;
    if watched.unread > watched.seen.len() / 20 {
        bail!("{} frames could not be read, {} could", watched.unread, watched.seen.len());
    }
    Ok(watched)
}

/// The delays in milliseconds, sorted.
fn delays(camera: &Camera, seen: &[(u16, f64)]) -> Result<Vec<f64>> {
    let (instant, clock) = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH)?);
    let delay = |&(number, at): &(u16, f64)| {
        let captured = camera.captured_at(number).context("the camera has not captured a frame with this number")?;
        Ok(at - (clock - instant.duration_since(captured)).as_secs_f64() * 1e3)
    };
    let mut delays = seen.iter().map(delay).collect::<Result<Vec<f64>>>()?;
    if delays.is_empty() {
        bail!("no frame was displayed");
    }
    delays.sort_by(f64::total_cmp);
    Ok(delays)
}

/// Prints the conditions of the measurement.
fn print_conditions(service: &Service) -> Result<()> {
    let model: Value = get_json(&format!("{}api/v1/model", service.page));
    let stream = service.stream("gate");
    let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or(": unknown")
        .trim_start_matches([' ', '\t', ':']);
    let cores = std::thread::available_parallelism()?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load: Vec<&str> = load.split(' ').take(2).collect();
    println!(
        "\n640×360, 15 frames a second; the model takes {} ms a frame ({}); the service publishes {} frames a second, {} ms \
         after their capture; {cores} cores, {cpu}; load {}",
        model["frame_ms"],
        model["actual"].as_str().unwrap_or("?"),
        stream["fps"],
        stream["latency_ms"],
        load.join(", ")
    );
    Ok(())
}
