//! Parts of the graph that the float and the int8 export share: attributes, input, outputs.

use serde::{Deserialize, Serialize};

use super::graph::{GraphBuilder, int, ints, text};
use super::proto::{AttributeProto, TensorDataType};
use crate::net::{Conv, Net, Normalise, Op, Order, Padding};

/// The name of the input, as the service expects it.
pub const IMAGE: &str = "image";
/// The output with a class index for each pixel.
pub const MASK: &str = "mask";
/// The optional output with the probability of that class.
pub const CONFIDENCE: &str = "confidence";
/// The optional output with the logits before they are enlarged, as the service reads it.
pub use maskcast::segment::contract::SCORES;
/// The value with the logits after the rejection of pixels.
pub const REJECTED: &str = "logits.rejected";
/// The optional output for the comparison with libtorch.
pub const LOGITS: &str = "logits";

/// The class of pixels that are unlike the training images.
///
/// The largest logit of a pixel is lower where the network sees something that it was not trained for (Hendrycks et al., *Scaling
/// Out-of-Distribution Detection for Real-World Settings*, ICML 2022: the maximum logit).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rejection {
    /// Index of the class.
    pub class: usize,
    /// Pixels whose logits are all below this get the class.
    pub below: f32,
}

impl Rejection {
    /// The least logit of each class.
    fn limits(&self, classes: i64) -> Vec<f32> {
        let mut limits = vec![f32::MIN; classes as usize];
        limits[self.class] = self.below;
        limits
    }
}

/// The size of the input and the outputs of an exported graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GraphOptions {
    /// Width of the input and the mask in pixels.
    pub width: i64,
    /// Height of the input and the mask in pixels.
    pub height: i64,
    /// Adds the output `confidence`, bytes `[N, H/2, W/2]`: the largest probability × 255. It needs a softmax of that size.
    pub confidence: bool,
    /// Decides the class at half the size and doubles the mask: faster, with coarser edges.
    pub argmax_stride2: bool,
    /// Adds the output `scores`: the logits before their last enlargement and before the rejection, floats `[N, classes, h, w]`; in
    /// int8 for CPUs `[N, h, w, classes]`. It needs no computation.
    pub scores: bool,
    /// Adds the output `logits`, floats `[N, classes, H, W]`.
    pub logits: bool,
    /// Which pixels are rejected.
    pub rejection: Option<Rejection>,
}

impl GraphOptions {
    /// A graph with the output `mask` only, decided at full size.
    pub fn new(width: i64, height: i64) -> Self {
        GraphOptions {
            width,
            height,
            confidence: false,
            argmax_stride2: false,
            scores: false,
            logits: false,
            rejection: None,
        }
    }
}

/// ONNX stores the padding at the beginning of all axes, then that at their ends.
fn pads(Padding { begin, end }: Padding) -> AttributeProto {
    ints("pads", &[begin, begin, end, end])
}

/// The attributes of the ONNX operator `Conv`.
pub fn conv_attributes(conv: &Conv) -> Vec<AttributeProto> {
    vec![
        int("group", conv.groups),
        ints("kernel_shape", &[conv.kernel; 2]),
        pads(conv.padding),
        ints("strides", &[conv.stride; 2]),
    ]
}

/// The attributes of the ONNX operator `MaxPool`.
pub fn max_pool_attributes(kernel: i64, stride: i64, padding: Padding) -> Vec<AttributeProto> {
    vec![ints("kernel_shape", &[kernel; 2]), pads(padding), ints("strides", &[stride; 2])]
}

/// The method of an enlargement.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Resize {
    Nearest,
    Bilinear,
}

/// Enlarges `[N, C, H, W]` to `[N, C, factor × H, factor × W]`, with pixel centres as in libtorch.
pub fn resize(b: &mut GraphBuilder, how: Resize, factor: i64, x: &str, output: impl Into<String>) -> String {
    let scale = factor as f32;
    let scales = b.floats(format!("scales.{factor}"), &[4], &[1.0, 1.0, scale, scale]);
    scaled(b, how, &scales, x, output)
}

