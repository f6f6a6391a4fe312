//! Decoded pictures that stay in memory, as far as there is room: every epoch reads the same ones again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::Labelled;

/// Pictures by their image's path. What came first stays: every picture is read once an epoch, in another order each
/// time, so that throwing out the oldest for the newest would find none of them again.
#[derive(Debug, Default)]
pub struct Kept(Mutex<Shelf>);

#[derive(Debug, Default)]
struct Shelf {
    /// Bytes that are free.
    room: usize,
    pictures: HashMap<PathBuf, Arc<Labelled>>,
}

impl Kept {
    /// Keeps up to `room` bytes of pixels.
    pub fn new(room: usize) -> Self {
        Kept(Mutex::new(Shelf { room, pictures: HashMap::new() }))
    }

    pub fn get(&self, image: &Path) -> Option<Arc<Labelled>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pictures.get(image).cloned()
    }

    /// Keeps the picture if there is room.
    pub fn add(&self, image: &Path, picture: &Arc<Labelled>) {
        let size = picture.rgb.len() + picture.labels.len();
        let mut shelf = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Two threads may have read the same picture.
        if size <= shelf.room && !shelf.pictures.contains_key(image) {
            shelf.room -= size;
            shelf.pictures.insert(image.to_owned(), Arc::clone(picture));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_first_stays_and_no_more_than_fits() {
        let picture = Arc::new(Labelled { width: 2, height: 1, rgb: vec![0; 6], labels: vec![0; 2] });
        let kept = Kept::new(20);
        for name in ["a", "a", "b", "c"] {
            kept.add(Path::new(name), &picture);
        }
        let found = ["a", "b", "c"].map(|name| kept.get(Path::new(name)).is_some());
        assert_eq!(found, [true, true, false]);
        assert!(Kept::default().get(Path::new("a")).is_none());
    }
}
