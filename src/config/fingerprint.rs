//! The SHA-256 fingerprint of the certificate of a camera.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};

/// SHA-256 of a certificate in DER, as `openssl x509 -fingerprint -sha256` prints it: `AB:CD:…`, 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct CertificateFingerprint([u8; 32]);

impl CertificateFingerprint {
    /// The fingerprint of a certificate in DER.
    pub fn of(der: &[u8]) -> Self {
        CertificateFingerprint(Sha256::digest(der).into())
    }

    /// Reads 64 hexadecimal digits, with or without colons, and with `sha256:` or `SHA256 Fingerprint=` in front.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.rsplit_once('=').map_or(text, |(_, digits)| digits).trim();
        let digits = match digits.get(..7) {
            Some(prefix) if prefix.eq_ignore_ascii_case("sha256:") => &digits[7..],
            _ => digits,
        };
        let digits: String = digits.chars().filter(|c| *c != ':').collect();
        if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&digits[at..at + 2], 16).ok()?;
        }
        Some(CertificateFingerprint(bytes))
    }
}

impl fmt::Display for CertificateFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02X}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl Serialize for CertificateFingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CertificateFingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        CertificateFingerprint::parse(&text).ok_or_else(|| serde::de::Error::custom("not a fingerprint"))
    }
}

impl fmt::Debug for CertificateFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_tools_print_them() {
        let print = CertificateFingerprint::of(b"abc");
        let shown = print.to_string();
        assert!(shown.starts_with("BA:78:16:BF:") && shown.len() == 95, "{shown}");
        let bare = shown.replace(':', "").to_lowercase();
        for text in [shown.clone(), bare.clone(), format!("sha256:{bare}"), format!("sha256 Fingerprint={shown}")] {
            assert_eq!(CertificateFingerprint::parse(&text), Some(print), "{text}");
        }
        for text in ["", "AB:CD", &shown[..92], &format!("{bare}00"), &bare.replace('b', "x"), &"é".repeat(32)] {
            assert_eq!(CertificateFingerprint::parse(text), None, "{text}");
        }
    }
}
