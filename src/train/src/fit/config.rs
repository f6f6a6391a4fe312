//! Options of `maskcast-train fit`, on the command line and in checkpoints.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

use super::optimizer::OptimizerKind;
use super::schedule::Schedule;
use crate::augment::Augment;
use crate::data::DataArgs;
use crate::device::{DeviceChoice, PrecisionChoice};
use crate::distil::DistilOptions;
use crate::encoders::{Encoder, Flavour};
use crate::export::LastSteps;
use crate::loader::BatchSpec;
use crate::loss::LossOptions;
use crate::net::decoder::{Decoder, DecoderKind};
use crate::replay::ReplayOptions;
use crate::size::Size;

/// The configuration of a run, as stored in its checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunConfig {
    pub data: DataArgs,
    pub fit: FitOptions,
    /// The command line that started the run.
    pub command: Vec<String>,
    /// The model that the run adapts, with `maskcast-train adapt`.
    #[serde(default)]
    pub adapt: Option<AdaptedModel>,
}

impl RunConfig {
    /// The configuration of `maskcast-train fit`, with the command line of this process.
    pub fn new(data: DataArgs, fit: FitOptions) -> Self {
        RunConfig { data, fit, command: std::env::args().collect(), adapt: None }
    }
}

/// The model that a run adapts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AdaptedModel {
    /// The name of its file.
    pub name: String,
    /// SHA-256 of its file in hexadecimal.
    pub sha256: String,
    /// The steps after the network, for the classes of the run.
    pub steps: LastSteps,
}

/// How the pretrained encoder is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// No pretrained weights: all layers start from random weights
    Scratch,
    /// The pretrained encoder is not changed; only the new layers are trained
    Frozen,
    /// All layers are trained from the start, the encoder at a lower learning rate
    Finetune,
    /// First `frozen`, then `finetune`: the large first steps of the new layers do not change the encoder
    FreezeThenFinetune,
}

/// Which statistics the batch norms of the encoder use in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum BatchNormMode {
    /// Those of the batch; while the encoder is frozen, the pretrained ones
    Auto,
    /// Always those of the batch
    Batch,
    /// Always the pretrained ones: better with very small batches
    Keep,
    /// Always those of the model that the run starts from, in the decoder too: for very few images
    Fixed,
}

/// The network.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[command(next_help_heading = "Network")]
pub struct NetOptions {
    /// Pretrained classifier that becomes the encoder of the U-Net
    #[arg(long, value_enum, default_value = "efficientnet-lite0")]
    pub encoder: Encoder,
    /// Convolutions of the decoder: full or depthwise separable
    #[arg(long = "decoder", value_enum, default_value_t = DecoderKind::Dense)]
    pub decoder_kind: DecoderKind,
    /// Channels of the levels of the decoder, deepest first; four levels end at half the input size, five at the full size
    #[arg(long, value_delimiter = ',', default_value = "128,64,48,32", value_name = "N,N,…")]
    pub decoder_widths: Vec<i64>,
    /// Input size of the model, to which each image is resized; both sides divisible by 32
    #[arg(long, default_value = "512x288", value_name = "WxH")]
    pub input: Size,
    /// Pretrained weights of the encoder, `.pth` or `.safetensors` [default: those of `weights get`]
    #[arg(long, value_name = "FILE")]
    pub weights: Option<PathBuf>,
    /// Conventions of the framework that the weights come from (normalisation, padding, eps of batch norms) [default: detected]
    #[arg(long, value_enum)]
    pub flavour: Option<Flavour>,
    /// Start from a trained U-Net: `best.safetensors` of a run, or an ONNX file that maskcast-train exported; it may have other
    /// classes
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
    /// Number of epochs
    #[arg(long, default_value_t = 40, value_name = "N", help_heading = "Strategy")]
    pub epochs: u64,
    /// Number of first epochs with a frozen encoder (freeze-then-finetune) [default: 3, at most half of --epochs]
    #[arg(long, value_name = "N", help_heading = "Strategy")]
    pub frozen_epochs: Option<u64>,
    /// Unfreeze one stage of the encoder every N epochs, from the deepest on; 0: all at once
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Strategy")]
    pub unfreeze_every: u64,
    /// Never train the first N of the six stages of the encoder, which end at 1, 1/2, 1/4 … 1/32 of the input size; the first ones
    /// take most of the time
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=6), help_heading = "Strategy")]
    #[serde(default)]
    pub frozen_stages: u8,
    /// Statistics that the batch norms of the encoder use in training
    #[arg(long, value_enum, default_value_t = BatchNormMode::Auto, help_heading = "Strategy")]
    pub batch_norm: BatchNormMode,

    /// Peak learning rate of the new layers
    #[arg(long, default_value_t = 2e-3, value_name = "RATE", help_heading = "Learning")]
    pub lr: f64,
    /// Learning rate of the last layer, as a multiple of --lr
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR", help_heading = "Learning")]
    #[serde(default = "same_rate")]
    pub head_rate: f64,
    /// Peak learning rate of the pretrained encoder; with `--strategy scratch`, --lr is used instead
    #[arg(long, default_value_t = 4e-4, value_name = "RATE", help_heading = "Learning")]
    pub encoder_lr: f64,
    /// Course of the learning rate
    #[arg(long, value_enum, default_value_t = Schedule::OneCycle, help_heading = "Learning")]
    pub schedule: Schedule,
    /// Share of the steps in which the learning rate rises from 0 (all schedules except one-cycle)
    #[arg(long, default_value_t = 0.05, value_name = "SHARE", help_heading = "Learning")]
    pub warm_up: f64,
    /// Optimizer
    #[arg(long, value_enum, default_value_t = OptimizerKind::Adamw, help_heading = "Learning")]
    pub optimizer: OptimizerKind,
    /// Weight decay of all parameters except biases and batch norms
    #[arg(long, default_value_t = 1e-2, value_name = "RATE", help_heading = "Learning")]
    pub weight_decay: f64,
    /// Largest norm of the gradients; larger ones are scaled down; 0: no limit
    #[arg(long, default_value_t = 5.0, value_name = "NORM", help_heading = "Learning")]
    pub clip: f64,
    /// Number of images in a batch
    #[arg(long, default_value_t = 8, value_name = "N", help_heading = "Learning")]
    pub batch: usize,
    /// Number of batches whose gradients are accumulated into one step: like a batch N times as large, in the memory of one
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Learning")]
    pub accumulate: u64,
    /// Size of the training crops; both sides divisible by 32 [default: the input size]
    #[arg(long, value_name = "WxH", help_heading = "Learning")]
    pub crop: Option<Size>,
    /// Decay of the moving average of the weights, which is validated and exported; 0: no average
    #[arg(long, default_value_t = 0.99, value_name = "DECAY", help_heading = "Learning")]
    pub ema: f64,
    /// Stop after this many epochs without a better validation mIoU; 0: never
    #[arg(long, default_value_t = 0, value_name = "EPOCHS", help_heading = "Learning")]
    pub patience: u64,
    /// Seed of all random numbers
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Learning")]
    pub seed: u64,

    /// Passes over the training images in an epoch, after which the model is validated; for very few images
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Learning")]
    #[serde(default = "one")]
    pub repeat: usize,

    #[command(flatten)]
    pub loss: LossOptions,
    #[command(flatten)]
    #[serde(default)]
    pub distil: DistilOptions,
    #[command(flatten)]
    #[serde(default)]
    pub replay: ReplayOptions,
    #[command(flatten)]
    pub augment: Augment,

    #[command(flatten)]
    pub machine: MachineOptions,
}

