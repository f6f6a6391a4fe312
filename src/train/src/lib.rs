//! The trainer: a U-Net from a pretrained encoder and a folder of labelled images.
//!
//! A package of its own, so that the service is built and tested without libtorch. What it shares with the service (labels,
//! model files, ONNX Runtime, exit codes) is the library `maskcast`.
#![deny(unsafe_code)]

// These macros hide the standard ones in every module below: see [`maskcast::base::output`].
#[macro_use(print, println, eprintln)]
extern crate maskcast;

pub mod assess;
pub mod augment;
pub mod commands;
pub mod data;
pub mod device;
pub mod encoders;
pub mod evaluate;
pub mod export;
pub mod exported;
pub mod fit;
pub mod loader;
pub mod loss;
pub mod metrics;
pub mod net;
pub mod ordered;
pub mod random;
pub mod report;
pub mod size;
pub mod tensor_file;
pub mod tensorboard;
pub mod weights;
