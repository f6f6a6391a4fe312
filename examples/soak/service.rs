//! The real `maskcast run`: its process, log and API.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use crossbeam_channel::{Receiver, bounded, tick};
use serde_json::Value;

use super::record::{Account, End, IdlePhase, Sample, StreamStatus};

/// Maximum time until the service listens and is ready.
const START: Duration = Duration::from_secs(90);

/// Time after SIGTERM until it is killed; the evaluation has a lower limit.
const STOP: Duration = Duration::from_secs(15);

/// Data from the log so far.
#[derive(Default)]
struct ParsedLog {
    page: Option<String>,
    rtsp: Option<String>,
    end: End,
}

/// The newest known state of a stream.
#[derive(Clone, Debug)]
pub struct Now {
    pub at: Instant,
    pub status: StreamStatus,
}

pub struct Service {
    child: Mutex<Child>,
    pid: u32,
    reader: Mutex<Option<JoinHandle<ParsedLog>>>,
    agent: ureq::Agent,
    /// `http://ADDRESS:PORT/`, or `https`.
    pub page: String,
    /// `rtsp://ADDRESS:PORT/`, or `rtsps`.
    pub rtsp: String,
    now: Mutex<BTreeMap<String, Now>>,
}

impl Service {
    /// Starts `program` with `config` and waits until it is ready. Its log goes to `log`.
    ///
    /// # Errors
    /// The service does not start.
    pub fn start(program: &Path, config: &Path, log: PathBuf) -> Result<Self> {
        let mut command = Command::new(program);
        for variable in ["MASKCAST_LOG", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "JOURNAL_STREAM"] {
            command.env_remove(variable);
        }
        let mut child = command
            .args(["run", "--log-format", "json"])
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} cannot be started; build it with `make build`", program.display()))?;
        let stderr = child.stderr.take().context("the child has no standard error")?;
        let (known, addresses) = bounded(1);
        let reader = std::thread::spawn(move || read_log(stderr, &log, &known));
        let Ok((page, rtsp)) = addresses.recv_timeout(START) else {
            let _ = child.kill();
            bail!("the service does not start; the reason is in its log");
        };
        let pid = child.id();
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(Duration::from_secs(10)))
            .tls_config(super::http::any_certificate());
        let service = Service {
            child: Mutex::new(child),
            pid,
            reader: Mutex::new(Some(reader)),
            agent: config.http_status_as_error(false).build().into(),
            page,
            rtsp,
            now: Mutex::default(),
        };
        let (deadline, again) = (Instant::now() + START, tick(Duration::from_millis(50)));
        while service.agent.get(format!("{}readyz", service.page)).call()?.status() != 200 {
            if Instant::now() > deadline {
                bail!("the service is not ready within {START:?}");
            }
            again.recv()?;
        }
        Ok(service)
    }

    /// Polls the state of all streams from the API and keeps it for [`Service::now`].
    ///
    /// # Errors
    /// The response is invalid.
    pub fn poll(&self) -> Result<Vec<StreamStatus>> {
        let streams: Vec<Value> =
            self.agent.get(format!("{}api/v1/streams", self.page)).call()?.body_mut().read_json()?;
        let at = Instant::now();
        let statuses: Vec<StreamStatus> =
            streams.iter().map(status).collect::<Option<_>>().context("a stream lacks a key")?;
        let known = statuses.iter().map(|status| (status.name.clone(), Now { at, status: status.clone() }));
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = known.collect();
        Ok(statuses)
    }

    /// The state of a stream at the newest poll.
    pub fn now(&self, stream: &str) -> Option<Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner).get(stream).cloned()
    }

    /// Memory, descriptors and threads of the process, and the streams at the newest poll.
    ///
    /// # Errors
    /// The process has ended.
    pub fn sample(&self, at: f64, idle: Option<IdlePhase>) -> Result<Sample> {
        let file = |name: &str| format!("/proc/{}/{name}", self.pid);
        let rollup = std::fs::read_to_string(file("smaps_rollup"))?;
        let process = std::fs::read_to_string(file("status"))?;
        let descriptors = std::fs::read_dir(file("fd"))?.count() as u64;
        let mib = |name| field(&rollup, name).map(|kib| kib as f64 / 1024.0).context("smaps_rollup lacks a line");
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Sample {
            at,
            anonymous: mib("Anonymous")?,
            rss: mib("Rss")?,
            pss: mib("Pss")?,
            descriptors,
            threads: field(&process, "Threads").context("status lacks a line")?,
            idle,
            streams: now.values().map(|now| now.status.clone()).collect(),
        })
    }

    /// Requests a change of the model; returns the result: `done` or `refused`.
    ///
    /// # Errors
    /// The response is invalid, or there is no result within a minute.
    pub fn change_model(&self, model: &Path) -> Result<String> {
        let url = format!("{}api/v1/model", self.page);
        let answer = self.agent.post(&url).send_json(serde_json::json!({ "path": model }))?;
        if answer.status() != 202 {
            bail!("the request to change the model got status {}", answer.status());
        }
        let (deadline, again) = (Instant::now() + Duration::from_secs(60), tick(Duration::from_millis(100)));
        loop {
            let report: Value = self.agent.get(&url).call()?.body_mut().read_json()?;
            match report["change"]["state"].as_str() {
                Some(state @ ("done" | "refused")) => return Ok(state.into()),
                _ if Instant::now() > deadline => bail!("no result of the model change within a minute"),
                _ => again.recv()?,
            };
        }
    }

    /// Sends a signal to the process, by name.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn signal(&self, name: &str) -> Result<()> {
        signal(self.pid, name)
    }

    /// The exit status when the process has ended.
    pub fn ended(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().ok().flatten()
    }

    /// Sends SIGTERM and waits; returns the exit status and the data from the log.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn stop(&self) -> Result<End> {
        let early = self.ended().is_some();
        let requested = Instant::now();
        if !early {
            self.signal("TERM")?;
        }
        let again = tick(Duration::from_millis(10));
        let status = loop {
            match self.ended() {
                Some(status) => break Some(status),
                None if requested.elapsed() > STOP => break None,
                None => drop(again.recv()),
            }
        };
        let took = requested.elapsed().as_secs_f64();
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // Fails when it has ended.
        let _ = child.kill();
        let _ = child.wait();
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner).take();
        let parsed =
            reader.and_then(|reader| reader.join().ok()).context("the thread that reads the log has panicked")?;
        Ok(End { early, code: status.and_then(|status| status.code()), took, ..parsed.end })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        // Both fail when it has ended.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The number after `name:` in a file of /proc.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

