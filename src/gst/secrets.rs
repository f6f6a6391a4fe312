//! Masks secrets in GStreamer's messages before they reach logs, the API and the page: passwords, and tokens in the queries
//! of camera addresses.
//!
//! Only whole credentials are masked, not parts of words: if every occurrence of a one-letter password were masked, messages
//! would be unreadable and reveal the letter. A password is masked where it is named as one (`user:password`,
//! `password=…`, in quotes, before an `@`). Elsewhere it is masked only if it cannot be an ordinary word.

use base64::Engine as _;
use url::Url;

use crate::config::{Credentials, PushConfig, PushTarget, SourceSpec, SourceUri, is_secret_name};

/// The secrets of a source or push, with their replacements.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    hidden: Vec<(String, String)>,
}

/// The replacement of a secret.
const MASK: &str = "***";

/// Names under which messages quote a password.
const PASSWORD_NAMES: [&str; 6] = ["password", "passwd", "pwd", "pass", "user-pw", "pw"];

impl Secrets {
    /// The secrets of a source: credentials, and those in its address or description.
    pub fn of(spec: &SourceSpec) -> Self {
        let mut secrets = Secrets::default();
        let label = spec.label();
        if let Some(url) = spec.uri.network_url() {
            secrets.add_url(url, &label);
        }
        if let SourceUri::Gst(description) = &spec.uri {
            for (name, value) in settings(description) {
                if value.contains("://") {
                    secrets.add(&value, MASK);
                } else if is_secret_name(&name) || name.contains("user") {
                    secrets.add_setting(&name, &value);
                    secrets.add_alone(&value, &label);
                }
            }
        }
        secrets.add_credentials(spec.credentials.as_ref(), &label);
        secrets
    }

    /// The secrets of a push: credentials, and those in its address.
    pub fn of_push(push: &PushConfig) -> Self {
        let mut secrets = Secrets::default();
        let (PushTarget::Rtsp(url) | PushTarget::Whip(url)) = &push.target;
        let label = push.target.label();
        secrets.add_url(url, &label);
        secrets.add_credentials(push.credentials.as_ref(), &label);
        secrets
    }

    fn add(&mut self, text: &str, shown: &str) {
        if !text.is_empty() {
            self.hidden.push((text.to_string(), shown.to_string()));
        }
    }

    /// Adds a value in the forms in which messages contain it with its name.
    fn add_setting(&mut self, name: &str, value: &str) {
        if value.is_empty() {
            return;
        }
        for (before, after) in [("=", ""), ("=\"", "\""), ("='", "'"), (" to ", ""), (": ", "")] {
            self.add(&format!("{name}{before}{value}{after}"), &format!("{name}{before}{MASK}{after}"));
        }
        self.add(&format!("\"{value}\""), &format!("\"{MASK}\""));
        self.add(&format!("'{value}'"), &format!("'{MASK}'"));
    }

    /// Adds a value without its name, if it cannot be an ordinary word of a message. A value that the label shows is not a
    /// secret.
    fn add_alone(&mut self, value: &str, label: &str) {
        let letters = value.chars().filter(|c| c.is_alphabetic()).count();
        let length = value.chars().count();
        let is_mixed = length >= 6 && letters > 0 && letters < length;
        if (is_mixed || length >= 16) && !label.contains(value) {
            self.add(value, MASK);
        }
    }

    fn add_credentials(&mut self, credentials: Option<&Credentials>, label: &str) {
        let Some(Credentials { user, password }) = credentials else { return };
        let password = password.expose();
        if password.is_empty() {
            return;
        }
        let plain = format!("{user}:{password}");
        self.add(&base64::engine::general_purpose::STANDARD.encode(&plain), MASK);
        let encode = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let encoded = encode(password);
        for form in [password, &encoded, &encoded.replace('+', "%20")] {
            for name in [user.as_str(), &encode(user)] {
                self.add(&format!("{name}:{form}@"), &format!("{MASK}@"));
                if !name.is_empty() {
                    self.add(&format!("{name}:{form}"), MASK);
                }
            }
            for name in PASSWORD_NAMES {
                self.add_setting(name, form);
            }
            self.add(&format!("Bearer {form}"), &format!("Bearer {MASK}"));
            self.add_alone(form, label);
        }
    }

