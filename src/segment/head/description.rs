//! The description of the last steps of a model, as JSON in its metadata.

use serde::{Deserialize, Serialize};

/// Largest number of classes: the index of a class and twice a byte fit into 15 bits.
const MAX_CLASSES: usize = 64;

/// Largest side of logits, and largest factor of an enlargement.
const MAX_SIDE: usize = 8192;
const MAX_FACTOR: usize = 16;

/// The steps from the quantised logits to the output `mask`, in their order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeadDescription {
    /// The value with the logits, unsigned bytes `[N, rows, columns, classes]`.
    pub logits: String,
    pub rows: usize,
    pub columns: usize,
    pub classes: usize,
    /// `logit = (byte - zero) × scale`
    pub scale: f32,
    pub zero: u8,
    /// Whether the model has the output `scores` with these logits.
    pub scores: bool,
    /// The rejection of pixels.
    pub rejection: Option<PixelRejection>,
    /// The factor of the bilinear enlargement of the logits, with pixel centres at half integers; 1 for none.
    pub enlarge: usize,
    /// The rejection of regions, after the arg max.
    pub regions: Option<RegionTable>,
    /// How often each class index is repeated in both directions, at last.
    pub repeat: usize,
}

/// The class of pixels whose logits are all below a limit: its own logit is raised to that limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PixelRejection {
    pub class: usize,
    pub below: f32,
}

/// The value with the class that the pixels of a class get in a part of the mask: 32-bit integers `[N, rows × columns × classes]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionTable {
    pub table: String,
    /// Number of parts, down and across. The last ones are larger where the mask has pixels left.
    pub rows: usize,
    pub columns: usize,
    /// Rows and columns of logits in a part.
    pub cell: usize,
}

/// Why a description is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescriptionProblem {
    #[error("the size of the logits ({0}x{1}, {2} classes) is outside of the limits")]
    Size(usize, usize, usize),
    #[error("the scale of the logits is not a positive number")]
    Scale,
    #[error("the enlargement factors {0} and {1} are outside of the limits")]
    Factors(usize, usize),
    #[error("the rejection of pixels has the class {0}, which does not exist, or a limit that is not a number")]
    Rejection(usize),
    #[error("the grid of {0}x{1} parts of {2}x{2} logits does not fit the mask")]
    Regions(usize, usize, usize),
}

impl HeadDescription {
    /// Checks that a model can have these sizes and limits.
    ///
    /// # Errors
    /// The first one that no model has.
    pub fn check(&self) -> Result<(), DescriptionProblem> {
        let sides = 1..=MAX_SIDE;
        if !sides.contains(&self.rows) || !sides.contains(&self.columns) || !(2..=MAX_CLASSES).contains(&self.classes) {
            return Err(DescriptionProblem::Size(self.columns, self.rows, self.classes));
        }
        if !(self.scale.is_finite() && self.scale > 0.0) {
            return Err(DescriptionProblem::Scale);
        }
        let factors = 1..=MAX_FACTOR;
        if !factors.contains(&self.enlarge) || !factors.contains(&self.repeat) {
            return Err(DescriptionProblem::Factors(self.enlarge, self.repeat));
        }
        if let Some(PixelRejection { class, below }) = self.rejection
            && (class >= self.classes || !below.is_finite())
        {
            return Err(DescriptionProblem::Rejection(class));
        }
        // The last part has at most a whole part more.
        let covers = |parts: usize, cell: usize, logits: usize| {
            sides.contains(&parts)
                && sides.contains(&cell)
                && ((parts - 1) * cell..(parts + 1) * cell).contains(&(logits - 1))
        };
        if let Some(RegionTable { rows, columns, cell, .. }) = self.regions
            && !(covers(rows, cell, self.rows) && covers(columns, cell, self.columns))
        {
            return Err(DescriptionProblem::Regions(columns, rows, cell));
        }
        Ok(())
    }

    /// Width and height in which the class is decided.
    pub fn decided_size(&self) -> (usize, usize) {
        (self.columns * self.enlarge, self.rows * self.enlarge)
    }

    /// Width and height of the mask.
    pub fn mask_size(&self) -> (usize, usize) {
        let (width, height) = self.decided_size();
        (width * self.repeat, height * self.repeat)
    }

    /// The logit of a byte, as ONNX Runtime computes it.
    pub fn logit(&self, byte: u8) -> f32 {
        (f32::from(byte) - f32::from(self.zero)) * self.scale
    }
}
