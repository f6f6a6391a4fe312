//! Reads Keras weights and converts them to the names and shapes of torchvision: MobileNetV2 as in `keras.applications`, and
//! VGG with the layers `blockN_convM` or with sublayers of `blockN`.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{TchError, Tensor};

use super::error::{Damage, NotWeights, WeightsError};
use super::file::WeightsFile;
use super::hdf5::{self, Hdf5Dataset};
use crate::encoders::Flavour;

/// Reads a Keras HDF5 file of MobileNetV2 or VGG. Other layers (a classifier, an optimizer) are listed by name.
pub(super) fn read(path: &Path) -> Result<WeightsFile, WeightsError> {
    let datasets = hdf5::datasets(path).map_err(|error| WeightsError::damaged(path, Damage::Format(error.into())))?;
    let vgg = Vgg::of(&datasets);
    let (mut tensors, mut other_names) = (BTreeMap::new(), Vec::new());
    let mut flavour = None;
    for (name, dataset) in &datasets {
        let parts: Vec<&str> = name.split('/').collect();
        let placed = if name.starts_with("optimizer_weights/") {
            None
        } else if let Some(own) = mobilenet_v2(&parts) {
            Some((own, Flavour::Tensorflow))
        } else {
            vgg.name(&parts).map(|own| (own, Flavour::Caffe))
        };
        match placed {
            Some((own, weights_of)) => {
                let tensor =
                    converted(dataset, parts.iter().any(|part| part.ends_with("depthwise"))).map_err(|error| {
                        WeightsError::damaged(path, Damage::Part { name: name.clone(), source: error.into() })
                    })?;
                tensors.insert(own, tensor);
                flavour = Some(weights_of);
            }
            None => other_names.push(name.clone()),
        }
    }
    if tensors.is_empty() {
        return Err(WeightsError::not_weights(path, NotWeights::NoKerasLayers));
    }
    Ok(WeightsFile { path: path.to_path_buf(), tensors, metadata: BTreeMap::new(), flavour, other_names })
}

/// A dataset as a tensor in the axis order of PyTorch. Keras stores kernels as `[rows, columns, inputs, outputs]`, and depthwise
/// kernels as `[rows, columns, channels, 1]`.
fn converted(dataset: &Hdf5Dataset, depthwise: bool) -> Result<Tensor, TchError> {
    let tensor = Tensor::f_from_slice(&dataset.values)?.f_reshape(&dataset.shape)?;
    Ok(match dataset.shape.len() {
        4 if depthwise => tensor.permute([2, 3, 0, 1]).contiguous(),
        4 => tensor.permute([3, 2, 0, 1]).contiguous(),
        _ => tensor,
    })
}

/// The torchvision name of a layer of MobileNetV2: `features.4.conv.0.1.weight` for `…/block_3_expand_BN/gamma`. Keras 2 writes
/// `gamma:0`.
fn mobilenet_v2(parts: &[&str]) -> Option<String> {
    let [.., layer, variable] = parts else { return None };
    let suffix = match variable.trim_end_matches(":0") {
        "kernel" | "depthwise_kernel" | "gamma" => "weight",
        "beta" => "bias",
        "moving_mean" => "running_mean",
        "moving_variance" => "running_var",
        _ => return None,
    };
    let module = match *layer {
        "Conv1" => "0.0".to_string(),
        "bn_Conv1" => "0.1".to_string(),
        "Conv_1" => "18.0".to_string(),
        "Conv_1_bn" => "18.1".to_string(),
        "expanded_conv_depthwise" => "1.conv.0.0".to_string(),
        "expanded_conv_depthwise_BN" => "1.conv.0.1".to_string(),
        "expanded_conv_project" => "1.conv.1".to_string(),
        "expanded_conv_project_BN" => "1.conv.2".to_string(),
        block => {
            let (number, layer) = block.strip_prefix("block_")?.split_once('_')?;
            let layer = match layer {
                "expand" => "0.0",
                "expand_BN" => "0.1",
                "depthwise" => "1.0",
                "depthwise_BN" => "1.1",
                "project" => "2",
                "project_BN" => "3",
                _ => return None,
            };
            format!("{}.conv.{layer}", number.parse::<u32>().ok()? + 1)
        }
    };
    Some(format!("features.{module}.{suffix}"))
}

