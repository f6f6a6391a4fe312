//! The trainer: a U-Net from a pretrained encoder and a folder of labelled pictures.

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
