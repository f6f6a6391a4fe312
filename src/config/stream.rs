//! `[[stream]]`: a camera's stream.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use utoipa::ToSchema;

use super::collect::CollectConfig;
use super::credentials::{PasswordAlone, combine};
use super::crop::CropArea;
use super::document::Section;
use super::drift::DriftConfig;
use super::duration::DurationText;
use super::encode::EncodeConfig;
use super::gate::MotionGate;
use super::mask_rate::MaskRate;
use super::model::{DEFAULT_MODEL, ModelConfig};
use super::overlay::OverlayConfig;
use super::push::{self, PushConfig};
use super::record::RecordConfig;
use super::redact::RedactConfig;
use super::rule::{self, RuleConfig};
use super::sink::{self, SinkConfig};
use super::source::{SourceSpec, SourceUri};
use super::tiles::TileGrid;
use super::uri::{self, url_of_file};
use super::value::Value;
use super::zone::{self, ZoneConfig};
use crate::frame::{Crop, Tiles};

/// Which mask is drawn on which frame (`stream.show`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Show {
    /// Every captured frame is published, with the newest mask that is not older than `max_mask_age`. The mask is of an
    /// earlier frame.
    FullRate,
    /// Every published frame has its own mask. Frames that arrive while the model is busy are dropped.
    Matched,
}

/// When the model runs for a stream (`stream.masks`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum MasksWhen {
    /// While something uses the masks: a viewer, a recording, a push, a zone, a rule, a mask sink, an API client, MQTT,
    /// redaction, or the collection of frames.
    #[default]
    Auto,
    /// For as long as frames come, for example for the shares in the history.
    Always,
}

/// A stream: its source, what is drawn on its frames, and its outputs. The API can add, change and remove streams.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default = "StreamConfig::unknown")]
#[schemars(extend("required" = ["name", "source"], "x-applies" = "restarts-stream"))]
pub struct StreamConfig {
    /// Unique name of the stream: letters, digits, `-` and `_`, at most 64 characters. It is part of the addresses of the
    /// stream. The API cannot change it.
    #[schemars(length(max = 64), pattern(r"^[A-Za-z0-9_-]+$"), extend(
        "x-check" = "stream-name",
        "x-help" = "it is part of the stream's addresses, e.g. rtsp://HOST:8554/NAME",
    ))]
    pub name: String,
    #[serde(flatten)]
    pub source: SourceSpec,
    /// Name of the model that makes the masks of the stream (`[[model]]`).
    #[schemars(length(max = 64), pattern(r"^[A-Za-z0-9_-]+$"), extend(
        "x-check" = "stream-name",
        "x-default" = "the first model",
        "x-help" = "the name of a [[model]]",
    ))]
    pub model: String,
    /// Which mask is drawn on which frame.
    #[schemars(extend("x-default" = "`full-rate`; `matched` for a file with `speed = \"max\"`"))]
    pub show: Show,
    /// When the model runs for the stream.
    #[schemars(extend("x-applies" = "next-frame"))]
    pub masks: MasksWhen,
    /// How many masks per second the model makes of this stream (with `show = "full-rate"` only); the video keeps its frame rate.
    /// `auto`: one for each frame, or fewer if the model is overloaded. A number: at most this many.
    #[schemars(extend("x-applies" = "next-frame"))]
    pub mask_rate: MaskRate,
    /// The motion gate: whether the model also runs for frames in which nothing has moved. It has no effect with
    /// `[stream.redact]`, for which every frame needs a mask of its own, with `tiles`, and for a file with `speed = "max"`.
    #[schemars(extend("x-applies" = "next-frame"))]
    pub gate: MotionGate,
    /// Weight of the stream when the model is overloaded: a stream with 2 gets twice as many masks as one with 1.
    #[schemars(range(min = 1, max = 100), extend("x-applies" = "next-frame", "x-help" = "1 to 100; 2 is twice the weight of 1"))]
    pub priority: u32,
    /// The part of each frame that the model gets, `[x, y, width, height]` as fractions of the width and height of the frame, to see
    /// small objects in large pictures. The video is not cropped. `width` and `height` are at least 0.25. The rest of the frame has no
    /// mask and does not count in the shares of classes. Not with `[stream.redact]`.
    #[schemars(extend("x-default" = "the whole frame"))]
    pub crop: CropArea,
    /// Columns and rows of tiles into which a frame or its `crop` is divided for the model, to see small objects in large pictures:
    /// `"2x2"`, up to `"4x4"`. The model runs for each tile and, on a CPU with a model that has `maskcast.head`, also for the whole
    /// frame or crop, so a mask takes several times as long. The motion gate then has no effect. Not with `[stream.redact]`.
    pub tiles: TileGrid,
    /// With `show = "full-rate"`: the maximum age of a mask; with a number as `mask_rate`, 1/`mask_rate` seconds more. An older mask is
    /// not drawn, and the state of the stream is `stale`. With `show = "matched"` and a live source: how long a frame waits for its mask.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "50ms", "x-most" = "1m"))]
    pub max_mask_age: Duration,
    /// Maximum age of a frame of a live source. An older frame is dropped (`late`), and so are all frames after it until one is
    /// newer than a quarter of this time.
    // A limit below the time of a few frames would drop every frame.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "200ms", "x-most" = "1m"))]
    pub max_latency: Duration,
    /// Maximum time without a frame of a live source. After it, the stream is `offline`, and the source is opened again.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-least" = "500ms", "x-most" = "1h"))]
    pub silence_timeout: Duration,
    pub overlay: OverlayConfig,
    pub encode: EncodeConfig,
    /// Parts of the frame in which the shares of classes are measured. A request replaces all zones.
    #[serde(rename = "zone", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend(
        "x-help" = "write [[stream.zone]], with two brackets, and below it name = \"…\" and polygon = [[0, 0], …]",
        "x-applies" = "next-frame",
    ))]
    pub zones: Vec<ZoneConfig>,
    /// Conditions on the shares of classes, which make events. A request replaces all rules.
    #[serde(rename = "rule", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), extend(
        "x-help" = "write [[stream.rule]], with two brackets, and below it name = \"…\" and classes = [\"person\"]",
        "x-applies" = "next-frame",
    ))]
    pub rules: Vec<RuleConfig>,
    pub drift: DriftConfig,
    pub record: Option<RecordConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-api" = "never"))]
    pub redact: Option<RedactConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-api" = "never"))]
    pub collect: Option<CollectConfig>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-help" = "write [[stream.push]], with two brackets, and below it url = \"…\"",
        "x-api" = "never",
    ))]
    pub push: Vec<PushConfig>,
    #[serde(rename = "sink", skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend(
        "x-help" = "write [[stream.sink]], with two brackets, and below it type = \"…\"",
        "x-api" = "never",
    ))]
    pub sinks: Vec<SinkConfig>,
}

