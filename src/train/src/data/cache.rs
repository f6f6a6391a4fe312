//! A cache of decoded images in memory: each epoch reads the same images again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::LabelledImage;

/// Decoded images by path. Entries are never evicted: each image is read once per epoch, in another order each time, so
/// that evicting the oldest entry would make most lookups miss.
#[derive(Debug, Default)]
pub struct ImageCache(Mutex<CacheState>);

#[derive(Debug, Default)]
struct CacheState {
    /// Bytes that may still be used.
    free_bytes: usize,
    images: HashMap<PathBuf, Arc<LabelledImage>>,
}

impl ImageCache {
    /// Creates a cache of at most `free_bytes` bytes of pixels and labels.
    pub fn new(free_bytes: usize) -> Self {
        ImageCache(Mutex::new(CacheState { free_bytes, images: HashMap::new() }))
    }

    pub fn get(&self, path: &Path) -> Option<Arc<LabelledImage>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).images.get(path).cloned()
    }

    /// Adds the image if it fits.
    pub fn add(&self, path: &Path, image: &Arc<LabelledImage>) {
        let size = image.rgb.len() + image.labels.len();
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Two threads may read the same image at the same time.
        if size <= state.free_bytes && !state.images.contains_key(path) {
            state.free_bytes -= size;
            state.images.insert(path.to_owned(), Arc::clone(image));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_images_stay_up_to_the_size_limit() {
        let image = Arc::new(LabelledImage { width: 2, height: 1, rgb: vec![0; 6], labels: vec![0; 2] });
        let cache = ImageCache::new(20);
        for name in ["a", "a", "b", "c"] {
            cache.add(Path::new(name), &image);
        }
        let found = ["a", "b", "c"].map(|name| cache.get(Path::new(name)).is_some());
        assert_eq!(found, [true, true, false]);
        assert!(ImageCache::default().get(Path::new("a")).is_none());
    }
}
