//! Viewers who come and go: RTSP players by TCP and by UDP, and browsers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use crossbeam_channel::{Receiver, tick};
use fastrand::Rng;
use gstreamer as gst;
use gstreamer_app as gst_app;

use gst::prelude::*;

use super::record::{Record, Visit};
use super::service::{Service, pause};

/// How long a visit lasts, and how long until the next, seconds.
const STAYS: [f64; 2] = [1.0, 30.0];
const AWAY: [f64; 2] = [0.2, 6.0];

/// How often a viewer looks whether it is time to leave.
const LOOK: Duration = Duration::from_millis(100);

/// How a viewer watches.
#[derive(Clone, Copy, Debug)]
enum By {
    Tcp,
    Udp,
    Browser,
}

/// One visit after the other until the run is over.
pub fn come_and_go(streams: &[&str], mut random: Rng, service: &Service, record: &Record, over: &Receiver<()>) {
    let between =
        |random: &mut Rng, [least, most]: [f64; 2]| Duration::from_secs_f64(least * (most / least).powf(random.f64()));
    loop {
        let wait = between(&mut random, AWAY);
        if pause(over, wait) {
            return;
        }
        let stream = streams[random.usize(..streams.len())];
        let (by, stays) = ([By::Tcp, By::Udp, By::Browser][random.usize(..3)], between(&mut random, STAYS));
        let came = Instant::now();
        let leave = |_: u64| came.elapsed() >= stays || over.try_recv() != Err(crossbeam_channel::TryRecvError::Empty);
        let (name, seen) = match by {
            By::Tcp => ("rtsp-tcp", play(&format!("{}{stream}", service.rtsp), "tcp", leave)),
            By::Udp => ("rtsp-udp", play(&format!("{}{stream}", service.rtsp), "udp", leave)),
            By::Browser => ("mjpeg", browse(&service.page, stream, leave)),
        };
        match seen {
            Ok(pictures) => {
                let seconds = came.elapsed().as_secs_f64();
                record.run().visits.push(Visit { stream: stream.into(), by: name, seconds, pictures });
            }
            Err(error) => record.problem(format_args!("a viewer of {stream} by {name} was sent away: {error:#}")),
        }
    }
}

/// Plays until it is time to leave; gives the number of pictures that came.
fn play(url: &str, transport: &str, leave: impl Fn(u64) -> bool) -> Result<u64> {
    let description = format!(
        "rtspsrc location={url} protocols={transport} latency=0 ! rtph264depay ! h264parse \
         ! video/x-h264,alignment=au ! appsink name=sink sync=false max-buffers=4 drop=true"
    );
    let pipeline = gst::parse::launch(&description)?.downcast::<gst::Pipeline>().ok().context("it is no pipeline")?;
    let sink = pipeline.by_name("sink").context("no sink")?.downcast::<gst_app::AppSink>().ok().context("no sink")?;
    pipeline.set_state(gst::State::Playing)?;
    let mut pictures = 0;
    let outcome = loop {
        if leave(pictures) {
            break Ok(pictures);
        }
        if sink.try_pull_sample(gst::ClockTime::from_mseconds(LOOK.as_millis() as u64)).is_some() {
            pictures += 1;
        } else if let Some(message) = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error])) {
            break Err(anyhow::anyhow!("{:?}", message.structure()));
        }
    };
    // Going to the null state cannot fail.
    let _ = pipeline.set_state(gst::State::Null);
    outcome
}

/// Takes `/mjpeg/NAME` until it is time to leave; gives the number of pictures that came.
fn browse(page: &str, stream: &str, leave: impl Fn(u64) -> bool) -> Result<u64> {
    let host = page.trim_start_matches("http://").trim_end_matches('/');
    let mut connection = TcpStream::connect(host)?;
    connection.set_read_timeout(Some(LOOK))?;
    write!(connection, "GET /mjpeg/{stream} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    let mut reader = BufReader::new(connection);
    let (mut pictures, mut line, mut left) = (0, Vec::new(), 0);
    let mut skipped = [0; 4096];
    let deadline = tick(LOOK);
    loop {
        if deadline.try_recv().is_ok() && leave(pictures) {
            return Ok(pictures);
        }
        let read = if left > 0 {
            let most = skipped.len().min(left);
            reader.read(&mut skipped[..most]).inspect(|read| left -= read)
        } else {
            reader.read_until(b'\n', &mut line)
        };
        match read {
            Ok(0) => anyhow::bail!("the connection was closed"),
            Ok(_) if line.ends_with(b"\n") => {
                let text = String::from_utf8_lossy(&line).to_ascii_lowercase();
                if let Some(length) = text.trim_end().strip_prefix("content-length: ") {
                    left = length.parse()?;
                    pictures += 1;
                }
                line.clear();
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