impl StreamConfig {
    /// Whether `other` differs only in what applies to the next frame of a running stream: overlay, masks, mask rate, motion gate,
    /// priority, zones, and rules whose events are not recorded.
    pub fn differs_without_restart(&self, other: &StreamConfig) -> bool {
        let (overlay, zones, rules) = (other.overlay.clone(), other.zones.clone(), other.rules.clone());
        let (masks, mask_rate, gate, priority) = (other.masks, other.mask_rate, other.gate, other.priority);
        self != other
            && *other == StreamConfig { overlay, masks, mask_rate, gate, priority, zones, rules, ..self.clone() }
            && self.recorded_rules().eq(other.recorded_rules())
    }

    /// How its frames are collected; `None` as well for a stream with `[stream.redact]`, unless `collect.allow_redacted` is set.
    pub fn collects(&self) -> Option<&CollectConfig> {
        self.collect.as_ref().filter(|collect| self.redact.is_none() || collect.allow_redacted)
    }

    /// The rules whose events are recorded.
    pub fn recorded_rules(&self) -> impl Iterator<Item = &RuleConfig> {
        self.rules.iter().filter(|rule| rule.record && self.record.is_some())
    }

    /// A placeholder for a stream that could not be read; it is never started.
    fn unknown() -> Self {
        defaults_stream("", SourceSpec::new(SourceUri::Libcamera(String::new())))
    }

    /// Adds the defaults that depend on other keys, and checks what concerns several keys. `values` is the table as it was
    /// read, `models` are those of the document.
    pub(super) fn apply_dependent_defaults(&mut self, section: &Section, values: &Json, models: &[ModelConfig]) {
        self.choose_model(section, models);
        // The type of the source does not hold the password of its URL.
        let in_url = values["source"].as_str().and_then(|text| uri::parse(text, "/".as_ref()).ok());
        let in_url = in_url.map(|(_, credentials)| credentials);
        self.source.credentials = combine(section, self.source.credentials.take(), in_url, PasswordAlone::LacksAUser);
        if !section.is_valid("show") {
            self.show = if self.redact.is_some() { Show::Matched } else { default_show(&self.source) };
        }
        if let Some(redact) = &self.redact {
            redact.check(&section.section("redact"));
            if self.show != Show::Matched {
                let help = Some("remove show: a stream with [stream.redact] publishes each frame with its own mask");
                section.fail("show", "\"full-rate\" is not possible with [stream.redact]", help);
            }
        }
        if self.redact.is_some() && !Tiles::from(self.tiles).is_whole() {
            section.fail("tiles", "is not possible with [stream.redact]", Some("remove tiles"));
        }
        if self.redact.is_some() && !Crop::from(self.crop).is_whole() {
            let help = Some("remove crop: the model has to see all that is published");
            section.fail("crop", "is not possible with [stream.redact]", help);
        }
        if self.show == Show::Matched && self.mask_rate != MaskRate::Auto {
            let help = match self.redact {
                Some(_) => "remove mask_rate: a stream with [stream.redact] publishes each frame with its own mask",
                None => "remove mask_rate, or write show = \"full-rate\"",
            };
            section.fail(
                "mask_rate",
                "is not possible with show = \"matched\", which needs a mask for every frame",
                Some(help),
            );
        }
        let records_a_rule = self.rules.iter().any(|rule| rule.record);
        if let Some(record) = &mut self.record {
            record.apply_dependent_defaults(records_a_rule, &section.section("record"));
        } else if let Some(i) = self.rules.iter().position(|rule| rule.record) {
            let help = Some("add [stream.record] with dir = \"…\" and when = \"event\"");
            section.element("rule", i).fail("record", "the stream has no [stream.record]", help);
        }
        if let Some(collect) = &self.collect {
            collect.check(self.record.as_ref().map(|record| record.dir.as_path()), &section.section("collect"));
        }
        zone::check_all(&self.zones, section);
        self.check_crop(section);
        let events = self.record.iter().flat_map(|record| &record.events);
        let events: Vec<&str> = events.map(|event| event.name.as_str()).collect();
        rule::check_all(&mut self.rules, &self.zones, &events, section);
        push::check_all(&mut self.push, section, values["push"].as_array().map_or(&[], Vec::as_slice));
        sink::check_all(&mut self.sinks, section);
    }

