//! Redaction that becomes weaker. Clients of the API cannot do that ([`check_redaction`]); a change of the configuration file
//! can, and is logged, counted, and shown for a day ([`RedactionWatch`]).

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use serde::{Deserialize, Serialize};

use crate::base::atomic_file::AtomicFile;
use crate::config::{Config, ConfigError, Edit, RedactConfig, SourceHost, SourceUri, StreamConfig};
use crate::view::redaction::{SHOWN_FOR, WeakenedRedaction};

/// The file in the state folder.
const FILE: &str = "redaction.json";

/// Maximum number of streams and of changes that are remembered.
const MOST: usize = 512;

/// The redaction of each stream as it was last seen, on disk, so that a change between two runs of the service is noticed.
#[derive(Debug, Default)]
pub struct RedactionWatch {
    /// `None`: nothing is remembered after the end of the service.
    path: Option<PathBuf>,
    seen: Seen,
}

/// The content of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Seen {
    /// Streams that have `[stream.redact]`, or had it before they were removed.
    streams: Vec<SeenStream>,
    /// Name and source of the streams that have none.
    #[serde(default)]
    unredacted: Vec<(String, String)>,
    /// Changes of the last day.
    weakened: Vec<WeakenedRedaction>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct SeenStream {
    name: String,
    /// The label of the source, without secrets.
    source: String,
    /// The host of a network source.
    host: Option<String>,
    redact: RedactConfig,
    /// Whether its frames are collected, unredacted.
    #[serde(default)]
    collects: bool,
}

impl SeenStream {
    /// Whether the source of a stream may be the camera of this one.
    fn may_show(&self, stream: &StreamConfig) -> bool {
        stream.source.label() == self.source || (self.host.is_some() && host_of(&stream.source.uri) == self.host)
    }
}

fn host_of(source: &SourceUri) -> Option<String> {
    Some(source.network_url()?.host_str()?.to_owned())
}

/// Other programs of the same user cannot read the memory of this process, which has raw frames, and it is not written to disk after
/// a crash.
pub fn protect_memory() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let protected = setrlimit(Resource::Core, none).and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    if let Err(error) = protected {
        tracing::warn!("core dumps cannot be switched off, they would contain frames before redaction: {error}");
    }
}

impl RedactionWatch {
    /// Reads what a previous process saw. A file that cannot be read is reported and replaced by the next change.
    pub fn in_folder(folder: Option<PathBuf>) -> Self {
        let Some(path) = folder.map(|folder| folder.join(FILE)) else { return RedactionWatch::default() };
        let seen = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Seen::default()),
            Err(error) => Err(error),
        };
        let seen = seen.unwrap_or_else(|error| {
            tracing::warn!(
                "{} cannot be read, so a redaction that was weakened while the service was stopped is not noticed: {error}",
                path.display()
            );
            Seen::default()
        });
        RedactionWatch { path: Some(path), seen }
    }

    /// Compares `streams` with what was seen before. Returns the new changes after which pixels may be visible that were hidden.
    pub fn update(&mut self, streams: &[StreamConfig], now: Timestamp) -> Vec<WeakenedRedaction> {
        let before = self.seen.clone();
        let new = self.seen.update(streams, now);
        for change in &new {
            tracing::warn!(stream = change.stream, "redaction weakened by the configuration file: {}", change.change);
        }
        if self.seen != before
            && let Some(path) = &self.path
            && let Err(error) = write(path, &self.seen)
        {
            tracing::warn!("redaction cannot be remembered: {}: {error}", path.display());
        }
        new
    }

    /// The changes of the last day, oldest first.
    pub fn weakened(&self) -> Vec<WeakenedRedaction> {
        self.seen.weakened.clone()
    }
}

impl Seen {
    fn knows_unredacted(&self, stream: &StreamConfig) -> bool {
        let source = stream.source.label();
        self.unredacted.iter().any(|(name, known)| *name == stream.name && *known == source)
    }

