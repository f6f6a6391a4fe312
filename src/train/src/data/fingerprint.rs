//! Whether a data set is still what it was.

use sha2::{Digest, Sha256};

use super::Dataset;

impl Dataset {
    /// A hash over names, parts and file sizes of all pairs: quick, and different when pictures were added, removed, moved
    /// to another part or written to (but for a file that kept its size to the byte).
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
