//! Recognises file formats by their first bytes.

/// Whether a file is TIFF or BigTIFF.
pub fn is_tiff(bytes: &[u8]) -> bool {
    [&b"II*\0"[..], b"MM\0*", b"II+\0", b"MM\0+"].iter().any(|magic| bytes.starts_with(magic))
}
