//! Describes the last steps of an int8 model for CPUs in its metadata. The service then computes them itself, in less time than
//! ONNX Runtime ([`maskcast::segment::head`]).

use maskcast::segment::head::{HeadDescription, METADATA, PixelRejection, RegionTable};

use super::ops::{MASK, SCORES};
use super::proto::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};
use super::regions::Grid;

/// Why the last steps of a model cannot be described.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error(
        "its mask is not computed as in an int8 model for CPUs of maskcast-train ({0}); export the model again with --int8"
    )]
    Steps(&'static str),
    #[error("it has the output `{0}`, which only the whole graph computes")]
    Output(String),
}

/// Adds the description to a model, or replaces it; removes it from a model whose last steps cannot be described.
///
/// # Errors
/// The last steps of the model are other ones.
pub fn describe(model: &mut ModelProto) -> Result<(), HeadError> {
    model.metadata.retain(|entry| entry.key != METADATA);
    let description = description(model)?;
    let text = serde_json::to_string(&description).map_err(|_| HeadError::Steps("its numbers"))?;
    model.put(METADATA, text);
    Ok(())
}

/// The description of the last steps of a model.
///
/// # Errors
/// The last steps are other ones.
pub fn description(model: &ModelProto) -> Result<HeadDescription, HeadError> {
    let graph = Steps(model.graph.as_ref().ok_or(HeadError::Steps("no graph"))?);
    let other = graph.0.output.iter().map(|output| &output.name).find(|name| *name != MASK && *name != SCORES);
    if let Some(name) = other {
        return Err(HeadError::Output(name.clone()));
    }
    let (mut repeat, mut value) = (1, graph.input_of(MASK, "Cast"));
    if value.is_none() {
        repeat = 2;
        let plane = graph.input_of(MASK, "Squeeze").and_then(|full| graph.input_of(full, "Resize"));
        let half = plane.and_then(|plane| graph.input_of(plane, "Unsqueeze"));
        value = half.and_then(|half| graph.input_of(half, "Cast"));
    }
    let mut index = value.ok_or(HeadError::Steps("no class indices"))?;
    let mut looked_up = None;
    if let Some(found) = graph.input_of(index, "Reshape") {
        let found = graph.made(found, "GatherElements").ok_or(HeadError::Steps("no table of regions"))?;
        let [table, entry] = found.input.as_slice() else { return Err(HeadError::Steps("no table of regions")) };
        let add = graph.input_of(entry, "Reshape").and_then(|entry| graph.made(entry, "Add"));
        let Some([class, offsets]) = add.map(|add| add.input.as_slice()) else {
            return Err(HeadError::Steps("no entries of regions"));
        };
        index = graph.input_of(class, "Cast").ok_or(HeadError::Steps("no entries of regions"))?;
        looked_up = Some((table, offsets));
    }
    let best = graph.made(index, "ArgMax").ok_or(HeadError::Steps("no arg max"))?;
    if attribute(best, "axis").is_none_or(|axis| axis.i != Some(3)) {
        return Err(HeadError::Steps("classes are not the last axis"));
    }
    let mut logits = best.input.first().ok_or(HeadError::Steps("no logits"))?.as_str();
    let mut enlarge = 1;
    if let Some(resize) = graph.made(logits, "Resize") {
        enlarge = graph.enlargement(resize).ok_or(HeadError::Steps("another enlargement"))?;
        logits = &resize.input[0];
    }
    let (logits, limits) = graph.before_rejection(logits)?;
    let Some([bytes, scale, zero]) = graph.made(logits, "DequantizeLinear").map(|node| node.input.as_slice()) else {
        return Err(HeadError::Steps("the logits are not quantised"));
    };
    let scale = graph.floats(scale).ok_or(HeadError::Steps("no scale"))?;
    let zero = graph.constant(zero).ok_or(HeadError::Steps("no zero point"))?;
    let (&[scale], &[zero]) = (scale.as_slice(), raw(zero)) else {
        return Err(HeadError::Steps("the logits have a scale for each class"));
    };
    let (height, width) = graph.mask_size().ok_or(HeadError::Steps("the size of the mask is free"))?;
    let factor = (enlarge * repeat) as i64;
    let (rows, columns) = (height / factor, width / factor);
    let classes = graph.classes(bytes).ok_or(HeadError::Steps("no classes"))?;
    let rejection = match limits {
        Some(limits) => {
            let limit = single_limit(&limits, classes).ok_or(HeadError::Steps("several classes have limits"))?;
            Some(PixelRejection { class: limit.0, below: limit.1 })
        }
        None => None,
    };
    let scores = graph.0.output.iter().any(|output| output.name == SCORES);
    if scores && graph.input_of(SCORES, "Identity") != Some(logits) {
        return Err(HeadError::Steps("other scores"));
    }
    let mut description = HeadDescription {
        logits: bytes.clone(),
        rows: rows as usize,
        columns: columns as usize,
        classes,
        scale,
        zero,
        scores,
        rejection,
        enlarge,
        regions: None,
        repeat,
    };
    if let Some((table, offsets)) = looked_up {
        let grid = Grid::new([rows, columns], height);
        if !graph.has_offsets(offsets, &grid, &description) {
            return Err(HeadError::Steps("another grid of regions"));
        }
        description.regions = Some(RegionTable {
            table: table.clone(),
            rows: grid.cells[0] as usize,
            columns: grid.cells[1] as usize,
            cell: grid.cell() as usize,
        });
    }
    Ok(description)
}