    fn update(&mut self, streams: &[StreamConfig], now: Timestamp) -> Vec<WeakenedRedaction> {
        let mut new = Vec::new();
        for seen in &self.streams {
            if let Some(stream) = streams.iter().find(|stream| stream.name == seen.name)
                && let Some(change) =
                    weaker(&seen.redact, stream.redact.as_ref()).or_else(|| collects_now(seen.collects, stream))
            {
                new.push(WeakenedRedaction { at: now, stream: stream.name.clone(), change });
                continue;
            }
            // Another stream may show the camera.
            let shows = |stream: &&StreamConfig| {
                stream.name != seen.name
                    && stream.redact.is_none()
                    && seen.may_show(stream)
                    && !self.knows_unredacted(stream)
            };
            for stream in streams.iter().filter(shows) {
                let change =
                    format!("the source shows without redaction what may be the camera of the stream {:?}", seen.name);
                new.push(WeakenedRedaction { at: now, stream: stream.name.clone(), change });
            }
        }
        let unredacted = streams.iter().filter(|stream| stream.redact.is_none());
        self.unredacted = unredacted.map(|stream| (stream.name.clone(), stream.source.label())).collect();
        // A removed stream, or the former source of one, is remembered until a stream shows it.
        self.streams.retain(|seen| {
            !streams.iter().any(|stream| match stream.redact {
                Some(_) => stream.source.label() == seen.source,
                None => stream.name == seen.name || seen.may_show(stream),
            })
        });
        self.streams.extend(streams.iter().filter_map(|stream| {
            let redact = stream.redact.clone()?;
            let (source, host) = (stream.source.label(), host_of(&stream.source.uri));
            let collects = stream.collects().is_some();
            Some(SeenStream { name: stream.name.clone(), source, host, redact, collects })
        }));
        self.weakened.retain(|change| now.duration_since(change.at) < SHOWN_FOR);
        self.weakened.extend(new.iter().cloned());
        let excess = |known: usize| known.saturating_sub(MOST);
        self.streams.drain(..excess(self.streams.len()));
        self.weakened.drain(..excess(self.weakened.len()));
        new
    }
}

/// What is weaker in `after`; `None` if nothing is.
fn weaker(before: &RedactConfig, after: Option<&RedactConfig>) -> Option<String> {
    match after {
        None => Some(format!("[stream.redact] was removed, {} can be visible", before.classes.join(", "))),
        Some(after) => after.weaker_than(before),
    }
}

/// Unredacted frames of a stream are stored that were not before.
fn collects_now(before: bool, stream: &StreamConfig) -> Option<String> {
    let collect = stream.collects().filter(|_| !before)?;
    Some(format!("collect.allow_redacted stores unredacted frames in {}", collect.folder_of(&stream.name).display()))
}

fn write(path: &Path, seen: &Seen) -> io::Result<()> {
    let file = AtomicFile::create(path, 0o600)?;
    serde_json::to_writer_pretty(file.file(), seen)?;
    file.file().flush()?;
    file.commit()
}

/// Refuses changes of API clients after which a camera could be visible that the configuration file redacts: removing such a
/// stream, giving it another source or another model, and adding a stream without redaction whose source may be at the same host, or, unless
/// `server.api_sources` lists schemes, at any host. `host` is the host of the new source, which was looked up already.
///
/// # Errors
/// The refused change.
pub fn check_redaction(
    edit: &Edit,
    before: &Config,
    after: &Config,
    host: Option<&SourceHost>,
) -> Result<(), Vec<ConfigError>> {
    let redacted = || before.streams.iter().filter(|stream| stream.redact.is_some());
    let refused = |key: String, problem: String| {
        let help = Some("change it in the configuration file".into());
        Err(vec![ConfigError { key, line: None, problem, help }])
    };
    for stream in redacted() {
        let key = format!("stream[{}]", stream.name);
        match after.streams.iter().find(|other| other.name == stream.name) {
            None => {
                return refused(key, "has [stream.redact]: the API cannot remove it".into());
            }
            Some(other) if other.source.uri != stream.source.uri => {
                let problem = "the stream has [stream.redact]: the API cannot change its source".into();
                return refused(format!("{key}.source"), problem);
            }
            // The masks of a model decide what is hidden.
            Some(other) if other.model != stream.model => {
                let problem = "the stream has [stream.redact]: the API cannot change its model".into();
                return refused(format!("{key}.model"), problem);
            }
            Some(other) => {
                if let Some(weaker) = stream.redact.as_ref().and_then(|redact| weaker(redact, other.redact.as_ref())) {
                    return refused(format!("{key}.redact"), format!("the API cannot weaken it: {weaker}"));
                }
            }
        }
    }
    let is_new = |stream: &&StreamConfig| {
        let known = before.streams.iter().find(|known| known.name == stream.name);
        stream.redact.is_none() && known.is_none_or(|known| known.source.uri != stream.source.uri)
    };
    for stream in after.streams.iter().filter(is_new) {
        if let Some(other) = redacted().find(|other| may_be_same_camera(&other.source.uri, &stream.source.uri, host)) {
            let problem = format!(
                "the stream {:?} redacts the source at this address: the API cannot add it without [stream.redact]",
                other.name
            );
            return refused(format!("{}.source", edit.key()), problem);
        }
        // A server that redirects, or a name that changes its address, can lead to the camera.
        let is_network = stream.source.uri.network_url().is_some();
        if is_network && redacted().next().is_some() && before.server.api_sources.is_default() {
            let problem = "a stream has [stream.redact]: the API adds network sources only of schemes that server.api_sources lists";
            return refused(format!("{}.source", edit.key()), problem.into());
        }
    }
    Ok(())
}

