//! The program of a viewer process: a client by RTSP, MJPEG or WebRTC.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};
use crossbeam_channel::{Receiver, bounded, tick};
use gstreamer as gst;
use gstreamer_app as gst_app;
use serde::Serialize;

use gst::prelude::*;

use super::http::{Answer, any_certificate};
use super::service::pause;
use super::whep::{Player, ReceiveMode};

/// How often a viewer checks whether it must disconnect.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The protocol of a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    RtspTcp,
    RtspUdp,
    Mjpeg,
    WebRtc,
}

impl Protocol {
    pub const ALL: [Protocol; 4] = [Protocol::RtspTcp, Protocol::RtspUdp, Protocol::Mjpeg, Protocol::WebRtc];

    /// With TLS, RTSP sends the video over its TCP connection.
    pub const TLS: [Protocol; 3] = [Protocol::RtspTcp, Protocol::Mjpeg, Protocol::WebRtc];

    /// The name in reports and arguments.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::RtspTcp => "rtsp-tcp",
            Protocol::RtspUdp => "rtsp-udp",
            Protocol::Mjpeg => "mjpeg",
            Protocol::WebRtc => "web-rtc",
        }
    }

    pub fn is_rtsp(self) -> bool {
        matches!(self, Protocol::RtspTcp | Protocol::RtspUdp)
    }
}

/// Hidden subcommands.
#[derive(Subcommand)]
pub enum Role {
    /// Plays a stream until standard input ends, and writes a dot for every frame
    #[command(hide = true)]
    Watch {
        protocol: Protocol,
        /// The URL of the server, up to the name of the stream
        server: String,
        stream: String,
    },
}

/// Plays a stream until standard input ends, then disconnects with the messages of the protocol.
///
/// # Errors
/// The connection was refused or closed.
pub fn run(protocol: Protocol, server: &str, stream: &str) -> Result<()> {
    let (held, over) = bounded::<()>(0);
    std::thread::spawn(move || {
        let _held = held;
        std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())
    });
    match protocol {
        Protocol::RtspTcp => play_rtsp(&format!("{server}{stream}"), "tcp", &over),
        Protocol::RtspUdp => play_rtsp(&format!("{server}{stream}"), "udp", &over),
        Protocol::Mjpeg => play_mjpeg(server, stream, &over),
        Protocol::WebRtc => play_webrtc(server, stream, &over),
    }
}

fn count_frame() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(b".")?;
    out.flush()
}

fn play_rtsp(url: &str, transport: &str, over: &Receiver<()>) -> Result<()> {
    gst::init()?;
    let description = format!(
        "rtspsrc location={url} protocols={transport} tls-validation-flags=0 latency=0 ! rtph264depay ! h264parse \
         ! video/x-h264,alignment=au ! appsink name=sink sync=false max-buffers=4 drop=true"
    );
    let pipeline = gst::parse::launch(&description)?.downcast::<gst::Pipeline>().ok().context("not a pipeline")?;
    let sink = pipeline.by_name("sink").context("no sink")?.downcast::<gst_app::AppSink>().ok().context("no sink")?;
    pipeline.set_state(gst::State::Playing)?;
    while !pause(over, Duration::ZERO) {
        if sink.try_pull_sample(gst::ClockTime::from_mseconds(POLL_INTERVAL.as_millis() as u64)).is_some() {
            count_frame()?;
        } else if let Some(message) = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error])) {
            bail!("{:?}", message.structure());
        }
    }
    pipeline.set_state(gst::State::Null)?;
    Ok(())
}

/// Opens the MJPEG response of a stream.
fn open(page: &str, stream: &str) -> Result<Box<dyn Read>> {
    if page.starts_with("https") {
        let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(any_certificate()).build().into();
        // Frames arrive continuously, so a read does not block for long.
        return Ok(Box::new(agent.get(format!("{page}mjpeg/{stream}")).call()?.into_body().into_reader()));
    }
    let host = page.trim_start_matches("http://").trim_end_matches('/');
    let mut connection = TcpStream::connect(host)?;
    connection.set_read_timeout(Some(POLL_INTERVAL))?;
    write!(connection, "GET /mjpeg/{stream} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    Ok(Box::new(connection))
}

fn play_mjpeg(page: &str, stream: &str, over: &Receiver<()>) -> Result<()> {
    let mut reader = BufReader::new(open(page, stream)?);
    let (mut line, mut left) = (Vec::new(), 0);
    let mut skipped = [0; 4096];
    let poll = tick(POLL_INTERVAL);
    loop {
        if poll.try_recv().is_ok() && pause(over, Duration::ZERO) {
            return Ok(());
        }
        let read = if left > 0 {
            let most = skipped.len().min(left);
            reader.read(&mut skipped[..most]).inspect(|read| left -= read)
        } else {
            reader.read_until(b'\n', &mut line)
        };
        match read {
            Ok(0) => bail!("the connection was closed"),
            Ok(_) if line.ends_with(b"\n") => {
                let text = String::from_utf8_lossy(&line).to_ascii_lowercase();
                if let Some(length) = text.trim_end().strip_prefix("content-length: ") {
                    left = length.parse()?;
                    count_frame()?;
                }
                line.clear();
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Packets are not parsed: each poll that finds new ones counts as a frame.
fn play_webrtc(page: &str, stream: &str, over: &Receiver<()>) -> Result<()> {
    let player = Player::start(page, stream, ReceiveMode::Packets);
    let mut received = 0;
    while !pause(over, POLL_INTERVAL) {
        if player.received() > received {
            received = player.received();
            count_frame()?;
        }
    }
    let answer = Answer::to("DELETE", &format!("{page}{}", player.location.trim_start_matches('/')), "", "");
    if answer.status != 200 {
        bail!("DELETE got status {}: {}", answer.status, answer.body);
    }
    Ok(())
}