/// Enlarges `[N, H, W, C]` to `[N, factor × H, factor × W, C]` by bilinear interpolation.
pub fn resize_last(b: &mut GraphBuilder, factor: i64, x: &str, output: impl Into<String>) -> String {
    let scale = factor as f32;
    let scales = b.floats(format!("scales.last.{factor}"), &[4], &[1.0, scale, scale, 1.0]);
    scaled(b, Resize::Bilinear, &scales, x, output)
}

fn scaled(b: &mut GraphBuilder, how: Resize, scales: &str, x: &str, output: impl Into<String>) -> String {
    let attributes = match how {
        Resize::Nearest => vec![
            text("coordinate_transformation_mode", "asymmetric"),
            text("mode", "nearest"),
            text("nearest_mode", "floor"),
        ],
        Resize::Bilinear => vec![text("coordinate_transformation_mode", "half_pixel"), text("mode", "linear")],
    };
    b.node("Resize", &[x, "", scales], output, attributes)
}

/// Declares the input. Returns the name of its bytes as `[N, 3, H, W]`.
pub fn image(b: &mut GraphBuilder, options: &GraphOptions) -> String {
    b.input(IMAGE, TensorDataType::Uint8, &[-1, options.height, options.width, 3]);
    b.node("Transpose", &[IMAGE], "image.planes", vec![ints("perm", &[0, 3, 1, 2])])
}

/// Converts RGB bytes `[N, 3, H, W]` to the float input of the network.
pub fn normalised(b: &mut GraphBuilder, normalise: &Normalise, planes: &str) -> String {
    let mut x = planes.to_owned();
    if normalise.order == Order::Bgr {
        let order = b.int64s("image.order", &[2, 1, 0]);
        x = b.node("Gather", &[&x, &order], "image.bgr", vec![int("axis", 1)]);
    }
    x = cast(b, &x, "pixels.float", TensorDataType::Float);
    let mean = b.floats("image.mean", &[1, 3, 1, 1], &normalise.mean);
    let std = b.floats("image.std", &[1, 3, 1, 1], &normalise.std);
    x = b.node("Sub", &[&x, &mean], "image.centred", Vec::new());
    b.node("Div", &[&x, &std], "image.normalised", Vec::new())
}

/// Converts a value to another type.
pub fn cast(b: &mut GraphBuilder, x: &str, output: impl Into<String>, to: TensorDataType) -> String {
    b.node("Cast", &[x], output, vec![int("to", to as i64)])
}

/// The node of the logits before the last bilinear enlargement, and the factor of that enlargement. A network without it
/// has the factor 1.
pub fn small_logits(net: &Net) -> (usize, i64) {
    match net.nodes[net.logits].op {
        Op::Bilinear { factor } => (net.nodes[net.logits].inputs[0], factor),
        _ => (net.logits, 1),
    }
}

/// Whether the class is decided at half the size. That needs logits that are enlarged by an even factor afterwards.
pub fn decides_small(net: &Net, options: &GraphOptions) -> bool {
    options.argmax_stride2 && small_logits(net).1 % 2 == 0
}

/// Logits at half the size of the image, made of the logits `small`, which are smaller than the image by `factor`.
pub fn half_size(b: &mut GraphBuilder, small: &str, factor: i64) -> String {
    match factor {
        2 => small.to_owned(),
        factor if factor % 2 == 0 => resize(b, Resize::Bilinear, factor / 2, small, "logits.half"),
        _ => {
            let attributes = vec![ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])];
            b.node("AveragePool", &[small], "logits.half", attributes)
        }
    }
}

/// Raises the logit of the class for rejected pixels to its limit, so that it is the largest where all others are lower. The logits are
/// `[N, classes, h, w]`.
pub fn rejected(b: &mut GraphBuilder, options: &GraphOptions, logits: &str, classes: i64) -> String {
    let Some(rejection) = options.rejection else { return logits.to_owned() };
    let limits = b.floats("rejection.limits", &[1, classes, 1, 1], &rejection.limits(classes));
    b.node("Max", &[logits, &limits], REJECTED, Vec::new())
}

