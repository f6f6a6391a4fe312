//! Rejection of regions: the pixels of a class become another class where the network is not sure of that class.
//!
//! A region is the pixels of one class in a window. Its mean probability tells more than the probability of a pixel: a wrong object
//! often has a few pixels of which the network is sure. The step runs after the network and needs no training:
//!
//! ```text
//! logits ─▶ samples ─▶ softmax ─▶ p - limit of the best class ─▶ sums in windows ─▶ table [cell, class] ─┐
//! logits ─▶ rejection of pixels ─▶ enlargement ─▶ arg max ───────────────────────────────────────────────┴─▶ mask
//! ```
//!
//! The mean of a region is at least the limit if the sum of `p - limit` over its samples is not negative. A cell of the table, of
//! 16 × 16 pixels in the image, has a window for each class. The values of a mask are looked up in it. The sums are products with
//! matrices of zeros and ones, which take less time than pools (0.06 ms for `[1, 36, 64, 16]` on one core).

use serde::{Deserialize, Serialize};

use super::graph::{GraphBuilder, int, ints};
use super::ops::{self, MASK, SCORES, cast};
use super::proto::{GraphProto, ModelProto, NodeProto, TensorDataType};

/// Which regions are rejected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegionRejection {
    /// Index of the class of rejected regions. Its own regions are kept.
    pub class: usize,
    /// For each class, the least mean probability (0 to 1) of a region that is kept.
    pub limits: Vec<f32>,
}

/// Why a model cannot reject regions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionsError {
    #[error("the model already rejects regions; use the file from before that")]
    AlreadyThere,
    #[error("the model has no output `{SCORES}`; export it again with this version of maskcast-train")]
    NoScores,
    #[error(
        "the output `{MASK}` is not computed from logits in the way maskcast-train exports it; export the model again"
    )]
    NoMask,
    #[error("{limits} limits for a model with {classes} classes; there must be one for each class")]
    Classes { limits: usize, classes: usize },
}

/// Distance of samples in pixels of the image, if the logits are as dense.
const SAMPLE_DISTANCE: i64 = 8;
/// Samples of a cell in each direction.
const CELL: i64 = 2;
/// The names of the values of this step begin with this.
const PREFIX: &str = "regions.";

/// The sizes of the step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Every so many logits are a sample, in both directions.
    pub step: i64,
    /// Row and column of the first sample.
    pub start: [i64; 2],
    /// Rows and columns of samples.
    pub samples: [i64; 2],
    /// Rows and columns of cells.
    pub cells: [i64; 2],
    /// A window reaches this many samples beyond its cell.
    pub reach: i64,
}

impl Grid {
    /// The grid for logits of `logits` rows and columns, for a mask of `height` rows.
    pub fn new(logits: [i64; 2], height: i64) -> Self {
        let step = (SAMPLE_DISTANCE * logits[0] / height).max(1);
        let start = logits.map(|side| (step / 2).min(side - 1));
        let samples = [0, 1].map(|axis| (logits[axis] - start[axis] + step - 1) / step);
        let cells = samples.map(|side| (side + CELL - 1) / CELL);
        Grid { step, start, samples, cells, reach: samples[0] / 3 }
    }

    /// The cell, in direction `axis`, of each of the `pixels` of a mask that has `logits` logits in this direction.
    pub(super) fn cells_of(&self, axis: usize, logits: i64, pixels: i64) -> Vec<i32> {
        let cell = |pixel: i64| (pixel * logits / pixels / self.step / CELL).min(self.cells[axis] - 1);
        (0..pixels).map(|pixel| cell(pixel) as i32).collect()
    }

    /// Rows and columns of logits in a cell.
    pub(super) fn cell(&self) -> i64 {
        self.step * CELL
    }

    /// The samples of each window in direction `axis`, as rows of zeros and ones.
    fn windows(&self, axis: usize) -> Vec<f32> {
        let mut matrix = Vec::new();
        for cell in 0..self.cells[axis] {
            let window = CELL * cell - self.reach..CELL * cell + CELL + self.reach;
            matrix.extend((0..self.samples[axis]).map(|sample| f32::from(u8::from(window.contains(&sample)))));
        }
        matrix
    }
}

/// What the step needs of a graph.
struct Parts {
    /// The value with the logits before any rejection.
    logits: String,
    /// Rows and columns of the logits, and their number of classes.
    size: [i64; 3],
    /// Whether the classes are the last axis of the logits.
    last: bool,
    /// The value with the class indices `[N, H, W]`.
    index: String,
    /// Rows and columns of the class indices.
    decided: [i64; 2],
    /// Position of the node that converts the class indices to bytes.
    bytes: usize,
    /// Rows of the output `mask`.
    height: i64,
}

