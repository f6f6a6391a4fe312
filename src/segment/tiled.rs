//! Frames in tiles: the model gets overlapping parts of a frame and, if the mask is made of its logits, the whole frame too. The results
//! become one mask without seams. Of a stream with a crop, the tiles are those of the crop, and "the whole frame" is the crop.
//!
//! ```text
//! frame ─┬─▶ tiles, each scaled to the input of the model ─┐
//!        └─▶ whole frame ──────────────────────────────────┴─▶ one batch ─▶ logits ─▶ one image of logits ─▶ mask
//! ```
//!
//! In an overlap, the logits of a tile fade into those of the next one, and those of the whole frame count up to a half in the middle,
//! where an object may be cut in both tiles. Masks without logits change over in the middle of an overlap.

use std::sync::Arc;

use ort::session::SessionOutputs;

use super::contract::SCORES;
use super::head::{Head, ImageLogits};
use super::probable::{Certainty, image_of_bytes, probable, wanted};
use super::segmenter::{MaskReader, OnnxSegmenter, run_options};
use super::{RunOutputError, SegmentError, Segmented};
use crate::base::timing::{Elapsed, Stopwatch};
use crate::frame::{ClassBias, ClassId, Frame, Guide, Probable, Tiles};

mod axis;
pub(super) mod canvas;

use canvas::TileCanvas;

/// The mask of an image without logits.
struct ImageMask {
    classes: Vec<ClassId>,
    /// Width and height.
    size: (usize, usize),
    probable: Option<Box<Probable>>,
}

/// What the model returned for the images of a frame.
enum Images {
    Logits(Arc<Head>, Vec<ImageLogits>),
    Masks(Vec<ImageMask>),
}

/// The mask of a frame: classes, width and height, and where the classes of its bias are probable.
type FrameMask = (Vec<ClassId>, (usize, usize), Option<Box<Probable>>);

impl OnnxSegmenter {
    /// [`super::Segmenter::segment`] for frames of which some are in tiles. The images of a frame are one batch.
    pub(super) fn segment_tiled(&mut self, frames: &[Frame]) -> Result<Segmented, SegmentError> {
        let mut masks = Vec::with_capacity(frames.len());
        let (mut preprocess, mut run) = (Elapsed::default(), Elapsed::default());
        for frame in frames {
            let watch = Stopwatch::start();
            let (rgb, guide) = self.tile_images(frame)?;
            add(&mut preprocess, watch.spent());
            let watch = Stopwatch::start();
            let bias = frame.bias.as_deref();
            let images = self.run_images(&rgb, bias)?;
            let contract = self.contract();
            let (classes, (width, height), probable) = match images {
                Images::Logits(head, images) => by_logits(&head, frame.tiles, &images, |bytes, classes, scale| {
                    bias.map(|bias| image_of_bytes(bytes, classes, scale, &wanted(bias, &contract.labels), bias.bias))
                }),
                Images::Masks(images) => {
                    by_masks(frame.tiles, &images).ok_or_else(|| RunOutputError::Empty(contract.output.name.clone()))?
                }
            };
            self.unlabelled.count(&frame.stream, &classes, contract.labels.len());
            add(&mut run, watch.spent());
            masks.push(self.mask_of(frame, (classes, (width, height), probable), guide, false));
        }
        Ok(Segmented { masks, preprocess, run })
    }

    /// The RGB images of the tiles of a frame or of its crop, and of all of it if its logits are used; `[n, H, W, 3]`.
    fn tile_images(&mut self, frame: &Frame) -> Result<(Vec<u8>, Guide), SegmentError> {
        let bytes = self.image_bytes();
        let image = frame.pixels.image().cropped(frame.crop);
        let info = image.info;
        let input = &self.contract().input;
        let canvas = TileCanvas::new(frame.tiles, (input.width, input.height));
        let mut rgb = Vec::with_capacity((canvas.tiles().count() + 1) * bytes);
        let mut scaled = vec![0; bytes];
        if !frame.tiles.is_whole() {
            for (column, row) in canvas.tiles() {
                let (left, width) = canvas.across.shown(column, info.width);
                let (top, height) = canvas.down.shown(row, info.height);
                self.preprocessor.run(&image.part((left, top), (width, height)), &mut scaled)?;
                rgb.extend_from_slice(&scaled);
            }
        }
        // The guide is made of the image that was scaled last.
        self.preprocessor.run(&image, &mut scaled)?;
        let guide = self.preprocessor.guide(info.format)?;
        if frame.tiles.is_whole() || self.reader().head.is_some() {
            rgb.extend_from_slice(&scaled);
        }
        Ok((rgb, guide))
    }