/// The same for logits `[N, h, w, classes]` of the size `[h, w, classes]`.
pub fn rejected_last(b: &mut GraphBuilder, options: &GraphOptions, logits: &str, size: [i64; 3]) -> String {
    match options.rejection {
        Some(rejection) => raised(b, logits, size, &rejection.limits(size[2])),
        None => logits.to_owned(),
    }
}

/// The larger one of each logit and the limit of its class, for logits `[N, h, w, classes]` of the size `[h, w, classes]`.
///
/// A row of pixels is one axis: ONNX Runtime is slow with a broadcast along a short axis. `[1, 144, 256, 16]` takes 0.36 instead of
/// 0.78 ms.
pub fn raised(b: &mut GraphBuilder, logits: &str, [height, width, classes]: [i64; 3], limits: &[f32]) -> String {
    let rows = b.int64s("rejection.rows", &[-1, height, width * classes]);
    let rows = b.node("Reshape", &[logits, &rows], "rejection.logits", Vec::new());
    let limits = b.floats("rejection.limits", &[width * classes], &limits.repeat(width as usize));
    let rows = b.node("Max", &[&rows, &limits], "rejection.raised", Vec::new());
    let size = b.int64s("rejection.size", &[-1, height, width, classes]);
    b.node("Reshape", &[&rows, &size], REJECTED, Vec::new())
}

/// Adds the output `mask`, made of logits with the classes along `axis`. The logits have the size of the image, or half of it
/// (`half_size`).
pub fn mask(b: &mut GraphBuilder, options: &GraphOptions, logits: &str, axis: i64, half_size: bool) {
    let attributes = vec![int("axis", axis), int("keepdims", 0)];
    let index = b.node("ArgMax", &[logits], "mask.index", attributes);
    if half_size {
        let axes = b.int64s("mask.axes", &[1]);
        let half = cast(b, &index, "mask.half", TensorDataType::Uint8);
        let half = b.node("Unsqueeze", &[&half, &axes], "mask.plane", Vec::new());
        let full = resize(b, Resize::Nearest, 2, &half, "mask.full");
        b.node("Squeeze", &[&full, &axes], MASK, Vec::new());
    } else {
        cast(b, &index, MASK, TensorDataType::Uint8);
    }
    b.output(MASK, TensorDataType::Uint8, &[-1, options.height, options.width]);
}

/// Adds the output `scores`, made of float logits that are smaller than the image by `factor`, with the classes along `axis`, 1 or 3.
pub fn scores(b: &mut GraphBuilder, options: &GraphOptions, logits: &str, factor: i64, axis: usize, classes: i64) {
    b.node("Identity", &[logits], SCORES, Vec::new());
    let (height, width) = (options.height / factor, options.width / factor);
    let shape = if axis == 1 { [-1, classes, height, width] } else { [-1, height, width, classes] };
    b.output(SCORES, TensorDataType::Float, &shape);
}

/// Adds the output `confidence`, made of float logits at half the size.
pub fn confidence(b: &mut GraphBuilder, options: &GraphOptions, half: &str) {
    let all = b.node("Softmax", &[half], "confidence.all", vec![int("axis", 1)]);
    let attributes = vec![ints("axes", &[1]), int("keepdims", 0)];
    let best = b.node("ReduceMax", &[&all], "confidence.best", attributes);
    let white = b.floats("confidence.white", &[], &[255.0]);
    let bytes = b.node("Mul", &[&best, &white], "confidence.scaled", Vec::new());
    let bytes = b.node("Round", &[&bytes], "confidence.round", Vec::new());
    cast(b, &bytes, CONFIDENCE, TensorDataType::Uint8);
    b.output(CONFIDENCE, TensorDataType::Uint8, &[-1, options.height / 2, options.width / 2]);
}
