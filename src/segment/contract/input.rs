//! The model's input: which tensor it is, its size, and how pixels go in.

use half::f16;
use ort::value::TensorElementType;

use super::tensor::TensorSpec;
use crate::segment::manifest::{ChannelOrder, Layout, ManifestInput};
use crate::segment::normalisation::{NormalisationTable, half_table, table};

/// The model's input.
#[derive(Clone, Debug)]
pub struct InputSpec {
    pub name: String,
    pub width: usize,
    pub height: usize,
    /// Whether several frames fit in one run.
    pub dynamic_batch: bool,
    pub layout: Layout,
    pub order: ChannelOrder,
    pub pixels: InputPixels,
}

/// How the value of a pixel goes in; tables hold the result for each byte, a table for each channel in the model's order.
#[derive(Clone, Debug)]
pub enum InputPixels {
    /// uint8; normalisation is inside of the graph.
    Bytes,
    /// float32, normalised by the manifest.
    Single(NormalisationTable<f32>),
    /// float16, normalised by the manifest.
    Half(NormalisationTable<f16>),
}

impl InputPixels {
    /// `self` with the normalisation of another manifest; bytes stay bytes.
    pub(in crate::segment) fn normalised_by(&self, manifest: &ManifestInput) -> InputPixels {
        match self {
            InputPixels::Bytes => InputPixels::Bytes,
            InputPixels::Single(_) => InputPixels::Single(table(manifest)),
            InputPixels::Half(_) => InputPixels::Half(half_table(manifest)),
        }
    }
}

impl InputSpec {
    /// In one line, for people.
    pub fn describe(&self) -> String {
        let order = match self.order {
            ChannelOrder::Rgb => "RGB",
            ChannelOrder::Bgr => "BGR",
        };
        let layout = self.layout.name();
        match self.pixels {
            InputPixels::Bytes => format!("uint8 {layout} {order}, normalised inside"),
            InputPixels::Single(_) => format!("float32 {layout} {order}, normalised by its manifest"),
            InputPixels::Half(_) => format!("float16 {layout} {order}, normalised by its manifest"),
        }
    }
}

/// Reads the input `tensor` with `[input]` of a manifest.
///
/// # Errors
/// What keeps pictures from going in, and what to write into the manifest.
pub(super) fn read(tensor: &TensorSpec, manifest: Option<&ManifestInput>) -> Result<InputSpec, String> {
    let shape = &tensor.shape;
    let described = || format!("its input {} is {} {shape:?}", tensor.name, tensor.element);
    let &[batch, a, b, c] = shape.as_slice() else {
        return Err(format!("{}: a picture batch has four dimensions", described()));
    };
    let dynamic_batch = batch < 0;
    if batch > 1 {
        return Err(format!(
            "{}: a fixed batch of {batch} cannot be fed by live video; export it with a free or single batch",
            described()
        ));
    }
    let layout = match manifest.and_then(|manifest| manifest.layout) {
        Some(layout) => layout,
        None => match (a == 3, c == 3) {
            (true, true) => {
                return Err(format!(
                    "{}: either 3 may be the colours; write layout = \"nchw\" or \"nhwc\" into [input] of a manifest",
                    described()
                ));
            }
            (false, true) => Layout::Nhwc,
            (true, false) => Layout::Nchw,
            // The usual order of models in bytes is Maskcast's own, and of others that of PyTorch.
            (false, false) if tensor.element == TensorElementType::Uint8 => Layout::Nhwc,
            (false, false) => Layout::Nchw,
        },
    };
    let (channels, height, width) = if layout == Layout::Nchw { (a, b, c) } else { (c, a, b) };
    if channels != 3 && channels >= 0 {
        return Err(format!("{}: three colour channels were expected (layout {})", described(), layout.name()));
    }
    let manifest_size = manifest.and_then(|manifest| manifest.size);
    let side = |fixed: i64, given: Option<usize>, which: &str| match (usize::try_from(fixed), given) {
        (Ok(fixed), Some(given)) if fixed != given => {
            Err(format!("{}: the manifest's input.size says {which} {given}", described()))
        }
        (Ok(0), _) => Err(format!("{}: an empty picture", described())),
        (Ok(fixed), _) => Ok(fixed),
        (Err(_), Some(given)) => Ok(given),
        (Err(_), None) => Err(format!("{}: its {which} is free, so a manifest must give input.size", described())),
    };
    let width = side(width, manifest_size.map(|size| size[0]), "width")?;
    let height = side(height, manifest_size.map(|size| size[1]), "height")?;
    let needed = || {
        manifest.ok_or_else(|| {
            format!("{}: a float model needs a manifest with [input] that gives mean and std", described())
        })
    };
    let pixels = match tensor.element {
        TensorElementType::Uint8 => {
            let plain = ManifestInput::default();
            if manifest.is_some_and(|manifest| (manifest.mean, manifest.std) != (plain.mean, plain.std)) {
                return Err(format!(
                    "{}: bytes go in as they are; leave mean and std out of the manifest",
                    described()
                ));
            }
            InputPixels::Bytes
        }
        TensorElementType::Float32 => InputPixels::Single(table(needed()?)),
        TensorElementType::Float16 => InputPixels::Half(half_table(needed()?)),
        other => {
            return Err(format!("{}: {other} input is not supported, only uint8, float16 and float32", described()));
        }
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
    fn reads_contract_and_foreign_inputs() {
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
    fn the_layout_of_the_manifest_decides_where_the_shape_does_not() {
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
        assert!(error.contains("layout = \"nchw\""), "{error}");
    }

    #[test]
    fn refuses_inputs_with_a_reason() {
        let manifest = || Some(ManifestInput { size: Some([320, 240]), ..ManifestInput::default() });
        let normalised = || Some(ManifestInput { mean: [0.5; 3], ..ManifestInput::default() });
        for (element, shape, manifest, reason) in [
            (Float32, vec![1, 3, 4, 4], None, "manifest"),
            (Float16, vec![1, 3, 4, 4], None, "manifest"),
            (Float32, vec![1, 3, -1, 4], Some(ManifestInput::default()), "input.size"),
            (Float32, vec![1, 3, 240, 300], manifest(), "300"),
            (Float32, vec![1, 1, 240, 320], manifest(), "three colour channels"),
            (Float32, vec![4, 3, 240, 320], manifest(), "batch of 4"),
            (Int64, vec![1, 3, 240, 320], manifest(), "not supported"),
            (Uint8, vec![3, 240, 320], None, "four dimensions"),
            (Uint8, vec![1, 240, 320, 3], normalised(), "leave mean and std out"),
        ] {
            let error = read(&tensor(element, &shape), manifest.as_ref()).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