impl Parts {
    fn find(graph: &GraphProto) -> Result<Self, RegionsError> {
        let made = |name: &str| graph.node.iter().find(|node| node.output.iter().any(|output| output == name));
        if graph.node.iter().any(|node| node.name.starts_with(PREFIX)) {
            return Err(RegionsError::AlreadyThere);
        }
        let logits = made(SCORES).filter(|node| node.op_type == "Identity").and_then(|node| node.input.first());
        let (Some(logits), Some([a, b, c])) = (logits, output_size(graph, SCORES)) else {
            return Err(RegionsError::NoScores);
        };
        let Some([height, width]) = output_size(graph, MASK) else { return Err(RegionsError::NoMask) };
        let best = graph.node.iter().find(|node| node.op_type == "ArgMax").ok_or(RegionsError::NoMask)?;
        let axis = best.attribute.iter().find(|attribute| attribute.name == "axis").and_then(|axis| axis.i);
        let (last, size) = match axis {
            Some(1) => (false, [b, c, a]),
            Some(3) => (true, [a, b, c]),
            _ => return Err(RegionsError::NoMask),
        };
        let index = best.output.first().ok_or(RegionsError::NoMask)?;
        let is_bytes = |node: &NodeProto| node.op_type == "Cast" && node.input.first() == Some(index);
        let bytes = graph.node.iter().position(is_bytes).ok_or(RegionsError::NoMask)?;
        let whole = graph.node[bytes].output.iter().any(|name| name == MASK);
        let decided = if whole { [height, width] } else { [height / 2, width / 2] };
        Ok(Parts { logits: logits.clone(), size, last, index: index.clone(), decided, bytes, height })
    }
}

/// The sizes of an output after the batch.
fn output_size<const N: usize>(graph: &GraphProto, name: &str) -> Option<[i64; N]> {
    let output = graph.output.iter().find(|output| output.name == name)?;
    let shape = output.r#type.as_ref()?.tensor.as_ref()?.shape.as_ref()?;
    let sides: Option<Vec<i64>> = shape.dim.get(1..)?.iter().map(|dim| dim.value.filter(|&side| side > 0)).collect();
    sides?.try_into().ok()
}

/// Adds the rejection of regions to a model of [`super::float`] or [`super::int8`] that has the output `scores`.
///
/// # Errors
/// The model is another one, or has the step already. It is unchanged then.
pub fn add(model: &mut ModelProto, rejection: &RegionRejection) -> Result<(), RegionsError> {
    let graph = model.graph.as_mut().ok_or(RegionsError::NoMask)?;
    let parts = Parts::find(graph)?;
    let [rows, columns, classes] = parts.size;
    if rejection.limits.len() as i64 != classes || rejection.class as i64 >= classes {
        return Err(RegionsError::Classes { limits: rejection.limits.len(), classes: classes as usize });
    }
    let grid = Grid::new([rows, columns], parts.height);
    let mut after = graph.node.split_off(parts.bytes);
    let mut b = GraphBuilder::continued(std::mem::take(graph));
    let samples = samples(&mut b, &parts, &grid);
    let table = table(&mut b, &samples, &grid, rejection);
    after[0].input = vec![look_up(&mut b, &parts, &grid, &table)];
    *graph = b.into_graph();
    graph.node.append(&mut after);
    Ok(())
}

/// The samples of the logits, `[N, rows, columns, classes]`.
fn samples(b: &mut GraphBuilder, parts: &Parts, grid: &Grid) -> String {
    let starts = b.int64s("regions.starts", &grid.start);
    let ends = b.int64s("regions.ends", &parts.size[..2]);
    let axes = b.int64s("regions.axes", &if parts.last { [1, 2] } else { [2, 3] });
    let steps = b.int64s("regions.steps", &[grid.step; 2]);
    let slice = |b: &mut GraphBuilder, of: &str, output: &str| {
        b.node("Slice", &[of, &starts, &ends, &axes, &steps], output, Vec::new())
    };
    if !parts.last {
        let samples = slice(b, &parts.logits, "regions.planes");
        return b.node("Transpose", &[&samples], "regions.samples", vec![ints("perm", &[0, 2, 3, 1])]);
    }
    // ONNX Runtime repeats a DequantizeLinear for each of its uses (0.25 ms for `[1, 144, 256, 16]`).
    match b.made_by(&parts.logits).filter(|node| node.op_type == "DequantizeLinear").map(|node| node.input.clone()) {
        Some(inputs) => {
            let bytes = slice(b, &inputs[0], "regions.bytes");
            let mut inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
            inputs[0] = &bytes;
            b.node("DequantizeLinear", &inputs, "regions.samples", Vec::new())
        }
        None => slice(b, &parts.logits, "regions.samples"),
    }
}

