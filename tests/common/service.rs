//! A running `maskcast run` with its addresses.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use maskcast::segment::golden::Golden;
use serde_json::Value;
use tempfile::TempDir;

use super::http::{Metrics, get_json};
use super::onnx;
use super::program::{Program, maskcast, until};

/// The totals of a stream in its last log line.
#[derive(Debug)]
pub struct Account {
    pub captured: u64,
    pub published: u64,
    pub dropped: u64,
    pub in_flight: u64,
}

pub struct Service {
    pub program: Program,
    /// `http://ADDRESS:PORT/`
    pub page: String,
    /// `rtsp://ADDRESS:PORT/`
    pub rtsp: String,
}

/// A folder with the model `channels.onnx` in it (the class is a pixel's strongest channel).
pub fn folder() -> TempDir {
    folder_with_model(64, 36)
}

/// The same with this input size of the model. The left half of its golden frame is red, the right half blue.
pub fn folder_with_model(width: usize, height: usize) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let is_red = |n: &usize| n % width < width / 2;
    let rgb = (0..width * height).flat_map(|n| if is_red(&n) { [200, 10, 10] } else { [10, 10, 200] }).collect();
    let mask = (0..width * height).map(|n| if is_red(&n) { 0 } else { 2 }).collect();
    let golden = Golden { width, height, rgb, mask }.to_json().unwrap();
    let model = onnx::channels(width as i64, height as i64, &[("maskcast.golden", &golden)]);
    onnx::save(&model, &folder.path().join("channels.onnx"));
    folder
}

/// Writes a model like `channels.onnx` with other labels. Its golden mask is correct, or wrong in every pixel.
pub fn write_model(path: &Path, labels: &str, right: bool) {
    let (width, height) = (64, 36);
    let rgb = [200, 10, 10].repeat(width * height);
    let golden = Golden { width, height, rgb, mask: vec![u8::from(!right); width * height] }.to_json().unwrap();
    let model = onnx::labelled(width as i64, height as i64, labels, &[("maskcast.golden", &golden)]);
    onnx::save(&model, path);
}

/// Writes a configuration with these streams and free ports.
pub fn write_config(folder: &Path, streams: &str) -> PathBuf {
    write_config_at(folder, "127.0.0.1:0", "127.0.0.1:0", streams)
}

pub fn write_config_at(folder: &Path, http: &str, rtsp: &str, streams: &str) -> PathBuf {
    let path = folder.join("maskcast.toml");
    let text = format!(
        "[model]\npath = \"channels.onnx\"\nproviders = [\"cpu\"]\nworkers = 1\nthreads = 1\n\
         [server]\nhttp = \"{http}\"\nrtsp = \"{rtsp}\"\n{streams}"
    );
    std::fs::write(&path, text).unwrap();
    path
}

impl Service {
    /// Starts a service and waits until its addresses are in the log.
    pub fn start(folder: &Path, streams: &str) -> Self {
        Self::with(folder, streams, &[])
    }

    /// The same with environment variables.
    pub fn with(folder: &Path, streams: &str, variables: &[(&str, &str)]) -> Self {
        Self::run(&write_config(folder, streams), variables)
    }

    pub fn run(config: &Path, variables: &[(&str, &str)]) -> Self {
        Self::run_command(maskcast().arg("run").arg(config).envs(variables.iter().map(|(name, value)| (name, value))))
    }

    /// The same for a command that starts a service.
    pub fn run_command(command: &mut std::process::Command) -> Self {
        let mut program = Program::start(command);
        let page = program.wait_for("the page's address", |entry| {
            Some(entry["message"].as_str()?.strip_prefix("page ")?.to_string())
        });
        let rtsp = program.wait_for("the RTSP address", |entry| {
            let (_, address) = entry["message"].as_str()?.split_once(" -> ")?;
            Some(address.rsplit_once('/')?.0.to_string() + "/")
        });
        Service { program, page, rtsp }
    }

    /// The same, and waits until every stream is live or offline.
    pub fn ready(folder: &Path, streams: &str) -> Self {
        let mut service = Self::start(folder, streams);
        service.program.wait_for_message("ready");
        service
    }

    pub fn rtsp(&self, stream: &str) -> String {
        format!("{}{stream}", self.rtsp)
    }

    pub fn streams(&self) -> Vec<Value> {
        get_json(&format!("{}api/v1/streams", self.page)).as_array().unwrap().clone()
    }

    pub fn stream(&self, name: &str) -> Value {
        get_json(&format!("{}api/v1/streams/{name}", self.page))
    }

    pub fn published(&self, name: &str) -> u64 {
        self.stream(name)["published"].as_u64().unwrap()
    }

    pub fn metrics(&self) -> Metrics {
        Metrics::scrape(&self.page)
    }

    /// Waits until the stream is in this state; returns its JSON from the API.
    pub fn until_state(&self, name: &str, state: &str) -> Value {
        until(&format!("{name} is {state}"), || Some(self.stream(name)).filter(|stream| stream["state"] == state))
    }

    /// Waits until the stream has published this many frames in total.
    pub fn until_published(&self, name: &str, frames: u64) {
        until(&format!("{name} has published {frames} frames"), || {
            Some(self.published(name)).filter(|&published| published >= frames)
        });
    }

    /// Sends SIGTERM and waits: exit code, the time until the end, and the log.
    pub fn terminate(mut self) -> (Option<i32>, Duration, String) {
        let asked = Instant::now();
        self.program.child.signal("TERM");
        let (code, log) = self.program.ended();
        (code, asked.elapsed(), log)
    }
}

/// The totals of a stream in its last line of a log.
pub fn account(log: &str, stream: &str) -> Account {
    let entry = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find(|entry| entry["stream"] == stream && entry["captured"].is_u64())
        .unwrap_or_else(|| panic!("no line with the totals of {stream} in the log:\n{log}"));
    let number = |key: &str| entry[key].as_u64().unwrap();
    Account {
        captured: number("captured"),
        published: number("published"),
        dropped: number("dropped"),
        in_flight: number("in_flight"),
    }
}
