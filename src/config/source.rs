//! Where a stream's frames come from.
//!
//! A source is written as one URL (or a bare path) with a few settings beside it. User and password never stay in the
//! URL: they live in [`Credentials`], whose password prints as `***`, so that no log line, API answer or debug output
//! can hold them by accident. Use [`SourceSpec::label`] to name a source to people.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value as Json;
use url::Url;
use utoipa::ToSchema;

use super::credentials::Credentials;
use super::duration::DurationText;
use super::fingerprint::CertificateFingerprint;
use super::value::Value;

/// Transport of the RTP packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// UDP first; TCP if no packets arrive.
    Auto,
    /// TCP, interleaved in the RTSP connection: no packet loss, passes firewalls.
    Tcp,
    /// UDP: lowest delay, but packets are lost on a busy network.
    Udp,
}

/// A generator of test patterns: `test://ball?width=640&height=360&fps=15&frames=100`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestSource {
    /// A `pattern` of GStreamer's `videotestsrc`; default `smpte`.
    pub pattern: String,
    /// Width in pixels; default 640.
    pub width: u32,
    /// Height in pixels; default 360.
    pub height: u32,
    /// Frames per second; default 15.
    pub fps: u32,
    /// The number of frames after which the source ends; `None` = it does not end.
    pub frames: Option<u64>,
}

impl Default for TestSource {
    fn default() -> Self {
        TestSource { pattern: "smpte".into(), width: 640, height: 360, fps: 15, frames: None }
    }
}

/// The source that a URL or path names. The URLs contain neither user nor password.
#[derive(Clone, PartialEq)]
pub enum SourceUri {
    /// The absolute path of a video file.
    File(PathBuf),
    /// `rtsp://` or `rtsps://`
    Rtsp(Url),
    /// `http://` or `https://`: MJPEG, HLS, or a file that is played as it arrives.
    Http(Url),
    /// The query may hold a passphrase; print the [`SourceUri::label`] instead.
    Srt(Url),
    /// The path of a V4L2 device, such as `/dev/video0`. It may be absent at times.
    V4l2(PathBuf),
    /// The name of a camera; empty for the first one.
    Libcamera(String),
    Test(TestSource),
    /// A GStreamer description that ends in raw or encoded video; may hold secrets.
    Gst(String),
}

impl SourceUri {
    /// Whether the source delivers frames at its own pace and only once: every source except a file.
    pub fn is_live(&self) -> bool {
        !matches!(self, SourceUri::File(_))
    }

    /// The scheme of the source in the configuration.
    pub fn scheme(&self) -> &str {
        match self {
            SourceUri::Rtsp(url) | SourceUri::Http(url) | SourceUri::Srt(url) => url.scheme(),
            SourceUri::File(_) => "file",
            SourceUri::V4l2(_) => "v4l2",
            SourceUri::Libcamera(_) => "libcamera",
            SourceUri::Test(_) => "test",
            SourceUri::Gst(_) => "gst",
        }
    }

    /// The URL of a source that is reached by network; `None` for all others.
    ///
    /// The address guard of the API, the check that a password stays with its host, and the masking of secrets depend on it.
    pub fn network_url(&self) -> Option<&Url> {
        match self {
            SourceUri::Rtsp(url) | SourceUri::Http(url) | SourceUri::Srt(url) => Some(url),
            SourceUri::File(_)
            | SourceUri::V4l2(_)
            | SourceUri::Libcamera(_)
            | SourceUri::Test(_)
            | SourceUri::Gst(_) => None,
        }
    }

    /// The source's name for logs and the API, without anything that may be secret: values in queries and in
    /// `key=value` paths, and the properties of GStreamer descriptions are left out.
    pub fn label(&self) -> String {
        match self {
            SourceUri::File(path) => path.display().to_string(),
            SourceUri::Rtsp(url) | SourceUri::Http(url) | SourceUri::Srt(url) => url_label(url),
            SourceUri::V4l2(path) => format!("v4l2://{}", path.display()),
            SourceUri::Libcamera(camera) => format!("libcamera://{camera}"),
            SourceUri::Test(test) => {
                format!("test://{}?width={}&height={}&fps={}", test.pattern, test.width, test.height, test.fps)
            }
            SourceUri::Gst(description) => format!("gst:{}", element_names(description)),
        }
    }

    /// Whether both are sources of one host, or the same source. Names are compared as they are written; see
    /// [`SourceHost::may_be_host_of`] for addresses.
    ///
    /// [`SourceHost::may_be_host_of`]: super::SourceHost::may_be_host_of
    pub fn has_same_host(&self, other: &SourceUri) -> bool {
        match (self.network_url(), other.network_url()) {
            (Some(a), Some(b)) => a.host_str().is_some() && a.host_str() == b.host_str(),
            _ => self == other,
        }
    }

