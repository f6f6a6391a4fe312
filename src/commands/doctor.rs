//! `maskcast doctor`: checks the machine, and optionally a configuration on it.

use std::path::Path;

use serde_json::{Value, json};

use super::{Failure, load_config};
use crate::config::{Config, EncoderChoice, ModelConfig};
use crate::segment::onnx::Model;
use crate::segment::runtime;

/// The severity of a finding.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Severity {
    /// It works.
    Good,
    /// It works with a limitation, or an optional part is missing.
    Note,
    /// Maskcast cannot work on this machine.
    Bad,
}

/// The result of one check.
struct Finding {
    topic: &'static str,
    severity: Severity,
    text: String,
}

impl Finding {
    fn good(topic: &'static str, text: impl Into<String>) -> Self {
        Finding { topic, severity: Severity::Good, text: text.into() }
    }

    fn note(topic: &'static str, text: impl Into<String>) -> Self {
        Finding { topic, severity: Severity::Note, text: text.into() }
    }

    fn bad(topic: &'static str, text: impl Into<String>) -> Self {
        Finding { topic, severity: Severity::Bad, text: text.into() }
    }
}

/// Checks the machine and prints the findings, as text or as JSON. With a configuration, its models, encoders, ports and
/// sources are checked too.
///
/// # Errors
/// When the configuration has errors, or a finding prevents Maskcast from working on this machine.
pub fn doctor(path: Option<&Path>, as_json: bool) -> Result<(), Failure> {
    let config = path.map(load_config).transpose()?;
    let mut findings = vec![Finding::good("version", env!("CARGO_PKG_VERSION"))];
    machine(&mut findings);
    gstreamer(&mut findings, config.as_ref());
    models(&mut findings, config.as_ref());
    if let Some(config) = &config {
        ports(&mut findings, config);
    }
    if as_json {
        println!("{}", serde_json::to_string_pretty(&as_value(&findings)).map_err(Failure::runtime)?);
    } else {
        for finding in &findings {
            let mark = match finding.severity {
                Severity::Good => "ok  ",
                Severity::Note => "note",
                Severity::Bad => "BAD ",
            };
            println!("{mark}  {:12} {}", finding.topic, finding.text);
        }
    }
    match findings.iter().filter(|finding| finding.severity == Severity::Bad).count() {
        0 => Ok(()),
        bad => Err(Failure::runtime(format!(
            "Maskcast cannot work on this machine: {bad} of {} findings are marked BAD",
            findings.len()
        ))),
    }
}

fn as_value(findings: &[Finding]) -> Value {
    let finding = |finding: &Finding| {
        let verdict = match finding.severity {
            Severity::Good => "ok",
            Severity::Note => "note",
            Severity::Bad => "bad",
        };
        json!({ "topic": finding.topic, "verdict": verdict, "text": finding.text })
    };
    json!({
        "ok": findings.iter().all(|finding| finding.severity != Severity::Bad),
        "findings": findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn machine(findings: &mut Vec<Finding>) {
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
    let model = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split_once(':')?.1.trim().to_string())
    });
    let text = format!("{cores} cores, {}", model.unwrap_or_else(|| "model unknown".into()));
    findings.push(Finding::good("cpu", text));
    findings.push(match std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count) {
        0 => Finding::note("gpu", "no NVIDIA GPU"),
        n => Finding::good("gpu", format!("{n} NVIDIA GPU")),
    });
    let cameras: Vec<String> = std::fs::read_dir("/dev").map_or_else(
        |_| Vec::new(),
        |entries| {
            let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
            names.filter(|name| name.starts_with("video")).map(|name| format!("/dev/{name}")).collect()
        },
    );
    let text = if cameras.is_empty() { "no V4L2 device".to_string() } else { cameras.join(", ") };
    findings.push(Finding::good("cameras", text));
}

