//! The users file: every text is either refused with an error that contains no password, or results in users that can be
//! written and read again.
#![no_main]

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use maskcast::users::{Users, UsersFileError, check_name};

/// The folder of the file: in memory, if the system has such a folder.
static FOLDER: LazyLock<tempfile::TempDir> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { std::env::temp_dir() };
    tempfile::tempdir_in(parent).expect("a folder can be created")
});

fuzz_target!(|text: &str| {
    match Users::parse(text) {
        Ok(users) => check(&users),
        Err(error) => {
            let problem = error.to_string();
            assert!(!problem.is_empty() && !problem.contains('\n'), "{problem:?}");
            let Ok(table) = text.parse::<toml::Table>() else { return };
            let mut secrets = Vec::new();
            let mut public = Vec::new();
            collect(&toml::Value::Table(table), "", &mut secrets, &mut public);
            for secret in secrets.iter().filter(|secret| secret.len() >= 6) {
                // The same text may occur at a key that is not secret.
                let is_public = public.iter().any(|word: &String| word.contains(secret.as_str()));
                // The error may contain the text by coincidence: then it is the same with another secret.
                let other = Users::parse(&text.replace(secret.as_str(), &"?".repeat(secret.len())))
                    .err()
                    .map(|error| error.to_string());
                let is_in_error = problem.contains(secret.as_str()) && other.as_ref() != Some(&problem);
                assert!(is_public || !is_in_error, "{problem:?} contains {secret:?}");
            }
        }
    }
});

/// Collects the values of secret keys, and all other texts.
fn collect(value: &toml::Value, key: &str, secrets: &mut Vec<String>, public: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                public.push(key.clone());
                collect(value, key, secrets, public);
            }
        }
        toml::Value::Array(values) => values.iter().for_each(|value| collect(value, key, secrets, public)),
        value => {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let is_secret = matches!(key, "password" | "sha256" | "rtsp_digest" | "user" | "token");
            if is_secret { secrets.push(text) } else { public.push(format!("{text} {text:?}")) }
        }
    }
}

fn check(users: &Users) {
    let names = users.users.iter().map(|user| &user.name).chain(users.tokens.iter().map(|token| &token.name));
    let names: Vec<&String> = names.collect();
    assert!(names.iter().all(|name| check_name(name).is_ok() && users.has_name(name)));
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "names are unique");
    for user in &users.users {
        assert!(user.hash.expose().starts_with("$argon2"), "{}", user.name);
        let is_hex = |digest: &str| digest.len() == 32 && digest.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(user.rtsp_digest.as_ref().is_none_or(|digest| is_hex(digest.expose())));
        assert!(!format!("{user:?}").contains(user.hash.expose()));
    }
    let path = FOLDER.path().join("users.toml");
    let written = Users::edit(&path, |content| {
        *content = users.clone();
        Ok::<_, UsersFileError>(())
    });
    written.expect("the file can be written");
    assert_eq!(Users::load(&path).as_ref().ok(), Some(users));
    let Some(first) = names.first() else { return };
    let removed = Users::edit(&path, |users| Ok::<_, UsersFileError>(users.remove(first)));
    let left = Users::load(&path).expect("the file is still valid");
    assert!(
        matches!(removed, Ok(true)) && !left.has_name(first) && left.users.len() + left.tokens.len() + 1 == names.len()
    );
}
