//! The head of a model on the CPU: from the quantised logits to the mask, without the nodes of the graph that do the same.
//!
//! The trainer describes the last steps of a model for CPUs in the metadata `maskcast.head` ([`HeadDescription`]). The service then
//! loads the file without these steps ([`prune`]) and computes them here:
//!
//! ```text
//! file:  network ─▶ logits (bytes) ─▶ floats ─▶ rejection of pixels ─▶ enlargement ─▶ arg max ─▶ rejection of regions ─▶ mask
//! here:  network ─▶ logits (bytes) ─▶ arg max ─▶ classes of the enlarged pixels ─▶ rejection of regions ─▶ mask
//! ```
//!
//! The masks are the same: a pixel between logits that all have the same largest class has that class, because interpolation keeps the
//! order of values that are ordered at all of its points; the other pixels are interpolated as ONNX Runtime does. The file is a
//! complete model for other programs and providers.

use ort::session::SessionOutputs;
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType};

use super::RunOutputError;
use super::contract::{ModelOutputs, SCORES, TensorSpec};
use super::file::ModelFile;
use super::manifest::ModelManifest;
use super::onnx_error::one_line;
use super::tiled::canvas::TileCanvas;
use crate::config::ModelConfig;
use crate::frame::ClassId;

mod cells;
mod description;
mod enlarge;
pub mod prune;
mod winners;

pub use description::{DescriptionProblem, HeadDescription, PixelRejection, RegionTable};

use cells::RegionCells;
use enlarge::Enlargement;
use prune::PruneError;
use winners::Winners;

/// The metadata with the description.
pub const METADATA: &str = "maskcast.head";

/// The output with the class indices.
const MASK: &str = "mask";

/// Types of ONNX tensors (`TensorProto.DataType`).
const UINT8: i32 = 2;
const INT32: i32 = 6;

