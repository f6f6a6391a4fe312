//! What only the configuration file may say: clients of the API may not.

use std::path::{Component, Path, PathBuf};

use url::{Position, Url};

use crate::config::{Config, ConfigError, Object, SourceSpec, SourceUri, not_for_api};

/// Keys that only the configuration file may set (`x-api` of their definition). A password that is kept in a file or a variable
/// is only sent where the configuration file says: a client could name any file, and a host of its own to send the password
/// to. It writes the camera's password, which it has to know, into the URL, where it is never shown again. `tls_ca` would show
/// which files exist. With `push`, a client could send frames anywhere, with any password that a push names.
///
/// # Errors
/// An error for each key that is set. Passwords and `tls_ca` may be removed.
pub fn keys_allowed(settings: &Object, key: &str) -> Result<(), Vec<ConfigError>> {
    none(not_for_api(settings, "stream", key))
}

/// A source that is moved to another host takes the password of the file with it only when the client has said it itself.
///
/// # Errors
/// The source that would.
pub fn passwords_stay(
    patch: &Object,
    before: &SourceSpec,
    after: &SourceSpec,
    key: &str,
) -> Result<(), Vec<ConfigError>> {
    let password = |spec: &SourceSpec| spec.credentials.clone().filter(|known| !known.password.expose().is_empty());
    let said = |text: &str| SourceSpec::parse(text, Path::new("/")).is_ok_and(|spec| password(&spec).is_some());
    let is_own = patch.get("source").and_then(|source| source.as_str()).is_some_and(said);
    if is_own || password(after).is_none() || host(&before.uri) == host(&after.uri) {
        return Ok(());
    }
    Err(vec![ConfigError {
        key: format!("{key}.source"),
        line: None,
        problem: "the stream's password would go to another host".into(),
        help: Some(
            "write the new one's user and password into the URL, and set user, password_file and password_env to null; or \
             change it in the configuration file"
                .into(),
        ),
    }])
}

/// Scheme, host and port: a password that went there by TLS must not go without.
fn host(uri: &SourceUri) -> Option<&str> {
    match uri {
        SourceUri::Rtsp(url) | SourceUri::Http(url) | SourceUri::Srt(url) => Some(before_path(url)),
        _ => None,
    }
}

fn before_path(url: &Url) -> &str {
    &url[..Position::BeforePath]
}

/// Whether a source may be one of a client's, as far as can be told without a look at what it names: whether there is a
/// file of that name is nothing that the API tells.
///
/// # Errors
/// A source that the file has not, of a kind that the API may not add.
pub fn kind_allowed(settings: &Object, key: &str, file: &Config, base: &Path) -> Result<(), Vec<ConfigError>> {
    let spec = settings.get("source").and_then(|source| SourceSpec::parse(source.as_str()?, base).ok());
    let is_known = |spec: &SourceSpec| file.streams.iter().any(|stream| stream.source.uri == spec.uri);
    let Some(spec) = spec.filter(|spec| !is_known(spec)) else { return Ok(()) };
    file.server
        .api_sources
        .check_kind(&spec.uri)
        .map_err(|problem| vec![ConfigError { key: format!("{key}.source"), line: None, problem, help: None }])
}

/// Where the service records is the file's owner's business as well: retention removes files there, and disks fill up.
/// Clients of the API may choose folders inside of those that streams are recorded to already, and inside of the service's
/// own (`state`). Relative ones begin at `base`, as in the file.
///
/// # Errors
/// Another one.
pub fn folder_allowed(
    settings: &Object,
    key: &str,
    file: &Config,
    base: &Path,
    state: &[PathBuf],
) -> Result<(), Vec<ConfigError>> {
    let dir = settings.get("record").and_then(|record| record.get("dir")).and_then(|dir| dir.as_str());
    let Some(dir) = dir else { return Ok(()) };
    let known = file.streams.iter().filter_map(|stream| stream.record.as_ref()).map(|record| record.dir.as_path());
    let mut roots = known.chain(state.iter().map(PathBuf::as_path)).filter_map(real);
    if real(&base.join(dir)).is_some_and(|dir| roots.any(|root| dir.starts_with(root))) {
        return Ok(());
    }
    Err(vec![ConfigError {
        problem:
            "the API may only choose folders inside the service's own or inside those that are recorded to already"
                .into(),
        help: Some("set it in the configuration file".into()),
        ..reserved(format!("{key}.record.dir"))
    }])
}

