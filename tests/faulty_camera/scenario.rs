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
        let scenario: Scenario = toml::from_str(&text).with_context(|| path.display().to_string())?;
        scenario.check().with_context(|| path.display().to_string())?;
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
            // Colours are sampled 2 by 2, and JPEG over RTP counts in eights.
            ensure!(
                camera.size.iter().all(|side| side % 8 == 0 && *side >= 64),
                "{:?}: {:?}",
                camera.name,
                camera.size
            );
            ensure!((1..=60).contains(&camera.fps), "{:?}: {} frames a second", camera.name, camera.fps);
        }
        for step in &self.steps {
            let named = step.camera.iter().chain(step.expect.iter().filter_map(|expect| expect.stream.as_ref()));
            for name in named.chain(&step.undisturbed) {
                ensure!(self.cameras.iter().any(|camera| camera.name == *name), "{:?}: no camera {name:?}", step.name);
            }
            let lasts = step.seconds > 0.0 || step.pictures > 0 || step.connections > 0;
            ensure!(lasts, "{:?}: give seconds, pictures or connections", step.name);
            if let Some(Action::DropPackets(share) | Action::Corrupt(share)) = &step.action {
                ensure!((0.0..=1.0).contains(share), "{:?}: {share} is no share", step.name);
            }
        }
        Ok(())
    }
}