/// Why the head of a model is not computed here. The whole graph is used then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadProblem {
    /// The message of the JSON parser.
    #[error("its description cannot be read: {0}")]
    Json(String),
    #[error("its description is wrong: {0}")]
    Description(#[from] DescriptionProblem),
    #[error("the graph does not have its values: {0}")]
    Prune(#[from] PruneError),
}

/// Computes masks from the quantised logits of a model.
#[derive(Debug)]
pub struct Head {
    description: HeadDescription,
    winners: Winners,
    enlargement: Enlargement,
    regions: Option<RegionCells>,
}

impl Head {
    /// The head that the metadata of a file describes, and the file without these steps. `None` if the file has no description, has
    /// outputs that only the whole graph computes, or its mask is read in the way of a manifest.
    ///
    /// # Errors
    /// A description that does not fit the file.
    pub fn of(config: &ModelConfig, file: &ModelFile) -> Result<Option<(Head, ModelFile)>, HeadProblem> {
        let metadata = |key| prune::metadata(&file.bytes, key);
        let Some(text) = metadata(METADATA) else { return Ok(None) };
        let manifest = ModelManifest::beside(&config.path).ok().flatten();
        if metadata("maskcast.output").is_some() || manifest.is_some_and(|manifest| manifest.output.is_some()) {
            return Ok(None);
        }
        // The golden frame guards against a wrong description.
        if metadata("maskcast.golden").is_none() {
            return Ok(None);
        }
        let description: HeadDescription =
            serde_json::from_str(&text).map_err(|error| HeadProblem::Json(error.to_string()))?;
        let known = |name: &String| name == MASK || (name == SCORES && description.scores);
        if !prune::outputs(&file.bytes)?.iter().all(known) {
            return Ok(None);
        }
        let head = Head::new(description)?;
        let bytes = prune::prune(&file.bytes, &head.tensors())?;
        Ok(Some((head, ModelFile { bytes: bytes.into(), ..file.clone() })))
    }

    /// The head of a description.
    ///
    /// # Errors
    /// Sizes or limits that no model has.
    pub fn new(description: HeadDescription) -> Result<Self, DescriptionProblem> {
        description.check()?;
        let winners = Winners::new(&description);
        let enlargement = Enlargement::new(&description);
        let regions = description.regions.as_ref().map(|table| RegionCells::new(&description, table));
        Ok(Head { description, winners, enlargement, regions })
    }

    /// The names of the values that it reads, and their types.
    fn tensors(&self) -> Vec<(&str, i32)> {
        let table = self.description.regions.as_ref().map(|regions| (regions.table.as_str(), INT32));
        std::iter::once((self.description.logits.as_str(), UINT8)).chain(table).collect()
    }

    /// The names of the values that it reads.
    pub(super) fn outputs(&self) -> Vec<String> {
        self.tensors().into_iter().map(|(name, _)| name.to_owned()).collect()
    }

    /// The outputs of the whole graph.
    pub(super) fn of_graph(&self) -> ModelOutputs {
        let (width, height) = self.description.mask_size();
        let shape = vec![-1, height as i64, width as i64];
        ModelOutputs {
            mask: TensorSpec { name: MASK.into(), element: TensorElementType::Uint8, shape },
            others: self.description.scores.then(|| SCORES.to_owned()).into_iter().collect(),
        }
    }

    /// The logits of `n` images before any rejection.
    ///
    /// # Errors
    /// The model did not return them, or in another type or shape.
    pub(super) fn logits<'a>(
        &self,
        outputs: &'a SessionOutputs<'_>,
        n: usize,
    ) -> Result<QuantisedLogits<'a>, RunOutputError> {
        let HeadDescription { rows, columns, classes, scale, .. } = self.description;
        let bytes = values::<u8>(outputs, &self.description.logits, &[n, rows, columns, classes], n)?;
        Ok(QuantisedLogits { bytes, rows, columns, classes, scale })
    }

    /// The class indices of `n` images, `[n, height, width]`, and the `(width, height)` of one mask.
    ///
    /// # Errors
    /// The model did not return the values, or in another type or shape.
    pub(super) fn classes(
        &self,
        outputs: &SessionOutputs<'_>,
        n: usize,
    ) -> Result<(Vec<ClassId>, (usize, usize)), RunOutputError> {
        let logits = self.logits(outputs, n)?.bytes;
        let table = self.table(outputs, n)?;
        Ok((self.masks(logits, table, n), self.description.mask_size()))
    }

    /// The logits and the tables of regions of `n` images.
    ///
    /// # Errors
    /// As [`Head::classes`].
    pub(super) fn images(&self, outputs: &SessionOutputs<'_>, n: usize) -> Result<Vec<ImageLogits>, RunOutputError> {
        let logits = self.logits(outputs, n)?.bytes;
        let logits = logits.chunks_exact(logits.len() / n.max(1));
        let tables = match self.table(outputs, n)? {
            Some(table) => table.chunks_exact(table.len() / n.max(1)).map(|table| Some(table.to_vec())).collect(),
            None => vec![None; n],
        };
        Ok(logits.zip(tables).map(|(logits, table)| ImageLogits { logits: logits.to_vec(), table }).collect())
    }

    /// The mask of a frame in tiles, and the logits that it was made of. After the tiles, `images` may have the whole frame.
    pub(super) fn tiled(&self, canvas: &TileCanvas, images: &[ImageLogits]) -> TiledMask {
        let classes = self.description.classes;
        let count = canvas.tiles().count();
        let logits: Vec<&[u8]> = images.iter().map(|image| image.logits.as_slice()).collect();
        let (tiles, whole) = logits.split_at(count.min(logits.len()));
        let logits = canvas.blended(classes, tiles, whole.first().copied());
        let (columns, rows) = canvas.size();
        let description = HeadDescription { rows, columns, regions: None, ..self.description.clone() };
        let (width, height) = description.decided_size();
        let mut decided = vec![0; width * height];
        Enlargement::new(&description).classes(&self.winners, &logits, &mut decided);
        let factor = description.enlarge;
        for ((column, row), image) in canvas.tiles().zip(images) {
            if let (Some(regions), Some(table)) = (&self.regions, &image.table) {
                let own =
                    [canvas.across.own(column), canvas.down.own(row)].map(|own| own.start * factor..own.end * factor);
                let origin = (canvas.across.origin(column) * factor, canvas.down.origin(row) * factor);
                regions.apply_to_part(table, &mut decided, width, origin, own);
            }
        }
        TiledMask { classes: repeated(decided, width, description.repeat), size: description.mask_size(), logits }
    }

    /// Columns and rows of the logits of an image.
    pub(super) fn logits_size(&self) -> (usize, usize) {
        (self.description.columns, self.description.rows)
    }

    /// The distance of the logits of two bytes.
    pub(super) fn scale(&self) -> f32 {
        self.description.scale
    }

    /// The tables of the regions of `n` images, one after the other.
    fn table<'a>(&self, outputs: &'a SessionOutputs<'_>, n: usize) -> Result<Option<&'a [i32]>, RunOutputError> {
        let Some(regions) = &self.description.regions else { return Ok(None) };
        let entries = regions.rows * regions.columns * self.description.classes;
        values::<i32>(outputs, &regions.table, &[n, entries], n).map(Some)
    }

    /// The class indices of `n` images, `[n, height, width]`, by their logits `[n, rows, columns, classes]` and the table of their
    /// regions.
    fn masks(&self, logits: &[u8], table: Option<&[i32]>, n: usize) -> Vec<ClassId> {
        let HeadDescription { rows, columns, classes, repeat, .. } = self.description;
        let (width, height) = self.description.decided_size();
        let mut decided = vec![0; n * width * height];
        for (image, mask) in logits.chunks_exact(rows * columns * classes).zip(decided.chunks_exact_mut(width * height))
        {
            self.enlargement.classes(&self.winners, image, mask);
        }
        if let (Some(regions), Some(table)) = (&self.regions, table) {
            let tables = table.chunks_exact(table.len() / n.max(1));
            decided.chunks_exact_mut(width * height).zip(tables).for_each(|(mask, table)| regions.apply(table, mask));
        }
        repeated(decided, width, repeat)
    }
}

