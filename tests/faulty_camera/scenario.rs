//! Scenarios: a small TOML file says what cameras do, step by step, and what a viewer must see after each step and how
//! soon. `tests/scenarios/` has them.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use super::picture::{Color, Look};

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What goes wrong, in one line.
    pub title: String,
    /// No viewer may ever be shown a picture, as if it were live, that is older than this many seconds.
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
    pub kind: Kind,
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
    /// What it films at first.
    pub fn look(&self) -> Look {
        Look { width: self.size[0], height: self.size[1], fps: self.fps, color: self.color }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    #[default]
    Rtsp,
    /// `multipart/x-mixed-replace` with JPEG pictures.
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

/// One step: what a camera does, for how long at least, and what viewers must see meanwhile.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    pub name: String,
    /// Whose step it is; the first camera's when left out.
    pub camera: Option<String>,
    /// Nothing new when left out.
    #[serde(rename = "do")]
    pub action: Option<Action>,
    /// The step lasts at least this long.
    #[serde(default)]
    pub seconds: f64,
    /// The step lasts until its camera has delivered so many pictures,
    #[serde(default)]
    pub pictures: u64,
    /// and until so many have connected to it.
    #[serde(default)]
    pub connections: u64,
    #[serde(default)]
    pub expect: Vec<Expect>,
    /// Streams that must not notice the step: they stay live, and all that their source takes is published (to 5 %).
    #[serde(default)]
    pub undisturbed: Vec<String>,
}

/// What a camera does from now on. Faults of the link add up until [`Action::Serve`] or [`Action::Reboot`].
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Action {
    /// All is well; a camera that was away is back.
    #[default]
    Serve,
    /// All connections are cut; the camera comes back at once with other video.
    Reboot(Video),
    /// Other video in the running stream.
    Change(Video),
    /// All connections are cut and the port is closed.
    Refuse,
    /// Connections are accepted, and then nothing is said.
    Silent,
    /// Connections are answered with nonsense.
    Garbage(Garbage),
    /// Connections stay open; pictures cease.
    Stall,
    /// The running stream ends properly; who connects again gets a new one.
    End,
    /// All connections are cut in the middle; the port stays open.
    HangUp,
    /// Share of packets (HTTP: of pictures) that are lost.
    DropPackets(f64),
    /// Share of packets (HTTP: of pictures) in which bytes are damaged.
    Corrupt(f64),
    /// Every picture is late by a random time: from, to, in milliseconds. Order is kept.
    Delay([u32; 2]),
    /// RTP timestamps jump by so many seconds.
    JumpClock(f64),
    /// RTP timestamps run so many times as fast as time does.
    ClockRate(f64),
}

/// A time that a scenario may take.
fn lasts(seconds: f64) -> bool {
    // NaN is in no range.
    (0.0..=86_400.0).contains(&seconds)
}

impl Action {
    fn check(&self) -> Result<()> {
        match self {
            Action::Reboot(video) | Action::Change(video) => video.check(),
            Action::DropPackets(share) | Action::Corrupt(share) => {
                ensure!((0.0..=1.0).contains(share), "{share} is no share");
                Ok(())
            }
            Action::Delay([least, most]) => {
                ensure!(least <= most && *most <= 60_000, "from {least} to {most} ms is no range");
                Ok(())
            }
            Action::JumpClock(seconds) => {
                ensure!(seconds.is_finite(), "a clock cannot jump by {seconds} s");
                Ok(())
            }
            Action::ClockRate(rate) => {
                ensure!((0.01..=100.0).contains(rate), "no clock runs {rate} times as fast");
                Ok(())
            }
            Action::Serve
            | Action::Refuse
            | Action::Silent
            | Action::Garbage(_)
            | Action::Stall
            | Action::End
            | Action::HangUp => Ok(()),
        }
    }
}

/// What is to be different about the video.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Video {
    pub codec: Option<Codec>,
    pub size: Option<[usize; 2]>,
    pub fps: Option<u32>,
    pub color: Option<Color>,
}