/// Options of the machine: device, precision, threads, memory.
#[derive(Args, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[command(next_help_heading = "Machine")]
pub struct MachineOptions {
    /// Device that computes
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    pub device: DeviceChoice,
    /// Precision of the convolutions
    #[arg(long, value_enum, default_value_t = PrecisionChoice::Auto)]
    pub precision: PrecisionChoice,
    /// Number of threads of libtorch; 0: one per core. Runs are reproducible bit by bit only on a CPU and with the same number
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
    /// Number of threads that read and augment images
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub loader_threads: usize,
    /// Memory for decoded images, in MiB; images that fit are read from disk only once
    #[arg(long, default_value_t = DEFAULT_CACHE, value_name = "MIB")]
    #[serde(default)]
    pub cache: usize,
}

fn same_rate() -> f64 {
    1.0
}

fn one() -> usize {
    1
}

/// In MiB; more than a thousand images of 640x480.
const DEFAULT_CACHE: usize = 1024;

impl FitOptions {
    /// Returns the options without those that affect only the speed (threads, cache), for comparisons.
    pub fn without_machine(&self) -> Self {
        let machine = MachineOptions { threads: 0, loader_threads: 0, cache: 0, ..self.machine.clone() };
        let mut options = FitOptions { machine, ..self.clone() };
        // Set when a run starts.
        options.net.flavour = None;
        options
    }

    /// Number of epochs with a frozen encoder, with [`Strategy::FreezeThenFinetune`].
    pub fn frozen_epochs(&self) -> u64 {
        self.frozen_epochs.unwrap_or(FROZEN_EPOCHS.min(self.epochs / 2))
    }

    /// Size of the training crops.
    pub fn crop(&self) -> Size {
        self.crop.unwrap_or(self.net.input)
    }

    /// Parameters of the loader.
    pub fn batches(&self) -> BatchSpec {
        let replayed = self.replay.count(self.batch);
        BatchSpec {
            input: self.net.input,
            crop: self.crop(),
            batch: self.batch.saturating_sub(replayed).max(1),
            replayed,
            repeat: self.repeat.max(1),
            augment: self.augment.clone(),
            seed: self.seed,
            threads: self.machine.loader_threads.max(1),
        }
    }

    /// Returns a message for each invalid option.
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
                "--frozen-epochs {} of --epochs {}: no epochs remain for fine-tuning; increase --epochs, or pass \
                 --strategy frozen",
                self.frozen_epochs(),
                self.epochs
            );
            check(self.frozen_epochs() < self.epochs.max(1), text);
        }
        for (name, rate) in [("lr", self.lr), ("encoder-lr", self.encoder_lr), ("head-rate", self.head_rate)] {
            check(rate.is_finite() && rate > 0.0, format!("--{name} {rate}: must be above 0"));
        }
        for (name, value) in [("weight-decay", self.weight_decay), ("clip", self.clip)] {
            check(value.is_finite() && value >= 0.0, format!("--{name} {value}: must be 0 or more"));
        }
        check((0.0..1.0).contains(&self.ema), format!("--ema {}: must be from 0 to below 1", self.ema));
        check((0.0..=1.0).contains(&self.warm_up), format!("--warm-up {}: must be from 0 to 1", self.warm_up));
        check(self.batch > 0, "--batch 0: must be at least 1".into());
        check(self.accumulate > 0, "--accumulate 0: must be at least 1".into());
        check(self.repeat > 0, "--repeat 0: must be at least 1".into());
        let replays = self.replay.replay.is_none() || self.batch > 1;
        check(replays, "--replay with --batch 1: a batch needs room for images of both data sets".into());
        problems.extend(self.loss.problems());
        problems.extend(self.distil.problems());
        problems.extend(self.replay.problems());
        problems.extend(self.augment.problems());
        problems
    }
}