/// The only class that has a limit, and the limit. The limits of all classes may be repeated.
pub(super) fn single_limit(limits: &[f32], classes: usize) -> Option<(usize, f32)> {
    let (first, rest) = limits.split_at_checked(classes)?;
    if rest.chunks(classes).any(|others| others != first) {
        return None;
    }
    let mut limited = first.iter().enumerate().filter(|(_, limit)| **limit > f32::MIN);
    let (class, &below) = limited.next()?;
    limited.next().is_none().then_some((class, below))
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

fn raw(constant: &TensorProto) -> &[u8] {
    constant.raw_data.as_deref().unwrap_or_default()
}

/// Finds nodes and constants of a graph.
struct Steps<'a>(&'a GraphProto);

impl<'a> Steps<'a> {
    /// The node of this operator that makes a value.
    fn made(&self, value: &str, op: &str) -> Option<&'a NodeProto> {
        self.0.node.iter().find(|node| node.op_type == op && node.output.iter().any(|output| output == value))
    }

    /// The first input of the node of this operator that makes a value.
    fn input_of(&self, value: &str, op: &str) -> Option<&'a str> {
        self.made(value, op)?.input.first().map(String::as_str)
    }

    fn constant(&self, name: &str) -> Option<&'a TensorProto> {
        self.0.initializer.iter().find(|constant| constant.name == name)
    }

    fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let constant = self.constant(name)?;
        Some(raw(constant).as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    fn int32s(&self, name: &str) -> Option<Vec<i32>> {
        let constant = self.constant(name)?;
        Some(raw(constant).as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes)).collect())
    }

    /// The factor of a bilinear enlargement of rows and columns.
    fn enlargement(&self, resize: &NodeProto) -> Option<usize> {
        let is = |name, value: &str| {
            attribute(resize, name).is_some_and(|found| found.s.as_deref() == Some(value.as_bytes()))
        };
        let scales = self.floats(resize.input.get(2)?)?;
        let &[1.0, factor, across, 1.0] = scales.as_slice() else { return None };
        let fits = factor == across && factor.fract() == 0.0 && factor >= 1.0;
        (fits && is("mode", "linear") && is("coordinate_transformation_mode", "half_pixel")).then_some(factor as usize)
    }

    /// The logits before the rejection of pixels, and its limits.
    fn before_rejection(&self, logits: &'a str) -> Result<(&'a str, Option<Vec<f32>>), HeadError> {
        let raised = self.input_of(logits, "Reshape").unwrap_or(logits);
        let Some(max) = self.made(raised, "Max") else { return Ok((logits, None)) };
        let [logits, limits] = max.input.as_slice() else { return Err(HeadError::Steps("another rejection")) };
        let limits = self.floats(limits).ok_or(HeadError::Steps("another rejection"))?;
        Ok((self.input_of(logits, "Reshape").unwrap_or(logits), Some(limits)))
    }

    /// Height and width of the output `mask`.
    fn mask_size(&self) -> Option<(i64, i64)> {
        let mask = self.0.output.iter().find(|output| output.name == MASK)?;
        let shape = mask.r#type.as_ref()?.tensor.as_ref()?.shape.as_ref()?;
        match shape.dim.iter().map(|dim| dim.value).collect::<Vec<_>>().as_slice() {
            &[_, Some(height), Some(width)] => Some((height, width)),
            _ => None,
        }
    }

    /// The number of classes, by the weights of the last convolution before the quantised logits.
    fn classes(&self, bytes: &str) -> Option<usize> {
        let planes = self.input_of(bytes, "Transpose")?;
        let conv = self.made(self.input_of(planes, "QuantizeLinear")?, "Conv")?;
        let weights = self.input_of(conv.input.get(1)?, "DequantizeLinear")?;
        self.constant(weights)?.dims.first().map(|&classes| classes as usize)
    }

    /// Whether the sum of offsets of rows and columns is that of a grid.
    fn has_offsets(&self, offsets: &str, grid: &Grid, description: &HeadDescription) -> bool {
        let Some([down, across]) = self.made(offsets, "Add").map(|add| add.input.as_slice()) else { return false };
        let (width, height) = description.decided_size();
        let expected = |axis, logits: usize, pixels: usize, factor: usize| -> Vec<i32> {
            let cells = grid.cells_of(axis, logits as i64, pixels as i64);
            cells.into_iter().map(|cell| cell * factor as i32).collect()
        };
        let HeadDescription { rows, columns, classes, .. } = *description;
        self.int32s(down) == Some(expected(0, rows, height, grid.cells[1] as usize * classes))
            && self.int32s(across) == Some(expected(1, columns, width, classes))
    }
}
