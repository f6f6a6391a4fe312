//! temporary
use std::collections::BTreeMap;
use serde::{Deserialize, Serialize};
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct History { pub epochs: Vec<EpochRecord> }
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EpochRecord { pub epoch: u64, pub phase: String, pub train_loss: f64, pub val_loss: Option<f64>, pub val_miou: Option<f64>, pub val_miou_ema: Option<f64>, pub lr: BTreeMap<String, f64>, pub seconds: f64, pub data_wait_share: f64 }
