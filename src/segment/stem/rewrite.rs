//! Finds the first convolution in an ONNX file (onnx/onnx.proto, IR version 9), and replaces it by one of 1×1.

use ort::value::TensorElementType;

use super::windows::{ROW, SIDE, Stem, WINDOW};
use crate::segment::contract::TensorSpec;
use crate::segment::wire::{Damaged, Field, bytes_of, fields, put_bytes, put_value, read_varint, varint_of};

/// Why the first convolution of a model cannot be rewritten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StemProblem {
    #[error(transparent)]
    Damaged(#[from] Damaged),
}

/// Numbers of the fields that are read or written.
mod field {
    pub const MODEL_GRAPH: u64 = 7;
    pub const GRAPH_NODE: u64 = 1;
    pub const GRAPH_INITIALIZER: u64 = 5;
    pub const GRAPH_INPUT: u64 = 11;
    pub const GRAPH_OUTPUT: u64 = 12;
    pub const GRAPH_VALUE_INFO: u64 = 13;
    pub const NODE_INPUT: u64 = 1;
    pub const NODE_OUTPUT: u64 = 2;
    pub const NODE_OPERATOR: u64 = 4;
    pub const NODE_ATTRIBUTE: u64 = 5;
    pub const ATTRIBUTE_NAME: u64 = 1;
    pub const ATTRIBUTE_INT: u64 = 3;
    pub const ATTRIBUTE_TEXT: u64 = 4;
    pub const ATTRIBUTE_INTS: u64 = 8;
    pub const ATTRIBUTE_TYPE: u64 = 20;
    pub const TENSOR_DIMENSIONS: u64 = 1;
    pub const TENSOR_TYPE: u64 = 2;
    pub const TENSOR_INTS: u64 = 5;
    pub const TENSOR_NAME: u64 = 8;
    pub const TENSOR_BYTES: u64 = 9;
    /// `ValueInfoProto`.
    pub const INFO_NAME: u64 = 1;
    pub const INFO_TYPE: u64 = 2;
    /// `TypeProto.tensor_type`, and in it `elem_type` and `shape`.
    pub const TYPE_TENSOR: u64 = 1;
    pub const TENSOR_ELEMENT: u64 = 1;
    pub const TENSOR_SHAPE: u64 = 2;
    /// `TensorShapeProto.dim`, and in it `dim_value`.
    pub const SHAPE_DIMENSION: u64 = 1;
    pub const DIMENSION_VALUE: u64 = 1;
}

/// `TensorProto.DataType`
const UINT8: u64 = 2;
const INT8: u64 = 3;

/// `AttributeProto.AttributeType.INTS`
const INTS: u64 = 7;

/// The stem of a file and the rewritten file; `None` if the graph does not begin with a quantised convolution of 3×3 pixels.
///
/// # Errors
/// The file is not a complete model.
pub fn rewrite(file: &[u8]) -> Result<Option<(Stem, Vec<u8>)>, StemProblem> {
    let model = fields(file)?;
    let graph = fields(bytes_of(&model, field::MODEL_GRAPH).ok_or(Damaged)?)?;
    let Some(found) = Convolution::find(&graph)? else { return Ok(None) };
    let rewritten = found.rewrite(&graph);
    let mut out = Vec::with_capacity(file.len());
    for part in &model {
        match part.number {
            field::MODEL_GRAPH => put_bytes(&mut out, field::MODEL_GRAPH, &rewritten),
            _ => out.extend_from_slice(part.whole),
        }
    }
    Ok(Some((found.stem, out)))
}

/// A node of the graph.
struct Node<'a> {
    /// Its place among the parts of the graph.
    at: usize,
    parts: Vec<Field<'a>>,
}

impl<'a> Node<'a> {
    fn values(&self, number: u64) -> impl Iterator<Item = &'a [u8]> + '_ {
        self.parts.iter().filter(move |part| part.number == number).map(|part| part.content)
    }

    fn is(&self, operator: &str) -> bool {
        bytes_of(&self.parts, field::NODE_OPERATOR) == Some(operator.as_bytes())
    }

