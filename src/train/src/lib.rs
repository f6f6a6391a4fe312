//! The trainer: makes a U-Net from a pretrained encoder and a folder of labelled images.
//!
//! It is a package of its own, so that the service builds without libtorch. Labels, model files, ONNX Runtime and exit
//! codes come from the library `maskcast`.
//!
//! The path of an image in training:
//!
//! ```text
//!  data ──image, labels──▶ augment ──crop──▶ loader ──batch──▶ fit (net, loss, optimizer) ──weights──▶ export ──▶ ONNX
//!  files                                     threads           evaluate, after each epoch               int8, fp32
//! ```
//!
//! # Layers
//!
//! From top to bottom. A module uses only modules below its own. `tests/layers` checks this, and that no files use each
//! other in a cycle.
//!
//! | module | contents |
//! | --- | --- |
//! | [`commands`] | the command line |
//! | [`fit`] | training: options, strategy, optimizer, checkpoints, the loop over epochs and batches |
//! | [`assess`] | all scores of a model on labelled images, for reports |
//! | [`exported`] | runs exported models in ONNX Runtime, to measure them |
//! | [`evaluate`] | confusion matrix and loss of a model on labelled images |
//! | [`loader`] | training batches, read and augmented by threads |
//! | [`distil`] | the probabilities of teachers for training images |
//! | [`replay`] | images of another data set in training batches |
//! | [`loss`] | cross-entropy, Dice and Lovász losses |
//! | [`export`] | ONNX files, in fp32 and int8 |
//! | [`weights`] | pretrained weights: sources, file formats, names of tensors |
//! | [`encoders`] | the encoders, as networks |
//! | [`net`] | networks as lists of nodes: U-Net, decoder, execution in libtorch |
//! | [`label`] | proposes label masks by the votes of models |
//! | [`report`] | reports of runs, comparisons and proposals: HTML, JSON, plots |
//! | [`metrics`] | IoU, boundary F1, calibration |
//! | [`augment`] | random changes of training images |
//! | [`paste`] | small objects of other images, pasted into training images |
//! | [`data`] | data sets: layouts, classes, label images, splits, checks |
//! | [`components`] | connected components of label images |
//! | [`tensorboard`] | event files for TensorBoard |
//! | [`tensor_file`] | safetensors files |
//! | [`ordered`] | threads whose results are returned in order |
//! | [`size`] | sizes of images, as the command line has them |
//! | [`device`] | CPU or GPU, precision, threads |
//! | [`random`] | random numbers that depend only on a seed and a position |
//! | [`environment`] | environment variables that must be set before libraries are loaded |
#![deny(unsafe_code)]

// These macros hide the standard ones in every module below: see [`maskcast::base::output`].
#[macro_use(print, println, eprintln)]
extern crate maskcast;

pub mod assess;
pub mod augment;
pub mod commands;
pub mod components;
pub mod data;
pub mod device;
pub mod distil;
pub mod encoders;
pub mod environment;
pub mod evaluate;
pub mod export;
pub mod exported;
pub mod fit;
pub mod label;
pub mod loader;
pub mod loss;
pub mod metrics;
pub mod net;
pub mod ordered;
pub mod paste;
pub mod random;
pub mod replay;
pub mod report;
pub mod size;
pub mod tensor_file;
pub mod tensorboard;
pub mod weights;
