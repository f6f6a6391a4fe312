//! Reads the address of a source: `rtsp://…`, `file:…`, `v4l2:///dev/video0`, a path.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};
use serde::{Deserialize, Deserializer};
use url::Url;

use super::credentials::Credentials;
use super::error::did_you_mean;
use super::path::tidy;
use super::source::{SourceSpec, SourceUri, TestSource};
use crate::base::secret::Secret;

/// The error and a hint.
type Problem = (String, Option<String>);

const SCHEMES: [&str; 11] =
    ["rtsp", "rtsps", "http", "https", "srt", "file", "v4l2", "libcamera", "test", "gst", "a path without a scheme"];

/// Names of `videotestsrc`'s patterns (GStreamer 1.22, `GstVideoTestSrcPattern`).
const PATTERNS: [&str; 26] = [
    "smpte",
    "snow",
    "black",
    "white",
    "red",
    "green",
    "blue",
    "checkers-1",
    "checkers-2",
    "checkers-4",
    "checkers-8",
    "circular",
    "blink",
    "smpte75",
    "zone-plate",
    "gamut",
    "chroma-zone-plate",
    "solid-color",
    "ball",
    "smpte100",
    "bar",
    "pinwheel",
    "spokes",
    "gradient",
    "colors",
    "smpte-rp-219",
];

impl SourceUri {
    /// Reads a URL or a bare path; relative paths start at `base`.
    ///
    /// User and password are checked and removed from the URL; [`SourceSpec::parse`] keeps them.
    ///
    /// # Errors
    /// The error and, if there is one, a hint. Neither contains a password.
    pub fn parse(text: &str, base: &Path) -> Result<SourceUri, (String, Option<String>)> {
        self::parse(text, base).map(|(uri, _)| uri)
    }
}

impl SourceSpec {
    /// Reads a URL or a bare path with the default settings; credentials in the URL are kept beside it.
    ///
    /// # Errors
    /// Those of [`SourceUri::parse`].
    pub fn parse(text: &str, base: &Path) -> Result<Self, (String, Option<String>)> {
        let (uri, credentials) = self::parse(text, base)?;
        Ok(SourceSpec { credentials, ..SourceSpec::new(uri) })
    }

    /// Reads a source from the command line as [`SourceSpec::parse`] does. A file must exist.
    ///
    /// # Errors
    /// Those of [`SourceUri::parse`] and [`SourceUri::check_file`].
    pub fn from_argument(text: &str, base: &Path) -> Result<Self, (String, Option<String>)> {
        let spec = SourceSpec::parse(text, base)?;
        spec.uri.check_file()?;
        Ok(spec)
    }
}

impl<'de> Deserialize<'de> for SourceUri {
    /// Reads text whose paths are absolute.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        SourceUri::parse(&text, Path::new("/")).map_err(|(problem, _)| serde::de::Error::custom(problem))
    }
}

/// What is percent-encoded in the URL of a file.
const ENCODED_IN_PATHS: &AsciiSet = &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'_').remove(b'.');

/// The URL of a file.
pub(super) fn url_of_file(path: &Path) -> String {
    format!("file://{}", percent_encode(path.as_os_str().as_bytes(), ENCODED_IN_PATHS))
}