    fn input(&self, n: usize) -> Option<&'a [u8]> {
        self.values(field::NODE_INPUT).nth(n)
    }

    /// Its only output.
    fn output(&self) -> Option<&'a [u8]> {
        let mut outputs = self.values(field::NODE_OUTPUT);
        outputs.next().filter(|_| outputs.next().is_none())
    }

    fn attribute(&self, name: &str) -> Result<Option<Vec<Field<'a>>>, Damaged> {
        for attribute in self.values(field::NODE_ATTRIBUTE) {
            let attribute = fields(attribute)?;
            if bytes_of(&attribute, field::ATTRIBUTE_NAME) == Some(name.as_bytes()) {
                return Ok(Some(attribute));
            }
        }
        Ok(None)
    }

    /// The numbers of an attribute; `default` without it.
    fn ints(&self, name: &str, default: &[u64]) -> Result<Vec<u64>, Damaged> {
        match self.attribute(name)? {
            Some(attribute) => numbers(&attribute, field::ATTRIBUTE_INTS),
            None => Ok(default.to_vec()),
        }
    }
}

/// The nodes of a graph.
struct Nodes<'a>(Vec<Node<'a>>);

impl<'a> Nodes<'a> {
    /// The only node that uses a value.
    fn user(&self, value: &[u8]) -> Option<&Node<'a>> {
        let mut users = self.0.iter().filter(|node| node.values(field::NODE_INPUT).any(|input| input == value));
        users.next().filter(|_| users.next().is_none())
    }

    fn maker(&self, value: &[u8]) -> Option<&Node<'a>> {
        self.0.iter().find(|node| node.values(field::NODE_OUTPUT).any(|output| output == value))
    }
}

/// The first convolution of a graph, and what has to be replaced.
struct Convolution<'a> {
    stem: Stem,
    /// The places of the input, the weights and the convolution among the parts of the graph.
    input: usize,
    weights: usize,
    convolution: Node<'a>,
    /// The size of a batch, as it is declared.
    batch: &'a [u8],
    /// Number of output channels.
    channels: usize,
    /// `[channels, 3, SIDE, SIDE]`
    bytes: &'a [u8],
    /// Values whose declared shapes are not those of the rewritten graph.
    reshaped: Vec<&'a [u8]>,
}

