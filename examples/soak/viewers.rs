//! Viewers who come and go. Some say goodbye, some are killed, and some fall silent first, as a laptop that sleeps does.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam_channel::Receiver;
use fastrand::Rng;
use serde::Serialize;

use super::record::{Record, Visit};
use super::service::{Service, pause, signal};
use super::watching::By;

/// How long a visit lasts, how long until the next, and how long one who falls silent stays so, seconds.
const STAYS: [f64; 2] = [1.0, 30.0];
const AWAY: [f64; 2] = [0.2, 6.0];
const SILENT: [f64; 2] = [2.0, 90.0];

/// How often it is looked whether a viewer is still there.
const LOOK: Duration = Duration::from_millis(100);

/// How long one who is asked to leave may take.
const GOODBYE: Duration = Duration::from_secs(20);

/// How a viewer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leaves {
    /// It says so.
    Properly,
    /// Its connections are closed by the system, without a word.
    Killed,
    /// Nothing comes from it, and nothing is read by it, for a while; then it is killed.
    Silently,
}

/// As often as they are listed.
const LEAVES: [Leaves; 6] =
    [Leaves::Properly, Leaves::Properly, Leaves::Properly, Leaves::Killed, Leaves::Killed, Leaves::Silently];

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
        let ways: &[By] = if service.page.starts_with("https") { &By::TLS } else { &By::ALL };
        let (by, stays) = (ways[random.usize(..ways.len())], between(&mut random, STAYS));
        let (leaves, silent) = (LEAVES[random.usize(..LEAVES.len())], between(&mut random, SILENT));
        let came = Instant::now();
        let visit = Viewer::start(by, service, stream).and_then(|mut viewer| {
            viewer.stay(stays, over)?;
            let seconds = came.elapsed().as_secs_f64();
            let pictures = viewer.leave(leaves, silent, over)?;
            Ok(Visit { stream: stream.into(), by, leaves, seconds, pictures })
        });
        match visit {
            Ok(visit) => record.run().visits.push(visit),
            Err(error) => record.problem(format_args!("a viewer of {stream} by {}: {error:#}", by.name())),
        }
    }
}

/// A viewer's process. Dropped, it is killed.
struct Viewer(Child);

impl Viewer {
    fn start(by: By, service: &Service, stream: &str) -> Result<Self> {
        let server = if by.is_rtsp() { &service.rtsp } else { &service.page };
        let child = Command::new(std::env::current_exe()?)
            .args(["watch", by.name(), server, stream])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("it cannot be started")?;
        Ok(Viewer(child))
    }

    /// Waits, until the run is over if that is sooner.
    fn stay(&mut self, stays: Duration, over: &Receiver<()>) -> Result<()> {
        let until = Instant::now() + stays;
        while Instant::now() < until && !pause(over, LOOK) {
            if self.0.try_wait()?.is_some() {
                bail!("it was sent away: {}", self.complaint()?);
            }
        }
        Ok(())
    }

    /// Gives the number of pictures that it has seen.
    fn leave(mut self, how: Leaves, silent: Duration, over: &Receiver<()>) -> Result<u64> {
        match how {
            Leaves::Properly => self.say_goodbye()?,
            Leaves::Killed => {}
            Leaves::Silently => {
                signal(self.0.id(), "STOP")?;
                pause(over, silent);
            }
        }
        // Fails for one that has ended.
        let _ = self.0.kill();
        // A pipe holds many more dots than a viewer writes in the longest visit, so that they may be read now.
        let mut dots = Vec::new();
        self.0.stdout.take().context("it has no output")?.read_to_end(&mut dots)?;
        Ok(dots.len() as u64)
    }

    fn say_goodbye(&mut self) -> Result<()> {
        drop(self.0.stdin.take());
        let (_never, endless) = crossbeam_channel::bounded::<()>(0);
        let deadline = Instant::now() + GOODBYE;
        while Instant::now() < deadline {
            match self.0.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(_) => bail!("it left in anger: {}", self.complaint()?),
                None => drop(pause(&endless, LOOK)),
            }
        }
        bail!("it has not left within {GOODBYE:?}")
    }

    /// What an ended one has to say.
    fn complaint(&mut self) -> Result<String> {
        let mut text = String::new();
        self.0.stderr.take().context("it has no standard error")?.read_to_string(&mut text)?;
        Ok(text.trim_end().replace('\n', "; "))
    }
}

impl Drop for Viewer {
    fn drop(&mut self) {
        // Both fail for one that has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
