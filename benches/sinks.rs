//! The CPU time of zones, rules and all outputs of masks as data, against the same streams without them: four streams with ten masks
//! a second and eight zones each, MQTT to a Mosquitto, the history, and two API clients for each stream.
//!
//! `cargo bench --bench sinks [-- --seconds 20 --rounds 3]`. The service runs with both configurations in turn, and its CPU time is
//! read from `/metrics`. The model takes the strongest channel of each pixel as its class, so that it costs little; on the clip of
//! the demo its masks have more and shorter runs than those of a U-Net, which makes the counts more expensive.

#[path = "../tests/common/mod.rs"]
mod common;

use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;

use common::http::Metrics;
use common::mosquitto::Broker;
use common::service::{Service, folder_with_model};

/// Measures the cost of zones, rules and outputs of masks as data
#[derive(Parser)]
struct Arguments {
    /// Length of one measurement
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Measurements of each configuration
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

const STREAMS: usize = 4;
const ZONES: usize = 8;

/// CPU seconds and masks of one measurement.
struct Cost {
    cpu: f64,
    masks: f64,
    wall: f64,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join(".demo/vtest.avi");
    ensure!(clip.is_file(), "{} is missing: run `make setup-test`", clip.display());
    println!("{:<10} {:>14} {:>12} {:>20}", "outputs", "CPU s a second", "masks a s", "CPU us a mask");
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        for (name, costs, is_with) in [("none", &mut without, false), ("all", &mut with, true)] {
            let cost = measure(&clip, is_with, Duration::from_secs(arguments.seconds))?;
            let (share, rate) = (cost.cpu / cost.wall, cost.masks / cost.wall);
            println!("{name:<10} {share:>14.3} {rate:>12.1} {:>20.0}", 1e6 * cost.cpu / cost.masks);
            costs.push(1e6 * cost.cpu / cost.masks);
        }
    }
    let (without, with) = (median(without), median(with));
    let per_core = (with - without) * 40.0 / 1e4;
    println!(
        "zones, rules and outputs: {:.0} us a mask, {per_core:.1} % of a core at 40 masks a second",
        with - without
    );
    println!("ratio to the streams without them: {:.3}", with / without);
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn measure(clip: &Path, is_with: bool, length: Duration) -> Result<Cost> {
    let folder = folder_with_model(512, 288);
    let broker = is_with.then(|| Broker::start(folder.path(), ""));
    let mut text = String::new();
    if let Some(broker) = &broker {
        text += &format!(
            "[history]\ndir = \"history\"\n[mqtt]\nurl = \"mqtt://127.0.0.1:{}\"\nqueue_dir = \"state\"\n",
            broker.port
        );
    }
    for stream in 0..STREAMS {
        text += &format!(
            "[[stream]]\nname = \"s{stream}\"\nsource = \"file:{}\"\nloop = true\ngate = \"off\"\n",
            clip.display()
        );
        for zone in 0..if is_with { ZONES } else { 0 } {
            // Triangles and quadrangles of different sizes that overlap.
            let (left, top) = (0.05 * zone as f64, 0.04 * zone as f64);
            text += &format!(
                "[[stream.zone]]\nname = \"zone {zone}\"\npolygon = [[{left}, {top}], [0.95, {top}], [0.7, 0.95], [{left}, 0.9]]\n\
                 [[stream.rule]]\nname = \"r{zone}\"\nclasses = [\"red\"]\nzone = \"zone {zone}\"\nshare = 0.3\n"
            );
        }
    }
    let service = Service::ready(folder.path(), &text);
    // The clients read until the service ends.
    for client in 0..if is_with { 2 * STREAMS } else { 0 } {
        let url = format!("{}api/v1/streams/s{}/masks", service.page, client % STREAMS);
        let response = ureq::get(&url).header("Accept", "text/event-stream").call().context("a client")?;
        std::thread::spawn(move || {
            let mut body = response.into_body().into_reader();
            // An error is the end of the service.
            let _ = body.read_to_end(&mut Vec::new());
        });
    }
    let totals = |metrics: &Metrics| {
        let masks = metrics.sum("maskcast_segment_frames_total", &[]);
        (metrics.sum("process_cpu_seconds_total", &[]), masks)
    };
    // The first seconds load libraries and start threads.
    let tick = crossbeam_channel::after(Duration::from_secs(3));
    let _ = tick.recv();
    let (began, (cpu, masks)) = (Instant::now(), totals(&service.metrics()));
    let _ = crossbeam_channel::after(length).recv();
    let (cpu_end, masks_end) = totals(&service.metrics());
    let cost = Cost { cpu: cpu_end - cpu, masks: masks_end - masks, wall: began.elapsed().as_secs_f64() };
    let (code, _, log) = service.terminate();
    ensure!(code == Some(0), "the service ended with {code:?}: {log}");
    Ok(cost)
}
