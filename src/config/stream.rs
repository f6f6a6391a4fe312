//! Reads `[[stream]]` and the tables below it.

use std::io::Read;
use std::time::Duration;

use super::push::read_pushes;
use super::reader::{Section, Value};
use super::record::read_record;
use super::{
    CertificateFingerprint, Credentials, EncodeConfig, EncoderChoice, OverlayConfig, PRESETS, Rgb, Secret, Show,
    SourceSpec, SourceUri, StreamConfig, Style, Transport, defaults_stream,
};

const EXAMPLE: &str = "write [[stream]], and below it name = \"gate\" and source = \"rtsp://HOST/PATH\"";

/// All streams that could be read; what is wrong with the others has been noted.
pub(super) fn read_streams(root: &Section) -> Vec<StreamConfig> {
    let tables = match root.get("stream") {
        None => {
            root.fail("stream", "there is none", Some(EXAMPLE));
            return Vec::new();
        }
        Some(value) if value.is_array() => {
            let tables = value.list(None).unwrap_or_default();
            if tables.is_empty() {
                root.fail("stream", "there is none", Some(EXAMPLE));
            }
            tables
        }
        Some(value) if value.is_table() => {
            root.fail("stream", "is written [stream]", Some("write [[stream]], with two brackets"));
            vec![value]
        }
        Some(value) => {
            let _: Option<()> = value.fail("must be tables", Some(EXAMPLE));
            return Vec::new();
        }
    };
    let mut names = Vec::new();
    let mut streams = Vec::new();
    for (i, table) in tables.iter().enumerate() {
        if let Some(section) = table.section() {
            streams.extend(read_stream(section.renamed(format!("stream[{i}]")), &mut names));
        }
    }
    streams
}

/// `names` are the names of the streams before, and gets this one's.
fn read_stream(section: Section, names: &mut Vec<String>) -> Option<StreamConfig> {
    let name = section
        .require("name", "it is part of the stream's addresses, e.g. rtsp://HOST:8554/NAME")
        .and_then(|value| read_name(&value, names));
    let section = match &name {
        Some(name) => section.renamed(format!("stream[{name}]")),
        None => section,
    };
    names.extend(name.clone());

    let source = read_source(&section);
    // A stand-in where name or source are wrong, so that the rest is read all the same; it never leaves.
    let stand_in = || SourceSpec::new(SourceUri::Libcamera(String::new()));
    let complete = name.is_some() && source.is_some();
    let mut stream = defaults_stream(&name.unwrap_or_default(), source.unwrap_or_else(stand_in));

    let shows = [("full-rate", Show::FullRate), ("matched", Show::Matched)];
    stream.show = section.get("show").and_then(|value| value.choice(&shows)).unwrap_or(stream.show);
    let duration = |key, least, most, default| {
        let range = Duration::from_millis(least)..=Duration::from_millis(most);
        section.get(key).and_then(|value| value.duration(range)).unwrap_or(default)
    };
    stream.max_mask_age = duration("max_mask_age", 50, 60_000, stream.max_mask_age);
    // Less than a few frames and a keyframe take by themselves would drop everything.
    stream.max_latency = duration("max_latency", 200, 60_000, stream.max_latency);
    stream.silence_timeout = duration("silence_timeout", 500, 3_600_000, stream.silence_timeout);
    stream.overlay = read_overlay(&section.section("overlay"));
    stream.encode = read_encode(&section.section("encode"));
    stream.record = read_record(&section.section("record"));
    stream.push = read_pushes(&section);
    section.finish();
    complete.then_some(stream)
}

fn read_name(value: &Value, taken: &[String]) -> Option<String> {
    let name = value.string()?;
    if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
        return value.fail(format!("{name:?} has other characters than letters, digits, - and _"), None);
    }
    if name.len() > 64 {
        return value.fail(format!("has {} characters, more than 64", name.len()), None);
    }
    if taken.iter().any(|other| other == name) {
        return value.fail(format!("{name:?} is the name of a stream above"), Some("names must differ"));
    }
    Some(name.to_owned())
}

