//! Fifty RTSP and twenty WebRTC viewers that connect and disconnect: `make crowd MINUTES=5`. After the last disconnect,
//! memory, descriptors and threads must be as after the first group of viewers, and the frame rate of the stream must not
//! have fallen. With `--tls` they use RTSPS and HTTPS.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use crossbeam_channel::{after, tick};
use gstreamer as gst;

use gst::prelude::*;

use common::http::Answer;
use common::program::{maskcast, run, until};
use common::service::{Service, folder};
use common::whep::{Player, ReceiveMode};

/// Connects and disconnects many viewers, and checks for leaked resources
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// Number of rounds; the resources are printed after each one
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    #[arg(long, default_value_t = 50)]
    rtsp: usize,
    #[arg(long, default_value_t = 20)]
    webrtc: usize,
    /// Use RTSPS and HTTPS
    #[arg(long)]
    tls: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// Duration of a visit, and pause until the next viewer connects, seconds.
const VISIT: std::ops::Range<f64> = 5.0..25.0;
const PAUSE: std::ops::Range<f64> = 0.5..5.0;

/// Duration of the first group, during which one-time allocations are made.
const FIRST_VISIT: Duration = Duration::from_secs(15);

/// Time until resources of disconnected viewers are freed: idle threads are kept for 15 s, and memory is returned to the
/// system every 30 s.
const SETTLE: Duration = Duration::from_secs(40);

/// The frame rate of the stream.
const FPS: f64 = 15.0;

/// Maximum relative loss of frame rate.
const MAX_RATE_LOSS: f64 = 0.05;

/// Maximum ratio of memory at the end to memory after the first group.
const MEMORY: f64 = 1.1;

/// Maximum increase of descriptors and threads: scrapes and timers use a few.
const DESCRIPTORS: f64 = 6.0;
const THREADS: f64 = 6.0;

/// Maximum fraction of viewers without a frame: on a busy machine some disconnect before they receive one.
const MAX_WITHOUT_FRAME: f64 = 0.02;

enum Viewer {
    Rtsp(gst::Pipeline),
    WebRtc(Player),
}

impl Viewer {
    fn start(service: &Service, by_webrtc: bool) -> Result<Self> {
        if by_webrtc {
            return Ok(Viewer::WebRtc(Player::try_start(&service.page, "gate", ReceiveMode::Packets, "")?));
        }
        let description = format!(
            "rtspsrc location={} protocols=tcp tls-validation-flags=0 latency=0 ! fakesink name=sink sync=false",
            service.rtsp("gate")
        );
        let Ok(pipeline) = gst::parse::launch(&description)?.downcast::<gst::Pipeline>() else {
            bail!("not a pipeline")
        };
        pipeline.set_state(gst::State::Playing)?;
        Ok(Viewer::Rtsp(pipeline))
    }

    fn has_frame(&self) -> bool {
        match self {
            Viewer::Rtsp(pipeline) => pipeline
                .by_name("sink")
                .is_some_and(|sink| sink.property::<Option<gst::Sample>>("last-sample").is_some()),
            Viewer::WebRtc(player) => player.received() > 0,
        }
    }

    /// Half of the WebRTC viewers send DELETE.
    fn disconnect(self, service: &Service) -> Result<()> {
        match self {
            Viewer::Rtsp(pipeline) => {
                pipeline.set_state(gst::State::Null)?;
            }
            Viewer::WebRtc(player) if fastrand::bool() => {
                let url = format!("{}{}", service.page, player.location.trim_start_matches('/'));
                let answer = Answer::to("DELETE", &url, "", "");
                if answer.status != 200 {
                    bail!("DELETE got status {}: {}", answer.status, answer.body);
                }
            }
            Viewer::WebRtc(player) => drop(player),
        }
        Ok(())
    }
}

/// Number of viewers so far, and of those without a frame.
#[derive(Default)]
struct Viewers {
    connected: usize,
    without_frame: usize,
}

impl Viewers {
    /// Connects a viewer. An error is printed, and the slot stays empty for a while.
    fn connect(&mut self, service: &Service, by_webrtc: bool) -> Option<Viewer> {
        self.connected += 1;
        Viewer::start(service, by_webrtc)
            .inspect_err(|error| {
                self.without_frame += 1;
                eprintln!("a viewer could not connect: {error:#}");
            })
            .ok()
    }

    fn disconnect(&mut self, service: &Service, viewer: Viewer) {
        let without_frame = !viewer.has_frame();
        self.without_frame += usize::from(without_frame);
        if let Err(error) = viewer.disconnect(service) {
            eprintln!("{error:#}{}", if without_frame { " (received no frame)" } else { "" });
        }
    }
}

/// Resources that the service uses.
#[derive(Clone, Copy, Debug)]
struct Resources {
    megabytes: f64,
    descriptors: f64,
    threads: f64,
}

impl Resources {
    fn measure(service: &Service) -> Self {
        let metrics = service.metrics();
        let figure = |name: &str| metrics.sum(name, &[]);
        Resources {
            megabytes: figure("process_resident_memory_bytes") / 1e6,
            descriptors: figure("process_open_fds"),
            threads: figure("process_threads"),
        }
    }

