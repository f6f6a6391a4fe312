//! `[[webhook]]`.

use super::*;

fn read_webhooks(text: &str) -> Result<Vec<WebhookConfig>, ConfigErrors> {
    let dir = folder();
    let text =
        format!("model.path = \"m.onnx\"\n[[stream]]\nname = \"gate\"\nsource = \"test://\"\n[[webhook]]\n{text}");
    read(dir.path(), &text).map(|config| config.webhooks)
}

#[test]
fn a_webhook_needs_a_name_and_an_address() {
    let url = "https://hooks.example/T0/B1?key=hunter2";
    let minimal = read_webhooks(&format!("name = \"alarm\"\nurl = \"{url}\"")).unwrap();
    assert_eq!(minimal, [WebhookConfig::new("alarm", url.parse().unwrap())]);
    let all = read_webhooks(
        "name = \"alarm\"\nurl = \"http://127.0.0.1:1880/x\"\nsecret_file = \"pw\"\nstreams = [\"gate\"]\n\
         rules = [\"blocked\"]\ntimeout = \"3s\"",
    );
    let expected = WebhookConfig {
        secret: WebhookSecret(Some(Secret::new("hunter2"))),
        streams: vec!["gate".into()],
        rules: vec!["blocked".into()],
        timeout: Duration::from_secs(3),
        ..WebhookConfig::new("alarm", "http://127.0.0.1:1880/x".parse().unwrap())
    };
    assert_eq!(all.unwrap(), [expected]);
}

#[test]
fn webhooks_show_no_secrets() {
    let text =
        "name = \"alarm\"\nurl = \"https://hooks.example:444/T0/hunter2?hunter2\"\nsecret_env = \"GATE_PASSWORD\"";
    let webhooks = read_webhooks(text).unwrap();
    assert_eq!(webhooks[0].secret.0.as_ref().unwrap().expose(), "hunter2");
    let shown = format!("{webhooks:?} {}", serde_json::to_string(&webhooks).unwrap());
    assert!(!shown.contains("hunter2") && shown.contains("https://hooks.example:444"), "{shown}");
}

#[test]
fn webhooks_that_make_no_sense_are_refused() {
    let url = "url = \"https://hooks.example/\"\n";
    for (text, error) in [
        ("name = \"a\"".to_owned(), "webhook[a].url: is missing"),
        (url.to_owned(), "webhook[0].name: is missing"),
        (format!("name = \"1a\"\n{url}"), "webhook[0].name: \"1a\" is not a letter"),
        ("name = \"a\"\nurl = \"hooks.example\"".into(), "webhook[a].url: is not a URL"),
        ("name = \"a\"\nurl = \"mqtt://hooks.example\"".into(), "webhook[a].url: unknown scheme \"mqtt\""),
        ("name = \"a\"\nurl = \"https://u:hunter2@hooks.example/\"".into(), "webhook[a].url: contains a user"),
        (format!("name = \"a\"\n{url}timeout = \"1h\""), "webhook[a].timeout: 1h is not between 1s and 1m"),
        (format!("name = \"a\"\n{url}secret_file = \"none\""), "webhook[a].secret_file: no such file"),
        (format!("name = \"a\"\n{url}secret_file = \"pw\"\nsecret_env = \"GATE_PASSWORD\""), "webhook[a].secret_env: "),
        (format!("name = \"a\"\n{url}[[webhook]]\nname = \"a\"\n{url}"), "webhook[1].name: \"a\" is already"),
    ] {
        let found = only(read_webhooks(&text));
        assert!(found.starts_with(error) && !found.contains("hunter2"), "{text}\n{found}");
    }
}