/// The URI, and the credentials that were written in it.
pub(super) fn parse(text: &str, base: &Path) -> Result<(SourceUri, Option<Credentials>), Problem> {
    let Some((scheme, rest)) = split_scheme(text) else {
        return bare_path(text, base).map(|path| (SourceUri::File(path), None));
    };
    let scheme = scheme.to_ascii_lowercase();
    let rest_of = |form: &str| rest.strip_prefix("//").ok_or_else(|| problem("lacks the // after the scheme", form));
    let uri = match scheme.as_str() {
        "rtsp" | "rtsps" => {
            rest_of("write \"rtsp://HOST/PATH\"")?;
            let (url, credentials) = network_url(text)?;
            return Ok((SourceUri::Rtsp(url), credentials));
        }
        "http" | "https" => {
            rest_of("write \"http://HOST/PATH\"")?;
            let (url, credentials) = network_url(text)?;
            return Ok((SourceUri::Http(url), credentials));
        }
        "srt" => {
            rest_of("write \"srt://HOST:PORT\"")?;
            let listening = srt_listener(rest);
            let (url, credentials) = network_url(listening.as_deref().unwrap_or(text))?;
            if credentials.is_some() {
                return Err(problem("SRT has no users", "a passphrase is written \"srt://HOST:PORT?passphrase=…\""));
            }
            if url.port().is_none() {
                return Err(problem("has no port", "write \"srt://HOST:PORT\""));
            }
            SourceUri::Srt(url)
        }
        "file" => SourceUri::File(file_url(rest, base)?),
        "v4l2" => {
            let path = rest_of("write \"v4l2:///dev/video0\"")?;
            if !path.starts_with('/') {
                let help = "write the device's path after the two slashes: \"v4l2:///dev/video0\"";
                return Err(problem("is not the absolute path of a device", help));
            }
            SourceUri::V4l2(PathBuf::from(path))
        }
        "libcamera" => SourceUri::Libcamera(rest_of("write \"libcamera://\" or \"libcamera://CAMERA\"")?.to_owned()),
        "test" => SourceUri::Test(test_source(rest_of("write \"test://smpte\"")?)?),
        "gst" => match rest.trim() {
            "" => return Err(problem("describes no elements", "write \"gst:ELEMENT ! ELEMENT\"")),
            description => SourceUri::Gst(description.to_owned()),
        },
        _ => return Err((format!("unknown scheme {scheme:?}"), Some(did_you_mean(&scheme, SCHEMES)))),
    };
    Ok((uri, None))
}

/// `srt://:PORT` waits for callers on all addresses, as in other SRT programs: the same with host and mode written out.
fn srt_listener(rest: &str) -> Option<String> {
    let place = rest.strip_prefix("//:")?;
    let (place, query) = place.split_once('?').unwrap_or((place, ""));
    let has_mode = query.split('&').any(|pair| pair.starts_with("mode="));
    let mode = if has_mode { "" } else { "mode=listener" };
    let between = if query.is_empty() || has_mode { "" } else { "&" };
    Some(format!("srt://0.0.0.0:{place}?{query}{between}{mode}"))
}

fn problem(problem: &str, help: &str) -> Problem {
    (problem.to_owned(), Some(help.to_owned()))
}

/// Known schemes need only their colon; what else has a colon is a path, unless `//` follows.
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = text.split_once(':')?;
    let mut letters = scheme.chars();
    let well_formed = letters.next().is_some_and(|c| c.is_ascii_alphabetic())
        && letters.all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'));
    let known = SCHEMES.iter().any(|known| known.eq_ignore_ascii_case(scheme));
    (well_formed && (known || rest.starts_with("//"))).then_some((scheme, rest))
}

fn bare_path(text: &str, base: &Path) -> Result<PathBuf, Problem> {
    if text.is_empty() {
        return Err(problem("is empty", "write a URL or the path of a video file"));
    }
    let path = tidy(absolute(base.join(text)));
    // The path of a missing file is printed, and the password would be with it.
    if may_hold_secret(text) && !path.exists() {
        return Err(problem("is not a file, and has no scheme", "for a camera, begin with \"rtsp://\" or \"http://\""));
    }
    Ok(path)
}

/// What follows `file:`. `//` is optional, and unlike in RFC 8089 what follows it may be a relative path: a host would
/// make no sense here.
fn file_url(rest: &str, base: &Path) -> Result<PathBuf, Problem> {
    let path = rest.strip_prefix("//").unwrap_or(rest);
    let path = path.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(path);
    if path.is_empty() {
        return Err(problem("names no file", "write \"file:///folder/video.mp4\" or \"file:video.mp4\""));
    }
    let found = tidy(absolute(base.join(OsString::from_vec(percent_decode_str(path).collect()))));
    if may_hold_secret(path) && !found.exists() {
        return Err(problem("names no file", "it takes no host, user or password: \"file:///folder/video.mp4\""));
    }
    Ok(found)
}

