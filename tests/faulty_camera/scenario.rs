//! Scenarios: TOML files with the actions of cameras, step by step, and what viewers must see after each step and how soon.
//! They are in `tests/scenarios/`.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::test_frame::{Color, VideoSettings};

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// The fault, in one line.
    pub title: String,
    /// Maximum age of a frame that a viewer sees without the slate, seconds.
    #[serde(default = "default_max_age")]
    pub max_age: f64,
    #[serde(rename = "camera")]
    pub cameras: Vec<CameraSpec>,
    #[serde(rename = "step")]
    pub steps: Vec<Step>,
}

fn default_max_age() -> f64 {
    2.0
}

/// A camera, and the settings of the stream that shows it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CameraSpec {
    /// Also the stream's name.
    pub name: String,
    #[serde(default)]
    pub kind: CameraKind,
    /// Of an RTSP camera; an HTTP camera sends JPEG.
    #[serde(default)]
    pub codec: Codec,
    #[serde(default = "default_size")]
    pub size: [usize; 2],
    #[serde(default = "default_fps")]
    pub fps: u32,
    #[serde(default)]
    pub color: Color,
    #[serde(default)]
    pub starts: Action,
    /// Keys of the stream's configuration beside `name` and `source`.
    #[serde(default)]
    pub stream: toml::Table,
}

fn default_size() -> [usize; 2] {
    [320, 240]
}

fn default_fps() -> u32 {
    15
}

impl CameraSpec {
    /// The initial video settings.
    pub fn video_settings(&self) -> VideoSettings {
        VideoSettings { width: self.size[0], height: self.size[1], fps: self.fps, color: self.color }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CameraKind {
    #[default]
    Rtsp,
    /// `multipart/x-mixed-replace` with JPEG frames.
    Http,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Codec {
    #[default]
    H264,
    H265,
    Mjpeg,
}

/// One step: the action of a camera, its minimum duration, and what viewers must see during it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub name: String,
    /// The camera of the step. Default: the first one.
    pub camera: Option<String>,
    /// Default: no change.
    #[serde(rename = "do")]
    pub action: Option<Action>,
    /// The step lasts at least this long.
    #[serde(default)]
    pub seconds: f64,
    /// The step lasts until its camera has delivered this many frames,
    #[serde(default)]
    pub frames: u64,
    /// and until this many clients have connected to it.
    #[serde(default)]
    pub connections: u64,
    #[serde(default)]
    pub expect: Vec<Expect>,
    /// Streams that the step must not affect: they stay live, and all frames of their camera are published (within 5 %).
    #[serde(default)]
    pub undisturbed: Vec<String>,
}

/// An action of a camera. Faults of the link accumulate until [`Action::Serve`] or [`Action::Reboot`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// The camera works without faults.
    #[default]
    Serve,
    /// All connections are closed; the camera restarts at once with other video.
    Reboot(VideoChange),
    /// Other video in the running stream.
    Change(VideoChange),
    /// All connections and the port are closed.
    Refuse,
    /// Connections are accepted, and nothing is sent.
    Silent,
    /// Invalid data is sent.
    Garbage(Garbage),
    /// Connections stay open, and no frames are sent.
    Stall,
    /// The stream ends; a client that connects again gets a new one.
    End,
    /// All connections are closed during the stream; the port stays open.
    Disconnect,
    /// Fraction of packets (HTTP: of frames) that are lost.
    DropPackets(f64),
    /// Fraction of packets (HTTP: of frames) with damaged bytes.
    Corrupt(f64),
    /// Every frame is delayed by a random time: minimum and maximum, milliseconds. The order is kept.
    Delay([u32; 2]),
    /// RTP timestamps jump by this many seconds.
    JumpClock(f64),
    /// Speed of the RTP clock relative to real time.
    ClockRate(f64),
}

/// Whether a duration in a scenario is valid: 0 to 24 hours.
fn is_duration(seconds: f64) -> bool {
    // NaN is in no range.
    (0.0..=86_400.0).contains(&seconds)
}

impl Action {
    fn check(&self) -> Result<()> {
        match self {
            Action::Reboot(video) | Action::Change(video) => video.check(),
            Action::DropPackets(share) | Action::Corrupt(share) => {
                ensure!((0.0..=1.0).contains(share), "{share} is not a fraction from 0 to 1");
                Ok(())
            }
            Action::Delay([least, most]) => {
                ensure!(least <= most && *most <= 60_000, "{least} to {most} ms is not a range up to 60000 ms");
                Ok(())
            }
            Action::JumpClock(seconds) => {
                ensure!(seconds.is_finite(), "the clock cannot jump by {seconds} s");
                Ok(())
            }
            Action::ClockRate(rate) => {
                ensure!((0.01..=100.0).contains(rate), "the clock rate {rate} is not from 0.01 to 100");
                Ok(())
            }
            Action::Serve
            | Action::Refuse
            | Action::Silent
            | Action::Garbage(_)
            | Action::Stall
            | Action::End
            | Action::Disconnect => Ok(()),
        }
    }
}

/// Changed properties of the video.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VideoChange {
    pub codec: Option<Codec>,
    pub size: Option<[usize; 2]>,
    pub fps: Option<u32>,
    pub color: Option<Color>,
}

impl VideoChange {
    pub fn apply(&self, settings: &mut VideoSettings) {
        if let Some([width, height]) = self.size {
            (settings.width, settings.height) = (width, height);
        }
        settings.fps = self.fps.unwrap_or(settings.fps);
        settings.color = self.color.unwrap_or(settings.color);
    }

