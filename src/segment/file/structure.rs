//! Reads the nodes of an ONNX file and the names of its weight files, without its weights.
//!
//! The file is read field by field (onnx/onnx.proto, IR version 9; the wire format of protocol buffers), and tensors are
//! skipped by their lengths: a model of gigabytes costs some reads for each node, and another file fails at its first
//! invalid length or key. Decoders such as `prost` need the whole message in memory and accept names of any length.

use std::io::{BufReader, Read, Seek};

/// The nodes of a model and the names of its weight files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// The nodes of the main graph, in the order of the file.
    pub nodes: Vec<Operation>,
    /// Names of weight files, relative to the folder of the model, without duplicates.
    pub external: Vec<String>,
}

/// A node of the graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// `Conv`, `Sigmoid`, …
    pub op: String,
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
}

/// Why a file is not a complete ONNX model, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("byte {at}: {problem}")]
pub struct ModelFileDamage {
    /// Offset in the file in bytes.
    pub at: u64,
    pub problem: DamageProblem,
}

/// The damage of a part of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DamageProblem {
    /// The message of the operating system.
    #[error("{0}")]
    Read(String),
    #[error("a number is cut off")]
    NumberCutOff,
    #[error("a number is too long")]
    NumberTooLong,
    #[error("{0} is not a field number")]
    FieldNumber(u64),
    #[error("{0} is not a field type")]
    FieldType(u64),
    /// `message` is `model`, `graph` or `node`.
    #[error("field {field} of a {message} has another type")]
    UnexpectedType { field: u64, message: &'static str },
    #[error("field {field} has {length} bytes, and only {left} follow")]
    Length { field: u64, length: u64, left: u64 },
    #[error("a name of {0} bytes, or more names than a network has")]
    Name(u64),
    #[error("a name is not UTF-8")]
    NameNotText,
    #[error("its graphs are nested too deeply")]
    TooDeep,
    #[error("the file ends without a graph")]
    NoGraph,
    #[error("its graph has no nodes")]
    NoNodes,
}

/// Operators that change shape, type or size of their input, and not which values are large.
const PASS_THROUGH: [&str; 13] = [
    "Identity",
    "Transpose",
    "Reshape",
    "Squeeze",
    "Unsqueeze",
    "Flatten",
    "Cast",
    "Resize",
    "Upsample",
    "QuantizeLinear",
    "DequantizeLinear",
    "Slice",
    "Expand",
];

/// Operators whose results are probabilities of one class.
const SIGMOIDS: [&str; 3] = ["Sigmoid", "HardSigmoid", "QLinearSigmoid"];

impl Structure {
    /// The operator that computes the values of `output`; operators after it that only reorder, resize or convert are skipped.
    pub fn last_operator(&self, output: &str) -> Option<&str> {
        let mut name = output;
        // Each step leads to an earlier node, unless the graph has a cycle.
        for _ in 0..=self.nodes.len() {
            let node = self.nodes.iter().find(|node| node.outputs.iter().any(|output| output == name))?;
            if !PASS_THROUGH.contains(&node.op.as_str()) {
                return Some(&node.op);
            }
            name = node.inputs.first()?;
        }
        None
    }

    /// The name of the sigmoid operator that `output` ends in.
    pub fn final_sigmoid(&self, output: &str) -> Option<&str> {
        self.last_operator(output).filter(|op| SIGMOIDS.contains(op))
    }
}

/// Longest name in bytes.
const MAX_NAME_BYTES: u64 = 64 << 10;

/// Largest number of names, which limits the memory for them. The largest networks have about ten thousand.
const MAX_NAMES: usize = 1 << 20;

/// Largest depth of graphs in nodes of graphs.
const MAX_DEPTH: usize = 16;

/// Reads the structure of the `length` bytes of `source`.
///
/// # Errors
/// The offset of the first invalid byte, or the part that the model lacks.
pub fn read<R: Read + Seek>(source: R, length: u64) -> Result<Structure, ModelFileDamage> {
    let mut walk = FieldWalk { source: BufReader::new(source), at: 0, names: 0, found: Structure::default() };
    let mut has_graph = false;
    while let Some((field, value)) = walk.field(length)? {
        match (field, value) {
            // ir_version, model_version
            (1 | 5, FieldValue::Number) => {}
            (7, FieldValue::Part(end)) => {
                walk.graph(end, 0)?;
                has_graph = true;
            }
            (1 | 5 | 7, _) | (2 | 3 | 4 | 6 | 8 | 14 | 20 | 25, FieldValue::Number) => {
                return Err(walk.damage(DamageProblem::UnexpectedType { field, message: "model" }));
            }
            (_, FieldValue::Part(end)) => walk.skip_to(end)?,
            (_, FieldValue::Number) => {}
        }
    }
    if !has_graph {
        return Err(walk.damage(DamageProblem::NoGraph));
    }
    if walk.found.nodes.is_empty() {
        return Err(walk.damage(DamageProblem::NoNodes));
    }
    Ok(walk.found)
}

/// The value of a field.
enum FieldValue {
    /// A number. It was read.
    Number,
    /// Bytes that end before this offset. They have not been read.
    Part(u64),
}

struct FieldWalk<R> {
    source: BufReader<R>,
    at: u64,
    names: usize,
    found: Structure,
}

impl<R: Read + Seek> FieldWalk<R> {
    fn damage(&self, problem: DamageProblem) -> ModelFileDamage {
        ModelFileDamage { at: self.at, problem }
    }