/// Classes in rows of `width`, each repeated in both directions.
fn repeated(classes: Vec<ClassId>, width: usize, repeat: usize) -> Vec<ClassId> {
    if repeat == 1 {
        return classes;
    }
    let mut repeated = Vec::with_capacity(classes.len() * repeat * repeat);
    for row in classes.chunks_exact(width) {
        let start = repeated.len();
        row.iter().for_each(|&class| repeated.extend(std::iter::repeat_n(class, repeat)));
        (1..repeat).for_each(|_| repeated.extend_from_within(start..start + width * repeat));
    }
    repeated
}

/// What a model says about an image, before the mask is made of it.
pub(super) struct ImageLogits {
    /// `[rows, columns, classes]`
    pub logits: Vec<u8>,
    /// Of its regions.
    pub table: Option<Vec<i32>>,
}

/// The mask of a frame in tiles.
pub(super) struct TiledMask {
    pub classes: Vec<ClassId>,
    /// Width and height.
    pub size: (usize, usize),
    /// The logits of all tiles together, `[rows, columns, classes]`.
    pub logits: Vec<u8>,
}

/// Logits as bytes: `logit = (byte - zero) × scale`, with the same zero for all of them.
pub(super) struct QuantisedLogits<'a> {
    /// `[n, rows, columns, classes]`
    pub bytes: &'a [u8],
    pub rows: usize,
    pub columns: usize,
    pub classes: usize,
    pub scale: f32,
}

/// The values of an output that must have this shape.
fn values<'a, T: PrimitiveTensorElementType>(
    outputs: &'a SessionOutputs<'_>,
    name: &str,
    expected: &[usize],
    n: usize,
) -> Result<&'a [T], RunOutputError> {
    let value: &DynValue = outputs.get(name).ok_or_else(|| RunOutputError::Missing(name.to_owned()))?;
    let extracted = value.try_extract_tensor::<T>();
    let (_, values) = extracted
        .map_err(|error| RunOutputError::Extract { name: name.to_owned(), reason: one_line(&error.to_string()) })?;
    let shape: Vec<usize> = value.shape().iter().map(|&side| usize::try_from(side).unwrap_or(0)).collect();
    if shape != expected {
        let labels = expected.last().copied().unwrap_or(0);
        return Err(RunOutputError::Shape { name: name.to_owned(), shape, frames: n, labels });
    }
    Ok(values)
}

#[cfg(test)]
mod tests;
