//! Maps the names in a file to the parameters of an encoder. Encoders have the names of the usual source of their weights.
//! timm has other names for EfficientNet-Lite and MobileNetV2.

use super::WeightsFile;
use crate::encoders::Encoder;

/// What a tensor of a file is loaded into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TensorDestination {
    /// The parameter of the encoder with this full name, if there is one.
    Parameter(String),
    /// Nothing, for this reason.
    Skip(&'static str),
}

const CLASSIFIER: &str = "classifier layer";
const COUNTER: &str = "counter that only training with PyTorch needs";

/// The mapping from the names in a file to those of an encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    pub encoder: Encoder,
    naming: Naming,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naming {
    /// The names of the encoder.
    Own,
    /// The names of timm for networks of inverted residuals: `blocks.ROW.BLOCK.LAYER`.
    TimmRows,
}

impl Mapping {
    /// The mapping from the names in `file` to those of `encoder`.
    pub fn detect(encoder: Encoder, file: &WeightsFile) -> Self {
        let timm = encoder.blocks_by_row().is_some() && file.tensors.contains_key("conv_stem.weight");
        Mapping { encoder, naming: if timm { Naming::TimmRows } else { Naming::Own } }
    }

    /// What the tensor `name` is loaded into.
    pub fn place(&self, name: &str) -> TensorDestination {
        if name.ends_with(".num_batches_tracked") {
            return TensorDestination::Skip(COUNTER);
        }
        let (classifier, own) = match self.naming {
            Naming::TimmRows => (["conv_head.", "bn2.", "classifier."].as_slice(), self.own_name_of_timm(name)),
            Naming::Own => (classifier_prefixes(self.encoder), Some(name.to_string())),
        };
        if classifier.iter().any(|prefix| name.starts_with(prefix)) {
            return TensorDestination::Skip(CLASSIFIER);
        }
        TensorDestination::Parameter(format!("encoder.{}", own.unwrap_or_else(|| name.to_string())))
    }

    /// The name in the encoder for a name of timm such as `blocks.2.0.conv_dw.weight`.
    fn own_name_of_timm(&self, name: &str) -> Option<String> {
        let rows = self.encoder.blocks_by_row()?;
        let lite = self.encoder != Encoder::MobilenetV2;
        let (module, suffix) = name.rsplit_once('.')?;
        let module = match module {
            "conv_stem" if lite => "_conv_stem".to_string(),
            "bn1" if lite => "_bn0".to_string(),
            "conv_stem" => "features.0.0".to_string(),
            "bn1" => "features.0.1".to_string(),
            _ => {
                let mut parts = module.strip_prefix("blocks.")?.split('.');
                let row: usize = parts.next()?.parse().ok()?;
                let block: i64 = parts.next()?.parse().ok()?;
                let layer = parts.next()?;
                if block >= *rows.get(row)? {
                    return None;
                }
                let index = rows[..row].iter().sum::<i64>() + block;
                // The block of the first row has no expansion: its first layer is the depthwise convolution.
                let layers = if row == 0 {
                    ["", "", "conv_dw", "bn1", "conv_pw", "bn2"]
                } else {
                    ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
                };
                let position = layers.iter().position(|&known| known == layer)?;
                if lite {
                    let own = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"];
                    format!("_blocks.{index}.{}", own[position])
                } else {
                    let own = if row == 0 {
                        ["", "", "0.0", "0.1", "1", "2"]
                    } else {
                        ["0.0", "0.1", "1.0", "1.1", "2", "3"]
                    };
                    format!("features.{}.conv.{}", index + 1, own[position])
                }
            }
        };
        Some(format!("{module}.{suffix}"))
    }
}

/// The prefixes of the layers that an encoder does not have.
fn classifier_prefixes(encoder: Encoder) -> &'static [&'static str] {
    match encoder {
        Encoder::EfficientnetLite0 | Encoder::EfficientnetLite1 | Encoder::EfficientnetLite2 => {
            &["_conv_head.", "_bn1.", "_fc."]
        }
        Encoder::MobilenetV2 => &["classifier.", "features.18."],
        Encoder::Resnet18 | Encoder::Resnet34 => &["fc."],
        Encoder::Vgg11 | Encoder::Vgg11Bn | Encoder::Vgg16 | Encoder::Vgg16Bn => {
            &["classifier.", "pre_logits.", "head."]
        }
        Encoder::Unet => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(encoder: Encoder, name: &str) -> String {
        match (Mapping { encoder, naming: Naming::TimmRows }).place(name) {
            TensorDestination::Parameter(own) => own,
            TensorDestination::Skip(why) => why.to_string(),
        }
    }

    #[test]
    fn timm_names_become_those_of_the_encoder() {
        let (lite, mobile) = (Encoder::EfficientnetLite0, Encoder::MobilenetV2);
        assert_eq!(placed(lite, "conv_stem.weight"), "encoder._conv_stem.weight");
        assert_eq!(placed(lite, "bn1.running_var"), "encoder._bn0.running_var");
        assert_eq!(placed(lite, "blocks.0.0.conv_dw.weight"), "encoder._blocks.0._depthwise_conv.weight");
        assert_eq!(placed(lite, "blocks.0.0.bn2.weight"), "encoder._blocks.0._bn2.weight");
        assert_eq!(placed(lite, "blocks.2.1.conv_pwl.weight"), "encoder._blocks.4._project_conv.weight");
        assert_eq!(placed(lite, "blocks.6.0.bn1.bias"), "encoder._blocks.15._bn0.bias");
        assert_eq!(placed(mobile, "blocks.0.0.conv_pw.weight"), "encoder.features.1.conv.1.weight");
        assert_eq!(placed(mobile, "blocks.1.0.conv_dw.weight"), "encoder.features.2.conv.1.0.weight");
        assert_eq!(placed(mobile, "blocks.6.0.bn3.weight"), "encoder.features.17.conv.3.weight");
        assert_eq!(placed(mobile, "conv_head.weight"), CLASSIFIER);
        assert_eq!(placed(mobile, "bn2.weight"), CLASSIFIER);
        assert_eq!(placed(mobile, "blocks.6.0.bn3.num_batches_tracked"), COUNTER);
    }

    #[test]
    fn every_parameter_has_one_timm_name() {
        for encoder in [Encoder::EfficientnetLite1, Encoder::EfficientnetLite2, Encoder::MobilenetV2] {
            let mapping = Mapping { encoder, naming: Naming::TimmRows };
            let mut reached = std::collections::BTreeSet::new();
            let rows = encoder.blocks_by_row().unwrap();
            let mut modules = vec!["conv_stem".to_string(), "bn1".to_string()];
            for (row, &blocks) in rows.iter().enumerate() {
                let layers: &[&str] = if row == 0 {
                    &["conv_dw", "bn1", "conv_pw", "bn2"]
                } else {
                    &["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
                };
                for block in 0..blocks {
                    modules.extend(layers.iter().map(|layer| format!("blocks.{row}.{block}.{layer}")));
                }
            }
            for module in &modules {
                let TensorDestination::Parameter(name) = mapping.place(&format!("{module}.weight")) else {
                    panic!("{module}")
                };
                assert!(reached.insert(name));
            }
            let specs = crate::encoders::Variant::from(encoder).param_specs();
            let weights = specs.iter().filter(|spec| spec.name.ends_with(".weight"));
            assert_eq!(weights.map(|spec| spec.name.clone()).collect::<std::collections::BTreeSet<_>>(), reached);
        }
    }
}
