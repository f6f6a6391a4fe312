//! Reads the network of a model file that the trainer exported, so that training can continue from it.
//!
//! An export folds batch norms into the convolutions before them, and int8 rounds the weights. The network is read as it is:
//! the weights of a convolution are divided by a factor for each output channel, which becomes the factor of its batch norm, so
//! that weights have the size of freshly initialised ones ([He et al., 2015]) and learning rates have their usual effect. The
//! batch norms have the mean 0 and the variance 1; [`crate::net::statistics::estimate`] replaces these by statistics of images
//! without a change of the results.
//!
//! [He et al., 2015]: https://arxiv.org/abs/1502.01852

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use maskcast::frame::Label;
use maskcast::segment::golden::{Golden, GoldenError};
use prost::Message;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tch::{Device, Kind, Tensor};

use super::fold::uses;
use super::head::single_limit;
use super::ops::{CONFIDENCE, Rejection};
use super::proto::{GraphProto, ModelProto, NodeProto, TensorDataType, TensorProto};
use super::regions::RegionRejection;
use super::{ExportError, GOLDEN, loaded, verify};
use crate::encoders::{Encoder, Flavour};
use crate::net::decoder::{Decoder, DecoderKind, NetError};
use crate::net::{Conv, Net, Normalise, Op, Order, Padding, Params};
use crate::size::Size;
use crate::weights::{ModelDescription, ModelFile};

/// Smallest share of the golden frame's pixels (0 to 1) that must have the class of the golden frame.
const AGREEMENT: f64 = 0.95;

/// Why the network of a model file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: std::io::Error },
    #[error(
        "{}: not a model that maskcast-train exported; training continues only from such a file, or from best.safetensors of \
         a run",
        .0.display()
    )]
    Foreign(PathBuf),
    #[error("{}: the metadata maskcast.train does not name the {what} of the network: {found:?}", path.display())]
    Unnamed { path: PathBuf, what: &'static str, found: String },
    #[error("{}: {error}", path.display())]
    Net { path: PathBuf, error: NetError },
    #[error(
        "{}: the file has no constants for {name}, or of another shape: it is not a U-Net with the encoder {encoder}, or an \
         earlier version exported it; pass best.safetensors of its run",
        path.display()
    )]
    Constant { path: PathBuf, name: String, encoder: Encoder },
    #[error("{}: the padding of its convolutions is that of no known framework; pass best.safetensors of its run", .0.display())]
    Padding(PathBuf),
    #[error("{}: the golden frame: {error}", path.display())]
    Golden { path: PathBuf, error: GoldenError },
    #[error(
        "{}: the network that was read gives only {:.1} % of the pixels of the golden frame their class; pass \
         best.safetensors of its run",
        path.display(), 100.0 * agreement
    )]
    Different { path: PathBuf, agreement: f64 },
    #[error(transparent)]
    Export(#[from] ExportError),
}

/// The steps after the network, and the outputs, of a model file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LastSteps {
    /// Whether the file has the output `confidence`.
    pub confidence: bool,
    /// Whether the class is decided at half the size.
    pub argmax_stride2: bool,
    pub rejection: Option<Rejection>,
    pub regions: Option<RegionRejection>,
}

impl LastSteps {
    /// The steps for other classes, found by their names (ignoring case): classes that the model did not have have no limits, and
    /// the rejection to a class that does not exist is left out.
    pub fn for_classes(&self, old: &[Label], new: &[Label]) -> Self {
        let position =
            |labels: &[Label], name: &str| labels.iter().position(|label| label.name.eq_ignore_ascii_case(name));
        let new_class = |class: usize| old.get(class).and_then(|label| position(new, &label.name));
        let limit_of = |limits: &[f32], label: &Label| position(old, &label.name).map_or(0.0, |class| limits[class]);
        let rejection = self
            .rejection
            .and_then(|Rejection { class, below }| new_class(class).map(|class| Rejection { class, below }));
        let regions = self.regions.as_ref().and_then(|regions| {
            let limits = new.iter().map(|label| limit_of(&regions.limits, label)).collect();
            new_class(regions.class).map(|class| RegionRejection { class, limits })
        });
        LastSteps { rejection, regions, ..self.clone() }
    }
}

/// What was read from a model file.
#[derive(Debug)]
pub struct StoredModel {
    pub file: ModelFile,
    pub steps: LastSteps,
    /// SHA-256 of the file in hexadecimal.
    pub sha256: String,
    /// Share of the golden frame's pixels (0 to 1) that have the class of the golden frame, without rejected regions.
    pub agreement: f64,
}

