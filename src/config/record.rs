//! `[stream.record]` and the events below it: what they hold, and how they are read.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use super::reader::{Section, Value};

/// Container of recordings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// MP4, fragmented while it is written.
    Mp4,
    /// Matroska.
    Mkv,
}

/// When a stream is recorded (`stream.record.when`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum When {
    Always,
    /// From before the beginning of an event until after its end.
    Event,
}

/// `[stream.record]`
#[derive(Clone, Debug, PartialEq)]
pub struct RecordConfig {
    pub dir: PathBuf,
    /// Default `mp4`.
    pub format: Container,
    /// A file that is this long is followed by another. Default 10 minutes.
    pub segment: Duration,
    /// Bytes after which a file is followed by another.
    pub segment_size: Option<u64>,
    /// Recordings that began longer ago are removed.
    pub max_age: Option<Duration>,
    /// Bytes that the stream's recordings may have together; the oldest are removed.
    pub max_size: Option<u64>,
    /// Bytes that stay free on the disk: the oldest recordings are removed for it, and without any left recording pauses.
    pub min_free: Option<u64>,
    /// Default `always`.
    pub when: When,
    pub events: Vec<EventConfig>,
}

impl RecordConfig {
    /// All that is shown, in files of ten minutes that nobody removes.
    pub fn to(dir: impl Into<PathBuf>) -> Self {
        RecordConfig {
            dir: dir.into(),
            format: Container::Mp4,
            segment: Duration::from_secs(600),
            segment_size: None,
            max_age: None,
            max_size: None,
            min_free: None,
            when: When::Always,
            events: Vec::new(),
        }
    }
}

/// `[[stream.record.event]]`: classes that cover enough of a zone for long enough.
#[derive(Clone, Debug, PartialEq)]
pub struct EventConfig {
    /// A letter, then letters, digits, `-` and `_`; part of the names of its files. Default `event`, `event2`, …
    pub name: String,
    /// Labels of the model; checked when it is loaded.
    pub classes: Vec<String>,
    /// Corners of a polygon in fractions of the picture's width and height; empty = the whole picture.
    pub zone: Vec<[f64; 2]>,
    /// Least share of the zone's pixels, 0 to 1. Default 0.02.
    pub share: f64,
    /// For how long (`for`). Default 2 s.
    pub hold: Duration,
    /// What is recorded from before the classes came. Default 5 s.
    pub pre_roll: Duration,
    /// What is recorded after they were last seen. Default 10 s.
    pub post_roll: Duration,
}

impl EventConfig {
    /// One with the default settings in the whole picture.
    pub fn of(name: &str, classes: &[&str]) -> Self {
        EventConfig {
            name: name.to_owned(),
            classes: classes.iter().map(ToString::to_string).collect(),
            zone: Vec::new(),
            share: 0.02,
            hold: Duration::from_secs(2),
            pre_roll: Duration::from_secs(5),
            post_roll: Duration::from_secs(10),
        }
    }
}

/// Least and most bytes of anything that is limited.
const SIZES: std::ops::RangeInclusive<u64> = 100_000..=1 << 60;

const YEAR: Duration = Duration::from_secs(366 * 86_400);

/// A zone with less of the picture than this is a slip of the pen.
const LEAST_AREA: f64 = 1e-4;

pub(super) fn read_record(section: &Section) -> Option<RecordConfig> {
    if !section.is_present() {
        return None;
    }
    let dir = section.require("dir", "the folder for recordings").and_then(|value| value.folder());
    let mut record = RecordConfig::to(dir.clone().unwrap_or_default());
    let formats = [("mp4", Container::Mp4), ("mkv", Container::Mkv)];
    record.format = section.get("format").and_then(|value| value.choice(&formats)).unwrap_or(record.format);
    let duration = |key, least, most| section.get(key).and_then(|value| value.duration(least..=most));
    let size = |key| section.get(key).and_then(|value| value.size(SIZES));
    let day = Duration::from_secs(86_400);
    record.segment = duration("segment", Duration::from_secs(1), day).unwrap_or(record.segment);
    record.segment_size = size("segment_size");
    record.max_age = duration("max_age", Duration::from_secs(60), 100 * YEAR);
    record.max_size = size("max_size");
    record.min_free = size("min_free");
    if let (Some(one), Some(all)) = (record.segment_size, record.max_size)
        && all < one
    {
        let help = "it should hold a few segments";
        section.fail("max_size", "is less than segment_size", Some(help));
    }
    let whens = [("always", When::Always), ("event", When::Event)];
    record.when = section.get("when").and_then(|value| value.choice(&whens)).unwrap_or(record.when);
    let events = section.get("event");
    record.events = events.as_ref().map(read_events).unwrap_or_default();
    if record.when == When::Event && events.is_none() {
        section.fail("when", "there is no event to wait for", Some("add [[stream.record.event]] below it"));
    }
    section.finish();
    dir.map(|_| record)
}