/// For each cell and class, the class that a pixel gets: `[N, cells × classes]`, 32-bit integers.
fn table(b: &mut GraphBuilder, samples: &str, grid: &Grid, rejection: &RegionRejection) -> String {
    let classes = rejection.limits.len();
    let [[rows, columns], [cell_rows, cell_columns]] = [grid.samples, grid.cells];
    let wide = columns * classes as i64;
    let limit = |class| if class == rejection.class { 0.0 } else { rejection.limits[class] };
    let limits: Vec<f32> = (0..wide as usize).map(|index| limit(index % classes)).collect();

    let probability = b.node("Softmax", &[samples], "regions.probability", vec![int("axis", 3)]);
    let attributes = vec![ints("axes", &[3]), int("keepdims", 1)];
    let best = b.node("ReduceMax", &[&probability], "regions.largest", attributes);
    let is_best = b.node("GreaterOrEqual", &[&probability, &best], "regions.is_best", Vec::new());
    let is_best = cast(b, &is_best, "regions.best", TensorDataType::Float);
    // ONNX Runtime is slow with a broadcast along a short axis, so rows of samples are one axis.
    let shape = b.int64s("regions.wide", &[-1, rows, wide]);
    let probability = b.node("Reshape", &[&probability, &shape], "regions.probability.wide", Vec::new());
    let is_best = b.node("Reshape", &[&is_best, &shape], "regions.best.wide", Vec::new());
    let limits = b.floats("regions.limits", &[wide], &limits);
    let above = b.node("Sub", &[&probability, &limits], "regions.above", Vec::new());
    let above = b.node("Mul", &[&above, &is_best], "regions.above.best", Vec::new());

    let down = b.floats("regions.window.rows", &[cell_rows, rows], &grid.windows(0));
    let sums = b.node("MatMul", &[&down, &above], "regions.sums.rows", Vec::new());
    let shape = b.int64s("regions.columns", &[-1, columns, classes as i64]);
    let sums = b.node("Reshape", &[&sums, &shape], "regions.sums.split", Vec::new());
    let across = b.floats("regions.window.columns", &[cell_columns, columns], &grid.windows(1));
    let sums = b.node("MatMul", &[&across, &sums], "regions.sums", Vec::new());

    let entries = cell_rows * cell_columns * classes as i64;
    let shape = b.int64s("regions.flat", &[-1, entries]);
    let sums = b.node("Reshape", &[&sums, &shape], "regions.sums.flat", Vec::new());
    let zero = b.floats("regions.zero", &[], &[0.0]);
    let kept = b.node("GreaterOrEqual", &[&sums, &zero], "regions.kept", Vec::new());
    let own: Vec<i32> = (0..entries as i32).map(|entry| entry % classes as i32).collect();
    let own = b.int32s("regions.classes", &own);
    let rejected = b.int32s("regions.rejected", &[rejection.class as i32]);
    b.node("Where", &[&kept, &own, &rejected], "regions.table", Vec::new())
}

/// The class indices `[N, H, W]` after the rejection, 32-bit integers.
fn look_up(b: &mut GraphBuilder, parts: &Parts, grid: &Grid, table: &str) -> String {
    let [rows, columns, classes] = parts.size;
    let [height, width] = parts.decided;
    let offsets = |axis, logits, pixels, factor: i64| -> Vec<i32> {
        grid.cells_of(axis, logits, pixels).into_iter().map(|cell| cell * factor as i32).collect()
    };
    let down = offsets(0, rows, height, grid.cells[1] * classes);
    let down = b.shaped_int32s("regions.offsets.rows", &[height, 1], &down);
    let across = b.int32s("regions.offsets.columns", &offsets(1, columns, width, classes));
    // The sum of constants, which runtimes compute once. Stored, it would be a tenth of a small model.
    let offsets = b.node("Add", &[&down, &across], "regions.offsets", Vec::new());
    let index = cast(b, &parts.index, "regions.class", TensorDataType::Int32);
    let index = b.node("Add", &[&index, &offsets], "regions.entry", Vec::new());
    let shape = b.int64s("regions.pixels", &[-1, height * width]);
    let index = b.node("Reshape", &[&index, &shape], "regions.entry.flat", Vec::new());
    let found = b.node("GatherElements", &[table, &index], "regions.found", vec![int("axis", 1)]);
    let shape = b.int64s("regions.size", &[-1, height, width]);
    b.node("Reshape", &[&found, &shape], "regions.index", Vec::new())
}

/// Rewrites the rejection of pixels of a file that an earlier version exported in the form of this version, which takes 0.4 ms
/// less on a CPU and computes the same.
pub fn renew_pixel_rejection(model: &mut ModelProto) {
    let Some(graph) = model.graph.as_mut() else { return };
    let Ok(Parts { last: true, size, .. }) = Parts::find(graph) else { return };
    let Some(position) = graph.node.iter().position(|node| node.op_type == "Max" && node.output == [ops::REJECTED])
    else {
        return;
    };
    let [logits, limits] = graph.node[position].input.as_slice() else { return };
    let Some(constant) = graph.initializer.iter().position(|constant| constant.name == *limits) else { return };
    if graph.initializer[constant].dims != [1, 1, 1, size[2]] {
        return;
    }
    let logits = logits.clone();
    let raw = graph.initializer.remove(constant).raw_data.unwrap_or_default();
    let limits: Vec<f32> = raw.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let mut after = graph.node.split_off(position);
    let mut b = GraphBuilder::continued(std::mem::take(graph));
    ops::raised(&mut b, &logits, size, &limits);
    *graph = b.into_graph();
    graph.node.extend(after.drain(1..));
}