/// Whether two sources may be the same camera: one host can have several streams of a camera. What is not known counts as the same.
fn may_be_same_camera(redacted: &SourceUri, new: &SourceUri, host: Option<&SourceHost>) -> bool {
    match (redacted, redacted.network_url(), new.network_url()) {
        (_, Some(_), Some(_)) => match host {
            Some(host) => host.may_be_host_of(redacted),
            None => SourceHost::look_up(new).is_none_or(|host| host.may_be_host_of(redacted)),
        },
        // The description may contain any address.
        (SourceUri::Gst(_), None, Some(_)) => true,
        _ => redacted == new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::defaults_stream;
    use crate::config::{CollectConfig, SourceSpec};
    use std::time::Duration;

    fn stream(name: &str, source: &str, redact: Option<RedactConfig>) -> StreamConfig {
        let spec = SourceSpec::parse(source, Path::new("/")).unwrap();
        StreamConfig { redact, ..defaults_stream(name, spec) }
    }

    fn redact(classes: &[&str], grow: f64) -> Option<RedactConfig> {
        let classes = classes.iter().map(ToString::to_string).collect();
        Some(RedactConfig { classes, grow, ..RedactConfig::default() })
    }

    fn texts(changes: &[WeakenedRedaction]) -> Vec<(&str, &str)> {
        changes.iter().map(|change| (change.stream.as_str(), change.change.as_str())).collect()
    }

    #[test]
    fn a_weaker_redaction_is_noticed_once_also_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = || RedactionWatch::in_folder(Some(folder.path().to_path_buf()));
        let now = Timestamp::now();
        let gate = |redact| [stream("gate", "rtsp://10.0.0.7/a", redact)];
        let mut watch = open();
        assert_eq!(watch.update(&gate(redact(&["person", "vehicle"], 0.02)), now), []);
        assert_eq!(watch.update(&gate(redact(&["person", "vehicle"], 0.03)), now), [], "it is stronger");

        let mut watch = open();
        let new = watch.update(&gate(redact(&["person"], 0.01)), now);
        assert_eq!(texts(&new), [("gate", "vehicle is not hidden any longer; grow was 0.03 and is 0.01")]);
        assert_eq!(watch.update(&gate(redact(&["person"], 0.01)), now), [], "it is reported once");
        let new = watch.update(&gate(None), now);
        assert_eq!(texts(&new), [("gate", "[stream.redact] was removed, person can be visible")]);

        let mut watch = open();
        assert_eq!(watch.weakened().len(), 2, "they are shown after a restart");
        watch.update(&gate(None), now + Duration::from_secs(25 * 3600));
        assert_eq!(watch.weakened(), [], "they are shown for a day");
    }

    #[test]
    fn the_collection_of_unredacted_frames_is_noticed() {
        let mut watch = RedactionWatch::in_folder(None);
        let now = Timestamp::now();
        let gate = |collect| StreamConfig { collect, ..stream("gate", "rtsp://10.0.0.7/a", redact(&["person"], 0.02)) };
        let refused = CollectConfig::to("/srv/frames");
        let allowed = CollectConfig { allow_redacted: true, ..refused.clone() };
        assert_eq!(watch.update(&[gate(None)], now), []);
        assert_eq!(watch.update(&[gate(Some(refused))], now), [], "nothing is collected");
        let new = watch.update(&[gate(Some(allowed.clone()))], now);
        assert_eq!(texts(&new), [("gate", "collect.allow_redacted stores unredacted frames in /srv/frames/gate")]);
        assert_eq!(watch.update(&[gate(Some(allowed))], now), [], "it is reported once");
    }

    #[test]
    fn a_camera_that_another_stream_publishes_unredacted_is_noticed() {
        let mut watch = RedactionWatch::in_folder(None);
        let now = Timestamp::now();
        watch.update(&[stream("gate", "rtsp://10.0.0.7/a", redact(&["person"], 0.02))], now);
        assert_eq!(watch.update(&[stream("yard", "rtsp://10.0.0.8/a", None)], now), [], "the stream was removed");
        let new = watch.update(&[stream("door", "rtsp://10.0.0.7/a", None)], now);
        let expected = "the source shows without redaction what may be the camera of the stream \"gate\"";
        assert_eq!(texts(&new), [("door", expected)]);
        assert_eq!(watch.update(&[stream("door", "rtsp://10.0.0.7/a", None)], now), [], "it is reported once");
    }

    #[test]
    fn a_second_stream_of_a_redacted_camera_is_noticed() {
        let gate = |source: &str| stream("gate", source, redact(&["person"], 0.02));
        let yard = stream("yard", "rtsp://10.0.0.7/channel2", None);
        for (second, is_noticed) in
            [("rtsp://10.0.0.7/b", true), ("http://10.0.0.7:81/", true), ("rtsp://10.0.0.9/", false)]
        {
            for first in ["rtsp://10.0.0.7/a", "test://"] {
                let mut watch = RedactionWatch::in_folder(None);
                let now = Timestamp::now();
                let known = watch.update(&[gate("rtsp://10.0.0.7/a"), yard.clone()], now);
                assert_eq!(known, [], "streams that have been there before");
                let new = watch.update(&[gate(first), yard.clone(), stream("new", second, None)], now);
                assert_eq!(!new.is_empty(), is_noticed, "{first} {second}: {new:?}");
            }
        }
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(FILE), "{\"streams\": 3").unwrap();
        let mut watch = RedactionWatch::in_folder(Some(folder.path().to_path_buf()));
        watch.update(&[stream("gate", "rtsp://10.0.0.7/a", redact(&["person"], 0.02))], Timestamp::now());
        let again = RedactionWatch::in_folder(Some(folder.path().to_path_buf()));
        assert_eq!(again.seen.streams.len(), 1);
    }

    #[test]
    fn the_api_cannot_show_a_redacted_camera() {
        let config = |streams: &[StreamConfig]| {
            let text = "model.path = \"/dev/null\"\n[[stream]]\nname = \"a\"\nsource = \"test://\"\n";
            let mut config = crate::config::parse_partly(text, Path::new("/x.toml")).0.unwrap();
            config.streams = streams.to_vec();
            config
        };
        let gate = stream("gate", "rtsp://10.0.0.7/a", redact(&["person"], 0.02));
        let yard = stream("yard", "rtsp://10.0.0.8/a", None);
        let before = config(&[gate.clone(), yard.clone()]);
        let edit = Edit::Add(serde_json::from_str("{\"name\": \"new\"}").unwrap());
        let check = |streams: &[StreamConfig]| check_redaction(&edit, &before, &config(streams), None);
        let other_source = stream("gate", "rtsp://10.0.0.9/a", gate.redact.clone());
        let other_model = StreamConfig { model: "street".into(), ..gate.clone() };
        let weaker = StreamConfig { redact: redact(&["person"], 0.0), ..gate.clone() };
        let without = StreamConfig { redact: None, ..gate.clone() };
        for (streams, key) in [
            (vec![yard.clone()], "stream[gate]"),
            (vec![other_source, yard.clone()], "stream[gate].source"),
            (vec![other_model, yard.clone()], "stream[gate].model"),
            (vec![weaker, yard.clone()], "stream[gate].redact"),
            (vec![without, yard.clone()], "stream[gate].redact"),
            (vec![gate.clone(), stream("yard", "http://10.0.0.7:81/mjpeg", None)], "stream[new].source"),
            (vec![gate.clone(), yard.clone(), stream("new", "rtsp://u:p@10.0.0.7/b", None)], "stream[new].source"),
        ] {
            assert_eq!(check(&streams).unwrap_err()[0].key, key);
        }
        let added = [gate.clone(), yard.clone(), stream("new", "rtsp://10.0.0.9/b", None)];
        assert_eq!(check(&added).unwrap_err()[0].key, "stream[new].source", "the schemes are not listed");
        let mut listed = before.clone();
        listed.server.api_sources = serde_json::from_str("[\"rtsp\"]").unwrap();
        assert_eq!(check_redaction(&edit, &listed, &config(&added), None), Ok(()));
        for source in ["rtsp://10.0.0.7/b", "rtsp://[::ffff:10.0.0.7]/b", "rtsp://[64:ff9b::10.0.0.7]/b"] {
            let added = [gate.clone(), stream("new", source, None)];
            assert!(check_redaction(&edit, &listed, &config(&added), None).is_err(), "{source}");
        }
        // Neither says which camera it is.
        for unknown in ["gst:souphttpsrc location=http://10.0.0.7/ ! decodebin", "rtsp://camera.invalid/a"] {
            listed.streams = vec![stream("gate", unknown, redact(&["person"], 0.02))];
            let added = [listed.streams[0].clone(), stream("new", "rtsp://10.0.0.9/b", None)];
            assert!(check_redaction(&edit, &listed, &config(&added), None).is_err(), "{unknown}");
        }
        let louder = StreamConfig { max_latency: Duration::from_secs(3), ..gate };
        let yard = StreamConfig { model: "street".into(), ..yard };
        assert_eq!(check(&[louder, yard]), Ok(()), "other keys can be changed");
    }
}