    fn add_url(&mut self, url: &Url, label: &str) {
        // The whole address first, so that it is replaced by the label.
        self.add(url.as_str(), label);
        // Some cameras have user and password in the path.
        if let Some((start, _)) = url.path().split_once('=') {
            self.add(url.path(), &format!("{start}={MASK}"));
        }
        for (key, value) in url.query_pairs() {
            self.add(&format!("{key}={value}"), &format!("{key}={MASK}"));
        }
        // The percent-encoded form as well.
        for pair in url.query().unwrap_or_default().split('&') {
            match pair.split_once('=') {
                Some((key, _)) => self.add(pair, &format!("{key}={MASK}")),
                None if !pair.is_empty() => {
                    self.add(&format!("?{pair}"), &format!("?{MASK}"));
                    self.add(&format!("&{pair}"), &format!("&{MASK}"));
                    self.add_alone(pair, label);
                }
                None => {}
            }
        }
    }

    /// `text` with all secrets replaced.
    pub fn hide(&self, text: &str) -> String {
        let text = without_userinfo(text);
        self.hidden.iter().fold(text, |text, (secret, shown)| replace_whole(&text, secret, shown))
    }
}

/// Replaces `secret` where it is not part of a longer word.
fn replace_whole(text: &str, secret: &str, shown: &str) -> String {
    let joins =
        |a: Option<char>, b: Option<char>| a.is_some_and(char::is_alphanumeric) && b.is_some_and(char::is_alphanumeric);
    let mut replaced = String::with_capacity(text.len());
    let mut taken = 0;
    for (at, found) in text.match_indices(secret) {
        let end = at + found.len();
        let is_part = joins(text[..at].chars().next_back(), secret.chars().next())
            || joins(secret.chars().next_back(), text[end..].chars().next());
        if !is_part {
            replaced.push_str(&text[taken..at]);
            replaced.push_str(shown);
            taken = end;
        }
    }
    replaced.push_str(&text[taken..]);
    replaced
}

/// Masks `user:password@` in every URL of the text: a redirect may contain one that is not in the configuration.
fn without_userinfo(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let ends = |c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | '<' | '>');
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        rest = match authority.rfind('@') {
            Some(at) => {
                shown.push_str(MASK);
                &after[at..]
            }
            None => after,
        };
    }
    shown.push_str(rest);
    shown
}