/// The names of VGG, whose numbers in torchvision depend on the number of convolutions.
struct Vgg {
    /// The number of convolutions in each of the five blocks.
    convs: [usize; 5],
}

impl Vgg {
    fn of(datasets: &BTreeMap<String, Hdf5Dataset>) -> Self {
        let mut convs = [0; 5];
        for name in datasets.keys() {
            if let Some((block, conv, _)) = place(&name.split('/').collect::<Vec<_>>()) {
                convs[block] = convs[block].max(conv + 1);
            }
        }
        Vgg { convs }
    }

    /// The torchvision name of a variable. torchvision counts convolutions and ReLUs, and a pool after each block.
    fn name(&self, parts: &[&str]) -> Option<String> {
        let (block, conv, suffix) = place(parts)?;
        let before: usize = self.convs[..block].iter().map(|convs| 2 * convs + 1).sum();
        Some(format!("features.{}.{suffix}", before + 2 * conv))
    }
}

/// The block (from 0), the convolution in it (from 0) and the variable of a path, `block1/layers/conv2d_1/vars/0` (a file of
/// weights only) or `block1_conv2/…/kernel`.
fn place(parts: &[&str]) -> Option<(usize, usize, &'static str)> {
    let (block, conv, variable) = match parts {
        [block, "layers", conv, "vars", variable] => {
            let conv = conv.strip_prefix("conv2d")?;
            let conv = if conv.is_empty() { 0 } else { conv.strip_prefix('_')?.parse().ok()? };
            (block.strip_prefix("block")?, conv, *variable)
        }
        [.., layer, variable] => {
            let (block, conv) = layer.strip_prefix("block")?.split_once("_conv")?;
            (block, conv.parse::<usize>().ok()?.checked_sub(1)?, variable.trim_end_matches(":0"))
        }
        _ => return None,
    };
    let suffix = match variable {
        "0" | "kernel" => "weight",
        "1" | "bias" => "bias",
        _ => return None,
    };
    let block = block.parse::<usize>().ok()?.checked_sub(1).filter(|&block| block < 5)?;
    // No VGG has more than four convolutions in a block.
    (conv < 4).then_some((block, conv, suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(path: &str) -> Vec<&str> {
        path.split('/').collect()
    }

    #[test]
    fn keras_names_become_torchvision_names() {
        let name = |path: &str| mobilenet_v2(&split(path)).unwrap();
        assert_eq!(name("model_weights/mobilenetv2_1.00_160/Conv1/kernel"), "features.0.0.weight");
        assert_eq!(name("bn_Conv1/bn_Conv1/gamma:0"), "features.0.1.weight");
        assert_eq!(name("x/expanded_conv_project_BN/moving_variance"), "features.1.conv.2.running_var");
        assert_eq!(name("x/block_16_depthwise/depthwise_kernel:0"), "features.17.conv.1.0.weight");
        assert_eq!(mobilenet_v2(&split("dense/dense/kernel")), None);

        let empty = || Hdf5Dataset { shape: vec![], values: vec![] };
        let paths = ["block1/layers/conv2d/vars/0", "block1/layers/conv2d_1/vars/0", "block2/layers/conv2d/vars/1"];
        let vgg = Vgg::of(&paths.iter().map(|path| (path.to_string(), empty())).collect());
        let names: Vec<_> = paths.iter().map(|path| vgg.name(&split(path)).unwrap()).collect();
        assert_eq!(names, ["features.0.weight", "features.2.weight", "features.5.bias"]);
        assert_eq!(vgg.name(&split("block2_conv1/block2_conv1_W/kernel")), None);
        assert_eq!(vgg.name(&split("block2_conv1/kernel:0")).unwrap(), "features.5.weight");
        assert_eq!(vgg.name(&split("dsn1/vars/0")), None);
    }

    #[test]
    fn kernels_get_the_axis_order_of_pytorch() {
        let values: Vec<f32> = (0..2 * 3 * 4 * 5).map(|value| value as f32).collect();
        let kernel = converted(&Hdf5Dataset { shape: vec![2, 3, 4, 5], values }, false).unwrap();
        assert_eq!(kernel.size(), [5, 4, 2, 3]);
        // The last value has row 1, column 2, input 3, output 4.
        assert_eq!(kernel.double_value(&[4, 3, 1, 2]), 119.0);
    }
}
