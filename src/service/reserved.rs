//! What only the configuration file may say: clients of the API may not.

use crate::config::{ConfigError, Object};

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