    fn print(self, when: &str) {
        println!("| {when} | {:.0} MB | {} | {} |", self.megabytes, self.descriptors, self.threads);
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    gst::init()?;
    let folder = folder();
    let tls = if arguments.tls { certificate(folder.path())? } else { "" };
    let stream = format!("[[stream]]\nname = \"gate\"\nsource = \"test://ball?width=640&height=360&fps={FPS}\"\n");
    // The text follows the addresses in `[server]`.
    let service = Service::ready(folder.path(), &format!("{tls}{stream}"));
    let count = arguments.rtsp + arguments.webrtc;
    let by_webrtc = |slot: usize| slot < arguments.webrtc;

    let mut first = Viewers::default();
    let all: Vec<_> = (0..count).filter_map(|slot| first.connect(&service, by_webrtc(slot))).collect();
    let _ = after(FIRST_VISIT).recv();
    let with_viewers = Resources::measure(&service);
    all.into_iter().for_each(|viewer| first.disconnect(&service, viewer));
    until_empty(&service);
    let mut measured = vec![Resources::measure(&service)];
    println!("| | memory | descriptors | threads |\n| --- | ---: | ---: | ---: |");
    let by = if arguments.tls { "RTSPS" } else { "RTSP" };
    with_viewers.print(&format!("{} {by}, {} WebRTC", arguments.rtsp, arguments.webrtc));
    measured[0].print("after the first group");

    let (mut viewers, mut rates) = (Viewers::default(), Vec::new());
    for _ in 0..arguments.rounds {
        let end = Instant::now() + Duration::from_secs_f64(arguments.minutes * 60.0);
        come_and_go(&service, count, by_webrtc, end, &mut viewers, &mut rates)?;
        until_empty(&service);
        let resources = Resources::measure(&service);
        resources.print(&format!(
            "after {} more in {} min",
            viewers.connected,
            arguments.minutes * measured.len() as f64
        ));
        measured.push(resources);
    }
    let (before, after) = (measured[0], *measured.last().context("there is a measurement")?);
    let rate = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    println!("\n{rate:.2} of {FPS} frames a second; {} viewers received no frame", viewers.without_frame);
    if after.megabytes > before.megabytes * MEMORY
        || after.descriptors > before.descriptors + DESCRIPTORS
        || after.threads > before.threads + THREADS
    {
        bail!("resources are leaked: see the table");
    }
    if !rates.is_empty() && rate < FPS * (1.0 - MAX_RATE_LOSS) {
        bail!("the frame rate has fallen");
    }
    if viewers.without_frame as f64 > MAX_WITHOUT_FRAME * viewers.connected as f64 {
        bail!("too many viewers received no frame");
    }
    Ok(())
}

/// Creates a certificate in this folder; returns the line for `[server]`.
fn certificate(folder: &std::path::Path) -> Result<&'static str> {
    let made = run(maskcast().args(["cert", "--host", "127.0.0.1", "-o"]).arg(folder.join("tls")));
    if made.code != Some(0) {
        bail!("maskcast cert: {}", made.stderr);
    }
    Ok("tls = { cert = \"tls/cert.pem\", key = \"tls/key.pem\" }\n")
}

/// Connects and disconnects viewers in `count` slots until `end`.
fn come_and_go(
    service: &Service,
    count: usize,
    by_webrtc: impl Fn(usize) -> bool,
    end: Instant,
    viewers: &mut Viewers,
    rates: &mut Vec<f64>,
) -> Result<()> {
    let mut slots: Vec<(Instant, Option<Viewer>)> = (0..count).map(|_| (later(PAUSE), None)).collect();
    let mut next_rate = later(10.0..10.1);
    let pace = tick(Duration::from_millis(20));
    while Instant::now() < end {
        for (slot, (due, viewer)) in slots.iter_mut().enumerate() {
            if Instant::now() < *due {
                continue;
            }
            match viewer.take() {
                Some(leaving) => {
                    viewers.disconnect(service, leaving);
                    *due = later(PAUSE);
                }
                None => {
                    *viewer = viewers.connect(service, by_webrtc(slot));
                    *due = later(VISIT);
                }
            }
        }
        if Instant::now() >= next_rate {
            rates.push(service.stream("gate")["fps"].as_f64().unwrap_or(0.0));
            next_rate = later(2.0..2.1);
        }
        pace.recv()?;
    }
    // These may have just connected.
    for viewer in slots.into_iter().filter_map(|(_, viewer)| viewer) {
        viewer.disconnect(service)?;
    }
    Ok(())
}

fn later(seconds: std::ops::Range<f64>) -> Instant {
    Instant::now() + Duration::from_secs_f64(seconds.start + fastrand::f64() * (seconds.end - seconds.start))
}

/// Waits until no viewer is connected and their resources are freed.
fn until_empty(service: &Service) {
    until("all viewers have disconnected", || {
        let count = service.stream("gate")["viewers"].clone();
        (count["webrtc"] == 0 && count["rtsp"] == 0).then_some(())
    });
    let _ = after(SETTLE).recv();
}