impl<'a> Convolution<'a> {
    fn find(graph: &[Field<'a>]) -> Result<Option<Self>, Damaged> {
        let parts = |number| graph.iter().enumerate().filter(move |(_, part)| part.number == number);
        let mut nodes = Vec::new();
        for (at, part) in parts(field::GRAPH_NODE) {
            nodes.push(Node { at, parts: fields(part.content)? });
        }
        let nodes = Nodes(nodes);
        let initializer = |name: &[u8]| -> Result<Option<(usize, Vec<Field<'a>>)>, Damaged> {
            for (at, part) in parts(field::GRAPH_INITIALIZER) {
                let tensor = fields(part.content)?;
                if bytes_of(&tensor, field::TENSOR_NAME) == Some(name) {
                    return Ok(Some((at, tensor)));
                }
            }
            Ok(None)
        };
        let mut inputs = parts(field::GRAPH_INPUT);
        let (Some((input_at, input)), None) = (inputs.next(), inputs.next()) else { return Ok(None) };
        let Some(ImageInput { name, batch, width, height }) = image(input.content)? else { return Ok(None) };
        // A value that is an output of the graph keeps its shape.
        let mut outputs = Vec::new();
        for (_, output) in parts(field::GRAPH_OUTPUT) {
            outputs.extend(bytes_of(&fields(output.content)?, field::INFO_NAME));
        }
        let next = |value: &[u8], operator| {
            nodes
                .user(value)
                .filter(|node| node.is(operator) && node.input(0) == Some(value) && !outputs.contains(&value))
        };
        let Some(planes) = next(name, "Transpose") else { return Ok(None) };
        if planes.ints("perm", &[])? != [0, 3, 1, 2] {
            return Ok(None);
        }
        let Some(floats) = planes.output().and_then(|planes| next(planes, "DequantizeLinear")) else { return Ok(None) };
        let Some(convolution) = floats.output().and_then(|floats| next(floats, "Conv")) else { return Ok(None) };
        let Some(weights) = convolution.input(1) else { return Ok(None) };
        let Some(dequantised) = nodes
            .maker(weights)
            .filter(|node| node.is("DequantizeLinear") && nodes.user(weights).is_some() && !outputs.contains(&weights))
        else {
            return Ok(None);
        };
        let stored = dequantised.input(0).filter(|stored| nodes.user(stored).is_some());
        let Some((weights_at, tensor)) = stored.map(&initializer).transpose()?.flatten() else { return Ok(None) };
        let Some((channels, bytes)) = weights_of(&tensor)? else { return Ok(None) };
        let outside = match floats.input(2).map(&initializer).transpose()? {
            Some(Some((_, zero))) => match byte(&zero)? {
                Some(outside) => outside,
                None => return Ok(None),
            },
            Some(None) => return Ok(None),
            None => 0,
        };
        let Some((strides, before, windows)) = geometry(convolution, [width, height])? else { return Ok(None) };
        let Ok(input_name) = String::from_utf8(name.to_vec()) else { return Ok(None) };
        let input = TensorSpec {
            name: input_name,
            element: TensorElementType::Uint8,
            shape: vec![declared(batch)?, height as i64, width as i64, 3],
        };
        let reshaped = [planes.output(), floats.output(), Some(weights)].into_iter().flatten().collect();
        Ok(Some(Convolution {
            stem: Stem { input, width, height, strides, before, windows, outside },
            input: input_at,
            weights: weights_at,
            convolution: Node { at: convolution.at, parts: convolution.parts.clone() },
            batch,
            channels,
            bytes,
            reshaped,
        }))
    }

    /// The graph with windows as its input.
    fn rewrite(&self, graph: &[Field<'_>]) -> Vec<u8> {
        let mut out = Vec::new();
        for (at, part) in graph.iter().enumerate() {
            if at == self.input {
                put_bytes(&mut out, field::GRAPH_INPUT, &self.input_info());
            } else if at == self.weights {
                put_bytes(&mut out, field::GRAPH_INITIALIZER, &self.weights(part.content));
            } else if at == self.convolution.at {
                put_bytes(&mut out, field::GRAPH_NODE, &self.node());
            } else if !self.is_reshaped(part) {
                out.extend_from_slice(part.whole);
            }
        }
        out
    }

    /// Whether a part declares the shape of a value that has another one now.
    fn is_reshaped(&self, part: &Field<'_>) -> bool {
        let name = fields(part.content).ok().and_then(|info| bytes_of(&info, field::INFO_NAME));
        part.number == field::GRAPH_VALUE_INFO && name.is_some_and(|name| self.reshaped.contains(&name))
    }

    /// `ValueInfoProto` of the windows.
    fn input_info(&self) -> Vec<u8> {
        let [_, sides @ ..] = self.stem.shape(1);
        let mut shape = Vec::new();
        put_bytes(&mut shape, field::SHAPE_DIMENSION, self.batch);
        for side in sides {
            let mut dimension = Vec::new();
            put_value(&mut dimension, field::DIMENSION_VALUE, side as u64);
            put_bytes(&mut shape, field::SHAPE_DIMENSION, &dimension);
        }
        let (mut tensor, mut kind, mut info) = (Vec::new(), Vec::new(), Vec::new());
        put_value(&mut tensor, field::TENSOR_ELEMENT, UINT8);
        put_bytes(&mut tensor, field::TENSOR_SHAPE, &shape);
        put_bytes(&mut kind, field::TYPE_TENSOR, &tensor);
        put_bytes(&mut info, field::INFO_NAME, self.stem.input.name.as_bytes());
        put_bytes(&mut info, field::INFO_TYPE, &kind);
        info
    }

    /// `TensorProto` of the weights, `[channels, WINDOW, 1, 1]`, instead of `tensor`.
    fn weights(&self, tensor: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; self.channels * WINDOW];
        for (from, to) in self.bytes.chunks_exact(SIDE * ROW).zip(bytes.chunks_exact_mut(WINDOW)) {
            // [3, SIDE, SIDE] becomes [SIDE, SIDE, 3].
            for (n, weight) in from.iter().enumerate() {
                to[n % (SIDE * SIDE) * 3 + n / (SIDE * SIDE)] = *weight;
            }
        }
        let mut out = Vec::new();
        for side in [self.channels, WINDOW, 1, 1] {
            put_value(&mut out, field::TENSOR_DIMENSIONS, side as u64);
        }
        for part in fields(tensor).unwrap_or_default() {
            if ![field::TENSOR_DIMENSIONS, field::TENSOR_BYTES].contains(&part.number) {
                out.extend_from_slice(part.whole);
            }
        }
        put_bytes(&mut out, field::TENSOR_BYTES, &bytes);
        out
    }

    /// `NodeProto` of the convolution of 1×1.
    fn node(&self) -> Vec<u8> {
        let replaced = ["kernel_shape", "strides", "pads"];
        let mut out = Vec::new();
        for part in &self.convolution.parts {
            let attribute = fields(part.content).ok().filter(|_| part.number == field::NODE_ATTRIBUTE);
            let name = attribute.as_ref().and_then(|attribute| bytes_of(attribute, field::ATTRIBUTE_NAME));
            if !name.is_some_and(|name| replaced.iter().any(|replaced| replaced.as_bytes() == name)) {
                out.extend_from_slice(part.whole);
            }
        }
        for (name, values) in replaced.into_iter().zip([&[1, 1][..], &[1, 1], &[0, 0, 0, 0]]) {
            let mut attribute = Vec::new();
            put_bytes(&mut attribute, field::ATTRIBUTE_NAME, name.as_bytes());
            values.iter().for_each(|value| put_value(&mut attribute, field::ATTRIBUTE_INTS, *value));
            put_value(&mut attribute, field::ATTRIBUTE_TYPE, INTS);
            put_bytes(&mut out, field::NODE_ATTRIBUTE, &attribute);
        }
        out
    }
}

/// An input `[N, height, width, 3]` of bytes.
struct ImageInput<'a> {
    name: &'a [u8],
    /// `TensorShapeProto.Dimension`
    batch: &'a [u8],
    width: usize,
    height: usize,
}

