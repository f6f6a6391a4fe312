//! What a report says of a run beside its results: all that it takes to repeat it.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use maskcast::frame::{Label, Rgb};

/// How a model was trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// `efficientnet-lite0`, …
    pub encoder: String,
    /// In words: `dense 128-64-48-32`.
    pub decoder: String,
    /// `freeze-then-finetune`, …
    pub strategy: String,
    /// What the first weights were: a package, a file, `random`.
    pub weights: String,
    /// Epochs of each phase, in order.
    pub phases: Vec<(String, u32)>,
    pub batch: u32,
    /// Width and height of the training crops.
    pub crop: (u32, u32),
    pub seed: u64,
    /// Learned parameters.
    pub parameters: u64,
    /// Multiply-adds for an image of the model's size.
    pub multiply_adds: u64,
    /// Everything else that was chosen: optimiser, schedule, loss, augmentations.
    pub settings: BTreeMap<String, String>,
}

/// The images.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatasetFacts {
    pub name: String,
    #[serde(rename = "train_pictures")]
    pub train_images: usize,
    #[serde(rename = "val_pictures")]
    pub val_images: usize,
    /// Width and height at which the results were measured.
    pub size: (u32, u32),
    /// Of the training pixels.
    pub void_share: f64,
    pub classes: Vec<ClassFacts>,
}

/// A class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassFacts {
    pub name: String,
    /// `#rrggbb`
    pub color: String,
    /// Of the training pixels that are not void; `None` if they were not counted.
    pub share: Option<f64>,
}

impl ClassFacts {
    pub fn new(label: &Label, share: Option<f64>) -> Self {
        ClassFacts { name: label.name.clone(), color: hex(label.color), share }
    }
}

/// A colour as CSS writes it.
pub(super) fn hex(Rgb(r, g, b): Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Where, when and by which command a report was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// A line that a shell understands: see [`shell_line`].
    pub command: String,
    /// Program or library to its version.
    pub versions: BTreeMap<String, String>,
    pub machine: Machine,
    /// RFC 3339.
    pub started: String,
    /// Wall-clock time of the whole run, over all its starts.
    pub seconds: f64,
}

/// A computer, in words for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's own name.
    pub cpu: String,
    /// Cores that the process may use.
    pub cores: usize,
    /// GiB, rounded.
    pub memory_gib: u64,
    pub os: String,
    /// The GPU that was used, if one was.
    pub gpu: Option<String>,
}

impl Machine {
    /// This machine, as far as the kernel tells (`/proc/cpuinfo`, `/proc/meminfo`, `/etc/os-release`).
    pub fn detect() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, key: &str, mark: char| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(mark)?.1.trim().trim_matches('"').to_owned())
        };
        let cpu = after(&read("/proc/cpuinfo"), "model name", ':').unwrap_or_else(|| std::env::consts::ARCH.to_owned());
        let kib = after(&read("/proc/meminfo"), "MemTotal", ':');
        let kib = kib.and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0);
        let system = after(&read("/etc/os-release"), "PRETTY_NAME", '=');
        Machine {
            cpu,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            memory_gib: (kib + (1 << 19)) >> 20,
            os: system.unwrap_or_else(|| std::env::consts::OS.to_owned()),
            gpu: None,
        }
    }
}

/// How fast an exported model runs on the report's machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// The file's name.
    pub model: String,
    /// `fp32`, `int8`, …
    pub precision: String,
    /// ONNX Runtime's execution provider that really ran.
    pub provider: String,
    pub threads: usize,
    /// Width and height of the model's input.
    pub size: (u32, u32),
    /// Milliseconds an image: the median of the timed runs.
    pub median_ms: f64,
    /// Milliseconds: 95 of 100 runs were faster.
    pub p95_ms: f64,
    /// mIoU of this very file on the validation set, where it was measured.
    pub miou: Option<f64>,
}

/// A command as one line that can be pasted into a shell.
pub fn shell_line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    // A word with a NUL byte cannot be an argument of a program, so nothing is lost with it.
    words.into_iter().filter_map(|word| shlex::try_quote(word).ok()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_survive_a_shell() {
        let words = ["maskcast-train", "fit", "my data", "--classes", "a=b;c", "it's", ""];
        assert_eq!(shlex::split(&shell_line(words)).unwrap(), words);
        assert_eq!(shell_line(["a", "b-c/d.onnx"]), "a b-c/d.onnx");
    }

    #[test]
    fn this_machine_has_a_name() {
        let machine = Machine::detect();
        assert!(!machine.cpu.is_empty() && !machine.os.is_empty() && machine.cores > 0);
    }
}
