//! The parts of a report that are needed to repeat a run: training, data set, environment.

use std::collections::BTreeMap;
use std::fs;

use serde::{Deserialize, Serialize};

use maskcast::frame::{Label, Rgb};

/// How a model was trained.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// `efficientnet-lite0`, …
    pub encoder: String,
    /// The kind and the widths: `dense 128-64-48-32`.
    pub decoder: String,
    /// `freeze-then-finetune`, …
    pub strategy: String,
    /// Where the initial weights come from.
    pub weights: String,
    /// The names of the phases and their numbers of epochs, in order.
    pub phases: Vec<(String, u32)>,
    pub batch: u32,
    /// Width and height of the training crops.
    pub crop: (u32, u32),
    pub seed: u64,
    /// The number of learned values.
    pub parameters: u64,
    /// Multiply-adds for an image of the input size.
    pub multiply_adds: u64,
    /// The other options: optimizer, schedule, loss, augmentations.
    pub settings: BTreeMap<String, String>,
}

/// The data set of a run or evaluation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DatasetFacts {
    pub name: String,
    #[serde(rename = "train_pictures")]
    pub train_images: usize,
    #[serde(rename = "val_pictures")]
    pub val_images: usize,
    /// Width and height of the images, in which the results were measured.
    pub size: (u32, u32),
    /// Share of the evaluated pixels that are void, 0 to 1.
    pub void_share: f64,
    pub classes: Vec<ClassFacts>,
}

/// A class of the data set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassFacts {
    pub name: String,
    /// `#rrggbb`
    pub color: String,
    /// Share of the training pixels that are not void, 0 to 1; `None` if they were not counted.
    pub share: Option<f64>,
}

impl ClassFacts {
    /// The facts of a class with this label.
    pub fn new(label: &Label, share: Option<f64>) -> Self {
        ClassFacts { name: label.name.clone(), color: hex(label.color), share }
    }
}

/// A colour in CSS: `#rrggbb`.
pub(super) fn hex(Rgb(r, g, b): Rgb) -> String {
    format!("#{r:02x}{g:02x}{b:02x}")
}

/// Where, when and by which command a report was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    /// The command line, quoted for a shell: see [`shell_line`].
    pub command: String,
    /// The versions of programs and libraries, by name.
    pub versions: BTreeMap<String, String>,
    pub machine: Machine,
    /// RFC 3339.
    pub started: String,
    /// Wall-clock time of the run, over all its starts.
    pub seconds: f64,
}

/// The hardware and operating system of a computer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The name of the processor.
    pub cpu: String,
    /// The number of cores that the process may use.
    pub cores: usize,
    /// Memory in GiB, rounded.
    pub memory_gib: u64,
    pub os: String,
    /// The name of the GPU that was used.
    pub gpu: Option<String>,
}

impl Machine {
    /// This machine, from `/proc/cpuinfo`, `/proc/meminfo` and `/etc/os-release`.
    pub fn detect() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let after = |text: &str, key: &str, separator: char| {
            let line = text.lines().find(|line| line.starts_with(key))?;
            Some(line.split_once(separator)?.1.trim().trim_matches('"').to_owned())
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

/// The speed of an exported model on the machine of the report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Speed {
    /// The file name.
    pub model: String,
    /// `fp32`, `int8`, …
    pub precision: String,
    /// The execution provider of ONNX Runtime that ran the model.
    pub provider: String,
    pub threads: usize,
    /// Width and height of the input.
    pub size: (u32, u32),
    /// Median of the milliseconds for an image.
    pub median_ms: f64,
    /// 95th percentile of the milliseconds for an image.
    pub p95_ms: f64,
    /// mIoU (0 to 1) of this file on the validation set, if it was measured.
    pub miou: Option<f64>,
}

/// A command as a line for a shell. Words are quoted if necessary.
pub fn shell_line<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    // Only a word with a NUL byte cannot be quoted, and it cannot be an argument of a program.
    words.into_iter().filter_map(|word| shlex::try_quote(word).ok()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_splits_a_quoted_command_into_its_words() {
        let words = ["maskcast-train", "fit", "my data", "--classes", "a=b;c", "it's", ""];
        assert_eq!(shlex::split(&shell_line(words)).unwrap(), words);
        assert_eq!(shell_line(["a", "b-c/d.onnx"]), "a b-c/d.onnx");
    }

    #[test]
    fn the_machine_is_detected() {
        let machine = Machine::detect();
        assert!(!machine.cpu.is_empty() && !machine.os.is_empty() && machine.cores > 0);
    }
}