    /// Checks that the file of a file source exists and is a file. Other sources may appear later.
    ///
    /// # Errors
    /// The error and a hint.
    pub fn check_file(&self) -> Result<(), (String, Option<String>)> {
        let SourceUri::File(path) = self else { return Ok(()) };
        let looked = Some(format!("looked for {}", path.display()));
        if path.starts_with("/dev") && !path.is_file() {
            return Err((
                "is a device, not a file".into(),
                Some(format!("for a camera, write \"v4l2://{}\"", path.display())),
            ));
        }
        match path.metadata() {
            Ok(metadata) if metadata.is_dir() => Err(("is a folder, not a file".into(), looked)),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(("no such file".into(), looked)),
            Err(error) => Err((format!("cannot be read: {error}"), looked)),
        }
    }
}

impl fmt::Debug for SourceUri {
    /// Prints the label: a derived `Debug` would print passphrases in queries and in GStreamer descriptions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            SourceUri::File(_) => "File",
            SourceUri::Rtsp(_) => "Rtsp",
            SourceUri::Http(_) => "Http",
            SourceUri::Srt(_) => "Srt",
            SourceUri::V4l2(_) => "V4l2",
            SourceUri::Libcamera(_) => "Libcamera",
            SourceUri::Test(_) => "Test",
            SourceUri::Gst(_) => "Gst",
        };
        write!(f, "{kind}({})", self.label())
    }
}

impl Serialize for SourceUri {
    /// The label, because serialised settings are shown to clients of the API.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.label())
    }
}

/// A source with its settings: keys of `[[stream]]`.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default = "SourceSpec::unknown")]
pub struct SourceSpec {
    /// The source of the frames: a URL or the path of a video file.
    #[serde(rename = "source")]
    #[schemars(with = "String", length(min = 1, max = 4096), extend(
        "x-check" = "source",
        "x-help" = "write a URL, e.g. \"rtsp://HOST/PATH\", \"v4l2:///dev/video0\" or \"file:video.mp4\"",
    ))]
    pub uri: SourceUri,
    /// Play the file again from its start when it has ended.
    #[serde(rename = "loop")]
    #[schemars(extend("x-sources" = ["file"]))]
    pub looped: bool,
    /// The speed at which the file is played.
    #[serde(rename = "speed", with = "speed")]
    #[schemars(with = "Speed", extend("x-sources" = ["file"]))]
    pub real_time: bool,
    /// Transport of the RTP packets.
    #[schemars(extend("x-sources" = ["rtsp", "rtsps"]))]
    pub transport: Transport,
    /// Length of the jitter buffer: how long packets wait for packets that arrive late. It adds to the delay.
    #[serde(with = "super::duration")]
    #[schemars(with = "DurationText", extend("x-sources" = ["rtsp", "rtsps"], "x-least" = "0s", "x-most" = "10s"))]
    pub latency: Duration,
    #[serde(flatten)]
    pub credentials: Option<Credentials>,
    /// PEM file with certificate authorities that are trusted for the certificate of the camera, in addition to those of the
    /// system.
    #[serde(with = "super::path::optional", skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend(
        "x-check" = "existing-file",
        "x-default" = "none",
        "x-sources" = ["rtsps", "https"],
        "x-api" = "remove",
        "x-api-help" = "set tls_fingerprint instead, or change it in the configuration file",
    ))]
    pub tls_ca: Option<PathBuf>,
    /// SHA-256 fingerprint of the certificate of the camera. A certificate with this fingerprint is accepted, whatever its
    /// signer, its names and its purpose; any other is refused. `openssl x509 -noout -fingerprint -sha256` prints the
    /// fingerprint, and so does the log when a certificate is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", extend("x-check" = "fingerprint", "x-default" = "none", "x-sources" = ["rtsps"]))]
    pub tls_fingerprint: Option<CertificateFingerprint>,
}

/// The words of `speed`.
#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
enum Speed {
    /// At the frame rate of the file.
    RealTime,
    /// As fast as the machine can process it; no frame is dropped.
    Max,
}

mod speed {
    use super::{Deserialize, Deserializer, Serialize, Serializer, Speed};

    pub fn serialize<S: Serializer>(real_time: &bool, serializer: S) -> Result<S::Ok, S::Error> {
        if *real_time { Speed::RealTime } else { Speed::Max }.serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
        Ok(matches!(Speed::deserialize(deserializer)?, Speed::RealTime))
    }
}

pub(super) fn read_fingerprint(value: &Value) -> Option<Json> {
    let text = value.string(None)?;
    let help = "write the 64 hexadecimal digits that `openssl x509 -noout -fingerprint -sha256` prints";
    match CertificateFingerprint::parse(text) {
        Some(fingerprint) => Some(fingerprint.to_string().into()),
        None => value.fail("is not a SHA-256 fingerprint", Some(help)),
    }
}

impl SourceSpec {
    /// A placeholder for a source that could not be read; it is never opened.
    fn unknown() -> Self {
        SourceSpec::new(SourceUri::Libcamera(String::new()))
    }

    /// A source with the default settings.
    pub fn new(uri: SourceUri) -> Self {
        SourceSpec {
            uri,
            looped: false,
            real_time: true,
            transport: Transport::Tcp,
            latency: Duration::from_millis(100),
            credentials: None,
            tls_ca: None,
            tls_fingerprint: None,
        }
    }