/// Reads a `ValueInfoProto`; `None` for another input than an image.
fn image(info: &[u8]) -> Result<Option<ImageInput<'_>>, Damaged> {
    let info = fields(info)?;
    let name = bytes_of(&info, field::INFO_NAME).ok_or(Damaged)?;
    let kind = fields(bytes_of(&info, field::INFO_TYPE).unwrap_or_default())?;
    let tensor = fields(bytes_of(&kind, field::TYPE_TENSOR).unwrap_or_default())?;
    let element = varint_of(&tensor, field::TENSOR_ELEMENT);
    let shape = fields(bytes_of(&tensor, field::TENSOR_SHAPE).unwrap_or_default())?;
    let dimensions: Vec<&[u8]> =
        shape.iter().filter(|part| part.number == field::SHAPE_DIMENSION).map(|part| part.content).collect();
    let (Some(UINT8), &[batch, height, width, colours]) = (element, dimensions.as_slice()) else { return Ok(None) };
    let side = |dimension| declared(dimension).map(|side| usize::try_from(side).unwrap_or(0));
    let (width, height) = (side(width)?, side(height)?);
    let is_image = declared(colours)? == 3 && width.min(height) >= SIDE;
    Ok(is_image.then_some(ImageInput { name, batch, width, height }))
}

/// A dimension; -1 if it is free.
fn declared(dimension: &[u8]) -> Result<i64, Damaged> {
    let dimension = fields(dimension)?;
    let value = varint_of(&dimension, field::DIMENSION_VALUE);
    Ok(value.and_then(|value| i64::try_from(value).ok()).unwrap_or(-1))
}

/// Number of output channels and the bytes of the weights of a convolution of 3×3 pixels with three colours.
fn weights_of<'a>(tensor: &[Field<'a>]) -> Result<Option<(usize, &'a [u8])>, Damaged> {
    let element = varint_of(tensor, field::TENSOR_TYPE);
    let bytes = bytes_of(tensor, field::TENSOR_BYTES).unwrap_or_default();
    let dimensions = numbers(tensor, field::TENSOR_DIMENSIONS)?;
    let &[channels, 3, SIDE_U64, SIDE_U64] = dimensions.as_slice() else { return Ok(None) };
    let channels = usize::try_from(channels).map_err(|_| Damaged)?;
    let fits = element == Some(INT8) && channels.checked_mul(SIDE * ROW) == Some(bytes.len());
    Ok(fits.then_some((channels, bytes)))
}

