//! Fifty RTSP and twenty WebRTC viewers who come and go: `make crowd MINUTES=5`. When the last has left, memory,
//! descriptors and threads must be back where the first crowd left them, and no stream may have become slower. With
//! `--tls` they come by RTSPS and HTTPS.

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
use common::whep::{Player, Wants};

/// Lets viewers come and go, and judges what they leave behind
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    /// So often, one after the other: what each round leaves behind
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    #[arg(long, default_value_t = 50)]
    rtsp: usize,
    #[arg(long, default_value_t = 20)]
    webrtc: usize,
    /// By RTSPS and HTTPS
    #[arg(long)]
    tls: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// Seconds that a viewer watches, and those until the next one takes its place.
const STAY: std::ops::Range<f64> = 5.0..25.0;
const AWAY: std::ops::Range<f64> = 0.5..5.0;

/// How long the first crowd stays: what is made once is made meanwhile.
const FIRST_STAY: Duration = Duration::from_secs(15);

/// Time in which what has served somebody may end: idle threads are kept for a quarter of a minute, and memory is given back
/// every half minute.
const CALM: Duration = Duration::from_secs(40);

/// The picture rate of the stream.
const FPS: f64 = 15.0;

/// What may be lost of it.
const SLOWER: f64 = 0.05;

/// Memory that may be more in the end: a crowd is never the same.
const MEMORY: f64 = 1.1;

/// Descriptors and threads that scrapes and timers may hold at the moment of a look.
const DESCRIPTORS: f64 = 6.0;
const THREADS: f64 = 6.0;

/// Share of viewers who may have seen nothing, or were not let in: on a busy machine some leave before they are served.
const BLIND: f64 = 0.02;

enum Viewer {
    Rtsp(gst::Pipeline),
    WebRtc(Player),
}

impl Viewer {
    fn start(service: &Service, by_webrtc: bool) -> Result<Self> {
        if by_webrtc {
            return Ok(Viewer::WebRtc(Player::try_start(&service.page, "gate", Wants::Packets, "")?));
        }
        let description = format!(
            "rtspsrc location={} protocols=tcp tls-validation-flags=0 latency=0 ! fakesink name=sink sync=false",
            service.rtsp("gate")
        );
        let Ok(pipeline) = gst::parse::launch(&description)?.downcast::<gst::Pipeline>() else { bail!("no pipeline") };
        pipeline.set_state(gst::State::Playing)?;
        Ok(Viewer::Rtsp(pipeline))
    }

    fn has_seen_something(&self) -> bool {
        match self {
            Viewer::Rtsp(pipeline) => pipeline
                .by_name("sink")
                .is_some_and(|sink| sink.property::<Option<gst::Sample>>("last-sample").is_some()),
            Viewer::WebRtc(player) => player.received() > 0,
        }
    }

    /// Half of the WebRTC viewers say so.
    fn leave(self, service: &Service) -> Result<()> {
        match self {
            Viewer::Rtsp(pipeline) => {
                pipeline.set_state(gst::State::Null)?;
            }
            Viewer::WebRtc(player) if fastrand::bool() => {
                let url = format!("{}{}", service.page, player.location.trim_start_matches('/'));
                let answer = Answer::to("DELETE", &url, "", "");
                if answer.status != 200 {
                    bail!("a viewer's leaving was answered with {}: {}", answer.status, answer.body);
                }
            }
            Viewer::WebRtc(player) => drop(player),
        }
        Ok(())
    }
}

/// All who have come, and what became of them.
#[derive(Default)]
struct Guests {
    came: usize,
    blind: usize,
}

impl Guests {
    /// One who is not let in is told of, and the place stays empty for a while.
    fn welcome(&mut self, service: &Service, by_webrtc: bool) -> Option<Viewer> {
        self.came += 1;
        Viewer::start(service, by_webrtc)
            .inspect_err(|error| {
                self.blind += 1;
                eprintln!("a viewer was not let in: {error:#}");
            })
            .ok()
    }

    fn part(&mut self, service: &Service, viewer: Viewer) {
        let blind = !viewer.has_seen_something();
        self.blind += usize::from(blind);
        if let Err(error) = viewer.leave(service) {
            eprintln!("{error:#}{}", if blind { ", who has seen nothing" } else { "" });
        }
    }
}

/// What the service takes of the machine.
#[derive(Clone, Copy, Debug)]
struct Look {
    megabytes: f64,
    descriptors: f64,
    threads: f64,
}

