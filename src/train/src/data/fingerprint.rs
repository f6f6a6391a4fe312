//! A fingerprint of a data set, to detect changes.

use sha2::{Digest, Sha256};

use super::Dataset;

impl Dataset {
    /// Computes a hash of names, parts and file sizes of all training and validation pairs, as 32 hexadecimal digits.
    /// It is fast, and changes if images were added, removed, moved to another part or modified, except if a modified
    /// file kept its size.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let size = |path: &std::path::Path| std::fs::metadata(path).map_or(0, |facts| facts.len());
        for (part, pairs) in [("train", &self.train), ("val", &self.val)] {
            for pair in pairs {
                let (image, label) = (size(&pair.image), size(&pair.label));
                hash.update(format!("{part}\0{}\0{image}\0{label}\0", pair.name));
            }
        }
        hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}