impl Video {
    pub fn apply(&self, look: &mut Look) {
        if let Some([width, height]) = self.size {
            (look.width, look.height) = (width, height);
        }
        look.fps = self.fps.unwrap_or(look.fps);
        look.color = self.color.unwrap_or(look.color);
    }

    /// Whether a camera can make it.
    fn check(&self) -> Result<()> {
        // Colours are sampled 2 by 2, and JPEG over RTP counts in eights.
        let possible = |side: &usize| side.is_multiple_of(8) && (64..=8192).contains(side);
        ensure!(self.size.is_none_or(|size| size.iter().all(possible)), "{:?} is no size", self.size);
        ensure!(self.fps.is_none_or(|fps| (1..=60).contains(&fps)), "{:?} frames a second", self.fps);
        Ok(())
    }
}

/// Ways to answer wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Garbage {
    /// RTSP: the answer to DESCRIBE announces an SDP and holds random bytes.
    Sdp,
    /// RTSP: an SDP that describes no media.
    NoMedia,
    /// The answer breaks off, and so does the connection.
    Truncated,
    /// Random bytes as soon as somebody connects.
    Noise,
}

/// What a stream's viewers must see, in the browser and in an RTSP player, and the API must say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The stream of the step's camera when left out.
    pub stream: Option<String>,
    pub sees: Sees,
    /// With `live`: the pictures have this size,
    pub size: Option<[usize; 2]>,
    /// this colour,
    pub color: Option<Color>,
    /// and come at this rate (to 15 %).
    pub fps: Option<f64>,
    /// The API's reason holds this.
    pub says: Option<String>,
    /// Seconds from the step's start.
    pub within: f64,
    /// What is added to it.
    pub after: Option<After>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sees {
    /// Pictures that were taken after the step began.
    Live,
    /// Grey pictures with OFFLINE on them.
    Offline,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum After {
    /// The stream's `silence_timeout`.
    Silence,
    /// What was left, when the step began, of the pause before the next attempt.
    BackOff,
}

impl Scenario {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        Scenario::parse(&text).with_context(|| path.display().to_string())
    }

    /// Reads and checks a file's text.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self> {
        let scenario: Scenario = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// The camera whose step it is.
    pub fn camera_of<'a>(&'a self, step: &'a Step) -> &'a str {
        step.camera.as_deref().unwrap_or(&self.cameras[0].name)
    }

    fn check(&self) -> Result<()> {
        ensure!(!self.cameras.is_empty(), "there is no camera");
        ensure!(!self.steps.is_empty(), "there is no step");
        for (n, camera) in self.cameras.iter().enumerate() {
            let twice = self.cameras[..n].iter().any(|other| other.name == camera.name);
            ensure!(!twice, "two cameras are called {:?}", camera.name);
            let video = Video { size: Some(camera.size), fps: Some(camera.fps), ..Video::default() };
            video.check().with_context(|| format!("{:?}", camera.name))?;
            camera.starts.check().with_context(|| format!("{:?}", camera.name))?;
        }
        ensure!(lasts(self.max_age), "max_age: {} s", self.max_age);
        for step in &self.steps {
            let named = step.camera.iter().chain(step.expect.iter().filter_map(|expect| expect.stream.as_ref()));
            for name in named.chain(&step.undisturbed) {
                ensure!(self.cameras.iter().any(|camera| camera.name == *name), "{:?}: no camera {name:?}", step.name);
            }
            ensure!(lasts(step.seconds), "{:?}: {} s", step.name, step.seconds);
            let ends = step.seconds > 0.0 || step.pictures > 0 || step.connections > 0;
            ensure!(ends, "{:?}: give seconds, pictures or connections", step.name);
            for expect in &step.expect {
                ensure!(lasts(expect.within), "{:?}: within {} s", step.name, expect.within);
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
    /// Each was read without complaint once, and had the camera divide by nothing, wait for ever or panic.
    #[test]
    fn what_no_camera_can_do_is_refused() {
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