const SIDE_U64: u64 = SIDE as u64;

/// The value of a tensor of one byte.
fn byte(tensor: &[Field<'_>]) -> Result<Option<u8>, Damaged> {
    let element = varint_of(tensor, field::TENSOR_TYPE);
    if element != Some(UINT8) {
        return Ok(None);
    }
    Ok(match bytes_of(tensor, field::TENSOR_BYTES) {
        Some(&[byte]) => Some(byte),
        Some(_) => None,
        None => match numbers(tensor, field::TENSOR_INTS)?.as_slice() {
            [number] => u8::try_from(*number).ok(),
            _ => None,
        },
    })
}

/// Strides and padding before the image, across and down, and the numbers of windows.
type Geometry = ([usize; 2], [usize; 2], [usize; 2]);

/// The geometry of a convolution over an image of `size`, width and height; `None` for another one than of 3×3 pixels.
fn geometry(convolution: &Node<'_>, size: [usize; 2]) -> Result<Option<Geometry>, Damaged> {
    let side = SIDE as u64;
    let group = match convolution.attribute("group")? {
        Some(group) => varint_of(&group, field::ATTRIBUTE_INT).unwrap_or_default(),
        None => 1,
    };
    let padding = convolution.attribute("auto_pad")?;
    let is_explicit =
        padding.is_none_or(|padding| bytes_of(&padding, field::ATTRIBUTE_TEXT).is_none_or(|text| text == b"NOTSET"));
    let is_plain = convolution.ints("kernel_shape", &[side, side])? == [side, side]
        && convolution.ints("dilations", &[1, 1])? == [1, 1]
        && group == 1
        && is_explicit;
    let small = |values: Vec<u64>| -> Option<Vec<usize>> {
        values.into_iter().map(|value| usize::try_from(value).ok().filter(|value| *value <= SIDE)).collect()
    };
    // Both begin with the vertical one.
    let strides = small(convolution.ints("strides", &[1, 1])?);
    let pads = small(convolution.ints("pads", &[0; 4])?);
    let (true, Some(&[down, across]), Some(&[top, left, bottom, right])) =
        (is_plain, strides.as_deref(), pads.as_deref())
    else {
        return Ok(None);
    };
    if down == 0 || across == 0 {
        return Ok(None);
    }
    let windows = |size: usize, before: usize, after: usize, stride: usize| (size + before + after - SIDE) / stride + 1;
    let [width, height] = size;
    Ok(Some(([across, down], [left, top], [windows(width, left, right, across), windows(height, top, bottom, down)])))
}

/// A repeated varint, packed or not.
fn numbers(message: &[Field<'_>], number: u64) -> Result<Vec<u64>, Damaged> {
    let mut found = Vec::new();
    for part in message.iter().filter(|part| part.number == number) {
        found.extend(part.value);
        let mut packed = part.content;
        while !packed.is_empty() {
            found.push(read_varint(&mut packed)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundled() -> Vec<u8> {
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/models/everyday.onnx")).unwrap()
    }

    #[test]
    fn the_first_convolution_of_the_bundled_model_is_found() {
        let file = bundled();
        let (stem, rewritten) = rewrite(&file).unwrap().unwrap();
        assert_eq!(stem.input().to_string(), "image is u8 [-1, 288, 512, 3]");
        assert_eq!((stem.shape(2), stem.strides, stem.before), ([2, 144, 256, WINDOW], [2, 2], [0, 0]));
        // Nothing but the weights, the input and the attributes of a node differs.
        assert!(rewritten.len().abs_diff(file.len()) < 200, "{} and {} bytes", rewritten.len(), file.len());
        assert_eq!(rewrite(&rewritten).unwrap().map(|(stem, _)| stem), None, "its input is no longer an image");
    }

    #[test]
    fn another_graph_is_kept_and_a_damaged_file_is_an_error() {
        let file = bundled();
        let at = file.windows(9).position(|window| window == b"Transpose").unwrap();
        let mut other = file.clone();
        other[at..at + 9].copy_from_slice(b"Transport");
        assert_eq!(rewrite(&other).unwrap(), None);
        assert_eq!(rewrite(&file[..file.len() / 2]).unwrap_err(), StemProblem::Damaged(Damaged));
    }
}