    /// A variable-length number that ends before `end`.
    fn number(&mut self, end: u64) -> Result<u64, ModelFileDamage> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            if self.at >= end {
                return Err(self.damage(DamageProblem::NumberCutOff));
            }
            let mut byte = [0];
            self.source.read_exact(&mut byte).map_err(|error| self.damage(DamageProblem::Read(error.to_string())))?;
            self.at += 1;
            number |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(number);
            }
        }
        Err(self.damage(DamageProblem::NumberTooLong))
    }

    fn skip_to(&mut self, end: u64) -> Result<(), ModelFileDamage> {
        let bytes = i64::try_from(end - self.at).unwrap_or(i64::MAX);
        self.source.seek_relative(bytes).map_err(|error| self.damage(DamageProblem::Read(error.to_string())))?;
        self.at = end;
        Ok(())
    }

    /// The next field before `end`; `None` at the end.
    fn field(&mut self, end: u64) -> Result<Option<(u64, FieldValue)>, ModelFileDamage> {
        if self.at == end {
            return Ok(None);
        }
        let start = self.at;
        let key = self.number(end)?;
        let (field, wire) = (key >> 3, key & 7);
        let damage = |problem| ModelFileDamage { at: start, problem };
        if field == 0 || field >= 1 << 29 {
            return Err(damage(DamageProblem::FieldNumber(field)));
        }
        let length = match wire {
            0 => {
                self.number(end)?;
                return Ok(Some((field, FieldValue::Number)));
            }
            1 => 8,
            2 => self.number(end)?,
            5 => 4,
            other => return Err(damage(DamageProblem::FieldType(other))),
        };
        if length > end - self.at {
            return Err(damage(DamageProblem::Length { field, length, left: end - self.at }));
        }
        let part = self.at + length;
        if wire == 2 {
            return Ok(Some((field, FieldValue::Part(part))));
        }
        self.skip_to(part)?;
        Ok(Some((field, FieldValue::Number)))
    }

    fn name(&mut self, end: u64) -> Result<String, ModelFileDamage> {
        let length = end - self.at;
        self.names += 1;
        if length > MAX_NAME_BYTES || self.names > MAX_NAMES {
            return Err(self.damage(DamageProblem::Name(length)));
        }
        let mut bytes = vec![0; length as usize];
        self.source.read_exact(&mut bytes).map_err(|error| self.damage(DamageProblem::Read(error.to_string())))?;
        self.at = end;
        String::from_utf8(bytes).map_err(|_| self.damage(DamageProblem::NameNotText))
    }

    /// GraphProto. `depth` counts the graphs around it; only the nodes of the outermost graph are kept.
    fn graph(&mut self, end: u64, depth: usize) -> Result<(), ModelFileDamage> {
        if depth > MAX_DEPTH {
            return Err(self.damage(DamageProblem::TooDeep));
        }
        while let Some((field, value)) = self.field(end)? {
            match (field, value) {
                (1, FieldValue::Part(end)) => {
                    let node = self.node(end, depth)?;
                    if depth == 0 {
                        self.found.nodes.push(node);
                    }
                }
                // initializer
                (5, FieldValue::Part(end)) => self.tensor(end)?,
                // sparse_initializer: values and indices are tensors
                (15, FieldValue::Part(end)) => {
                    while let Some((field, value)) = self.field(end)? {
                        match (field, value) {
                            (1 | 2, FieldValue::Part(end)) => self.tensor(end)?,
                            (_, FieldValue::Part(end)) => self.skip_to(end)?,
                            _ => {}
                        }
                    }
                }
                (1 | 2 | 5 | 10..=15, FieldValue::Number) => {
                    return Err(self.damage(DamageProblem::UnexpectedType { field, message: "graph" }));
                }
                (_, FieldValue::Part(end)) => self.skip_to(end)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// NodeProto
    fn node(&mut self, end: u64, depth: usize) -> Result<Operation, ModelFileDamage> {
        let mut node = Operation::default();
        while let Some((field, value)) = self.field(end)? {
            match (field, value) {
                (1, FieldValue::Part(end)) => node.inputs.push(self.name(end)?),
                (2, FieldValue::Part(end)) => node.outputs.push(self.name(end)?),
                (4, FieldValue::Part(end)) => node.op = self.name(end)?,
                (5, FieldValue::Part(end)) => self.attribute(end, depth)?,
                (1..=7, FieldValue::Number) => {
                    return Err(self.damage(DamageProblem::UnexpectedType { field, message: "node" }));
                }
                (_, FieldValue::Part(end)) => self.skip_to(end)?,
                _ => {}
            }
        }
        Ok(node)
    }

    /// AttributeProto: its tensors and graphs may have weights.
    fn attribute(&mut self, end: u64, depth: usize) -> Result<(), ModelFileDamage> {
        while let Some((field, value)) = self.field(end)? {
            match (field, value) {
                (5 | 10, FieldValue::Part(end)) => self.tensor(end)?,
                (6 | 11, FieldValue::Part(end)) => self.graph(end, depth + 1)?,
                (_, FieldValue::Part(end)) => self.skip_to(end)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// TensorProto: keeps the name of the file with its data.
    fn tensor(&mut self, end: u64) -> Result<(), ModelFileDamage> {
        while let Some((field, value)) = self.field(end)? {
            match (field, value) {
                (13, FieldValue::Part(end)) => {
                    let (mut key, mut text) = (String::new(), String::new());
                    while let Some((field, value)) = self.field(end)? {
                        match (field, value) {
                            (1, FieldValue::Part(end)) => key = self.name(end)?,
                            (2, FieldValue::Part(end)) => text = self.name(end)?,
                            (_, FieldValue::Part(end)) => self.skip_to(end)?,
                            _ => {}
                        }
                    }
                    if key == "location" && !self.found.external.contains(&text) {
                        self.found.external.push(text);
                    }
                }
                (_, FieldValue::Part(end)) => self.skip_to(end)?,
                _ => {}
            }
        }
        Ok(())
    }
}