impl Look {
    fn at(service: &Service) -> Self {
        let metrics = service.metrics();
        let figure = |name: &str| metrics.sum(name, &[]);
        Look {
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
    // Behind the addresses, in `[server]`.
    let service = Service::ready(folder.path(), &format!("{tls}{stream}"));
    let count = arguments.rtsp + arguments.webrtc;
    let by_webrtc = |place: usize| place < arguments.webrtc;

    let mut first = Guests::default();
    let all: Vec<_> = (0..count).filter_map(|place| first.welcome(&service, by_webrtc(place))).collect();
    let _ = after(FIRST_STAY).recv();
    let crowded = Look::at(&service);
    all.into_iter().for_each(|viewer| first.part(&service, viewer));
    until_empty(&service);
    let mut looks = vec![Look::at(&service)];
    println!("| | memory | descriptors | threads |\n| --- | ---: | ---: | ---: |");
    let by = if arguments.tls { "RTSPS" } else { "RTSP" };
    crowded.print(&format!("{} {by}, {} WebRTC", arguments.rtsp, arguments.webrtc));
    looks[0].print("the first crowd has left");

    let (mut guests, mut rates) = (Guests::default(), Vec::new());
    for _ in 0..arguments.rounds {
        let end = Instant::now() + Duration::from_secs_f64(arguments.minutes * 60.0);
        come_and_go(&service, count, by_webrtc, end, &mut guests, &mut rates)?;
        until_empty(&service);
        let look = Look::at(&service);
        look.print(&format!("{} more in {} min", guests.came, arguments.minutes * looks.len() as f64));
        looks.push(look);
    }
    let (before, after) = (looks[0], *looks.last().context("it was looked")?);
    let rate = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    println!("\n{rate:.2} of {FPS} frames a second meanwhile; {} viewers saw nothing", guests.blind);
    if after.megabytes > before.megabytes * MEMORY
        || after.descriptors > before.descriptors + DESCRIPTORS
        || after.threads > before.threads + THREADS
    {
        bail!("they have left something behind");
    }
    if !rates.is_empty() && rate < FPS * (1.0 - SLOWER) {
        bail!("the stream became slower");
    }
    if guests.blind as f64 > BLIND * guests.came as f64 {
        bail!("too many saw nothing");
    }
    Ok(())
}

/// Makes a certificate in this folder; gives the line of `[server]` that names it.
fn certificate(folder: &std::path::Path) -> Result<&'static str> {
    let made = run(maskcast().args(["cert", "--host", "127.0.0.1", "-o"]).arg(folder.join("tls")));
    if made.code != Some(0) {
        bail!("maskcast cert: {}", made.stderr);
    }
    Ok("tls = { cert = \"tls/cert.pem\", key = \"tls/key.pem\" }\n")
}

/// Each place is taken and left again and again until `end`.
fn come_and_go(
    service: &Service,
    count: usize,
    by_webrtc: impl Fn(usize) -> bool,
    end: Instant,
    guests: &mut Guests,
    rates: &mut Vec<f64>,
) -> Result<()> {
    let mut places: Vec<(Instant, Option<Viewer>)> = (0..count).map(|_| (later(AWAY), None)).collect();
    let mut next_rate = later(10.0..10.1);
    let pace = tick(Duration::from_millis(20));
    while Instant::now() < end {
        for (place, (due, viewer)) in places.iter_mut().enumerate() {
            if Instant::now() < *due {
                continue;
            }
            match viewer.take() {
                Some(leaving) => {
                    guests.part(service, leaving);
                    *due = later(AWAY);
                }
                None => {
                    *viewer = guests.welcome(service, by_webrtc(place));
                    *due = later(STAY);
                }
            }
        }
        if Instant::now() >= next_rate {
            rates.push(service.stream("gate")["fps"].as_f64().unwrap_or(0.0));
            next_rate = later(2.0..2.1);
        }
        pace.recv()?;
    }
    // These may have come a moment ago.
    for viewer in places.into_iter().filter_map(|(_, viewer)| viewer) {
        viewer.leave(service)?;
    }
    Ok(())
}

fn later(seconds: std::ops::Range<f64>) -> Instant {
    Instant::now() + Duration::from_secs_f64(seconds.start + fastrand::f64() * (seconds.end - seconds.start))
}

/// Nobody watches, and what served them has ended.
fn until_empty(service: &Service) {
    until("everybody has left", || {
        let viewers = service.stream("gate")["viewers"].clone();
        (viewers["webrtc"] == 0 && viewers["rtsp"] == 0).then_some(())
    });
    let _ = after(CALM).recv();
}
