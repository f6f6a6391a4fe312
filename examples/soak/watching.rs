//! What one viewer does, in a process of its own: an RTSP player, or a browser that shows JPEGs or WebRTC.

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
use super::whep::{Player, Wants};

/// How often a viewer looks whether it is time to leave.
const LOOK: Duration = Duration::from_millis(100);

/// How a viewer watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum By {
    RtspTcp,
    RtspUdp,
    Mjpeg,
    WebRtc,
}

impl By {
    pub const ALL: [By; 4] = [By::RtspTcp, By::RtspUdp, By::Mjpeg, By::WebRtc];

    /// Under TLS RTSP carries its pictures in the connection.
    pub const TLS: [By; 3] = [By::RtspTcp, By::Mjpeg, By::WebRtc];

    /// As it is written in reports and arguments.
    pub fn name(self) -> &'static str {
        match self {
            By::RtspTcp => "rtsp-tcp",
            By::RtspUdp => "rtsp-udp",
            By::Mjpeg => "mjpeg",
            By::WebRtc => "web-rtc",
        }
    }

    pub fn is_rtsp(self) -> bool {
        matches!(self, By::RtspTcp | By::RtspUdp)
    }
}

/// What this program also is.
#[derive(Subcommand)]
pub enum Role {
    /// Watches until its standard input ends, writes a dot for every picture
    #[command(hide = true)]
    Watch {
        by: By,
        /// The server's address, up to the stream's name
        server: String,
        stream: String,
    },
}

/// Watches until standard input ends, then says goodbye as its protocol has it.
///
/// # Errors
/// It was not let in, or sent away.
pub fn watch(by: By, server: &str, stream: &str) -> Result<()> {
    let (held, over) = bounded::<()>(0);
    std::thread::spawn(move || {
        let _held = held;
        std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink())
    });
    match by {
        By::RtspTcp => play(&format!("{server}{stream}"), "tcp", &over),
        By::RtspUdp => play(&format!("{server}{stream}"), "udp", &over),
        By::Mjpeg => browse(server, stream, &over),
        By::WebRtc => call(server, stream, &over),
    }
}

fn saw_a_picture() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(b".")?;
    out.flush()
}

fn play(url: &str, transport: &str, over: &Receiver<()>) -> Result<()> {
    gst::init()?;
    let description = format!(
        "rtspsrc location={url} protocols={transport} tls-validation-flags=0 latency=0 ! rtph264depay ! h264parse \
         ! video/x-h264,alignment=au ! appsink name=sink sync=false max-buffers=4 drop=true"
    );
    let pipeline = gst::parse::launch(&description)?.downcast::<gst::Pipeline>().ok().context("it is no pipeline")?;
    let sink = pipeline.by_name("sink").context("no sink")?.downcast::<gst_app::AppSink>().ok().context("no sink")?;
    pipeline.set_state(gst::State::Playing)?;
    while !pause(over, Duration::ZERO) {
        if sink.try_pull_sample(gst::ClockTime::from_mseconds(LOOK.as_millis() as u64)).is_some() {
            saw_a_picture()?;
        } else if let Some(message) = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error])) {
            bail!("{:?}", message.structure());
        }
    }
    pipeline.set_state(gst::State::Null)?;
    Ok(())
}

/// The bytes of a stream's MJPEG.
fn open(page: &str, stream: &str) -> Result<Box<dyn Read>> {
    if page.starts_with("https") {
        let agent: ureq::Agent = ureq::Agent::config_builder().tls_config(any_certificate()).build().into();
        // Pictures come all the time: a read does not wait for long.
        return Ok(Box::new(agent.get(format!("{page}mjpeg/{stream}")).call()?.into_body().into_reader()));
    }
    let host = page.trim_start_matches("http://").trim_end_matches('/');
    let mut connection = TcpStream::connect(host)?;
    connection.set_read_timeout(Some(LOOK))?;
    write!(connection, "GET /mjpeg/{stream} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    Ok(Box::new(connection))
}

fn browse(page: &str, stream: &str, over: &Receiver<()>) -> Result<()> {
    let mut reader = BufReader::new(open(page, stream)?);
    let (mut line, mut left) = (Vec::new(), 0);
    let mut skipped = [0; 4096];
    let look = tick(LOOK);
    loop {
        if look.try_recv().is_ok() && pause(over, Duration::ZERO) {
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
                    saw_a_picture()?;
                }
                line.clear();
            }
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Packets are not taken apart here: a look that finds new ones counts as a picture.
fn call(page: &str, stream: &str, over: &Receiver<()>) -> Result<()> {
    let player = Player::start(page, stream, Wants::Packets);
    let mut received = 0;
    while !pause(over, LOOK) {
        if player.received() > received {
            received = player.received();
            saw_a_picture()?;
        }
    }
    let answer = Answer::to("DELETE", &format!("{page}{}", player.location.trim_start_matches('/')), "", "");
    if answer.status != 200 {
        bail!("leaving was answered with {}: {}", answer.status, answer.body);
    }
    Ok(())
}