    /// The source's name for logs and the API; see [`SourceUri::label`].
    pub fn label(&self) -> String {
        self.uri.label()
    }
}

pub(super) fn url_label(url: &Url) -> String {
    let mut label = format!("{}://{}", url.scheme(), url.host_str().unwrap_or_default());
    if let Some(port) = url.port() {
        label.push_str(&format!(":{port}"));
    }
    // Some cameras take the password in the path: /user=admin&password=…&channel=1.sdp
    match url.path().split_once('=') {
        Some((start, _)) => label.push_str(&format!("{start}=***")),
        None => label.push_str(url.path()),
    }
    for (i, pair) in url.query().into_iter().flat_map(|query| query.split('&')).enumerate() {
        label.push(if i == 0 { '?' } else { '&' });
        match pair.split_once('=') {
            Some((name, _)) => label.push_str(&format!("{name}=***")),
            // A query without a name is a value.
            None => label.push_str("***"),
        }
    }
    label
}

/// `videotestsrc pattern=ball ! x264enc` → `videotestsrc ! x264enc`
fn element_names(description: &str) -> String {
    let mut quote = None;
    let links = description.split(|c: char| {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            _ => {}
        }
        quote.is_none() && c == '!'
    });
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '/' | '.');
    let name = |link: &str| link.trim_start().chars().take_while(|c| plain(*c)).collect::<String>();
    links.map(name).collect::<Vec<_>>().join(" ! ")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn spec(text: &str) -> SourceSpec {
        SourceSpec::parse(text, Path::new("/etc/maskcast")).unwrap()
    }

    #[test]
    fn no_secret_in_debug_or_label() {
        for (text, label) in [
            ("rtsp://admin:hunter2@10.0.0.7/stream1", "rtsp://10.0.0.7/stream1"),
            ("rtsp://10.0.0.7:8554/live?token=hunter2&x=hunter2", "rtsp://10.0.0.7:8554/live?token=***&x=***"),
            ("https://admin:hunter2@cam/mjpeg?hunter2", "https://cam/mjpeg?***"),
            ("rtsp://cam/user=admin&password=hunter2&channel=1.sdp", "rtsp://cam/user=***"),
            ("http://cam/a#hunter2", "http://cam/a"),
            ("srt://[::1]:7001?passphrase=hunter2", "srt://[::1]:7001?passphrase=***"),
            ("gst:rtspsrc user-pw=hunter2 location=rtsp://a ! decodebin", "gst:rtspsrc ! decodebin"),
            ("gst:rtspsrc user-pw=\"a!hunter2!b\" ! 'hunter2' ! x", "gst:rtspsrc !  ! x"),
            ("gst:hunter2src=1,password=hunter2 ! video/x-raw,width=640", "gst:hunter2src ! video/x-raw"),
        ] {
            let spec = spec(text);
            assert_eq!(spec.label(), label, "{text}");
            let printed = format!("{spec:?}").replace("hunter2src", "");
            assert!(!printed.contains("hunter2"), "{printed}");
        }
    }

    #[test]
    fn labels_of_local_sources() {
        assert_eq!(spec("clips/a.mp4").label(), "/etc/maskcast/clips/a.mp4");
        assert_eq!(spec("v4l2:///dev/video0").label(), "v4l2:///dev/video0");
        assert_eq!(spec("libcamera://").label(), "libcamera://");
        assert_eq!(spec("test://ball?fps=5").label(), "test://ball?width=640&height=360&fps=5");
    }

    #[test]
    fn only_files_are_not_live() {
        assert!(!spec("a.mp4").uri.is_live());
        for text in ["rtsp://a/b", "http://a/b.mp4", "v4l2:///dev/video0", "test://?frames=3", "gst:videotestsrc"] {
            assert!(spec(text).uri.is_live(), "{text}");
        }
    }

    #[test]
    fn an_argument_must_name_an_existing_file() {
        let dir = tempfile::tempdir().unwrap();
        let clip = dir.path().join("a b.mp4");
        std::fs::write(&clip, "").unwrap();
        assert_eq!(SourceSpec::from_argument("a b.mp4", dir.path()).unwrap().uri, SourceUri::File(clip.clone()));
        let url = format!("file://{}", clip.display()).replace(' ', "%20");
        assert_eq!(SourceSpec::from_argument(&url, Path::new("/")).unwrap().uri, SourceUri::File(clip));
        let missing = SourceSpec::from_argument("b.mp4", dir.path()).unwrap_err();
        assert_eq!(missing.0, "no such file");
        assert!(missing.1.unwrap().ends_with("/b.mp4"));
        assert_eq!(SourceSpec::from_argument(".", dir.path()).unwrap_err().0, "is a folder, not a file");
        let device = SourceSpec::from_argument("/dev/video0", dir.path()).unwrap_err();
        assert_eq!(device.1.unwrap(), "for a camera, write \"v4l2:///dev/video0\"");
    }
}
