//! What a configuration may say when it comes over the network. The file's owner may have every source; a client of the
//! API must not make the box read its own files and devices, run pipelines, or talk to what only the box itself can reach.

use std::net::{IpAddr, Ipv6Addr};

use url::{Host, Url};

use crate::config::{ConfigError, Object, SourceSpec, SourceUri};

/// Whether a client of the API may set a stream's source to this.
///
/// # Errors
/// Why not, to be read after the key.
pub fn source_allowed(source: &SourceSpec) -> Result<(), String> {
    let only_file = |what: &str| Err(format!("{what} can only be set in the configuration file, not by the API"));
    match &source.uri {
        SourceUri::Test(_) => Ok(()),
        SourceUri::File(_) => only_file("files of this machine"),
        SourceUri::V4l2(_) | SourceUri::Libcamera(_) => only_file("devices of this machine"),
        SourceUri::Gst(_) => only_file("GStreamer descriptions"),
        SourceUri::Rtsp(url) | SourceUri::Http(url) | SourceUri::Srt(url) => match is_near(url) {
            true => only_file("addresses of this machine or of the local link"),
            false => Ok(()),
        },
    }
}

/// Whether a URL's host is this machine or on the local link, where cloud providers have their metadata.
fn is_near(url: &Url) -> bool {
    // The host of a scheme that `url` does not know is text, whatever it looks like.
    let host = url.host_str().map(|host| Host::parse(host).unwrap_or(Host::Domain(host.to_owned())));
    match host {
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => is_near_address(address.into()),
        Some(Host::Ipv6(address)) => is_near_address(address.into()),
        None => true,
    }
}

fn is_near_address(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_link_local() || v4.is_unspecified() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || embeds_near(v6),
    }
}

/// `::127.0.0.1` and the like: IPv4 in the last bits.
fn embeds_near(v6: Ipv6Addr) -> bool {
    v6.to_ipv4().is_some_and(|v4| is_near_address(v4.into()))
}

/// A password would leave the machine for whatever host the client names: so only what is there to be a camera's password
/// may be named, not any file and any variable.
///
/// # Errors
/// The keys that name something else.
pub fn passwords_allowed(settings: &Object, key: &str) -> Result<(), Vec<ConfigError>> {
    let text = |name: &str| settings.get(name).and_then(|value| value.as_str());
    let refuse = |name: &str, help: &str| ConfigError {
        key: format!("{key}.{name}"),
        line: None,
        problem: "can only be set so in the configuration file, not by the API".into(),
        help: Some(help.to_owned()),
    };
    let mut errors = Vec::new();
    if text("password_file").is_some_and(|file| file.contains('/') || !file.ends_with(".password")) {
        errors.push(refuse("password_file", "a file beside the configuration file whose name ends in .password"));
    }
    if text("password_env").is_some_and(|variable| !variable.ends_with("_PASSWORD")) {
        errors.push(refuse("password_env", "a variable whose name ends in _PASSWORD"));
    }
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

/// Where pictures are pushed to is the file's owner's business: a client of the API could have them sent anywhere, with
/// any password that a push may name.
///
/// # Errors
/// When the settings say anything of it.
pub fn pushes_allowed(settings: &Object, key: &str) -> Result<(), Vec<ConfigError>> {
    if !settings.contains_key("push") {
        return Ok(());
    }
    Err(vec![ConfigError {
        key: format!("{key}.push"),
        line: None,
        problem: "can only be set in the configuration file, not by the API".into(),
        help: None,
    }])
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pushes_are_not_for_clients() {
        let allowed = |value: serde_json::Value| pushes_allowed(value.as_object().unwrap(), "stream[gate]");
        assert_eq!(allowed(json!({"source": "test://ball"})), Ok(()));
        for push in [json!([{"url": "rtsp://10.0.0.9/a"}]), json!([]), json!(null)] {
            assert_eq!(allowed(json!({ "push": push })).unwrap_err()[0].key, "stream[gate].push");
        }
    }

    fn source(text: &str) -> Result<(), String> {
        source_allowed(&SourceSpec::parse(text, "/srv".as_ref()).unwrap())
    }

    #[test]
    fn cameras_of_the_network_and_test_pictures_are_allowed() {
        for text in [
            "rtsp://10.0.0.7/a",
            "rtsps://cam.example:322/a",
            "http://[2001:db8::1]/a",
            "srt://192.168.1.9:7001",
            "test://ball",
        ] {
            assert_eq!(source(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_only_this_machine_can_reach_is_not() {
        for text in [
            "/etc/passwd",
            "file:///etc/passwd",
            "v4l2:///dev/video0",
            "libcamera://",
            "gst:filesrc location=/etc/passwd ! fakesink",
            "rtsp://127.0.0.1:8554/a",
            "http://127.1/",
            "http://2130706433/",
            "rtsp://localhost/a",
            "http://LOCALHOST./a",
            "rtsp://cam.localhost/a",
            "http://[::1]/",
            "rtsp://[::ffff:127.0.0.1]/",
            "rtsp://[::ffff:169.254.169.254]/",
            "http://169.254.169.254/latest/meta-data",
            "rtsp://[fe80::1]/",
            "srt://0.0.0.0:7001",
            "rtsp://0/",
        ] {
            assert!(source(text).unwrap_err().contains("only be set in the configuration file"), "{text}");
        }
    }

    #[test]
    fn only_passwords_of_cameras_are_passwords() {
        let allowed = |value: serde_json::Value| passwords_allowed(value.as_object().unwrap(), "stream[gate]");
        assert_eq!(allowed(json!({"user": "a", "password_file": "gate.password"})), Ok(()));
        assert_eq!(allowed(json!({"user": "a", "password_env": "GATE_PASSWORD"})), Ok(()));
        assert_eq!(allowed(json!({"password_file": null, "password_env": null})), Ok(()));
        for file in ["users.toml", "/etc/shadow", "../x.password", "/a.password"] {
            let errors = allowed(json!({"password_file": file})).unwrap_err();
            assert_eq!(errors[0].key, "stream[gate].password_file", "{file}");
        }
        assert!(allowed(json!({"password_env": "AWS_SECRET_ACCESS_KEY"})).is_err());
    }
}
