//! Fifty RTSP and twenty WebRTC viewers who come and go: `make crowd MINUTES=5`. When the last has left, memory,
//! descriptors and threads must be back where they were, and no stream may have become slower.

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::Parser;
use crossbeam_channel::tick;
use gstreamer as gst;

use gst::prelude::*;

use common::http::Answer;
use common::program::until;
use common::service::{Service, folder};
use common::whep::{Player, Wants};

/// Lets viewers come and go, and judges what they leave behind
#[derive(Parser)]
struct Arguments {
    #[arg(long, default_value_t = 5.0)]
    minutes: f64,
    #[arg(long, default_value_t = 50)]
    rtsp: usize,
    #[arg(long, default_value_t = 20)]
    webrtc: usize,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// Seconds that a viewer watches, and those until the next one takes its place.
const STAY: std::ops::Range<f64> = 5.0..25.0;
const AWAY: std::ops::Range<f64> = 0.5..5.0;

/// The picture rate of the stream.
const FPS: f64 = 15.0;

/// What may be lost of it.
const SLOWER: f64 = 0.05;

/// Memory that may be more in the end: allocators keep some.
const MEMORY: f64 = 1.1;

/// Descriptors that scrapes and timers may hold at the moment of a look.
const DESCRIPTORS: f64 = 6.0;

enum Viewer {
    Rtsp(gst::Pipeline),
    WebRtc(Player),
}

impl Viewer {
    fn start(service: &Service, by_webrtc: bool) -> Result<Self> {
        if by_webrtc {
            return Ok(Viewer::WebRtc(Player::start(&service.page, "gate", Wants::Packets)));
        }
        let description =
            format!("rtspsrc location={} protocols=tcp latency=0 ! fakesink sync=false", service.rtsp("gate"));
        let Ok(pipeline) = gst::parse::launch(&description)?.downcast::<gst::Pipeline>() else { bail!("no pipeline") };
        pipeline.set_state(gst::State::Playing)?;
        Ok(Viewer::Rtsp(pipeline))
    }

    /// Half of the WebRTC viewers say so.
    fn leave(self, service: &Service) {
        match self {
            Viewer::Rtsp(pipeline) => {
                let _ = pipeline.set_state(gst::State::Null);
            }
            Viewer::WebRtc(player) if fastrand::bool() => {
                let url = format!("{}{}", service.page, player.location.trim_start_matches('/'));
                assert_eq!(Answer::to("DELETE", &url, "", "").status, 200);
            }
            Viewer::WebRtc(player) => drop(player),
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
    let stream = format!("[[stream]]\nname = \"gate\"\nsource = \"test://ball?width=640&height=360&fps={FPS}\"\n");
    let service = Service::ready(folder.path(), &stream);
    let count = arguments.rtsp + arguments.webrtc;
    let by_webrtc = |place: usize| place < arguments.webrtc;

    // The first crowd pays for what is made once.
    let all = (0..count).map(|place| Viewer::start(&service, by_webrtc(place))).collect::<Result<Vec<_>>>()?;
    until("everybody is there", || (service.stream("gate")["viewers"]["webrtc"] == arguments.webrtc).then_some(()));
    let crowded = Look::at(&service);
    all.into_iter().for_each(|viewer| viewer.leave(&service));
    until_empty(&service);
    let before = Look::at(&service);

    let mut places: Vec<(Instant, Option<Viewer>)> = (0..count).map(|_| (later(AWAY), None)).collect();
    let end = Instant::now() + Duration::from_secs_f64(arguments.minutes * 60.0);
    let (mut came, mut next_rate, mut rates) = (0_usize, later(10.0..10.1), Vec::new());
    let pace = tick(Duration::from_millis(20));
    while Instant::now() < end {
        for (place, (due, viewer)) in places.iter_mut().enumerate() {
            if Instant::now() < *due {
                continue;
            }
            match viewer.take() {
                Some(leaving) => {
                    leaving.leave(&service);
                    *due = later(AWAY);
                }
                None => {
                    *viewer = Some(Viewer::start(&service, by_webrtc(place))?);
                    came += 1;
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
    places.into_iter().filter_map(|(_, viewer)| viewer).for_each(|viewer| viewer.leave(&service));
    until_empty(&service);
    let after = Look::at(&service);

    println!("| | memory | descriptors | threads |\n| --- | ---: | ---: | ---: |");
    before.print("before");
    crowded.print(&format!("{} RTSP, {} WebRTC", arguments.rtsp, arguments.webrtc));
    after.print(&format!("after {came} viewers in {} min", arguments.minutes));
    let rate = rates.iter().sum::<f64>() / rates.len().max(1) as f64;
    println!("\n{rate:.2} of {FPS} frames a second meanwhile");
    if after.megabytes > before.megabytes * MEMORY || after.descriptors > before.descriptors + DESCRIPTORS {
        bail!("they have left something behind");
    }
    if !rates.is_empty() && rate < FPS * (1.0 - SLOWER) {
        bail!("the stream became slower");
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
        (viewers["webrtc"] == 0 && viewers["h264"] == 0).then_some(())
    });
    let tasks = format!("/proc/{}/task", service.program.child.0.id());
    until("their threads have ended", || {
        let tasks = std::fs::read_dir(&tasks).unwrap();
        let mut names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        (!names.any(|name| name.starts_with("whep-"))).then_some(())
    });
}