    /// Runs the model on images: all in one run, or as many as a run of this model has.
    fn run_images(&mut self, rgb: &[u8], bias: Option<&ClassBias>) -> Result<Images, SegmentError> {
        let reader = self.reader();
        let with_scores = bias.filter(|_| reader.head.is_none() && reader.contract.has_scores());
        let mut names = reader.outputs();
        names.extend(with_scores.map(|_| SCORES.to_owned()));
        let options = run_options(&names)?;
        let bytes = self.image_bytes();
        let least = self.least_images();
        let most = match (reader.contract.input.dynamic_batch, least) {
            (false, _) => 1,
            (true, 1) => rgb.len() / bytes,
            (true, batch) => batch,
        };
        let (mut logits, mut masks) = (Vec::new(), Vec::new());
        for part in rgb.chunks(most.max(1) * bytes) {
            let count = part.len() / bytes;
            let n = count.max(least);
            let mut filled = Vec::new();
            let part = if n > count {
                filled.extend_from_slice(part);
                filled.resize(n * bytes, 128);
                &filled
            } else {
                part
            };
            let read: Result<(), RunOutputError> = self.run_raw(part, n, &options, |outputs| {
                match &reader.head {
                    Some(head) => logits.extend(head.images(outputs, n)?.into_iter().take(count)),
                    None => masks.extend(image_masks(&reader, outputs, n, with_scores)?.into_iter().take(count)),
                }
                Ok(())
            })?;
            read?;
        }
        Ok(match reader.head {
            Some(head) => Images::Logits(head, logits),
            None => Images::Masks(masks),
        })
    }
}

fn add(sum: &mut Elapsed, spent: Elapsed) {
    (sum.wall, sum.cpu) = (sum.wall + spent.wall, sum.cpu + spent.cpu);
}

/// The masks of `n` images of a run.
fn image_masks(
    reader: &MaskReader,
    outputs: &SessionOutputs<'_>,
    n: usize,
    bias: Option<&ClassBias>,
) -> Result<Vec<ImageMask>, RunOutputError> {
    let (classes, size) = reader.classes(outputs, n)?;
    let probable = match bias {
        Some(_) => probable(outputs, n, &reader.contract.labels, &vec![bias; n])?,
        None => vec![None; n],
    };
    let classes = classes.chunks_exact((size.0 * size.1).max(1));
    Ok(classes
        .zip(probable)
        .map(|(classes, probable)| ImageMask { classes: classes.to_vec(), size, probable })
        .collect())
}

/// The mask of a frame by the logits of its tiles. `marks` returns the pixels in which the classes of a bias are probable and the
/// certainty, for the logits of an image, their number of classes, and their scale.
fn by_logits(
    head: &Head,
    tiles: Tiles,
    images: &[ImageLogits],
    marks: impl FnOnce(&[u8], usize, f32) -> Option<(Vec<bool>, Certainty)>,
) -> FrameMask {
    let canvas = TileCanvas::new(tiles, head.logits_size());
    let tiled = head.tiled(&canvas, images);
    let (width, height) = canvas.size();
    let marks = marks(&tiled.logits, tiled.logits.len() / (width * height), head.scale());
    let probable = marks.map(|(pixels, certainty)| Box::new(certainty.probable(width, height, pixels)));
    (tiled.classes, tiled.size, probable)
}

/// The mask of a frame by the masks of its tiles; `None` if they have no pixels.
fn by_masks(tiles: Tiles, images: &[ImageMask]) -> Option<FrameMask> {
    let size = images.first()?.size;
    let canvas = TileCanvas::new(tiles, size);
    let classes: Vec<&[ClassId]> = images.iter().map(|image| image.classes.as_slice()).collect();
    let probable: Option<Vec<&Probable>> = images.iter().map(|image| image.probable.as_deref()).collect();
    let probable = probable.and_then(|each| {
        let first = each.first()?;
        let canvas = TileCanvas::new(tiles, (first.width, first.height));
        let pixels: Vec<&[bool]> = each.iter().map(|probable| probable.pixels.as_slice()).collect();
        let mean = |values: &mut dyn Iterator<Item = u32>| values.sum::<u32>() / each.len() as u32;
        let certainty = Certainty {
            confidence: mean(&mut each.iter().map(|probable| u32::from(probable.confidence))) as u8,
            margin: mean(&mut each.iter().map(|probable| u32::from(probable.margin))) as u16,
        };
        let (width, height) = canvas.size();
        Some(Box::new(certainty.probable(width, height, canvas.switched(&pixels))))
    });
    Some((canvas.switched(&classes), canvas.size(), probable))
}