fn gstreamer(findings: &mut Vec<Finding>, config: Option<&Config>) {
    match crate::publish::encoder::gstreamer_report() {
        Ok((version, missing)) => {
            findings.push(Finding::good("gstreamer", version));
            for missing in missing {
                let severity = if missing.needed { Severity::Bad } else { Severity::Note };
                let text = format!("{} is missing (install {})", missing.element, missing.package);
                findings.push(Finding { topic: "gstreamer", severity, text });
            }
        }
        Err(error) => findings.push(Finding::bad("gstreamer", error.message)),
    }
    let mut choices: Vec<EncoderChoice> = config.map_or_else(
        || vec![EncoderChoice::Auto],
        |config| config.streams.iter().map(|stream| stream.encode.encoder).collect(),
    );
    let mut seen = Vec::new();
    choices.retain(|choice| {
        !seen.contains(choice) && {
            seen.push(*choice);
            true
        }
    });
    for choice in choices {
        let finding = match crate::publish::encoder::H264::choose(choice, &[]) {
            Ok(choice) => Finding::good("encoder", choice.to_string()),
            Err(error) => Finding::bad("encoder", error.to_string()),
        };
        findings.push(finding);
    }
}

/// Checks the library and the models of the configuration, or the bundled model.
fn models(findings: &mut Vec<Finding>, config: Option<&Config>) {
    let models = match config {
        Some(config) => config.models.clone(),
        None => match crate::base::paths::default_model() {
            Ok(path) => vec![ModelConfig::with_path(path)],
            Err(error) => {
                findings.push(Finding::note("model", format!("the bundled model was {error}")));
                return;
            }
        },
    };
    // All models have the same.
    match runtime::load(models.first().and_then(|model| model.runtime.as_deref())) {
        Ok(runtime) => {
            // Symbolic links are resolved, because the name of the file has the version.
            let file = runtime.path.canonicalize().unwrap_or_else(|_| runtime.path.clone());
            let text = format!("{} ({})", file.display(), runtime.build_info().trim_start_matches("ORT Build Info: "));
            findings.push(Finding::good("onnxruntime", text));
        }
        Err(error) => {
            findings.push(Finding::bad("onnxruntime", error.to_string()));
            return;
        }
    }
    for settings in &models {
        let name = if models.len() == 1 { String::new() } else { format!("model {}: ", settings.name) };
        model(findings, settings, &name);
    }
}

/// Checks one model. `name` comes before each finding.
fn model(findings: &mut Vec<Finding>, settings: &ModelConfig, name: &str) {
    match Model::load(settings, settings.threads) {
        Ok(model) => {
            for (provider, reason) in &model.refused {
                let text = format!("{name}{} does not run the model: {reason}", provider.name());
                findings.push(Finding::note("provider", text));
            }
            findings.push(match model.time(settings.threads) {
                Ok(time) => Finding::good(
                    "provider",
                    format!(
                        "{name}{} runs {}, {:.0} ms a frame: {}",
                        model.provider.name(),
                        model.name(),
                        time.as_secs_f64() * 1e3,
                        model.placement
                    ),
                ),
                Err(error) => Finding::bad("provider", format!("{name}{error}")),
            });
            for warning in &model.warnings {
                findings.push(Finding::note("model", format!("{name}{warning}")));
            }
            let path = settings.path.display();
            findings.push(match model.golden_difference {
                Some(difference) => {
                    let percent = difference * 100.0;
                    Finding::good(
                        "model",
                        format!("{name}{path}: its golden frame differs in {percent:.3} % of pixels"),
                    )
                }
                None => Finding::note(
                    "model",
                    format!("{name}{path}: no golden frame, so its results cannot be checked on this machine"),
                ),
            });
        }
        Err(error) => findings.push(Finding::bad("model", format!("{name}{error}"))),
    }
}

fn ports(findings: &mut Vec<Finding>, config: &Config) {
    for (topic, address) in [("server.http", config.server.http), ("server.rtsp", config.server.rtsp)] {
        let finding = match std::net::TcpListener::bind(address) {
            Ok(_) => Finding::good(topic, format!("{address} is free")),
            // Not an error, because the service itself may be running.
            Err(error) => Finding::note(topic, format!("{address}: {error}")),
        };
        findings.push(finding);
    }
    for stream in &config.streams {
        let model = if config.models.len() == 1 { String::new() } else { format!(" (model {})", stream.model) };
        let text = format!("{}: {}{model}", stream.name, stream.source.label());
        findings.push(Finding::good("stream", text));
    }
}