/// Where links lead, for a folder that need not be there yet; `None` where that cannot be told.
fn real(path: &Path) -> Option<PathBuf> {
    let there = path.ancestors().find(|folder| folder.symlink_metadata().is_ok())?;
    let rest = path.strip_prefix(there).ok()?;
    let plain = rest.components().all(|part| matches!(part, Component::Normal(_)));
    let there = there.canonicalize().ok().filter(|_| plain)?;
    Some(if rest == Path::new("") { there } else { there.join(rest) })
}

fn reserved(key: String) -> ConfigError {
    let problem = "can only be set in the configuration file, not by the API".into();
    ConfigError { key, line: None, problem, help: None }
}

fn none(errors: Vec<ConfigError>) -> Result<(), Vec<ConfigError>> {
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pushes_are_not_for_clients() {
        let allowed = |value: serde_json::Value| keys_allowed(value.as_object().unwrap(), "stream[gate]");
        assert_eq!(allowed(json!({"source": "test://ball"})), Ok(()));
        for push in [json!([{"url": "rtsp://10.0.0.9/a"}]), json!([]), json!(null)] {
            assert_eq!(allowed(json!({ "push": push })).unwrap_err()[0].key, "stream[gate].push");
        }
    }

    #[test]
    fn clients_name_no_place_of_a_password() {
        let allowed = |value: serde_json::Value| keys_allowed(value.as_object().unwrap(), "stream[gate]");
        assert_eq!(allowed(json!({"source": "rtsp://a:b@10.0.0.7/x", "user": "a"})), Ok(()));
        assert_eq!(allowed(json!({"password_file": null, "password_env": null})), Ok(()));
        let errors = allowed(json!({"password_file": "gate.password", "password_env": "GATE_PASSWORD"})).unwrap_err();
        let keys: Vec<&str> = errors.iter().map(|error| error.key.as_str()).collect();
        assert_eq!(keys, ["stream[gate].password_file", "stream[gate].password_env"]);
        assert_eq!(allowed(json!({"tls_ca": "/etc/shadow"})).unwrap_err()[0].key, "stream[gate].tls_ca");
        assert_eq!(allowed(json!({"tls_ca": null, "tls_fingerprint": "AB"})), Ok(()));
    }

    #[test]
    fn a_password_does_not_follow_its_stream_to_another_host() {
        let spec = |text: &str| SourceSpec::parse(text, Path::new("/")).unwrap();
        let stays = |source: &str| {
            let before = spec("rtsps://a:hunter2@10.0.0.7/x");
            let own = spec(source);
            // The keys of the file give the password where the URL has none.
            let credentials = own.credentials.clone().or(before.credentials.clone());
            let after = SourceSpec { credentials, ..own };
            let patch = json!({ "source": source });
            passwords_stay(patch.as_object().unwrap(), &before, &after, "stream[gate]").is_ok()
        };
        assert!(stays("rtsps://10.0.0.7/another?path=1"));
        assert!(stays("rtsp://b:hunter3@10.0.0.8/x"), "that is the client's own");
        for source in [
            "rtsps://10.0.0.8/x",
            "rtsps://10.0.0.7:555/x",
            "rtsp://10.0.0.7/x",
            "http://10.0.0.7/x",
            "rtsps://b@10.0.0.8/x",
        ] {
            // A user alone is no password: the file's goes with it.
            let before = spec("rtsps://a:hunter2@10.0.0.7/x");
            let after = SourceSpec { credentials: before.credentials.clone(), ..spec(source) };
            let patch = json!({ "source": source });
            let errors = passwords_stay(patch.as_object().unwrap(), &before, &after, "stream[gate]").unwrap_err();
            assert_eq!(errors[0].key, "stream[gate].source", "{source}");
        }
        let without = spec("rtsp://10.0.0.7/x");
        let patch = json!({"source": "rtsp://10.0.0.8/x"});
        assert!(passwords_stay(patch.as_object().unwrap(), &without, &spec("rtsp://10.0.0.8/x"), "").is_ok());
    }

    #[test]
    fn clients_have_recorded_only_where_recordings_are() {
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
            folder_allowed(settings.as_object().unwrap(), "stream[gate]", &file, &place, &state)
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
