//! Rewrites an ONNX file so that it has other outputs, and only the nodes and constants that these need.
//!
//! ONNX Runtime runs all nodes of a graph, whichever outputs are requested. The messages are those of onnx/onnx.proto, IR version 9.

use std::collections::HashSet;

use crate::segment::wire::{Damaged, Field, bytes_of, fields, put_bytes, put_varint};

/// Why a file cannot be rewritten.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PruneError {
    #[error(transparent)]
    Damaged(#[from] Damaged),
    #[error("it has no value {0}")]
    Missing(String),
    /// The graphs in a node may use any value.
    #[error("one of its nodes has a graph")]
    NestedGraph,
}

/// Numbers of the fields that are read.
mod field {
    pub const MODEL_GRAPH: u64 = 7;
    pub const MODEL_METADATA: u64 = 14;
    pub const GRAPH_NODE: u64 = 1;
    pub const GRAPH_INITIALIZER: u64 = 5;
    pub const GRAPH_OUTPUT: u64 = 12;
    pub const GRAPH_VALUE_INFO: u64 = 13;
    pub const NODE_INPUT: u64 = 1;
    pub const NODE_OUTPUT: u64 = 2;
    pub const NODE_ATTRIBUTE: u64 = 5;
    pub const ATTRIBUTE_GRAPH: u64 = 6;
    pub const ATTRIBUTE_GRAPHS: u64 = 11;
    pub const TENSOR_NAME: u64 = 8;
    /// `ValueInfoProto`, and the key of `StringStringEntryProto`.
    pub const NAME: u64 = 1;
    /// `ValueInfoProto`, and the value of `StringStringEntryProto`.
    pub const CONTENT: u64 = 2;
}

/// The metadata `key` of a file.
pub fn metadata(file: &[u8], key: &str) -> Option<String> {
    let model = fields(file).ok()?;
    let entries = model.iter().filter(|entry| entry.number == field::MODEL_METADATA);
    let mut entries = entries.filter_map(|entry| fields(entry.content).ok());
    let entry = entries.find(|entry| bytes_of(entry, field::NAME) == Some(key.as_bytes()))?;
    String::from_utf8(bytes_of(&entry, field::CONTENT)?.to_vec()).ok()
}

/// The names of the outputs of a file.
///
/// # Errors
/// The file is not a complete model.
pub fn outputs(file: &[u8]) -> Result<Vec<String>, PruneError> {
    let graph = fields(graph(&fields(file)?)?)?;
    let outputs = graph.iter().filter(|output| output.number == field::GRAPH_OUTPUT);
    outputs
        .map(|output| {
            let output = fields(output.content)?;
            let name = bytes_of(&output, field::NAME).ok_or(Damaged)?;
            String::from_utf8(name.to_vec()).map_err(|_| Damaged.into())
        })
        .collect()
}

/// The file with the values `wanted`, which are tensors of a type (`TensorProto.DataType`), as its outputs.
///
/// # Errors
/// The file is not a complete model, or has no such value.
pub fn prune(file: &[u8], wanted: &[(&str, i32)]) -> Result<Vec<u8>, PruneError> {
    let model = fields(file)?;
    let pruned = pruned_graph(graph(&model)?, wanted)?;
    let mut out = Vec::with_capacity(file.len());
    for part in model {
        match part.number {
            field::MODEL_GRAPH => put_bytes(&mut out, field::MODEL_GRAPH, &pruned),
            _ => out.extend_from_slice(part.whole),
        }
    }
    Ok(out)
}

/// The content of the graph.
fn graph<'a>(model: &[Field<'a>]) -> Result<&'a [u8], PruneError> {
    Ok(bytes_of(model, field::MODEL_GRAPH).ok_or(Damaged)?)
}

fn pruned_graph(graph: &[u8], wanted: &[(&str, i32)]) -> Result<Vec<u8>, PruneError> {
    let graph = fields(graph)?;
    let mut needed: HashSet<&[u8]> = wanted.iter().map(|(name, _)| name.as_bytes()).collect();
    let mut made: HashSet<&[u8]> = HashSet::new();
    let mut keeps = vec![true; graph.len()];
    // A node comes after the nodes that make its inputs.
    for (keep, node) in keeps.iter_mut().zip(&graph).rev().filter(|(_, part)| part.number == field::GRAPH_NODE) {
        let node = fields(node.content)?;
        let values = |number| node.iter().filter(move |part| part.number == number).map(|part| part.content);
        *keep = values(field::NODE_OUTPUT).any(|name| needed.contains(name));
        if !*keep {
            continue;
        }
        for attribute in values(field::NODE_ATTRIBUTE) {
            let is_graph = |part: &Field<'_>| [field::ATTRIBUTE_GRAPH, field::ATTRIBUTE_GRAPHS].contains(&part.number);
            if fields(attribute)?.iter().any(is_graph) {
                return Err(PruneError::NestedGraph);
            }
        }
        needed.extend(values(field::NODE_INPUT));
        made.extend(values(field::NODE_OUTPUT));
    }
    if let Some((name, _)) = wanted.iter().find(|(name, _)| !made.contains(name.as_bytes())) {
        return Err(PruneError::Missing((*name).to_owned()));
    }
    let mut out = Vec::new();
    for (part, keep) in graph.iter().zip(keeps) {
        let keep = match part.number {
            field::GRAPH_NODE => keep,
            field::GRAPH_INITIALIZER => {
                bytes_of(&fields(part.content)?, field::TENSOR_NAME).is_none_or(|name| needed.contains(name))
            }
            // The types of values that no node makes any more.
            field::GRAPH_VALUE_INFO => bytes_of(&fields(part.content)?, field::NAME)
                .is_some_and(|name| made.contains(name) && !is_wanted(name, wanted)),
            field::GRAPH_OUTPUT => false,
            _ => true,
        };
        if keep {
            out.extend_from_slice(part.whole);
        }
    }
    for &(name, element) in wanted {
        put_bytes(&mut out, field::GRAPH_OUTPUT, &value_info(name, element));
    }
    Ok(out)
}

fn is_wanted(name: &[u8], wanted: &[(&str, i32)]) -> bool {
    wanted.iter().any(|(wanted, _)| wanted.as_bytes() == name)
}

/// A `ValueInfoProto` of a tensor. Its shape is that which ONNX Runtime infers.
fn value_info(name: &str, element: i32) -> Vec<u8> {
    // TypeProto.Tensor.elem_type, TypeProto.tensor_type
    let mut tensor = vec![1 << 3];
    put_varint(&mut tensor, element.unsigned_abs().into());
    let mut kind = Vec::new();
    put_bytes(&mut kind, 1, &tensor);
    let mut info = Vec::new();
    put_bytes(&mut info, field::NAME, name.as_bytes());
    put_bytes(&mut info, field::CONTENT, &kind);
    info
}
