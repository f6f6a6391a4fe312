//! The input of a model: its tensor, its size, and how pixels are converted.

use half::f16;
use ort::value::TensorElementType;

use super::{InputError, InputProblem, TensorSpec};
use crate::segment::manifest::{ChannelOrder, Layout, ManifestInput};
use crate::segment::normalisation::{NormalisationTable, half_table, table};

/// The input of a model.
#[derive(Clone, Debug)]
pub struct InputSpec {
    pub name: String,
    /// In pixels.
    pub width: usize,
    /// In pixels.
    pub height: usize,
    /// Whether several frames fit in one run.
    pub dynamic_batch: bool,
    pub layout: Layout,
    pub order: ChannelOrder,
    pub pixels: InputPixels,
}

/// How the byte of a pixel is converted. Tables hold the result for each byte, `[3][256]`, in the channel order of the model.
#[derive(Clone, Debug)]
pub enum InputPixels {
    /// uint8; the graph normalises.
    Bytes,
    /// float32, normalised as in the manifest.
    Single(NormalisationTable<f32>),
    /// float16, normalised as in the manifest.
    Half(NormalisationTable<f16>),
}

impl InputPixels {
    /// `self` with the normalisation of another manifest; bytes are not normalised.
    pub(in crate::segment) fn normalised_by(&self, manifest: &ManifestInput) -> InputPixels {
        match self {
            InputPixels::Bytes => InputPixels::Bytes,
            InputPixels::Single(_) => InputPixels::Single(table(manifest)),
            InputPixels::Half(_) => InputPixels::Half(half_table(manifest)),
        }
    }
}

impl InputSpec {
    /// Type, layout, channel order and normalisation, in one line.
    pub fn describe(&self) -> String {
        let order = match self.order {
            ChannelOrder::Rgb => "RGB",
            ChannelOrder::Bgr => "BGR",
        };
        let layout = self.layout.name();
        match self.pixels {
            InputPixels::Bytes => format!("uint8 {layout} {order}, normalised by the graph"),
            InputPixels::Single(_) => format!("float32 {layout} {order}, normalised by its manifest"),
            InputPixels::Half(_) => format!("float16 {layout} {order}, normalised by its manifest"),
        }
    }
}

/// Reads the input `tensor` with `[input]` of a manifest.
///
/// # Errors
/// Why frames cannot be fed to it, and what to write into the manifest.
pub(super) fn read(tensor: &TensorSpec, manifest: Option<&ManifestInput>) -> Result<InputSpec, InputError> {
    read_input(tensor, manifest).map_err(|problem| InputError { tensor: tensor.clone(), problem })
}

fn read_input(tensor: &TensorSpec, manifest: Option<&ManifestInput>) -> Result<InputSpec, InputProblem> {
    let &[batch, a, b, c] = tensor.shape.as_slice() else { return Err(InputProblem::Dimensions) };
    let dynamic_batch = batch < 0;
    if batch > 1 {
        return Err(InputProblem::FixedBatch(batch));
    }
    let layout = match manifest.and_then(|manifest| manifest.layout) {
        Some(layout) => layout,
        None => match (a == 3, c == 3) {
            (true, true) => return Err(InputProblem::AmbiguousLayout),
            (false, true) => Layout::Nhwc,
            (true, false) => Layout::Nchw,
            // Byte inputs usually have the order of Maskcast's own models, others that of PyTorch.
            (false, false) if tensor.element == TensorElementType::Uint8 => Layout::Nhwc,
            (false, false) => Layout::Nchw,
        },
    };
    let (channels, height, width) = if layout == Layout::Nchw { (a, b, c) } else { (c, a, b) };
    if channels != 3 && channels >= 0 {
        return Err(InputProblem::Channels(layout));
    }
    let manifest_size = manifest.and_then(|manifest| manifest.size);
    let length = |declared: i64, given: Option<usize>, side: &'static str| match (usize::try_from(declared), given) {
        (Ok(declared), Some(given)) if declared != given => Err(InputProblem::Size { side, given }),
        (Ok(0), _) => Err(InputProblem::Empty),
        (Ok(declared), _) => Ok(declared),
        (Err(_), Some(given)) => Ok(given),
        (Err(_), None) => Err(InputProblem::NoSize(side)),
    };
    let width = length(width, manifest_size.map(|size| size[0]), "width")?;
    let height = length(height, manifest_size.map(|size| size[1]), "height")?;
    let pixels = match tensor.element {
        TensorElementType::Uint8 => {
            let plain = ManifestInput::default();
            if manifest.is_some_and(|manifest| (manifest.mean, manifest.std) != (plain.mean, plain.std)) {
                return Err(InputProblem::NormalisedBytes);
            }
            InputPixels::Bytes
        }
        TensorElementType::Float32 => InputPixels::Single(table(manifest.ok_or(InputProblem::NoManifest)?)),
        TensorElementType::Float16 => InputPixels::Half(half_table(manifest.ok_or(InputProblem::NoManifest)?)),
        _ => return Err(InputProblem::Element),
    };
    let order = manifest.map_or(ChannelOrder::Rgb, |manifest| manifest.order);
    Ok(InputSpec { name: tensor.name.clone(), width, height, dynamic_batch, layout, order, pixels })
}

