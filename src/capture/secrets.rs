//! What GStreamer's messages must not carry into logs, the API and the page: passwords, and the tokens that camera
//! addresses have in their queries.

use url::Url;

use crate::config::{PushConfig, PushTarget, SourceSpec, SourceUri};

/// Texts to hide, with what is shown in their place.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    hidden: Vec<(String, String)>,
}

/// In place of a secret.
const MASK: &str = "***";

impl Secrets {
    /// All that is secret about a source.
    pub fn of(spec: &SourceSpec) -> Self {
        let mut secrets = Secrets::default();
        match &spec.uri {
            SourceUri::Rtsp(url) | SourceUri::Http(url) | SourceUri::Srt(url) => secrets.add_url(url, &spec.label()),
            SourceUri::Gst(description) => {
                for word in description.split_whitespace() {
                    if let Some((_, value)) = word.split_once('=').filter(|(key, _)| is_sensitive(key)) {
                        secrets.add(value.trim_matches('"'), MASK);
                    }
                }
            }
            _ => {}
        }
        if let Some(credentials) = &spec.credentials {
            secrets.add(credentials.password.expose(), MASK);
        }
        secrets
    }

    /// All that is secret about a place that a stream is pushed to.
    pub fn of_push(push: &PushConfig) -> Self {
        let mut secrets = Secrets::default();
        let (PushTarget::Rtsp(url) | PushTarget::Whip(url)) = &push.target;
        secrets.add_url(url, &push.target.label());
        if let Some(credentials) = &push.credentials {
            secrets.add(credentials.password.expose(), MASK);
        }
        secrets
    }

    fn add(&mut self, text: &str, shown: &str) {
        if !text.is_empty() {
            self.hidden.push((text.to_string(), shown.to_string()));
        }
    }

    fn add_url(&mut self, url: &Url, label: &str) {
        // The whole address first, so that it is shown as it is elsewhere.
        self.add(url.as_str(), label);
        for (key, value) in url.query_pairs() {
            self.add(&format!("{key}={value}"), &format!("{key}={MASK}"));
        }
        // As written, too: percent-encoded.
        for pair in url.query().unwrap_or_default().split('&') {
            if let Some((key, _)) = pair.split_once('=') {
                self.add(pair, &format!("{key}={MASK}"));
            }
        }
    }

    /// `text` without the secrets.
    pub fn hide(&self, text: &str) -> String {
        self.hidden.iter().fold(text.to_string(), |text, (secret, shown)| text.replace(secret.as_str(), shown))
    }
}

/// Properties of GStreamer elements that carry secrets.
fn is_sensitive(property: &str) -> bool {
    ["pass", "pw", "user", "token", "key", "secret", "location", "uri"].iter().any(|part| property.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hide(source: &str, text: &str) -> String {
        Secrets::of(&SourceSpec::parse(source, std::path::Path::new("/")).unwrap()).hide(text)
    }

    #[test]
    fn passwords_and_tokens_are_hidden_wherever_they_turn_up() {
        let shown = hide(
            "http://cam:s3cret@10.0.0.7/v?token=abc%2Bdef&ch=1",
            "Not found, URL: http://10.0.0.7/v?token=abc%2Bdef&ch=1, s3cret",
        );
        assert!(!shown.contains("abc") && !shown.contains("s3cret"), "{shown}");
        assert!(shown.contains("10.0.0.7"), "{shown}");
        let shown = hide(
            "http://10.0.0.7/v?token=abc%2Bdef",
            "redirected to http://other/v?token=abc+def and ?token=abc%2Bdef",
        );
        assert!(!shown.contains("abc"), "{shown}");
        let shown = hide("gst:rtspsrc location=rtsp://a user-pw=geheim ! fakesink", "could not set user-pw to geheim");
        assert!(!shown.contains("geheim"), "{shown}");
    }

    #[test]
    fn what_is_no_secret_stays() {
        assert_eq!(hide("rtsp://10.0.0.7/cam", "Could not connect to 10.0.0.7"), "Could not connect to 10.0.0.7");
    }
}