fn read_events(value: &Value) -> Vec<EventConfig> {
    const HELP: &str = "write [[stream.record.event]], and below it classes = [\"person\"]";
    if value.is_table() {
        let _: Option<()> = value.fail("is a single table", Some(HELP));
        return Vec::new();
    }
    let tables = value.list(Some(HELP)).unwrap_or_default();
    let mut events: Vec<EventConfig> = Vec::new();
    for (i, table) in tables.iter().enumerate() {
        let Some(section) = table.section() else { continue };
        let default = if i == 0 { "event".into() } else { format!("event{}", i + 1) };
        if let Some(event) = read_event(&section, default, &events) {
            events.push(event);
        }
    }
    events
}

fn read_event(section: &Section, default: String, before: &[EventConfig]) -> Option<EventConfig> {
    let name = match section.get("name") {
        Some(value) => read_name(&value, before),
        None => Some(default),
    };
    let classes = section.require("classes", "write [\"person\", \"car\"]").and_then(|value| {
        let help = Some("write [\"person\", \"car\"]");
        let names = value.list(help)?;
        if names.is_empty() {
            return value.fail("must not be empty", help);
        }
        Some(names.iter().filter_map(|name| name.string().map(str::to_owned)).collect::<Vec<_>>())
    });
    let mut event = EventConfig::of("", &[]);
    event.zone = section.get("zone").and_then(|value| read_zone(&value)).unwrap_or_default();
    let share_help = "the least share of the zone's pixels; 0.02 is a fiftieth";
    event.share = section.get("share").and_then(|value| value.number(0.0001..=1.0, share_help)).unwrap_or(event.share);
    let duration = |key, most, default| {
        let range = Duration::ZERO..=Duration::from_secs(most);
        section.get(key).and_then(|value| value.duration(range)).unwrap_or(default)
    };
    event.hold = duration("for", 600, event.hold);
    event.pre_roll = duration("pre_roll", 60, event.pre_roll);
    event.post_roll = duration("post_roll", 3600, event.post_roll);
    section.finish();
    (event.name, event.classes) = (name?, classes?);
    Some(event)
}

fn read_name(value: &Value, before: &[EventConfig]) -> Option<String> {
    let name = value.string()?;
    // By its first letter it is told from the parts of a file's name.
    let fits = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if !fits {
        return value.fail(format!("{name:?} is not a letter and after it letters, digits, - and _"), None);
    }
    if name.len() > 32 {
        return value.fail(format!("has {} characters, more than 32", name.len()), None);
    }
    if before.iter().any(|other| other.name == name) {
        return value.fail(format!("{name:?} is the name of an event above"), Some("names must differ"));
    }
    Some(name.to_owned())
}

fn read_zone(value: &Value) -> Option<Vec<[f64; 2]>> {
    const HELP: &str = "write the corners, [[0, 0.5], [1, 0.5], [1, 1], [0, 1]] is the lower half";
    let corners = value.list(Some(HELP))?;
    if corners.len() < 3 {
        return value.fail(format!("has {} corners, fewer than 3", corners.len()), Some(HELP));
    }
    let mut zone = Vec::new();
    for corner in &corners {
        let numbers = corner.list(Some(HELP))?;
        if numbers.len() != 2 {
            return corner.fail(format!("has {} numbers, not 2", numbers.len()), Some(HELP));
        }
        let help = "fractions of the picture's width and height";
        zone.push([numbers[0].number(0.0..=1.0, help)?, numbers[1].number(0.0..=1.0, help)?]);
    }
    let sides = zone.iter().zip(zone.iter().cycle().skip(1));
    let area = sides.map(|([x, y], [x2, y2])| x * y2 - x2 * y).sum::<f64>().abs() / 2.0;
    if area < LEAST_AREA {
        return value.fail("covers nothing", Some(HELP));
    }
    Some(zone)
}