fn status(stream: &Value) -> Option<StreamStatus> {
    let number = |key: &str| stream[key].as_u64();
    Some(StreamStatus {
        name: stream["name"].as_str()?.into(),
        state: stream["state"].as_str()?.into(),
        captured: number("captured")?,
        published: number("published")?,
        dropped: number("dropped")?,
        in_flight: number("in_flight")?,
        panics: number("panics")?,
    })
}

/// Reads the log to its end, writes it to a file, and sends the addresses when they are in it.
fn read_log(stderr: ChildStderr, log: &Path, known: &crossbeam_channel::Sender<(String, String)>) -> ParsedLog {
    let mut parsed = ParsedLog::default();
    let mut file = std::fs::File::create(log).ok();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if let Some(file) = &mut file {
            // A full disk does not end the run: the figures are kept in memory.
            let _ = writeln!(file, "{line}");
        }
        parse_line(&mut parsed, &line);
        if let (Some(page), Some(rtsp)) = (&parsed.page, &parsed.rtsp) {
            // Fails after the first time.
            let _ = known.try_send((page.clone(), rtsp.clone()));
        }
    }
    parsed
}

fn parse_line(parsed: &mut ParsedLog, line: &str) {
    let entry: Value = serde_json::from_str(line).unwrap_or(Value::Null);
    let message = entry["message"].as_str().unwrap_or(line);
    match entry["level"].as_str() {
        Some("ERROR") => parsed.end.errors += 1,
        Some("WARN") => parsed.end.warnings += 1,
        _ => parsed.end.infos += 1,
    }
    if line.contains("panicked") {
        parsed.end.panics.push(message.into());
    }
    parsed.end.reloads += u64::from(message.starts_with("configuration reloaded"));
    parsed.end.reloads_refused += u64::from(message.starts_with("configuration not reloaded"));
    if let Some(page) = message.strip_prefix("page ") {
        parsed.page = Some(page.into());
    }
    if let Some((address, _)) = message.split_once(" -> ").and_then(|(_, address)| address.rsplit_once('/')) {
        parsed.rtsp = Some(format!("{address}/"));
    }
    if let (Some(stream), Some(captured)) = (entry["stream"].as_str(), entry["captured"].as_u64()) {
        let number = |key: &str| entry[key].as_u64().unwrap_or(u64::MAX);
        parsed.end.accounts.push(Account {
            stream: stream.into(),
            captured,
            published: number("published"),
            dropped: number("dropped"),
            in_flight: number("in_flight"),
        });
    }
}

/// Sends a signal to a process, by name.
///
/// # Errors
/// The signal cannot be sent.
pub fn signal(pid: u32, name: &str) -> Result<()> {
    // Through the shell, because this crate has no unsafe code for the system call.
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status()?;
    if !sent.success() {
        bail!("SIG{name} could not be sent");
    }
    Ok(())
}

/// Waits; true when the run is over.
pub fn pause(over: &Receiver<()>, wait: Duration) -> bool {
    over.recv_timeout(wait) != Err(crossbeam_channel::RecvTimeoutError::Timeout)
}
