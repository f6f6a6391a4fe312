//! Masks of a crop: the pixels that the model saw as a mask of their own, and back.

use std::sync::Arc;

use crate::frame::{Mask, PixelArea};

/// A mask of only the pixels inside of the crop. The guide already shows just these.
pub(super) fn part(mask: &Mask, area: PixelArea) -> Mask {
    Mask {
        seq: mask.seq,
        pts: mask.pts,
        captured_at: mask.captured_at,
        width: area.width,
        height: area.height,
        classes: mask.seen_classes().flatten().copied().collect(),
        labels: Arc::clone(&mask.labels),
        model: Arc::clone(&mask.model),
        guide: mask.guide.clone(),
        probable: None,
        confirmed: mask.confirmed,
        seen: None,
    }
}

/// `mask` with the classes of `part` where the model saw the frame. Uses the memory of `before`, if it has this size.
pub(super) fn whole(mask: &Mask, area: PixelArea, part: &Mask, before: Option<Mask>) -> Mask {
    let fits = |before: &Mask| (before.width, before.height, before.seen) == (mask.width, mask.height, mask.seen);
    let mut classes = before.filter(fits).map_or_else(|| mask.classes.clone(), |before| before.classes);
    for (row, from) in area.rows(mask.width).zip(part.classes.chunks_exact(area.width.max(1))) {
        classes[row].copy_from_slice(from);
    }
    Mask {
        seq: mask.seq,
        pts: mask.pts,
        captured_at: mask.captured_at,
        width: mask.width,
        height: mask.height,
        classes,
        labels: Arc::clone(&mask.labels),
        model: Arc::clone(&mask.model),
        guide: None,
        probable: None,
        confirmed: false,
        seen: mask.seen,
    }
}

/// Whether both are the same mask of the same frame.
pub(super) fn is_of(steady: &Mask, mask: &Mask) -> bool {
    let shape = |mask: &Mask| (mask.seq, mask.pts, mask.width, mask.height, mask.seen);
    shape(steady) == shape(mask) && Arc::ptr_eq(&steady.labels, &mask.labels)
}