/// Whether the file begins like an ONNX model.
pub fn is_onnx(path: &Path) -> bool {
    let mut head = [0; 2];
    let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut head));
    // The first field is the version of the format.
    read.is_ok() && head[0] == 8 && (1..=20).contains(&head[1])
}

impl StoredModel {
    /// Reads the file at `path` and compares the network with the golden frame in it.
    ///
    /// # Errors
    /// The file is not an export of the trainer, or its network cannot be read.
    pub fn read(path: &Path) -> Result<Self, StoredError> {
        let bytes = std::fs::read(path).map_err(|error| StoredError::Read { path: path.into(), error })?;
        let model = ModelProto::decode(bytes.as_slice()).ok().filter(|model| model.to_bytes() == bytes);
        let (Some(golden), Some(train), Some(graph)) = (
            model.as_ref().and_then(|model| model.get(GOLDEN)),
            model.as_ref().and_then(|model| model.get("maskcast.train")),
            model.as_ref().and_then(|model| model.graph.as_ref()),
        ) else {
            return Err(StoredError::Foreign(path.into()));
        };
        let golden = Golden::parse(golden).map_err(|error| StoredError::Golden { path: path.into(), error })?;
        let train: serde_json::Value = serde_json::from_str(train).unwrap_or_default();
        let labels = loaded(path)?.contract.labels.to_vec();
        let (encoder, decoder) = named_network(path, &train)?;
        let reader = GraphReader { path, graph, encoder };
        let (flavour, net) = reader.network(&decoder, labels.len() as i64)?;
        let params = reader.params(&net)?;
        let description = ModelDescription {
            encoder,
            flavour,
            decoder,
            normalise: net.normalise,
            labels: labels.clone(),
            input: Size::new(golden.width, golden.height),
            train,
        };
        let steps = reader.steps(&labels);
        let agreement = agreement(&net, &params, &golden, &steps);
        if agreement < AGREEMENT {
            return Err(StoredError::Different { path: path.into(), agreement });
        }
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(StoredModel { file: ModelFile { description, params }, steps, sha256, agreement })
    }
}

/// The encoder and the decoder (`dense 96-48-32-16`) in the metadata.
fn named_network(path: &Path, train: &serde_json::Value) -> Result<(Encoder, Decoder), StoredError> {
    let text = |what: &'static str| train[what].as_str().unwrap_or_default().to_owned();
    let unnamed = |what| StoredError::Unnamed { path: path.into(), what, found: text(what) };
    let encoder = Encoder::from_str(&text("encoder"), true).map_err(|_| unnamed("encoder"))?;
    let decoder = text("decoder").split_once(' ').and_then(|(kind, widths)| {
        let kind = DecoderKind::from_str(kind, true).ok()?;
        Some(Decoder { kind, widths: widths.split('-').map(|width| width.parse().ok()).collect::<Option<_>>()? })
    });
    Ok((encoder, decoder.ok_or_else(|| unnamed("decoder"))?))
}

/// Share of the golden frame's pixels to which the network gives their class. Pixels of rejected regions, which the network does
/// not decide, are left out.
fn agreement(net: &Net, params: &Params, golden: &Golden, steps: &LastSteps) -> f64 {
    let image = Tensor::from_slice(&golden.rgb).reshape([1, golden.height as i64, golden.width as i64, 3]);
    let mut logits = verify::logits(net, params, &image);
    if let Some(Rejection { class, below }) = steps.rejection {
        let mut own = logits.narrow(1, class as i64, 1);
        let _ = own.clamp_min_(f64::from(below));
    }
    logits = logits.argmax(1, false).to_kind(Kind::Uint8);
    let classes = verify::image_bytes(&logits);
    let rejected = steps.regions.as_ref().map(|regions| regions.class);
    let decided = |&(_, &expected): &(&u8, &u8)| Some(usize::from(expected)) != rejected;
    let pixels: Vec<_> = classes.iter().zip(&golden.mask).filter(decided).collect();
    pixels.iter().filter(|(found, expected)| found == expected).count() as f64 / pixels.len().max(1) as f64
}

/// Finds the parts of a graph that [`super::float`] or [`super::int8`] wrote.
struct GraphReader<'a> {
    path: &'a Path,
    graph: &'a GraphProto,
    encoder: Encoder,
}