/// Bytes of a source: it is part of log lines.
const LONGEST_SOURCE: usize = 4096;

fn read_source(section: &Section) -> Option<SourceSpec> {
    let spec = section
        .require("source", "write a URL, e.g. \"rtsp://HOST/PATH\", \"v4l2:///dev/video0\" or \"file:video.mp4\"")
        .and_then(|value| {
            let length = value.string()?.len();
            if length > LONGEST_SOURCE {
                return value.fail(format!("has {length} bytes, more than {LONGEST_SOURCE}"), None);
            }
            let spec = SourceSpec::parse(value.string()?, value.doc.base());
            match spec.and_then(|spec| spec.uri.check_file().map(|()| spec)) {
                Ok(spec) => Some(spec),
                Err((problem, help)) => value.fail(problem, help.as_deref()),
            }
        });

    // Settings are read even where the source is wrong, for their own errors.
    let looped = section.get("loop").and_then(|value| value.boolean());
    let speeds = [("real-time", true), ("max", false)];
    let real_time = section.get("speed").and_then(|value| value.choice(&speeds));
    let transports = [("auto", Transport::Auto), ("tcp", Transport::Tcp), ("udp", Transport::Udp)];
    let transport = section.get("transport").and_then(|value| value.choice(&transports));
    let latencies = Duration::ZERO..=Duration::from_secs(10);
    let latency = section.get("latency").and_then(|value| value.duration(latencies));
    let tls_ca = section.get("tls_ca").and_then(|value| value.existing_file());
    let tls_fingerprint = section.get("tls_fingerprint").and_then(|value| read_fingerprint(&value));
    let in_url = spec.as_ref().and_then(|spec| spec.credentials.as_ref());
    let credentials = read_credentials(section, spec.is_some(), in_url, PasswordAlone::LacksAUser);

    let mut spec = spec?;
    let is_file = matches!(spec.uri, SourceUri::File(_));
    let is_rtsp = matches!(spec.uri, SourceUri::Rtsp(_));
    let has_users = matches!(spec.uri, SourceUri::Rtsp(_) | SourceUri::Http(_));
    let scheme = match &spec.uri {
        SourceUri::Rtsp(url) | SourceUri::Http(url) => url.scheme(),
        _ => "",
    };
    let settings: [(&[&'static str], bool, &str); 5] = [
        (&["loop", "speed"], is_file, "files"),
        (&["transport", "latency"], is_rtsp, "RTSP"),
        (&["user", "password_file", "password_env"], has_users, "RTSP and HTTP"),
        (&["tls_ca"], matches!(scheme, "rtsps" | "https"), "rtsps and https"),
        (&["tls_fingerprint"], scheme == "rtsps", "rtsps"),
    ];
    for (keys, fits, what_for) in settings {
        for key in keys.iter().filter(|key| !fits && section.get(key).is_some()) {
            let help = format!("it is for {what_for}; take it out");
            section.fail(key, "has no meaning for this source", Some(&help));
        }
    }
    (spec.tls_ca, spec.tls_fingerprint) = (tls_ca, tls_fingerprint);
    spec.looped = looped.unwrap_or(spec.looped);
    spec.real_time = real_time.unwrap_or(spec.real_time);
    spec.transport = transport.unwrap_or(spec.transport);
    spec.latency = latency.unwrap_or(spec.latency);
    spec.credentials = credentials;
    Some(spec)
}

fn read_fingerprint(value: &Value) -> Option<CertificateFingerprint> {
    let text = value.string()?;
    let help = "write the 64 hexadecimal digits that `openssl x509 -noout -fingerprint -sha256` prints";
    CertificateFingerprint::parse(text).or_else(|| value.fail("is not a SHA-256 fingerprint", Some(help)))
}

/// What a password without a user is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PasswordAlone {
    LacksAUser,
    IsAToken,
}

/// User and password from the keys and from the URL, each from one place only. `url_known`: whether `in_url` can be
/// relied on.
pub(super) fn read_credentials(
    section: &Section,
    url_known: bool,
    in_url: Option<&Credentials>,
    alone: PasswordAlone,
) -> Option<Credentials> {
    let user_key = section.get("user");
    let user = user_key.as_ref().and_then(|value| value.string()).filter(|user| {
        // Basic (RFC 7617) ends the user at the colon, and the API shows the user: it must not hold the password.
        let is_name = !user.contains(':');
        if !is_name {
            let help = "write the user alone, and the password into the file of password_file";
            section.fail("user", "contains a colon: is that user and password?", Some(help));
        }
        is_name
    });
    let (file, env) = (section.get("password_file"), section.get("password_env"));
    let password_key = if file.is_some() { "password_file" } else { "password_env" };
    let password_given = file.is_some() || env.is_some();
    if file.is_some() && env.is_some() {
        section.fail("password_env", "password_file is given, too", Some("keep one of them"));
    }
    let password = match (&file, &env) {
        (Some(value), _) => read_password_file(value),
        (None, Some(value)) => read_password_env(value),
        (None, None) => None,
    };

    let help = Some("keep one of them");
    if user_key.is_some() && in_url.is_some_and(|url| !url.user.is_empty()) {
        section.fail("user", "the URL names a user, too", help);
    }
    if password_given && in_url.is_some_and(|url| !url.password.expose().is_empty()) {
        section.fail(password_key, "the URL holds a password, too", help);
    }
    let has_user = user_key.is_some() || in_url.is_some_and(|url| !url.user.is_empty());
    if password_given && url_known && !has_user && alone == PasswordAlone::LacksAUser {
        section.fail(password_key, "there is no user for this password", Some("add user = \"…\""));
    }

    if user.is_none() && password.is_none() {
        return in_url.cloned();
    }
    let (url_user, url_password) = match in_url {
        Some(Credentials { user, password }) => (user.as_str(), password.clone()),
        None => ("", Secret::new("")),
    };
    Some(Credentials { user: user.unwrap_or(url_user).to_owned(), password: password.unwrap_or(url_password) })
}

/// Bytes that a password file may have.
const LONGEST_PASSWORD: u64 = 4096;

fn read_password_file(value: &Value) -> Option<Secret> {
    // The name is not repeated: it may be the password, written here by mistake.
    let help = "name a file, not the password; relative paths start at the configuration file's folder";
    let path = value.path()?;
    match path.metadata() {
        Ok(metadata) if !metadata.is_dir() => {}
        Ok(_) => return value.fail("is a folder, not a file", Some(help)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return value.fail("no such file", Some(help)),
        Err(error) => return value.fail(format!("cannot be read: {error}"), Some(help)),
    }
    // A password has a line: a device that never ends must not fill the memory.
    let mut text = String::new();
    let read = std::fs::File::open(&path).and_then(|file| file.take(LONGEST_PASSWORD).read_to_string(&mut text));
    match read {
        Ok(length) if length as u64 == LONGEST_PASSWORD => value.fail("is no password: it is too long", None),
        Ok(_) => {
            let line = text.strip_suffix('\n').unwrap_or(&text);
            let line = line.strip_suffix('\r').unwrap_or(line);
            if line.is_empty() { value.fail("the file is empty", None) } else { Some(Secret::new(line)) }
        }
        Err(error) => value.fail(format!("cannot be read: {error}"), Some(help)),
    }
}

fn read_password_env(value: &Value) -> Option<Secret> {
    let name = value.string()?;
    match value.doc.env(name) {
        Some(text) if !text.is_empty() => Some(Secret::new(text)),
        // The name is not repeated: it may be the password, written here by mistake.
        Some(_) => value.fail("the environment variable of this name is empty", None),
        None => value.fail("there is no environment variable of this name", Some("name a variable, not the password")),
    }
}

pub(super) fn read_overlay(section: &Section) -> OverlayConfig {
    let default = OverlayConfig::default();
    let styles = Style::ALL.map(|style| (style.name(), style));
    let style = section.get("style").and_then(|value| value.choice(&styles));
    let alpha_help = format!("0 is invisible, 1 is opaque; the default is {}", default.alpha);
    let alpha = section.get("alpha").and_then(|value| value.number(0.0..=1.0, &alpha_help));
    let hidden = section.get("hide").and_then(|value| value.list(Some("write [\"sky\"]")));
    let legend = section.get("legend").and_then(|value| value.boolean());
    let colors = section.section("colors");
    let color = |(name, value): (&str, Value)| Some((name.to_owned(), read_color(&value)?));
    let overlay = OverlayConfig {
        style: style.unwrap_or(default.style),
        alpha: alpha.map_or(default.alpha, |alpha| alpha as f32),
        hide: hidden.map(|names| names.iter().filter_map(|value| value.string().map(str::to_owned)).collect()),
        legend: legend.unwrap_or(default.legend),
        colors: colors.entries().into_iter().filter_map(color).collect(),
    };
    section.finish();
    overlay
}

/// `"#rrggbb"` or `[r, g, b]`.
fn read_color(value: &Value) -> Option<Rgb> {
    const HELP: &str = "write \"#ff8000\" or [255, 128, 0]";
    if value.is_array() {
        let channels = value.list(None)?;
        if channels.len() != 3 {
            return value.fail(format!("has {} numbers, not 3", channels.len()), Some(HELP));
        }
        let channels: Vec<Option<u8>> = channels.iter().map(|channel| channel.integer(0..=255, HELP)).collect();
        return Some(Rgb(channels[0]?, channels[1]?, channels[2]?));
    }
    let text = value.string()?;
    let digits = text.strip_prefix('#').filter(|d| d.len() == 6 && d.bytes().all(|b| b.is_ascii_hexdigit()));
    match digits.and_then(|digits| u32::from_str_radix(digits, 16).ok()) {
        Some(rgb) => Some(Rgb((rgb >> 16) as u8, (rgb >> 8) as u8, rgb as u8)),
        None => value.fail(format!("{text:?} is no colour"), Some(HELP)),
    }
}

fn read_encode(section: &Section) -> EncodeConfig {
    let default = EncodeConfig::default();
    let encoders = [
        ("auto", EncoderChoice::Auto),
        ("nvenc", EncoderChoice::Nvenc),
        ("vaapi", EncoderChoice::Vaapi),
        ("v4l2", EncoderChoice::V4l2),
        ("x264", EncoderChoice::X264),
        ("openh264", EncoderChoice::OpenH264),
    ];
    let encoder = section.get("encoder").and_then(|value| value.choice(&encoders));
    let bitrate = section.get("bitrate").and_then(|value| {
        let help = "kbit/s; 0 is by picture size and rate";
        let bitrate: u32 = value.integer(0..=200_000, help)?;
        // x264 and NVENC make no picture of less.
        if (1..50).contains(&bitrate) {
            return value.fail(format!("{bitrate} is less than 50"), Some(help));
        }
        Some(bitrate)
    });
    let presets: Vec<(&str, &str)> = std::iter::once("auto").chain(PRESETS).map(|preset| (preset, preset)).collect();
    let preset = section.get("preset").and_then(|value| value.choice(&presets));
    let intervals = Duration::from_millis(100)..=Duration::from_secs(60);
    let keyframe_interval = section.get("keyframe_interval").and_then(|value| value.duration(intervals));
    let quality_help = format!("the default is {}", default.jpeg_quality);
    let jpeg_quality = section.get("jpeg_quality").and_then(|value| value.integer(1..=100, &quality_help));
    section.finish();
    EncodeConfig {
        encoder: encoder.unwrap_or(default.encoder),
        bitrate: bitrate.unwrap_or(default.bitrate),
        preset: preset.map_or(default.preset, str::to_owned),
        keyframe_interval: keyframe_interval.unwrap_or(default.keyframe_interval),
        jpeg_quality: jpeg_quality.unwrap_or(default.jpeg_quality),
    }
}
