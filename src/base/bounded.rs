//! Text from outside, such as paths, names and what cameras answer, made fit for a line of the log or an error.

use std::borrow::Cow;
use std::fmt::Write;

/// Bytes of a name, path or other field from outside that a message repeats.
pub const FIELD: usize = 200;

/// Bytes of a whole line of the log.
pub const LINE: usize = 4096;

/// The text, or its beginning and how long it is; control characters are escaped, so that it stays within its line.
pub fn bounded(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most && !text.contains(char::is_control) {
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
        if shown.len() > most {
            shown.truncate(length);
            // Writing to a String does not fail.
            let _ = write!(shown, "… ({} bytes)", text.len());
            break;
        }
    }
    Cow::Owned(shown)
}

/// The same for a whole line.
pub fn line(text: &str) -> Cow<'_, str> {
    bounded(text, LINE)
}

/// The same for a field of a message.
pub fn field(text: &str) -> Cow<'_, str> {
    bounded(text, FIELD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_short_stays_as_it_is() {
        for text in ["", "/api/v1/streams", "Straße ☃", &"x".repeat(FIELD)] {
            assert!(matches!(field(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn what_is_long_is_cut_between_characters_and_says_how_long_it_is() {
        assert_eq!(field(&"x".repeat(60_000)), format!("{}… (60000 bytes)", "x".repeat(200)));
        assert_eq!(bounded("ßßß", 4), "ßß… (6 bytes)");
        assert_eq!(bounded("ßßß", 5), "ßß… (6 bytes)");
    }

    #[test]
    fn control_characters_do_not_reach_the_line() {
        assert_eq!(field("a\r\n2026 ERROR b\u{1b}[31m\0\u{85}"), "a\\r\\n2026 ERROR b\\u{1b}[31m\\u{0}\\u{85}");
        assert_eq!(bounded(&"\0".repeat(1000), 12), "\\u{0}\\u{0}… (1000 bytes)");
    }
}
