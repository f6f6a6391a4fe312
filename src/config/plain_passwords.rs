//! Passwords written in a configuration file itself, and whether other users of the machine may read them there.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use url::Url;

use super::push::PushTarget;
use super::source::{SourceSpec, SourceUri};
use super::uri::is_secret_name;
use crate::base::secret::Secret;

/// A warning if every user of the machine can read passwords in the file. It contains the keys, but no password.
pub fn readable_passwords(path: &Path) -> Option<String> {
    if !is_open(path) {
        return None;
    }
    let text = std::fs::read_to_string(path).ok()?;
    let keys: Vec<String> = written_passwords(&text).into_iter().map(|(key, _)| key).collect();
    let file = path.display();
    (!keys.is_empty()).then(|| {
        format!(
            "{file} is readable for every user of this machine, and holds passwords ({}); run chmod o= {file}",
            keys.join(", ")
        )
    })
}

/// Whether `after` contains a password that `before` does not contain.
pub(super) fn gains_passwords(before: &str, after: &str) -> bool {
    let known = written_passwords(before);
    written_passwords(after).iter().any(|(_, text)| !known.iter().any(|(_, other)| other == text))
}

/// Whether every user of this machine may read the file and enter its folders.
pub(super) fn is_open(path: &Path) -> bool {
    let allows = |path: &Path, bit: u32| path.metadata().is_ok_and(|facts| facts.mode() & bit != 0);
    path.canonicalize()
        .is_ok_and(|path| allows(&path, 0o004) && path.ancestors().skip(1).all(|folder| allows(folder, 0o001)))
}

/// The keys whose values contain passwords, and these values.
fn written_passwords(text: &str) -> Vec<(String, Secret)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // Errors of the text are reported by the loader.
    let (root, _) = DeTable::parse_recoverable(text);
    let root = root.get_ref();
    let mut found = Vec::new();
    let mut note = |key: String, text: &str| found.push((key, Secret::new(text)));
    for (i, stream) in list(root, "stream").enumerate() {
        let Some(stream) = stream.as_table() else { continue };
        let name = string(stream, "name").map_or_else(|| i.to_string(), str::to_owned);
        if let Some(source) = string(stream, "source").filter(|source| in_source(source)) {
            note(format!("stream[{name}].source"), source);
        }
        for (i, push) in list(stream, "push").enumerate() {
            if let Some(url) = push.as_table().and_then(|push| string(push, "url")).filter(|url| in_push(url)) {
                note(format!("stream[{name}].push[{i}].url"), url);
            }
        }
    }
    let broker = table(root, "mqtt").and_then(|mqtt| string(mqtt, "url"));
    if let Some(url) = broker.filter(|url| super::mqtt::url_has_password(url)) {
        note("mqtt.url".into(), url);
    }
    let webrtc = table(root, "server").and_then(|server| table(server, "webrtc"));
    for (i, turn) in webrtc.into_iter().flat_map(|webrtc| list(webrtc, "turn")).enumerate() {
        // Each has a user and a password.
        if let Some(turn) = turn.as_str() {
            note(format!("server.webrtc.turn[{i}]"), turn);
        }
    }
    found
}

fn in_source(text: &str) -> bool {
    let Ok(spec) = SourceSpec::parse(text, Path::new("/")) else { return false };
    spec.credentials.is_some_and(|known| !known.password.expose().is_empty())
        || spec.uri.network_url().is_some_and(has_secret_setting)
        || matches!(&spec.uri, SourceUri::Gst(text)
            if ["user-pw=", "password=", "passphrase="].iter().any(|name| text.contains(name)))
}

fn in_push(text: &str) -> bool {
    PushTarget::parse(text).is_ok_and(|(target, credentials)| {
        let (PushTarget::Rtsp(url) | PushTarget::Whip(url)) = &target;
        credentials.is_some_and(|known| !known.password.expose().is_empty()) || has_secret_setting(url)
    })
}

/// `?passphrase=…`, `?token=…`, and `/user=…&password=…` in the path.
fn has_secret_setting(url: &Url) -> bool {
    let path =
        url.path().split(['/', '&', ';']).filter_map(|part| part.split_once('=')).any(|(name, _)| is_secret_name(name));
    path || url.query_pairs().any(|(name, _)| is_secret_name(&name))
}

fn table<'a, 'b>(table: &'b DeTable<'a>, key: &str) -> Option<&'b DeTable<'a>> {
    table.get(key)?.get_ref().as_table()
}

fn string<'b>(table: &'b DeTable<'_>, key: &str) -> Option<&'b str> {
    table.get(key)?.get_ref().as_str()
}

fn list<'a, 'b>(table: &'b DeTable<'a>, key: &str) -> impl Iterator<Item = &'b DeValue<'a>> {
    table
        .get(key)
        .and_then(|list| list.get_ref().as_array())
        .into_iter()
        .flat_map(|list| list.iter())
        .map(|value| value.get_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn passwords_are_found_where_they_may_stand() {
        let text = r#"
            [server.webrtc]
            turn = ["turn:a:secret@10.0.0.1:3478"]
            [[stream]]
            name = "gate"
            source = "rtsp://admin:secret@10.0.0.7/x"
            [[stream.push]]
            url = "rtsp://10.0.0.9/a"
            [[stream.push]]
            url = "whip+https://a:secret@10.0.0.9/b"
            [[stream]]
            source = "srt://10.0.0.8:9000?passphrase=secret"
            [[stream]]
            name = "user"
            source = "rtsp://admin@10.0.0.7/x"
            password_file = "user.password"
            [[stream]]
            name = "test"
            source = "test://ball"
            [[stream]]
            name = "path"
            source = "rtsp://10.0.0.7/user=admin&password=secret&channel=1"
            [[stream]]
            name = "token"
            source = "http://10.0.0.7/mjpeg?channel=1&token=secret"
            [[stream]]
            name = "plain"
            source = "http://10.0.0.7/mjpeg?channel=1"
        "#;
        let keys: Vec<String> = written_passwords(text).into_iter().map(|(key, _)| key).collect();
        let wanted = [
            "stream[gate].source",
            "stream[gate].push[1].url",
            "stream[1].source",
            "stream[path].source",
            "stream[token].source",
            "server.webrtc.turn[0]",
        ];
        assert_eq!(keys, wanted);
        assert!(gains_passwords("", text) && !gains_passwords(text, text));
        assert!(gains_passwords(text, &text.replace("secret@10.0.0.7", "other@10.0.0.7")));
        assert!(written_passwords("[[stream").is_empty());
    }

    #[test]
    fn a_file_is_open_when_it_and_its_folders_are() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("maskcast.toml");
        fs::write(&file, "[[stream]]\nname = \"gate\"\nsource = \"rtsp://a:hunter2@10.0.0.7/x\"\n").unwrap();
        let set = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        set(&file, 0o644);
        set(folder.path(), 0o700);
        assert_eq!(readable_passwords(&file), None, "no other user can enter the folder");
        set(folder.path(), 0o755);
        let warning = readable_passwords(&file).unwrap();
        assert!(warning.contains("(stream[gate].source)") && !warning.contains("hunter2"), "{warning}");
        set(&file, 0o640);
        assert_eq!(readable_passwords(&file), None);
    }
}
