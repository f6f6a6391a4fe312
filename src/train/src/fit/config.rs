//! Options of `maskcast-train fit`, on the command line and in checkpoints.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::optimizer::OptimizerKind;
use super::schedule::Schedule;
use crate::augment::Augment;
use crate::device::{DeviceChoice, PrecisionChoice};
use crate::encoders::{Encoder, Flavour};
use crate::loss::LossOptions;
use crate::net::decoder::{Decoder, DecoderKind};
use crate::size::Size;

/// How a pretrained encoder is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Nothing pretrained: every layer starts at random
    Scratch,
    /// (1) The pretrained encoder stays as it is; only the new layers learn
    Frozen,
    /// (2) Everything learns from the pretrained weights on, the encoder at a low rate
    Finetune,
    /// (1), then (2): the new layers learn first, so that their first, wild steps do not spoil the encoder
    FreezeThenFinetune,
}

/// The mode of the encoder's batch norms in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNormMode {
    /// Normalise by the batch and follow it; while the encoder is frozen, keep the pretrained statistics
    Auto,
    /// Always normalise by the batch and follow it
    Batch,
    /// Always keep the pretrained statistics: better with very small batches
    Keep,
}

/// The network.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[command(next_help_heading = "Network")]
pub struct NetOptions {
    /// Pretrained classifier that becomes the U-Net's encoder
    #[arg(long, value_enum, default_value = "efficientnet-lite0")]
    pub encoder: Encoder,
    /// Full or depthwise separable convolutions in the decoder
    #[arg(long = "decoder", value_enum, default_value_t = DecoderKind::Dense)]
    pub decoder_kind: DecoderKind,
    /// Channels of the decoder's levels, deepest first; four end at half the image's size, five at its full size
    #[arg(long, value_delimiter = ',', default_value = "128,64,48,32", value_name = "N,N,…")]
    pub decoder_widths: Vec<i64>,
    /// Input size of the model, to which each image is resized, as in the service; sides divisible by 32
    #[arg(long, default_value = "512x288", value_name = "WxH")]
    pub input: Size,
    /// The encoder's pretrained weights, `.pth` or `.safetensors`; without it those of `weights get` are used
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Conventions of the framework that the weights come from (normalisation, padding, batch norm's eps); detected for
    /// weights of `weights get`
    #[arg(long, value_enum)]
    pub flavour: Option<Flavour>,
    /// Start from a U-Net trained before (the `.safetensors` of a run), also one with other classes
    #[arg(long, value_name = "MODEL", conflicts_with = "weights")]
    pub init: Option<PathBuf>,
}

impl NetOptions {
    pub fn decoder(&self) -> Decoder {
        Decoder { kind: self.decoder_kind, widths: self.decoder_widths.clone() }
    }
}

/// Default number of epochs with a frozen encoder before fine-tuning.
const FROZEN_EPOCHS: u64 = 3;

/// All options of a run except those of the data set.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FitOptions {
    #[command(flatten)]
    pub net: NetOptions,

    /// How the pretrained encoder is used
    #[arg(long, value_enum, default_value_t = Strategy::FreezeThenFinetune, help_heading = "Strategy")]
    pub strategy: Strategy,
    /// Epochs in all
    #[arg(long, default_value_t = 40, value_name = "N", help_heading = "Strategy")]
    pub epochs: u64,
    /// Of these, epochs with the encoder frozen (freeze-then-finetune) [default: 3, and no more than half]
    #[arg(long, value_name = "N", help_heading = "Strategy")]
    pub frozen_epochs: Option<u64>,
    /// Once the encoder learns, let its stages in one after the other, deepest first, every N epochs; 0 lets all in at
    /// once
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Strategy")]
    pub unfreeze_every: u64,
    /// What the encoder's batch norms do
    #[arg(long, value_enum, default_value_t = BatchNormMode::Auto, help_heading = "Strategy")]
    pub batch_norm: BatchNormMode,