#[cfg(test)]
mod tests {
    use super::*;
    use TensorElementType::{Float16, Float32, Int64, Uint8};

    fn tensor(element: TensorElementType, shape: &[i64]) -> TensorSpec {
        TensorSpec { name: "t".into(), element, shape: shape.to_vec() }
    }

    #[test]
    fn reads_inputs_of_own_and_foreign_models() {
        let bytes = read(&tensor(Uint8, &[-1, 288, 512, 3]), None).unwrap();
        assert_eq!((bytes.width, bytes.height, bytes.dynamic_batch), (512, 288, true));
        let manifest =
            ManifestInput { size: Some([320, 240]), mean: [0.5; 3], std: [0.25; 3], ..ManifestInput::default() };
        let float = read(&tensor(Float32, &[1, 3, -1, -1]), Some(&manifest)).unwrap();
        assert_eq!((float.width, float.height, float.dynamic_batch), (320, 240, false));
        let InputPixels::Single(table) = float.pixels else { panic!("float input") };
        assert_eq!(float.layout, Layout::Nchw);
        assert_eq!((table[0][0], table[2][255]), (-2.0, 2.0));
        let half = read(&tensor(Float16, &[1, 3, 240, 320]), Some(&manifest)).unwrap();
        let InputPixels::Half(table) = half.pixels else { panic!("float16 input") };
        assert_eq!((table[0][0].to_f32(), table[2][255].to_f32()), (-2.0, 2.0));
    }

    #[test]
    fn the_layout_of_the_manifest_decides_for_ambiguous_shapes() {
        let manifest = |layout, size| ManifestInput { layout, size, ..ManifestInput::default() };
        for (element, shape, layout, size, expected) in [
            (Float32, [1, 3, 32, 48], None, None, Layout::Nchw),
            (Float32, [1, 32, 48, 3], None, None, Layout::Nhwc),
            (Float32, [-1, -1, -1, -1], None, Some([48, 32]), Layout::Nchw),
            (Float32, [-1, -1, -1, -1], Some(Layout::Nhwc), Some([48, 32]), Layout::Nhwc),
            (Float32, [1, 3, 32, 3], Some(Layout::Nchw), None, Layout::Nchw),
            (Float32, [1, 3, 32, 3], Some(Layout::Nhwc), None, Layout::Nhwc),
            (Uint8, [1, 3, 32, 48], None, None, Layout::Nchw),
            (Uint8, [1, 3, 32, 48], Some(Layout::Nchw), None, Layout::Nchw),
            (Uint8, [-1, -1, -1, -1], None, Some([48, 32]), Layout::Nhwc),
        ] {
            let input = read(&tensor(element, &shape), Some(&manifest(layout, size))).unwrap();
            assert_eq!(input.layout, expected, "{element} {shape:?} {layout:?}");
        }
        let error = read(&tensor(Float32, &[1, 3, 32, 3]), Some(&manifest(None, None))).unwrap_err();
        assert_eq!(error.problem, InputProblem::AmbiguousLayout);
    }

    #[test]
    fn rejects_inputs_that_frames_cannot_be_fed_to() {
        let manifest = || Some(ManifestInput { size: Some([320, 240]), ..ManifestInput::default() });
        let normalised = || Some(ManifestInput { mean: [0.5; 3], ..ManifestInput::default() });
        for (element, shape, manifest, problem) in [
            (Float32, vec![1, 3, 4, 4], None, InputProblem::NoManifest),
            (Float16, vec![1, 3, 4, 4], None, InputProblem::NoManifest),
            (Float32, vec![1, 3, -1, 4], Some(ManifestInput::default()), InputProblem::NoSize("height")),
            (Float32, vec![1, 3, 240, 300], manifest(), InputProblem::Size { side: "width", given: 320 }),
            (Float32, vec![1, 1, 240, 320], manifest(), InputProblem::Channels(Layout::Nchw)),
            (Float32, vec![4, 3, 240, 320], manifest(), InputProblem::FixedBatch(4)),
            (Int64, vec![1, 3, 240, 320], manifest(), InputProblem::Element),
            (Uint8, vec![3, 240, 320], None, InputProblem::Dimensions),
            (Uint8, vec![1, 240, 320, 3], normalised(), InputProblem::NormalisedBytes),
        ] {
            let tensor = tensor(element, &shape);
            let error = read(&tensor, manifest.as_ref()).unwrap_err();
            assert_eq!(error, InputError { tensor, problem });
        }
    }
}