impl GraphReader<'_> {
    /// The network whose convolutions have the padding of the file, with its normalisation.
    fn network(&self, decoder: &Decoder, classes: i64) -> Result<(Flavour, Net), StoredError> {
        let normalise = self.normalise()?;
        let mut found: Option<(Flavour, Net)> = None;
        for &flavour in Flavour::value_variants() {
            let net = self.encoder.flavoured(flavour).unet(decoder, classes);
            let net = net.map_err(|error| StoredError::Net { path: self.path.into(), error })?;
            if !self.has_padding_of(&net) {
                continue;
            }
            // Of flavours with the same padding, the one with the normalisation of the file.
            if found.is_none() || flavour.normalise() == normalise {
                found = Some((flavour, Net { normalise, ..net }));
            }
        }
        found.ok_or_else(|| StoredError::Padding(self.path.into()))
    }

    /// Whether the convolutions in the file have the padding of those of the network.
    fn has_padding_of(&self, net: &Net) -> bool {
        net.nodes.iter().all(|node| {
            let Op::Conv(Conv { padding: Padding { begin, end }, .. }) = node.op else { return true };
            let stored = self.graph.node.iter().find(|stored| stored.op_type == "Conv" && stored.name == node.name);
            let pads = stored.and_then(|stored| stored.attribute.iter().find(|attribute| attribute.name == "pads"));
            pads.is_none_or(|pads| pads.ints == [begin, begin, end, end])
        })
    }

    /// The normalisation of the image. In most int8 models for CPUs, it is part of the first convolution, whose input are the bytes
    /// of the image with a scale and a zero point.
    fn normalise(&self) -> Result<Normalise, StoredError> {
        if let (Some(mean), Some(std)) = (self.floats("image.mean"), self.floats("image.std")) {
            let order = if self.constant("image.order").is_some() { Order::Bgr } else { Order::Rgb };
            if let (Ok(mean), Ok(std)) = (mean.try_into(), std.try_into()) {
                return Ok(Normalise { order, mean, std });
            }
            return Err(self.missing("image.mean"));
        }
        let scale = self.floats("image.scale").and_then(|scale| scale.first().copied());
        let zero = self.constant("image.zero").and_then(|zero| raw(zero).first().copied());
        match (scale, zero) {
            (Some(scale), Some(zero)) if scale > 0.0 => {
                Ok(Normalise { order: Order::Rgb, mean: [f32::from(zero); 3], std: [1.0 / scale; 3] })
            }
            _ => Err(self.missing("image.scale")),
        }
    }

    /// The parameters of a network, with batch norms of mean 0 and variance 1.
    fn params(&self, net: &Net) -> Result<Params, StoredError> {
        let uses = uses(net);
        let mut params = Params::default();
        let full = |channels: i64, value: f64| Tensor::full([channels], value, (Kind::Float, Device::Cpu));
        // For each node, the factors and offsets of its channels, which the batch norm after it gets.
        let mut folded: Vec<Option<(Tensor, Tensor)>> = Vec::with_capacity(net.nodes.len());
        for (index, node) in net.nodes.iter().enumerate() {
            let mut rest = None;
            match node.op {
                Op::Conv(conv) => {
                    let weight = self.weight(&node.name, &conv.weight_shape())?;
                    let after = net.nodes.iter().find(|after| after.inputs.first() == Some(&index));
                    let is_normalised = after.is_some_and(|after| matches!(after.op, Op::BatchNorm { .. }));
                    if is_normalised && uses[index] == 1 {
                        let factor = channel_factors(&weight, &conv);
                        put(&mut params, &node.name, "weight", &weight / factor.reshape([-1, 1, 1, 1]));
                        if conv.bias {
                            put(&mut params, &node.name, "bias", full(conv.outputs, 0.0));
                        }
                        rest = Some((factor, self.bias(&node.name, conv.outputs)?));
                    } else {
                        put(&mut params, &node.name, "weight", weight);
                        if conv.bias {
                            put(&mut params, &node.name, "bias", self.bias(&node.name, conv.outputs)?);
                        }
                    }
                }
                Op::BatchNorm { channels, eps } => {
                    let (factor, offset) = match folded[node.inputs[0]].take() {
                        Some(folded) => folded,
                        // A batch norm that is not after a convolution is exported as a depthwise convolution.
                        None => {
                            let weight = self.weight(&node.name, &Conv::depthwise(channels, 1).weight_shape())?;
                            (weight.reshape([channels]), self.bias(&node.name, channels)?)
                        }
                    };
                    put(&mut params, &node.name, "weight", factor);
                    put(&mut params, &node.name, "bias", offset);
                    put(&mut params, &node.name, "running_mean", full(channels, 0.0));
                    put(&mut params, &node.name, "running_var", full(channels, 1.0 - eps));
                }
                _ => {}
            }
            folded.push(rest);
        }
        Ok(params)
    }

    /// The steps after the network.
    fn steps(&self, labels: &[Label]) -> LastSteps {
        let classes = labels.len();
        let rejection = self.floats("rejection.limits").and_then(|limits| single_limit(&limits, classes));
        let limits = self.floats("regions.limits").filter(|limits| limits.len() >= classes);
        let class = self.constant("regions.rejected").and_then(|class| raw(class).first_chunk::<4>());
        let regions = limits.zip(class).map(|(limits, class)| RegionRejection {
            class: i32::from_le_bytes(*class) as usize,
            limits: limits[..classes].to_vec(),
        });
        LastSteps {
            confidence: self.graph.output.iter().any(|output| output.name == CONFIDENCE),
            argmax_stride2: self.made("mask.full", "Resize").is_some(),
            rejection: rejection.map(|(class, below)| Rejection { class, below }),
            regions: regions.filter(|regions| regions.class < classes),
        }
    }

    fn made(&self, value: &str, op: &str) -> Option<&NodeProto> {
        self.graph.node.iter().find(|node| node.op_type == op && node.output.iter().any(|output| output == value))
    }

    fn constant(&self, name: &str) -> Option<&TensorProto> {
        self.graph.initializer.iter().find(|constant| constant.name == name)
    }

    fn missing(&self, name: &str) -> StoredError {
        StoredError::Constant { path: self.path.into(), name: name.to_owned(), encoder: self.encoder }
    }

    fn floats(&self, name: &str) -> Option<Vec<f32>> {
        let constant = self.constant(name).filter(|constant| constant.element == TensorDataType::Float as i32)?;
        Some(raw(constant).as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect())
    }

    /// The weights of a convolution, as floats or as bytes with a scale for each output channel.
    fn weight(&self, node: &str, shape: &[i64; 4]) -> Result<Tensor, StoredError> {
        let name = format!("{node}.weight");
        let count = shape.iter().product::<i64>() as usize;
        if let Some(values) = self.floats(&name).filter(|values| values.len() == count) {
            return Ok(Tensor::from_slice(&values).reshape(shape));
        }
        let bytes = self.constant(&format!("{name}.bytes")).map(raw).filter(|bytes| bytes.len() == count);
        let scales = self.floats(&format!("{name}.scale")).filter(|scales| scales.len() as i64 == shape[0]);
        let (Some(bytes), Some(scales)) = (bytes, scales) else { return Err(self.missing(&name)) };
        let values: Vec<f32> = bytes.iter().map(|&byte| f32::from(byte.cast_signed())).collect();
        Ok(Tensor::from_slice(&values).reshape(shape) * Tensor::from_slice(&scales).reshape([-1, 1, 1, 1]))
    }

    /// The bias of a convolution, as floats or as 32-bit integers with a scale for each output channel.
    fn bias(&self, node: &str, outputs: i64) -> Result<Tensor, StoredError> {
        let name = format!("{node}.bias");
        let count = outputs as usize;
        if let Some(values) = self.floats(&name).filter(|values| values.len() == count) {
            return Ok(Tensor::from_slice(&values));
        }
        let sums = self.constant(&format!("{name}.sums")).map(|sums| raw(sums).as_chunks::<4>().0);
        let scales = self.floats(&format!("{name}.scale")).filter(|scales| scales.len() == count);
        let (Some(sums), Some(scales)) = (sums.filter(|sums| sums.len() == count), scales) else {
            return Err(self.missing(&name));
        };
        let value = |(sum, scale): (&[u8; 4], &f32)| (f64::from(i32::from_le_bytes(*sum)) * f64::from(*scale)) as f32;
        Ok(Tensor::from_slice(&sums.iter().zip(&scales).map(value).collect::<Vec<f32>>()))
    }
}

fn raw(constant: &TensorProto) -> &[u8] {
    constant.raw_data.as_deref().unwrap_or_default()
}

fn put(params: &mut Params, node: &str, suffix: &str, tensor: Tensor) {
    params.0.insert(format!("{node}.{suffix}"), tensor.to_kind(Kind::Float).contiguous());
}

/// For each output channel, how many times the root mean square of its weights is that of freshly initialised ones.
fn channel_factors(weight: &Tensor, conv: &Conv) -> Tensor {
    let inputs = conv.inputs / conv.groups * conv.kernel * conv.kernel;
    let usual = (2.0 / inputs as f64).sqrt();
    let factor = weight.square().mean_dim([1i64, 2, 3].as_slice(), false, Kind::Double).sqrt() / usual;
    // A channel without weights stays without.
    factor.where_self(&factor.gt(1e-9), &factor.ones_like()).to_kind(Kind::Float)
}