/// The path as it is where it cannot be made absolute: an empty path, or no current folder.
fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// A URL with a host, without user and password; they are returned beside it. Errors do not repeat the URL: a password may be in any part of it.
///
/// A password that holds `#`, `/` or `?` unescaped ends the authority early, and its rest, an `@` and the real host land in
/// path, query or fragment. The URL then parses, names a wrong host and shows half of the password as its address. An `@`
/// after the authority is therefore refused, and so is everything else that the URL standard drops or cuts silently.
pub(super) fn network_url(text: &str) -> Result<(Url, Option<Credentials>), Problem> {
    let help = "special characters in a user or password are written %XX; or use the keys user and password_file";
    if text.chars().any(|c| c.is_control() || c == ' ') {
        return Err(problem("contains a space or a control character", "write %20 for a space, %09 for a tab"));
    }
    let mut url = Url::parse(text).map_err(|error| problem(&format!("is not a valid URL: {error}"), help))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(problem("has no host", "write SCHEME://HOST/PATH; to listen, HOST is 0.0.0.0"));
    }
    if url[url::Position::BeforePath..].contains('@') {
        return Err(problem(
            "has an @ after the host",
            "write %40 if it belongs to the path or the query; in a password, \
             the characters # / ? are written %23 %2F %3F",
        ));
    }
    // What follows a # is never sent. Only web addresses are written with one out of habit; elsewhere, and behind a query
    // with its tokens, it is the rest of a value that was cut off.
    let is_plain_page = matches!(url.scheme(), "http" | "https") && url.query().is_none();
    if url.fragment().is_some_and(|fragment| !fragment.is_empty()) && !is_plain_page {
        return Err(problem(
            "contains #, and the part after # is not sent to the server",
            "write %23 if the # belongs to a value",
        ));
    }
    let decode = |part: &str| match percent_decode_str(part).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(problem("is not UTF-8", help)),
    };
    let credentials = if url.username().is_empty() && url.password().is_none() {
        None
    } else {
        let user = decode(url.username())?;
        let password = Secret::new(decode(url.password().unwrap_or_default())?);
        Some(Credentials { user, password })
    };
    let stripped = url.set_username("").and_then(|()| url.set_password(None));
    stripped.map_err(|()| problem("takes no user and password", help))?;
    Ok((url, credentials))
}

/// Whether text that was read as a path may be the address of a camera whose scheme is missing or mistyped, with a password
/// or a token in it: `user:password@host/…`, `host/live?token=…`, `host:554/user=admin&password=…`.
fn may_hold_secret(text: &str) -> bool {
    let before_at = text.rsplit_once('@').map_or("", |(before, _)| before);
    before_at.contains(':') || text.contains('?') || text.split(['/', '&', ';']).any(is_secret_setting)
}

/// `password=…` and the like.
fn is_secret_setting(text: &str) -> bool {
    text.split_once('=').is_some_and(|(name, _)| is_secret_name(name))
}

/// Whether a setting of this name, in a URL's query or a GStreamer property, holds a password, a token or a key.
pub(crate) fn is_secret_name(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let part =
        ["pass", "pwd", "token", "secret", "auth", "apikey", "credential"].iter().any(|part| name.contains(part));
    part || name.split(['-', '_', '.']).any(|word| matches!(word, "pw" | "key" | "pin"))
}

