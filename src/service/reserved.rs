//! Settings that only the configuration file may have: the API refuses them.

use std::path::{Component, Path, PathBuf};

use url::Position;

use crate::config::{Config, ConfigError, Object, SourceSpec, SourceUri, not_for_api};

/// Refuses keys that only the configuration file may set (`x-api` of their definition). A password in a file or a variable is
/// sent only where the configuration file says: a client could name any file, and its own host to receive the password. A
/// client sends the camera's password in the URL, which is never returned. The error of `tls_ca` would reveal whether a file
/// exists. With `push`, a client could send the video anywhere, with any password that a push may name.
///
/// # Errors
/// An error for each key that is set. Passwords and `tls_ca` may be removed.
pub fn check_reserved_keys(settings: &Object, key: &str) -> Result<(), Vec<ConfigError>> {
    result(not_for_api(settings, "stream", key))
}

/// Refuses a source on another host that would receive the password of the configuration file. The client may send a
/// password of its own in the URL.
///
/// # Errors
/// The source would receive the password.
pub fn check_password_host(
    patch: &Object,
    before: &SourceSpec,
    after: &SourceSpec,
    key: &str,
) -> Result<(), Vec<ConfigError>> {
    let password = |spec: &SourceSpec| spec.credentials.clone().filter(|known| !known.password.expose().is_empty());
    let has_password = |text: &str| SourceSpec::parse(text, Path::new("/")).is_ok_and(|spec| password(&spec).is_some());
    let has_own_password = patch.get("source").and_then(|source| source.as_str()).is_some_and(has_password);
    if has_own_password || password(after).is_none() || host(&before.uri) == host(&after.uri) {
        return Ok(());
    }
    Err(vec![ConfigError {
        key: format!("{key}.source"),
        line: None,
        problem: "the stream's password would be sent to another host".into(),
        help: Some(
            "put user and password of the new host into the URL, and set user, password_file and password_env to null; or \
             edit the configuration file"
                .into(),
        ),
    }])
}

/// Scheme, host and port: a password for a TLS connection must not be sent without TLS.
fn host(uri: &SourceUri) -> Option<&str> {
    uri.network_url().map(|url| &url[..Position::BeforePath])
}

/// Checks the kind of a source without accessing it: the API must not reveal whether a file exists.
///
/// # Errors
/// A source that is not in the configuration file, of a kind that the API must not add.
pub fn check_source_kind(settings: &Object, key: &str, file: &Config, base: &Path) -> Result<(), Vec<ConfigError>> {
    let spec = settings.get("source").and_then(|source| SourceSpec::parse(source.as_str()?, base).ok());
    let is_known = |spec: &SourceSpec| file.streams.iter().any(|stream| stream.source.uri == spec.uri);
    let Some(spec) = spec.filter(|spec| !is_known(spec)) else { return Ok(()) };
    file.server
        .api_sources
        .check_kind(&spec.uri)
        .map_err(|refusal| ConfigError {
            key: format!("{key}.source"),
            line: None,
            problem: refusal.to_string(),
            help: None,
        })
        .map_err(|error| vec![error])
}

/// Restricts the folder of recordings, because retention deletes files there and disks fill up: clients of the API may
/// choose only folders inside those that streams are recorded to already, or inside the service's own (`state`). Relative
/// paths start at `base`, as in the configuration file.
///
/// # Errors
/// Another folder.
pub fn check_recording_folder(
    settings: &Object,
    key: &str,
    file: &Config,
    base: &Path,
    state: &[PathBuf],
) -> Result<(), Vec<ConfigError>> {
    let dir = settings.get("record").and_then(|record| record.get("dir")).and_then(|dir| dir.as_str());
    let Some(dir) = dir else { return Ok(()) };
    let known = file.streams.iter().filter_map(|stream| stream.record.as_ref()).map(|record| record.dir.as_path());
    let mut roots = known.chain(state.iter().map(PathBuf::as_path)).filter_map(resolve);
    if resolve(&base.join(dir)).is_some_and(|dir| roots.any(|root| dir.starts_with(root))) {
        return Ok(());
    }
    Err(vec![ConfigError {
        problem: "the API may set only folders inside the service's own folders or inside existing recording folders"
            .into(),
        help: Some("set it in the configuration file".into()),
        ..reserved_key(format!("{key}.record.dir"))
    }])
}

/// Resolves symbolic links in the path of a folder that may not exist yet; `None` if that is not possible.
fn resolve(path: &Path) -> Option<PathBuf> {
    let existing = path.ancestors().find(|folder| folder.symlink_metadata().is_ok())?;
    let rest = path.strip_prefix(existing).ok()?;
    let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
    let existing = existing.canonicalize().ok().filter(|_| plain)?;
    Some(if rest == Path::new("") { existing } else { existing.join(rest) })
}

fn reserved_key(key: String) -> ConfigError {
    let problem = "can only be set in the configuration file, not by the API".into();
    ConfigError { key, line: None, problem, help: None }
}

