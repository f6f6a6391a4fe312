//! The nodes of an ONNX file and the names of its weight files, read without its weights.
//!
//! The file is walked field by field (onnx/onnx.proto, IR version 9; the wire format of protocol buffers), and tensors are
//! skipped by their lengths: a model of gigabytes costs some reads for each node, and a file that is none ends at the first
//! length or key that cannot be. Decoders like `prost` want the whole message in memory and take any length of a name.

use std::fmt;
use std::io::{BufReader, Read, Seek};

/// What a model computes, as far as this service looks at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Structure {
    /// The nodes of the main graph, in the order of the file.
    pub nodes: Vec<Operation>,
    /// Names of weight files, relative to the model's folder, each once.
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

/// Why a file is not an ONNX model.
#[derive(Debug, PartialEq, Eq)]
pub struct ModelFileDamage {
    /// Byte of the file.
    at: u64,
    problem: String,
}

impl fmt::Display for ModelFileDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "byte {}: {}", self.at, self.problem)
    }
}

/// Operators that change shape, type or size of what they get, and not which values are large.
const PASSING: [&str; 13] = [
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
    /// The operator that makes the values of `output`, without those behind it that only reorder, resize or convert.
    pub fn last_operator(&self, output: &str) -> Option<&str> {
        let mut name = output;
        // Each step leads to an earlier node in a graph that is none in a circle.
        for _ in 0..=self.nodes.len() {
            let node = self.nodes.iter().find(|node| node.outputs.iter().any(|output| output == name))?;
            if !PASSING.contains(&node.op.as_str()) {
                return Some(&node.op);
            }
            name = node.inputs.first()?;
        }
        None
    }

    /// The sigmoid that `output` ends in, by its operator's name.
    pub fn final_sigmoid(&self, output: &str) -> Option<&str> {
        self.last_operator(output).filter(|op| SIGMOIDS.contains(op))
    }
}

/// Bytes of a name, at most.
const LONGEST_NAME: u64 = 64 << 10;

/// Names that are kept, at most; each costs memory, and the largest networks have some ten thousand.
const MOST_NAMES: usize = 1 << 20;

/// Graphs inside of nodes inside of graphs, at most.
const DEEPEST: usize = 16;

/// Reads the structure of the `length` bytes of `source`.
///
/// # Errors
/// The first byte that an ONNX model cannot have there, or what it lacks.
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
                return Err(walk.damage(format!("field {field} of a model has another type")));
            }
            (_, FieldValue::Part(end)) => walk.skip_to(end)?,
            (_, FieldValue::Number) => {}
        }
    }
    if !has_graph {
        return Err(walk.damage("the file ends without a graph"));
    }
    if walk.found.nodes.is_empty() {
        return Err(walk.damage("its graph has no nodes"));
    }
    Ok(walk.found)
}

/// A field's value.
enum FieldValue {
    /// A number, which was read.
    Number,
    /// Bytes up to this one of the file, which have not been read.
    Part(u64),
}

struct FieldWalk<R> {
    source: BufReader<R>,
    at: u64,
    names: usize,
    found: Structure,
}

impl<R: Read + Seek> FieldWalk<R> {
    fn damage(&self, problem: impl Into<String>) -> ModelFileDamage {
        ModelFileDamage { at: self.at, problem: problem.into() }
    }

    /// A variable-length number that ends before `end`.
    fn number(&mut self, end: u64) -> Result<u64, ModelFileDamage> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            if self.at >= end {
                return Err(self.damage("a number is cut off"));
            }
            let mut byte = [0];
            self.source.read_exact(&mut byte).map_err(|error| self.damage(error.to_string()))?;
            self.at += 1;
            number |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(number);
            }
        }
        Err(self.damage("a number is too long"))
    }

    fn skip_to(&mut self, end: u64) -> Result<(), ModelFileDamage> {
        let bytes = i64::try_from(end - self.at).unwrap_or(i64::MAX);
        self.source.seek_relative(bytes).map_err(|error| self.damage(error.to_string()))?;
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
        let wrong = |problem: String| ModelFileDamage { at: start, problem };
        if field == 0 || field >= 1 << 29 {
            return Err(wrong(format!("{field} is not a field number")));
        }
        let length = match wire {
            0 => {
                self.number(end)?;
                return Ok(Some((field, FieldValue::Number)));
            }
            1 => 8,
            2 => self.number(end)?,
            5 => 4,
            other => return Err(wrong(format!("{other} is not a field type"))),
        };
        if length > end - self.at {
            return Err(wrong(format!("field {field} has {length} bytes, and only {} follow", end - self.at)));
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
        if length > LONGEST_NAME || self.names > MOST_NAMES {
            return Err(self.damage(format!("a name of {length} bytes, or more names than a network has")));
        }
        let mut bytes = vec![0; length as usize];
        self.source.read_exact(&mut bytes).map_err(|error| self.damage(error.to_string()))?;
        self.at = end;
        String::from_utf8(bytes).map_err(|_| self.damage("a name is not text"))
    }

    /// GraphProto. `depth` counts the graphs around it; only the nodes of the outermost are kept.
    fn graph(&mut self, end: u64, depth: usize) -> Result<(), ModelFileDamage> {
        if depth > DEEPEST {
            return Err(self.damage("its graphs are nested too deeply"));
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
                    return Err(self.damage(format!("field {field} of a graph has another type")));
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
                    return Err(self.damage(format!("field {field} of a node has another type")));
                }
                (_, FieldValue::Part(end)) => self.skip_to(end)?,
                _ => {}
            }
        }
        Ok(node)
    }

    /// AttributeProto: tensors and graphs in it may have weights.
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

    /// TensorProto: keeps the name of the file that has its data.
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