/// What follows `test://`.
fn test_source(rest: &str) -> Result<TestSource, Problem> {
    let mut test = TestSource::default();
    let (pattern, query) = rest.split_once('?').unwrap_or((rest, ""));
    let pattern = pattern.trim_end_matches('/');
    if !pattern.is_empty() {
        if !PATTERNS.contains(&pattern) {
            let shown = if pattern.contains('@') { String::new() } else { format!(" {pattern:?}") };
            return Err((format!("unknown test pattern{shown}"), Some(did_you_mean(pattern, PATTERNS))));
        }
        test.pattern = pattern.to_owned();
    }
    for setting in query.split('&').filter(|setting| !setting.is_empty()) {
        let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
        let number = |least: u64, most: u64| match value.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err((format!("{name} is {value:?}, not a number between {least} and {most}"), None)),
        };
        match name {
            // The bounds fit 32 bits.
            "width" => test.width = number(16, 8192)? as u32,
            "height" => test.height = number(16, 8192)? as u32,
            "fps" => test.fps = number(1, 240)? as u32,
            "frames" => test.frames = Some(number(1, 1_000_000_000)?),
            _ => {
                let help = did_you_mean(name, ["width", "height", "fps", "frames"]);
                return Err((format!("unknown setting {name:?}"), Some(help)));
            }
        }
    }
    Ok(test)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ok(text: &str) -> (SourceUri, Option<Credentials>) {
        parse(text, Path::new("/etc/maskcast")).unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    fn err(text: &str) -> Problem {
        parse(text, Path::new("/etc/maskcast")).expect_err(text)
    }

    #[test]
    fn file_sources_are_absolute_paths() {
        for (text, path) in [
            ("file:///srv/a%20b%25.mp4", "/srv/a b%.mp4"),
            ("file://localhost/srv/a.mp4", "/srv/a.mp4"),
            ("file://clips/a.mp4", "/etc/maskcast/clips/a.mp4"),
            ("file:clips/a.mp4", "/etc/maskcast/clips/a.mp4"),
            ("FILE:/srv/a.mp4", "/srv/a.mp4"),
            ("file://100%.mp4", "/etc/maskcast/100%.mp4"),
            ("clips/a%20b.mp4", "/etc/maskcast/clips/a%20b.mp4"),
            ("12:30.mp4", "/etc/maskcast/12:30.mp4"),
            ("noon:1.mp4", "/etc/maskcast/noon:1.mp4"),
            ("/srv/a.mp4", "/srv/a.mp4"),
        ] {
            assert_eq!(ok(text), (SourceUri::File(path.into()), None), "{text}");
        }
        assert_eq!(err("file://").0, "names no file");
        assert_eq!(err("").0, "is empty");
    }

    #[test]
    fn credentials_leave_the_url() {
        let (uri, credentials) = ok("rtsp://ad%40min:p%23ss%3A@10.0.0.7:554/a?b=c");
        assert_eq!(uri, SourceUri::Rtsp(Url::parse("rtsp://10.0.0.7:554/a?b=c").unwrap()));
        assert_eq!(credentials, Some(Credentials { user: "ad@min".into(), password: Secret::new("p#ss:") }));
        let (uri, credentials) = ok("https://viewer@cam/x");
        assert_eq!(uri, SourceUri::Http(Url::parse("https://cam/x").unwrap()));
        assert_eq!(credentials.unwrap().password.expose(), "");
        assert_eq!(ok("rtsps://cam/x").1, None);
        assert_eq!(ok("http://cam:81/%40x").1, None);
        // The last @ of the authority ends the password, as browsers and ffmpeg read it.
        let (uri, credentials) = ok("rtsp://admin:p@ss@10.0.0.7/live");
        assert_eq!(uri, SourceUri::Rtsp(Url::parse("rtsp://10.0.0.7/live").unwrap()));
        assert_eq!(credentials, Some(Credentials { user: "admin".into(), password: Secret::new("p@ss") }));
    }

    #[test]
    fn a_password_that_ends_the_authority_is_refused() {
        for text in [
            "rtsp://admin:p@ss#1@10.0.0.7/live",
            "rtsp://admin:/secret@10.0.0.7/live",
            "rtsp://admin:#secret@10.0.0.7/live",
            "rtsp://admin:?secret@10.0.0.7/live",
            "rtsp://admin:a@b/c@10.0.0.7/live",
            "rtsp://admin:a@b?c@10.0.0.7:554/live",
            "rtsps://ad/min:secret@10.0.0.7/live",
            "http://admin:1/2@cam/mjpeg",
            "https://admin:a@b#c@cam/mjpeg",
            "http://admin:1\\2@cam/mjpeg",
            "http://cam/@x",
            "srt://admin:1/2@cam:7001",
        ] {
            let (problem, help) = err(text);
            assert_eq!(problem, "has an @ after the host", "{text}");
            assert!(help.unwrap().contains("%23 %2F %3F"), "{text}");
        }
    }

    #[test]
    fn a_value_that_is_cut_off_is_refused() {
        for text in [
            "rtsp://cam/user=admin&password=hunter#2&channel=1.sdp",
            "srt://cam:7001?passphrase=hunter#2hunter2",
            "http://cam/mjpeg?token=hunter#2",
        ] {
            assert_eq!(err(text).0, "contains #, and the part after # is not sent to the server", "{text}");
        }
        assert_eq!(err("rtsp://admin:hun\tter@cam/live").0, "contains a space or a control character");
        assert_eq!(ok("http://cam/mjpeg#top").1, None);
        assert_eq!(ok("rtsp://cam/live#").1, None);
    }

    #[test]
    fn names_of_secret_settings() {
        for name in ["password", "user-pw", "passphrase", "PWD", "authToken", "api_key", "key", "secret", "auth-token"]
        {
            assert!(is_secret_name(name), "{name}");
        }
        for name in ["channel", "user-id", "location", "pattern", "max-keyframes", "monkey", "width", "power"] {
            assert!(!is_secret_name(name), "{name}");
        }
    }

    #[test]
    fn errors_keep_passwords() {
        for text in [
            "rtsp://admin:hunter#2@cam/x",
            "rtsp://admin:hunter2@",
            "rtsp://admin:12#hunter2@cam/x",
            "http://admin:12/hunter2@cam/x",
            "rtsp://admin:12?hunter2@cam/x",
            "rtsp:admin:hunter2@cam",
            "rstp://admin:hunter2@cam/x",
            "srt://admin:hunter2@cam:1",
            "admin:hunter2@cam/x",
            "v4l2://admin:hunter2@cam",
            "admin:a@hunter2@cam/x",
            "cam/live?token=hunter2",
            "10.0.0.7:554/user=admin&password=hunter2",
            "file://admin:hunter2@nas/clip.mp4",
            "test://admin:hunter2@cam",
            "rtsp://admin:hun@ter#hunter2@cam/x",
            "rtsp://admin:/hunter2@cam/x",
            "rtsp://cam/password=a#hunter2",
        ] {
            let error = format!("{:?}", err(text));
            assert!(!error.contains("hunter"), "{text}: {error}");
        }
    }

    #[test]
    fn each_scheme_has_its_form() {
        assert_eq!(err("rstp://a/b"), ("unknown scheme \"rstp\"".into(), Some("did you mean rtsp?".into())));
        assert!(err("magnet://a").1.unwrap().starts_with("known are: rtsp, rtsps, http, https, srt, file, v4l2,"));
        assert_eq!(err("rtsp:a/b").0, "lacks the // after the scheme");
        assert_eq!(err("rtsp:///b").0, "has no host");
        assert_eq!(err("srt://a").0, "has no port");
        assert_eq!(err("gst: ").0, "describes no elements");
        assert_eq!(err("v4l2://video0").0, "is not the absolute path of a device");
        assert_eq!(ok("v4l2:///dev/video0").0, SourceUri::V4l2("/dev/video0".into()));
        assert_eq!(ok("libcamera://").0, SourceUri::Libcamera(String::new()));
        assert_eq!(ok("libcamera:///base/i2c@1a/imx219").0, SourceUri::Libcamera("/base/i2c@1a/imx219".into()));
        assert_eq!(ok("gst:videotestsrc ! fakesink").0, SourceUri::Gst("videotestsrc ! fakesink".into()));
        assert!(matches!(ok("srt://0.0.0.0:7001?mode=listener").0, SourceUri::Srt(_)));
        let srt = |text: &str| match ok(text).0 {
            SourceUri::Srt(url) => url.to_string(),
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!(srt("srt://:7001?mode=listener"), "srt://0.0.0.0:7001?mode=listener");
        assert_eq!(srt("srt://:7001"), "srt://0.0.0.0:7001?mode=listener");
        assert_eq!(srt("srt://:7001?latency=300"), "srt://0.0.0.0:7001?latency=300&mode=listener");
        assert_eq!(srt("srt://:7001?mode=rendezvous&latency=300"), "srt://0.0.0.0:7001?mode=rendezvous&latency=300");
        assert_eq!(err("srt://:").0, "has no port");
    }

    #[test]
    fn test_sources() {
        assert_eq!(ok("test://").0, SourceUri::Test(TestSource::default()));
        let wanted = TestSource { pattern: "ball".into(), width: 320, height: 200, fps: 30, frames: Some(100) };
        assert_eq!(ok("test://ball/?width=320&height=200&fps=30&frames=100").0, SourceUri::Test(wanted));
        assert_eq!(err("test://bal").1.unwrap(), "did you mean ball?");
        assert_eq!(err("test://?widht=3").1.unwrap(), "did you mean width?");
        assert_eq!(err("test://?width=3").0, "width is \"3\", not a number between 16 and 8192");
        assert!(err("test://?fps=0").0.starts_with("fps is"));
        assert!(err("test://?frames").0.starts_with("frames is"));
    }
}
