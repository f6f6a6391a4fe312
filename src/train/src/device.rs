//! The device, the threads and the number format of the computation.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tch::{Cuda, Device, Kind};

/// The option `--device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// The first GPU that libtorch can use, else the CPU
    Auto,
    Cpu,
    Cuda,
}

/// `--device cuda` was given, and libtorch finds no GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "--device cuda: libtorch finds no GPU. Is the driver loaded (`nvidia-smi`), and was the trainer built by `make trainer \
     TORCH=cuda`?"
)]
pub struct NoGpuError;

impl DeviceChoice {
    /// The device.
    ///
    /// # Errors
    /// A GPU is required, and libtorch finds none.
    pub fn device(self) -> Result<Device, NoGpuError> {
        match (self, Cuda::is_available()) {
            (DeviceChoice::Cpu, _) | (DeviceChoice::Auto, false) => Ok(Device::Cpu),
            (DeviceChoice::Auto | DeviceChoice::Cuda, true) => Ok(Device::Cuda(0)),
            (DeviceChoice::Cuda, false) => Err(NoGpuError),
        }
    }
}

/// The option `--precision`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// bf16 on a GPU and on a CPU that multiplies it natively, else fp32
    Auto,
    Fp32,
    /// Convolutions in bfloat16; weights, loss and optimizer stay 32-bit
    Bf16,
}

impl PrecisionChoice {
    /// The number format of convolutions on `device`.
    pub fn kind(self, device: Device) -> Kind {
        match self {
            PrecisionChoice::Fp32 => Kind::Float,
            PrecisionChoice::Bf16 => Kind::BFloat16,
            PrecisionChoice::Auto if device != Device::Cpu || multiplies_bf16() => Kind::BFloat16,
            PrecisionChoice::Auto => Kind::Float,
        }
    }
}

/// Whether the CPU has instructions for bfloat16. Without them, bfloat16 is slower than 32-bit floats.
fn multiplies_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512bf16")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Sets the number of threads of libtorch; 0 is one for each core. Returns the number.
pub fn set_threads(threads: usize) -> usize {
    let count = match threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    tch::set_num_threads(count as i32);
    count
}
