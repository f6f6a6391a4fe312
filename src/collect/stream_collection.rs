//! The collection of a stream of the service, which the collector and the API share.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::error::CollectionError;
use super::store::{Collection, CollectionSize};
use crate::base::collect_status::CollectStatus;
use crate::config::CollectConfig;

/// Opens the collection when it is used, and again after a failure.
#[derive(Debug)]
pub struct StreamCollection {
    pub config: CollectConfig,
    /// The folder of the stream.
    pub folder: PathBuf,
    pub status: CollectStatus,
    opened: Mutex<Option<Arc<Collection>>>,
}

impl StreamCollection {
    /// The collection of the stream of this name. No file is read yet.
    pub fn new(stream: &str, config: &CollectConfig) -> Self {
        StreamCollection {
            config: config.clone(),
            folder: config.folder_of(stream),
            status: CollectStatus::default(),
            opened: Mutex::default(),
        }
    }

    /// The collection, which is opened if it is not open.
    ///
    /// # Errors
    /// As [`Collection::open`].
    pub fn open(&self) -> Result<Arc<Collection>, CollectionError> {
        let mut opened = self.opened.lock();
        if let Some(collection) = &*opened {
            return Ok(Arc::clone(collection));
        }
        let collection = Arc::new(Collection::open(&self.folder)?);
        for found in collection.problems() {
            tracing::warn!("collected frames: {}: {}", found.path.display(), found.problem);
        }
        Ok(Arc::clone(opened.insert(collection)))
    }

    /// The next call of [`StreamCollection::open`] reads the files again: something was wrong with them.
    pub fn close(&self) {
        *self.opened.lock() = None;
    }

    /// Frames by state and the size of the files, without waiting for the disk; `None` while the collection is not open.
    pub fn size(&self) -> Option<CollectionSize> {
        let opened = self.opened.try_lock()?;
        opened.as_ref().map(|collection| collection.size())
    }
}
