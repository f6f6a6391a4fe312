//! Viewers that connect and disconnect. Some disconnect cleanly, some are killed, and some stop reading first, like a
//! laptop that is suspended.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam_channel::Receiver;
use fastrand::Rng;
use serde::Serialize;

use super::client::Protocol;
use super::record::{Record, Visit};
use super::service::{Service, pause, signal};

/// Duration of a visit, pause until the next one, and time that a silent viewer remains connected, seconds.
const VISIT: [f64; 2] = [1.0, 30.0];
const PAUSE: [f64; 2] = [0.2, 6.0];
const SILENT: [f64; 2] = [2.0, 90.0];

/// How often the process of a viewer is checked.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Maximum time of a clean disconnect.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How a viewer disconnects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Departure {
    /// With the messages of its protocol.
    Clean,
    /// It is killed, and the system closes its connections.
    Killed,
    /// It is stopped (SIGSTOP), sends and reads nothing for a while, and is then killed.
    Silent,
}

/// Each kind is as frequent as it is listed.
const DEPARTURES: [Departure; 6] =
    [Departure::Clean, Departure::Clean, Departure::Clean, Departure::Killed, Departure::Killed, Departure::Silent];

/// Runs one visit after the other until the run is over.
pub fn run(streams: &[&str], mut random: Rng, service: &Service, record: &Record, over: &Receiver<()>) {
    let between =
        |random: &mut Rng, [least, most]: [f64; 2]| Duration::from_secs_f64(least * (most / least).powf(random.f64()));
    loop {
        let wait = between(&mut random, PAUSE);
        if pause(over, wait) {
            return;
        }
        let stream = streams[random.usize(..streams.len())];
        let protocols: &[Protocol] = if service.page.starts_with("https") { &Protocol::TLS } else { &Protocol::ALL };
        let (protocol, stays) = (protocols[random.usize(..protocols.len())], between(&mut random, VISIT));
        let (departure, silent) = (DEPARTURES[random.usize(..DEPARTURES.len())], between(&mut random, SILENT));
        let started = Instant::now();
        let visit = Viewer::start(protocol, service, stream).and_then(|mut viewer| {
            viewer.wait(stays, over)?;
            let seconds = started.elapsed().as_secs_f64();
            let frames = viewer.disconnect(departure, silent, over)?;
            Ok(Visit { stream: stream.into(), protocol, departure, seconds, frames })
        });
        match visit {
            Ok(visit) => record.run().visits.push(visit),
            Err(error) => record.problem(format_args!("a viewer of {stream} by {}: {error:#}", protocol.name())),
        }
    }
}

/// The process of a viewer. Dropped, it is killed.
struct Viewer(Child);

impl Viewer {
    fn start(protocol: Protocol, service: &Service, stream: &str) -> Result<Self> {
        let server = if protocol.is_rtsp() { &service.rtsp } else { &service.page };
        let child = Command::new(std::env::current_exe()?)
            .args(["watch", protocol.name(), server, stream])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("the viewer cannot be started")?;
        Ok(Viewer(child))
    }

    /// Waits for this time, or until the run is over.
    fn wait(&mut self, stays: Duration, over: &Receiver<()>) -> Result<()> {
        let until = Instant::now() + stays;
        while Instant::now() < until && !pause(over, POLL_INTERVAL) {
            if self.0.try_wait()?.is_some() {
                bail!("it was disconnected: {}", self.error_text()?);
            }
        }
        Ok(())
    }

    /// Disconnects the viewer; returns the number of frames that it has received.
    fn disconnect(mut self, how: Departure, silent: Duration, over: &Receiver<()>) -> Result<u64> {
        match how {
            Departure::Clean => self.disconnect_cleanly()?,
            Departure::Killed => {}
            Departure::Silent => {
                signal(self.0.id(), "STOP")?;
                pause(over, silent);
            }
        }
        // Fails when it has ended.
        let _ = self.0.kill();
        // The pipe can hold all dots of the longest visit, so they can be read at the end.
        let mut dots = Vec::new();
        self.0.stdout.take().context("the viewer has no standard output")?.read_to_end(&mut dots)?;
        Ok(dots.len() as u64)
    }

    fn disconnect_cleanly(&mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let (_never, endless) = crossbeam_channel::bounded::<()>(0);
        let deadline = Instant::now() + DISCONNECT_TIMEOUT;
        while Instant::now() < deadline {
            match self.0.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(_) => bail!("it disconnected with an error: {}", self.error_text()?),
                None => drop(pause(&endless, POLL_INTERVAL)),
            }
        }
        bail!("it has not disconnected within {DISCONNECT_TIMEOUT:?}")
    }

    /// The standard error of a viewer that has ended.
    fn error_text(&mut self) -> Result<String> {
        let mut text = String::new();
        self.0.stderr.take().context("the viewer has no standard error")?.read_to_string(&mut text)?;
        Ok(text.trim_end().replace('\n', "; "))
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        // Both fail when it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
