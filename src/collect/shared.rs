//! The collection of a stream, which its collector and the API share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::CollectionError;
use super::store::Collection;

/// The collection in a folder, which is opened at its first use: a folder that cannot be read or written when the service starts can
/// be repaired while it runs. All users of the folder share one, as only one [`Collection`] may write to it.
#[derive(Debug)]
pub struct SharedCollection {
    folder: PathBuf,
    opened: Mutex<Option<Arc<Collection>>>,
}

impl SharedCollection {
    /// The collection in `folder`. Nothing is read yet.
    pub fn new(folder: PathBuf) -> Self {
        SharedCollection { folder, opened: Mutex::default() }
    }

    /// The folder of the collection.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Opens the collection, or returns the one that was opened before. Waits for the disk.
    ///
    /// # Errors
    /// As [`Collection::open`]. The next call tries again.
    pub fn open(&self) -> Result<Arc<Collection>, CollectionError> {
        let mut opened = self.opened.lock();
        if let Some(collection) = &*opened {
            return Ok(Arc::clone(collection));
        }
        let collection = Arc::new(Collection::open(&self.folder)?);
        for problem in collection.problems() {
            tracing::warn!(path = %problem.path.display(), "a file of a collection is not used: {}", problem.problem);
        }
        *opened = Some(Arc::clone(&collection));
        Ok(collection)
    }
}