    /// Peak learning rate of the new layers
    #[arg(long, default_value_t = 2e-3, value_name = "RATE", help_heading = "Learning")]
    pub lr: f64,
    /// Peak learning rate of the pretrained encoder (scratch: that of the new layers)
    #[arg(long, default_value_t = 4e-4, value_name = "RATE", help_heading = "Learning")]
    pub encoder_lr: f64,
    /// Course of the learning rates
    #[arg(long, value_enum, default_value_t = Schedule::OneCycle, help_heading = "Learning")]
    pub schedule: Schedule,
    /// Share of the steps over which the rates rise (all schedules but one-cycle, which has its own rise)
    #[arg(long, default_value_t = 0.05, value_name = "SHARE", help_heading = "Learning")]
    pub warm_up: f64,
    #[arg(long, value_enum, default_value_t = OptimizerKind::Adamw, help_heading = "Learning")]
    pub optimizer: OptimizerKind,
    #[arg(long, default_value_t = 1e-2, value_name = "RATE", help_heading = "Learning")]
    pub weight_decay: f64,
    /// Largest norm of the gradients; 0 leaves them as they are
    #[arg(long, default_value_t = 5.0, value_name = "NORM", help_heading = "Learning")]
    pub clip: f64,
    /// Images in a batch
    #[arg(long, default_value_t = 8, value_name = "N", help_heading = "Learning")]
    pub batch: usize,
    /// Batches whose gradients make one step: as if the batch were N times as large, in the memory of one
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Learning")]
    pub accumulate: u64,
    /// Size of training crops, sides divisible by 32; the input size if not given
    #[arg(long, value_name = "WxH", help_heading = "Learning")]
    pub crop: Option<Size>,
    /// The moving average of the weights, which is what gets validated and exported; 0 switches it off
    #[arg(long, default_value_t = 0.99, value_name = "DECAY", help_heading = "Learning")]
    pub ema: f64,
    /// Stop after this many epochs without a better validation mIoU; 0: never
    #[arg(long, default_value_t = 0, value_name = "EPOCHS", help_heading = "Learning")]
    pub patience: u64,
    /// Everything random follows from this number
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Learning")]
    pub seed: u64,

    #[command(flatten)]
    pub loss: LossOptions,
    #[command(flatten)]
    pub augment: Augment,

    #[command(flatten)]
    pub machine: MachineOptions,
}

/// Options of the machine: device, precision, threads, memory.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[command(next_help_heading = "Machine")]
pub struct MachineOptions {
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// Precision of the convolutions
    #[arg(long, value_enum, default_value_t = PrecisionChoice::Auto)]
    pub precision: PrecisionChoice,
    /// libtorch's threads; 0 = one a core. A run is repeated bit for bit on a CPU only, with the same number
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Threads that read and augment images
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub loader_threads: usize,
    /// Memory for decoded images, in MiB: those that fit are read from disk once
    #[arg(long, default_value_t = CACHE, value_name = "MIB")]
    #[serde(default)]
    pub cache: usize,
}

/// More than a thousand images of 640x480.
const CACHE: usize = 1024;

impl FitOptions {
    /// The options that decide the result: threads and device decide only how soon it is there.
    pub fn without_machine(&self) -> Self {
        let machine = MachineOptions { threads: 0, loader_threads: 0, cache: 0, ..self.machine.clone() };
        let mut options = FitOptions { machine, ..self.clone() };
        // Filled in when a run begins.
        options.net.flavour = None;
        options
    }

    /// Epochs with the encoder frozen, of a run that freezes and then fine-tunes.
    pub fn frozen_epochs(&self) -> u64 {
        self.frozen_epochs.unwrap_or(FROZEN_EPOCHS.min(self.epochs / 2))
    }

    /// The size of training crops.
    pub fn crop(&self) -> Size {
        self.crop.unwrap_or(self.net.input)
    }

    /// Lists invalid options.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut check = |good: bool, text: String| {
            if !good {
                problems.push(text);
            }
        };
        check(self.epochs > 0, "--epochs 0: nothing would be trained".into());
        if self.strategy == Strategy::FreezeThenFinetune {
            let text = format!(
                "--frozen-epochs {} of --epochs {}: none are left to fine-tune in; give more epochs, or choose \
                 --strategy frozen",
                self.frozen_epochs(),
                self.epochs
            );
            check(self.frozen_epochs() < self.epochs.max(1), text);
        }
        for (name, rate) in [("lr", self.lr), ("encoder-lr", self.encoder_lr)] {
            check(rate.is_finite() && rate > 0.0, format!("--{name} {rate}: wanted a number above 0"));
        }
        for (name, value) in [("weight-decay", self.weight_decay), ("clip", self.clip)] {
            check(value.is_finite() && value >= 0.0, format!("--{name} {value}: wanted 0 or more"));
        }
        check((0.0..1.0).contains(&self.ema), format!("--ema {}: wanted a number from 0 to below 1", self.ema));
        check((0.0..=1.0).contains(&self.warm_up), format!("--warm-up {}: wanted a share", self.warm_up));
        check(self.batch > 0, "--batch 0: pass at least 1".into());
        check(self.accumulate > 0, "--accumulate 0: wanted at least 1".into());
        problems.extend(self.loss.problems());
        problems.extend(self.augment.problems());
        problems
    }
}