    /// Checks that a camera can send it.
    fn check(&self) -> Result<()> {
        // Chroma is subsampled 2 × 2, and JPEG over RTP has sizes in units of 8 pixels.
        let is_valid = |side: &usize| side.is_multiple_of(8) && (64..=8192).contains(side);
        ensure!(
            self.size.is_none_or(|size| size.iter().all(is_valid)),
            "the size {:?} is not in multiples of 8 from 64 to 8192",
            self.size
        );
        ensure!(
            self.fps.is_none_or(|fps| (1..=60).contains(&fps)),
            "{:?} frames a second are not from 1 to 60",
            self.fps
        );
        Ok(())
    }
}

/// Kinds of invalid responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Garbage {
    /// RTSP: the response to DESCRIBE announces an SDP and contains random bytes.
    Sdp,
    /// RTSP: an SDP without media.
    NoMedia,
    /// The connection is closed in the middle of the response.
    Truncated,
    /// Random bytes as soon as a client connects.
    Noise,
}

/// What the viewers of a stream must see, by MJPEG and by RTSP, and what the API must report.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// Default: the stream of the step's camera.
    pub stream: Option<String>,
    pub sees: ExpectedView,
    /// With `live`: width and height of the frames,
    pub size: Option<[usize; 2]>,
    /// their colour,
    pub color: Option<Color>,
    /// and their rate (within 15 %).
    pub fps: Option<f64>,
    /// A part of the reason in the API.
    pub reason: Option<String>,
    /// Maximum time from the start of the step, seconds.
    pub within: f64,
    /// A time that is added to it.
    pub after: Option<ExtraTime>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpectedView {
    /// Frames that were captured after the start of the step.
    Live,
    /// The slate with OFFLINE.
    Offline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExtraTime {
    /// The stream's `silence_timeout`.
    Silence,
    /// The rest, at the start of the step, of the pause before the next attempt.
    BackOff,
}

impl Scenario {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The problem, with its position.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Scenario::parse(&text).with_context(|| path.display().to_string())
    }

    /// Reads and checks a file's text.
    ///
    /// # Errors
    /// The problem, with its position.
    pub fn parse(text: &str) -> Result<Self> {
        let scenario: Scenario = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The camera of a step.
    pub fn camera_of<'a>(&'a self, step: &'a Step) -> &'a str {
        step.camera.as_deref().unwrap_or(&self.cameras[0].name)
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.cameras.is_empty(), "the scenario has no camera");
        ensure!(!self.steps.is_empty(), "the scenario has no step");
        for (n, camera) in self.cameras.iter().enumerate() {
            let twice = self.cameras[..n].iter().any(|other| other.name == camera.name);
            ensure!(!twice, "two cameras have the name {:?}", camera.name);
            let video = VideoChange { size: Some(camera.size), fps: Some(camera.fps), ..VideoChange::default() };
            video.check().with_context(|| format!("{:?}", camera.name))?;
            camera.starts.check().with_context(|| format!("{:?}", camera.name))?;
        }
        ensure!(is_duration(self.max_age), "max_age: {} s", self.max_age);
        for step in &self.steps {
            let named = step.camera.iter().chain(step.expect.iter().filter_map(|expect| expect.stream.as_ref()));
            for name in named.chain(&step.undisturbed) {
                ensure!(self.cameras.iter().any(|camera| camera.name == *name), "{:?}: no camera {name:?}", step.name);
            }
            ensure!(is_duration(step.seconds), "{:?}: {} s", step.name, step.seconds);
            let ends = step.seconds > 0.0 || step.frames > 0 || step.connections > 0;
            ensure!(ends, "{:?}: the step needs seconds, frames or connections", step.name);
            for expect in &step.expect {
                ensure!(is_duration(expect.within), "{:?}: within {} s", step.name, expect.within);
            }
            if let Some(action) = &step.action {
                action.check().with_context(|| format!("{:?}", step.name))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    /// These values once made the camera divide by zero, wait forever or panic.
    #[test]
    fn impossible_actions_are_refused() {
        use super::Scenario;
        let scenario = |action: &str, more: &str| {
            Scenario::parse(&format!(
                "title = \"t\"\n[[camera]]\nname = \"a\"\n[[step]]\nname = \"s\"\ndo = {action}\n{more}"
            ))
        };
        assert!(scenario("{ reboot = { fps = 10, size = [640, 480] } }", "seconds = 1").is_ok());
        for action in [
            "{ reboot = { fps = 0 } }",
            "{ change = { fps = 4000000000 } }",
            "{ change = { size = [63, 64] } }",
            "{ reboot = { size = [0, 0] } }",
            "{ delay = [20, 10] }",
            "{ corrupt = nan }",
            "{ drop-packets = 1.5 }",
            "{ jump-clock = inf }",
            "{ clock-rate = nan }",
            "{ clock-rate = 0.0 }",
        ] {
            let error = format!("{:#}", scenario(action, "seconds = 1").expect_err(action));
            assert!(error.starts_with("\"s\": "), "{error}");
        }
        for more in ["seconds = inf", "seconds = -1.0", "seconds = 1\n[[step.expect]]\nsees = \"live\"\nwithin = nan"] {
            assert!(scenario("\"serve\"", more).is_err(), "{more}");
        }
    }
}