fn result(errors: Vec<ConfigError>) -> Result<(), Vec<ConfigError>> {
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_api_cannot_set_pushes() {
        let allowed = |value: serde_json::Value| check_reserved_keys(value.as_object().unwrap(), "stream[gate]");
        assert_eq!(allowed(json!({"source": "test://ball"})), Ok(()));
        for push in [json!([{"url": "rtsp://10.0.0.9/a"}]), json!([]), json!(null)] {
            assert_eq!(allowed(json!({ "push": push })).unwrap_err()[0].key, "stream[gate].push");
        }
    }

    #[test]
    fn the_api_cannot_set_sinks() {
        let allowed = |value: serde_json::Value| check_reserved_keys(value.as_object().unwrap(), "stream[gate]");
        for sink in [json!([{"type": "jsonl", "path": "/etc/cron.d/x"}]), json!([]), json!(null)] {
            assert_eq!(allowed(json!({ "sink": sink })).unwrap_err()[0].key, "stream[gate].sink");
        }
    }

    #[test]
    fn the_api_cannot_refer_to_passwords() {
        let allowed = |value: serde_json::Value| check_reserved_keys(value.as_object().unwrap(), "stream[gate]");
        assert_eq!(allowed(json!({"source": "rtsp://a:b@10.0.0.7/x", "user": "a"})), Ok(()));
        assert_eq!(allowed(json!({"password_file": null, "password_env": null})), Ok(()));
        let errors = allowed(json!({"password_file": "gate.password", "password_env": "GATE_PASSWORD"})).unwrap_err();
        let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(keys, ["stream[gate].password_file", "stream[gate].password_env"]);
        assert_eq!(allowed(json!({"tls_ca": "/etc/shadow"})).unwrap_err()[0].key, "stream[gate].tls_ca");
        assert_eq!(allowed(json!({"tls_ca": null, "tls_fingerprint": "AB"})), Ok(()));
    }

    #[test]
    fn a_password_is_not_sent_to_another_host() {
        let spec = |text: &str| SourceSpec::parse(text, Path::new("/")).unwrap();
        let is_allowed = |source: &str| {
            let before = spec("rtsps://a:hunter2@10.0.0.7/x");
            let requested = spec(source);
            // Without a password in the URL, that of the configuration file is used.
            let credentials = requested.credentials.clone().or(before.credentials.clone());
            let after = SourceSpec { credentials, ..requested };
            let patch = json!({ "source": source });
            check_password_host(patch.as_object().unwrap(), &before, &after, "stream[gate]").is_ok()
        };
        assert!(is_allowed("rtsps://10.0.0.7/another?path=1"));
        assert!(is_allowed("rtsp://b:hunter3@10.0.0.8/x"), "it is the client's own password");
        for source in [
            "rtsps://10.0.0.8/x",
            "rtsps://10.0.0.7:555/x",
            "rtsp://10.0.0.7/x",
            "http://10.0.0.7/x",
            "rtsps://b@10.0.0.8/x",
        ] {
            // A user without a password uses the password of the configuration file.
            let before = spec("rtsps://a:hunter2@10.0.0.7/x");
            let after = SourceSpec { credentials: before.credentials.clone(), ..spec(source) };
            let patch = json!({ "source": source });
            let errors = check_password_host(patch.as_object().unwrap(), &before, &after, "stream[gate]").unwrap_err();
            assert_eq!(errors[0].key, "stream[gate].source", "{source}");
        }
        let without = spec("rtsp://10.0.0.7/x");
        let patch = json!({"source": "rtsp://10.0.0.8/x"});
        assert!(check_password_host(patch.as_object().unwrap(), &without, &spec("rtsp://10.0.0.8/x"), "").is_ok());
    }

    #[test]
    fn the_api_can_set_only_recording_folders() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().canonicalize().unwrap();
        for name in ["rec", "state", "other"] {
            std::fs::create_dir(place.join(name)).unwrap();
        }
        std::fs::write(place.join("m.onnx"), "").unwrap();
        std::os::unix::fs::symlink(place.join("other"), place.join("rec/link")).unwrap();
        std::os::unix::fs::symlink(place.join("nowhere"), place.join("rec/broken")).unwrap();
        let text = "model.path = \"m.onnx\"\n[[stream]]\nname = \"gate\"\nsource = \"test://\"\nrecord.dir = \"rec\"\n";
        let file = crate::config::parse(text, &place.join("maskcast.toml")).unwrap();
        let state = [place.join("state")];
        let check = |dir: &str| {
            let settings = json!({ "record": { "dir": dir } });
            check_recording_folder(settings.as_object().unwrap(), "stream[gate]", &file, &place, &state)
        };
        let allowed = |dir: &str| check(dir).is_ok();
        let inside = |name: &str| place.join(name).display().to_string();
        for dir in ["rec", "rec/gate", "rec/a/b", "state", "state/gate", "rec/../state/x", &inside("state/y")] {
            assert!(allowed(dir), "{dir}");
        }
        let outside =
            ["other", ".", "rec/..", "rec/link", "rec/link/x", "rec/broken", "rec/new/../../other", "recorded"];
        for dir in outside.into_iter().chain(["m.onnx", "/", "/tmp", "/etc/maskcast"]) {
            assert!(!allowed(dir), "{dir}");
        }
        assert_eq!(check("other").unwrap_err()[0].key, "stream[gate].record.dir");
    }
}