/// The properties in a GStreamer description: names, and values without quotes.
fn settings(description: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = description;
    while let Some((before, after)) = rest.split_once('=') {
        let name = before.rsplit(|c: char| c.is_whitespace() || matches!(c, ',' | '!' | '"' | '\'')).next();
        let value = after.trim_start();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''));
        let (value, end) = match quote {
            Some(quote) => {
                let inner = &value[1..];
                // A quote after a backslash is part of the value.
                let mut ends = inner.match_indices(quote).map(|(at, _)| at);
                let end = ends.find(|at| !inner[..*at].ends_with('\\')).unwrap_or(inner.len());
                (&inner[..end], &inner[(end + 1).min(inner.len())..])
            }
            None => value.split_at(value.find(char::is_whitespace).unwrap_or(value.len())),
        };
        let name = name.unwrap_or_default().trim();
        if !name.is_empty() && !value.is_empty() {
            found.push((name.to_ascii_lowercase(), value.to_string()));
        }
        rest = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hide(source: &str, text: &str) -> String {
        Secrets::of(&SourceSpec::parse(source, std::path::Path::new("/")).unwrap()).hide(text)
    }

    #[test]
    fn passwords_and_tokens_are_masked_in_messages() {
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
    fn a_text_without_secrets_is_unchanged() {
        assert_eq!(hide("rtsp://10.0.0.7/cam", "Could not connect to 10.0.0.7"), "Could not connect to 10.0.0.7");
    }

    /// A message in which every `e` is masked would reveal the password.
    #[test]
    fn a_password_that_is_part_of_ordinary_words_is_not_masked_there() {
        let text =
            "the address cannot be opened: Could not connect to rtsp://10.0.0.7:554/live (Connection refused, try 1)";
        for password in
            ["e", "t", "1", "7", ".", "10", "554", "live", "connect", "Connection", "rtsp", "refused", "10.0.0.7"]
        {
            assert_eq!(hide(&format!("rtsp://admin:{password}@10.0.0.7:554/live"), text), text, "{password}");
        }
        let text = "x264enc: 30 frames, 1 of 12 lost";
        assert_eq!(hide("gst:videotestsrc ! x264enc key-int-max=30 pass=1", text), text);
        assert_eq!(hide("http://cam/v?ch=1&n=30", "batch=12, n=301"), "batch=12, n=301");
    }

    #[test]
    fn a_password_of_any_length_is_masked_where_it_is_named_as_one() {
        for password in ["e", "1", "connect", "hunter", "h.n-t r", "p@ss:w/rd#"] {
            let encoded =
                url::form_urlencoded::byte_serialize(password.as_bytes()).collect::<String>().replace('+', "%20");
            let source = format!("rtsp://admin:{encoded}@10.0.0.7/live");
            let basic = base64::engine::general_purpose::STANDARD.encode(format!("admin:{password}"));
            for (text, wanted) in [
                (format!("rtsp://admin:{encoded}@10.0.0.7/live"), "rtsp://***@10.0.0.7/live".to_string()),
                (format!("sent admin:{password} there"), "sent *** there".into()),
                (format!("Authorization: Basic {basic}"), "Authorization: Basic ***".into()),
                (format!("password={password}, no"), "password=***, no".into()),
                (format!("could not set user-pw to {password}"), "could not set user-pw to ***".into()),
                (format!("set \"{password}\""), "set \"***\"".into()),
            ] {
                assert_eq!(hide(&source, &text), wanted, "{password}: {text}");
            }
        }
        let shown = hide("gst:rtspsrc user-pw=\"a b\" ! fakesink", "a bad b: user-pw=\"a b\" and a c");
        assert_eq!(shown, "a bad b: user-pw=\"***\" and a c");
        assert_eq!(hide("http://cam/v?e", "the end of http://cam/v2?e"), "the end of http://cam/v2?***");
        let path = "rtsp://cam/user=a&password=e&channel=1";
        assert_eq!(hide(path, "no /user=a&password=e&channel=1 here"), "no /user=*** here");
    }

    #[test]
    fn user_and_password_of_any_url_are_masked() {
        let shown = hide("http://cam/v", "moved to http://root:pass@10.0.0.8/x and https://10.0.0.9/@y");
        assert_eq!(shown, "moved to http://***@10.0.0.8/x and https://10.0.0.9/@y");
    }

    #[test]
    fn the_tokens_of_pushes_are_masked() {
        let target = PushTarget::Whip(Url::parse("https://10.0.0.9/whip?key=e").unwrap());
        let credentials = Some(Credentials { user: String::new(), password: crate::base::secret::Secret::new("e") });
        let secrets = Secrets::of_push(&PushConfig { target, credentials });
        assert_eq!(secrets.hide("refused: Bearer e, key=e, the end"), "refused: Bearer ***, key=***, the end");
    }

    #[test]
    fn the_properties_of_a_description_are_found() {
        let found = settings("rtspsrc location=rtsp://a user-pw=\"a \\\" b\" ! video/x-raw,width=640 ! x pw='c d' n=1");
        let found: Vec<(&str, &str)> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(
            found,
            [("location", "rtsp://a"), ("user-pw", "a \\\" b"), ("width", "640"), ("pw", "c d"), ("n", "1")]
        );
    }
}
