//! Limits the length of text from outside (paths, names, answers of cameras) and escapes its control characters, before
//! it becomes part of a log line or an error message.

use std::borrow::Cow;
use std::fmt::Write;

/// The most bytes of a name, path or other field from outside in a message.
pub const FIELD: usize = 200;

/// The most bytes of a log line.
pub const LINE: usize = 4096;

/// The text with its control characters escaped, so that it cannot begin a new line. Where that has more than `max_bytes`
/// bytes, it is cut and the length of the original follows.
pub fn bounded(text: &str, max_bytes: usize) -> Cow<'_, str> {
    if text.len() <= max_bytes && !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::new();
    for c in text.chars() {
        let length = shown.len();
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        if shown.len() > max_bytes {
            shown.truncate(length);
            // Writing to a String does not fail.
            let _ = write!(shown, "… ({} bytes)", text.len());
            break;
        }
    }
    Cow::Owned(shown)
}

/// [`bounded`] to the length of a log line.
pub fn line(text: &str) -> Cow<'_, str> {
    bounded(text, LINE)
}

/// [`bounded`] to the length of a field of a message.
pub fn field(text: &str) -> Cow<'_, str> {
    bounded(text, FIELD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_unchanged() {
        for text in ["", "/api/v1/streams", "Straße ☃", &"x".repeat(FIELD)] {
            assert!(matches!(field(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_its_length_is_appended() {
        assert_eq!(field(&"x".repeat(60_000)), format!("{}… (60000 bytes)", "x".repeat(200)));
        assert_eq!(bounded("ßßß", 4), "ßß… (6 bytes)");
        assert_eq!(bounded("ßßß", 5), "ßß… (6 bytes)");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(field("a\r\n2026 ERROR b\u{1b}[31m\0\u{85}"), "a\\r\\n2026 ERROR b\\u{1b}[31m\\u{0}\\u{85}");
        assert_eq!(bounded(&"\0".repeat(1000), 12), "\\u{0}\\u{0}… (1000 bytes)");
    }
}