    /// Checks that the model sees some of each zone.
    fn check_crop(&self, section: &Section) {
        let is_unseen = |polygon: &[[f64; 2]]| !polygon.is_empty() && zone::is_outside(polygon, self.crop.into());
        let help = Some("move the zone, or enlarge crop: shares are those of the pixels that the model sees");
        for (i, zone) in self.zones.iter().enumerate().filter(|(_, zone)| is_unseen(&zone.polygon)) {
            let problem =
                format!("the zone {:?} has less than 0.01 % of the frame inside of crop = {}", zone.name, self.crop);
            section.element("zone", i).fail("polygon", problem, help);
        }
        let events = self.record.iter().flat_map(|record| &record.events).enumerate();
        for (i, event) in events.filter(|(_, event)| is_unseen(&event.zone)) {
            let problem = format!(
                "the zone of the event {:?} has less than 0.01 % of the frame inside of crop = {}",
                event.name, self.crop
            );
            section.section("record").element("event", i).fail("zone", problem, help);
        }
    }

    /// The first model unless `model` names one.
    fn choose_model(&mut self, section: &Section, models: &[ModelConfig]) {
        if section.is_valid("model") && !models.iter().any(|model| model.name == self.model) {
            let names: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
            let help = format!("models: {}", names.join(", "));
            section.fail("model", format!("unknown model {:?}", self.model), Some(&help));
        }
        if !section.is_valid("model") {
            self.model = models.first().map_or_else(|| DEFAULT_MODEL.to_owned(), |model| model.name.clone());
        }
    }
}

/// A stream of `source` with the default settings, not recorded.
///
/// `show` is `matched` for a file that is played as fast as the machine can, `full-rate` for everything else. `name`
/// is not checked: it must consist of letters, digits, `-` and `_`.
pub fn defaults_stream(name: &str, source: SourceSpec) -> StreamConfig {
    StreamConfig {
        name: name.to_owned(),
        show: default_show(&source),
        source,
        model: DEFAULT_MODEL.to_owned(),
        masks: MasksWhen::Auto,
        mask_rate: MaskRate::Auto,
        gate: MotionGate::Auto,
        priority: 1,
        crop: CropArea::default(),
        tiles: TileGrid::default(),
        max_mask_age: Duration::from_secs(1),
        max_latency: Duration::from_secs(1),
        silence_timeout: Duration::from_secs(3),
        overlay: OverlayConfig::default(),
        encode: EncodeConfig::default(),
        zones: Vec::new(),
        rules: Vec::new(),
        drift: DriftConfig::default(),
        record: None,
        redact: None,
        collect: None,
        push: Vec::new(),
        sinks: Vec::new(),
    }
}

fn default_show(source: &SourceSpec) -> Show {
    let is_hurried = matches!(source.uri, SourceUri::File(_)) && !source.real_time;
    if is_hurried { Show::Matched } else { Show::FullRate }
}

pub(super) fn read_name(value: &Value) -> Option<Json> {
    let name = value.string(None)?;
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return value.fail(format!("{name:?} has other characters than letters, digits, - and _"), None);
    }
    if name.len() > 64 {
        return value.fail(format!("has {} characters, more than 64", name.len()), None);
    }
    Some(name.into())
}

/// Bytes of a source: it is part of log lines.
const LONGEST_SOURCE: usize = 4096;

/// The text of the source; the path of a file is absolute in it.
pub(super) fn read_source(value: &Value) -> Option<Json> {
    let text = value.string(None)?;
    if text.len() > LONGEST_SOURCE {
        return value.fail(format!("has {} bytes, more than {LONGEST_SOURCE}", text.len()), None);
    }
    let uri = SourceUri::parse(text, value.doc.base());
    match uri.and_then(|uri| uri.check_file().map(|()| uri)) {
        Ok(SourceUri::File(path)) => Some(url_of_file(&path).into()),
        Ok(_) => Some(text.into()),
        Err((problem, help)) => value.fail(problem, help.as_deref()),
    }
}
