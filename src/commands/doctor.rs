//! `maskcast doctor`: what this machine offers, and what a configuration would get of it.

use std::path::Path;

use serde_json::{Value, json};

use super::{Failure, load_config};
use crate::config::{Config, EncoderChoice, ModelConfig};
use crate::segment::onnx::Model;
use crate::segment::runtime;

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Severity {
    Good,
    /// Works, but not as well as it could.
    Note,
    Bad,
}

struct Finding {
    topic: &'static str,
    verdict: Severity,
    text: String,
}

/// Looks at the machine and prints what it finds.
///
/// # Errors
/// When something is missing without which Maskcast cannot work here.
pub fn doctor(path: Option<&Path>, as_json: bool) -> Result<(), Failure> {
    let config = path.map(load_config).transpose()?;
    let mut findings =
        vec![Finding { topic: "version", verdict: Severity::Good, text: env!("CARGO_PKG_VERSION").into() }];
    machine(&mut findings);
    gstreamer(&mut findings, config.as_ref());
    model(&mut findings, config.as_ref());
    if let Some(config) = &config {
        ports(&mut findings, config);
    }
    if as_json {
        println!("{}", serde_json::to_string_pretty(&as_value(&findings)).map_err(Failure::runtime)?);
    } else {
        for finding in &findings {
            let mark = match finding.verdict {
                Severity::Good => "ok  ",
                Severity::Note => "note",
                Severity::Bad => "BAD ",
            };
            println!("{mark}  {:12} {}", finding.topic, finding.text);
        }
    }
    match findings.iter().filter(|finding| finding.verdict == Severity::Bad).count() {
        0 => Ok(()),
        bad => Err(Failure::runtime(format!("{bad} of {} findings keep Maskcast from working here", findings.len()))),
    }
}

fn as_value(findings: &[Finding]) -> Value {
    let finding = |finding: &Finding| {
        let verdict = match finding.verdict {
            Severity::Good => "ok",
            Severity::Note => "note",
            Severity::Bad => "bad",
        };
        json!({ "topic": finding.topic, "verdict": verdict, "text": finding.text })
    };
    json!({
        "ok": findings.iter().all(|finding| finding.verdict != Severity::Bad),
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
    findings.push(Finding { topic: "cpu", verdict: Severity::Good, text });
    let gpu = std::fs::read_dir("/proc/driver/nvidia/gpus").map_or(0, Iterator::count);
    let text = match gpu {
        0 => "no NVIDIA GPU".to_string(),
        n => format!("{n} NVIDIA GPU"),
    };
    findings.push(Finding { topic: "gpu", verdict: if gpu == 0 { Severity::Note } else { Severity::Good }, text });
    let cameras: Vec<String> = std::fs::read_dir("/dev").map_or_else(
        |_| Vec::new(),
        |entries| {
            let names = entries.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
            names.filter(|name| name.starts_with("video")).map(|name| format!("/dev/{name}")).collect()
        },
    );
    let text = if cameras.is_empty() { "no V4L2 device".to_string() } else { cameras.join(", ") };
    findings.push(Finding { topic: "cameras", verdict: Severity::Good, text });
}

fn gstreamer(findings: &mut Vec<Finding>, config: Option<&Config>) {
    match crate::publish::encoder::gstreamer_report() {
        Ok((version, missing)) => {
            findings.push(Finding { topic: "gstreamer", verdict: Severity::Good, text: version });
            for missing in missing {
                let verdict = if missing.needed { Severity::Bad } else { Severity::Note };
                let text = format!("{} is missing (install {})", missing.element, missing.package);
                findings.push(Finding { topic: "gstreamer", verdict, text });
            }
        }
        Err(error) => findings.push(Finding { topic: "gstreamer", verdict: Severity::Bad, text: error.message }),
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
            Ok(choice) => Finding { topic: "encoder", verdict: Severity::Good, text: choice.to_string() },
            Err(error) => Finding { topic: "encoder", verdict: Severity::Bad, text: error.message },
        };
        findings.push(finding);
    }
}

fn model(findings: &mut Vec<Finding>, config: Option<&Config>) {
    let settings = match config {
        Some(config) => config.model.clone(),
        None => match crate::base::paths::default_model() {
            Ok(path) => ModelConfig::with_path(path),
            Err(places) => {
                findings.push(Finding {
                    topic: "model",
                    verdict: Severity::Note,
                    text: format!("the bundled model was {places}"),
                });
                return;
            }
        },
    };
    match runtime::load(settings.runtime.as_deref()) {
        Ok(runtime) => {
            // The file's own name, behind any links, carries the version.
            let file = runtime.path.canonicalize().unwrap_or_else(|_| runtime.path.clone());
            let text = format!("{} ({})", file.display(), runtime.build_info().trim_start_matches("ORT Build Info: "));
            findings.push(Finding { topic: "onnxruntime", verdict: Severity::Good, text });
        }
        Err(error) => {
            findings.push(Finding { topic: "onnxruntime", verdict: Severity::Bad, text: error.0 });
            return;
        }
    }
    match Model::load(&settings, settings.threads) {
        Ok(model) => {
            for (provider, reason) in &model.refused {
                let text = format!("{} does not run the model: {reason}", provider.name());
                findings.push(Finding { topic: "provider", verdict: Severity::Note, text });
            }
            findings.push(match model.time(settings.threads) {
                Ok(time) => Finding {
                    topic: "provider",
                    verdict: Severity::Good,
                    text: format!(
                        "{} runs {}, {:.0} ms a frame: {}",
                        model.provider.name(),
                        model.name(),
                        time.as_secs_f64() * 1e3,
                        model.placement
                    ),
                },
                Err(error) => Finding { topic: "provider", verdict: Severity::Bad, text: error.0 },
            });
            for concern in &model.concerns {
                findings.push(Finding { topic: "model", verdict: Severity::Note, text: concern.clone() });
            }
            let golden = match model.golden_difference {
                Some(difference) => (
                    Severity::Good,
                    format!(
                        "{}: its golden frame differs in {:.3} % of pixels",
                        settings.path.display(),
                        difference * 100.0
                    ),
                ),
                None => (
                    Severity::Note,
                    format!("{}: no golden frame, its results cannot be checked here", settings.path.display()),
                ),
            };
            findings.push(Finding { topic: "model", verdict: golden.0, text: golden.1 });
        }
        Err(error) => findings.push(Finding { topic: "model", verdict: Severity::Bad, text: error.to_string() }),
    }
}

fn ports(findings: &mut Vec<Finding>, config: &Config) {
    for (topic, address) in [("server.http", config.server.http), ("server.rtsp", config.server.rtsp)] {
        let finding = match std::net::TcpListener::bind(address) {
            Ok(_) => Finding { topic, verdict: Severity::Good, text: format!("{address} is free") },
            // The service itself may be running.
            Err(error) => Finding { topic, verdict: Severity::Note, text: format!("{address}: {error}") },
        };
        findings.push(finding);
    }
    for stream in &config.streams {
        let text = format!("{}: {}", stream.name, stream.source.label());
        findings.push(Finding { topic: "stream", verdict: Severity::Good, text });
    }
}
