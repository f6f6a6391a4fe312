//! Reads from a profile of one run which execution provider ran which nodes of a model.
//!
//! ONNX Runtime may register a provider without an error and still run all nodes on the CPU; it has no function that reports
//! this. The profile names the provider of every node that ran.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::onnx_error::OnnxRuntimeError;
use crate::config::Provider;

/// The part of a model that one execution provider runs.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = PlacementPart)]
pub struct ProviderShare {
    /// Name of the provider in ONNX Runtime, without `ExecutionProvider`: `CPU`, `CUDA` or `Tensorrt`.
    pub provider: String,
    /// Number of nodes of the optimised graph. TensorRT merges many nodes into one.
    pub nodes: usize,
    /// Share of the run time of all nodes, 0 to 1.
    pub time: f64,
}

/// The providers that ran the nodes of a model; the largest share of time first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Placement(pub Vec<ProviderShare>);

/// From this share of CPU time on, a model on a GPU gets a warning.
const NOTABLE_CPU_TIME: f64 = 0.1;

/// From this share of CPU time on, a model counts as running on the CPU.
const MAX_CPU_TIME: f64 = 0.5;

/// An event in a profile of ONNX Runtime (trace event format of Chrome).
#[derive(Deserialize)]
struct TraceEvent {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    /// Duration in microseconds.
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    args: TraceEventArgs,
}

#[derive(Default, Deserialize)]
struct TraceEventArgs {
    provider: Option<String>,
}

/// Why a run cannot be profiled.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ProfileError {
    #[error("{0}")]
    Io(#[source] Arc<std::io::Error>),
    #[error("{0}")]
    Options(#[source] OnnxRuntimeError),
    #[error("ONNX Runtime wrote no profile")]
    NotWritten,
    /// The message of the JSON parser.
    #[error("{0}")]
    Json(String),
    #[error("no node in the profile names its provider")]
    NoProvider,
}

impl From<std::io::Error> for ProfileError {
    fn from(error: std::io::Error) -> Self {
        ProfileError::Io(error.into())
    }
}

/// Why a run is not a run on the requested provider.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PlacementMismatch {
    #[error("ONNX Runtime registered the provider and assigned no nodes to it: {0}")]
    NoNodes(Placement),
    #[error("most of the work stays on the CPU: {0}")]
    MostlyCpu(Placement),
}

impl Placement {
    /// Reads a profile.
    ///
    /// # Errors
    /// It is not JSON of trace events, or no event names a provider.
    pub fn parse(profile: &str) -> Result<Placement, ProfileError> {
        let events: Vec<TraceEvent> =
            serde_json::from_str(profile).map_err(|error| ProfileError::Json(error.to_string()))?;
        let mut parts: BTreeMap<String, (usize, f64)> = BTreeMap::new();
        for event in events.iter().filter(|event| event.cat == "Node" && event.name.ends_with("_kernel_time")) {
            if let Some(provider) = event.args.provider.as_deref().filter(|provider| !provider.is_empty()) {
                let part = parts.entry(provider.trim_end_matches("ExecutionProvider").to_string()).or_default();
                part.0 += 1;
                part.1 += event.dur;
            }
        }
        let all: f64 = parts.values().map(|(_, time)| time).sum();
        // When all nodes took less than a microsecond, each has the same share.
        let nodes: usize = parts.values().map(|(nodes, _)| nodes).sum();
        let share =
            |nodes_here: usize, time: f64| if all > 0.0 { time / all } else { nodes_here as f64 / nodes as f64 };
        let mut parts: Vec<ProviderShare> = parts
            .into_iter()
            .map(|(provider, (nodes, time))| ProviderShare { provider, nodes, time: share(nodes, time) })
            .collect();
        if parts.is_empty() {
            return Err(ProfileError::NoProvider);
        }
        parts.sort_by(|a, b| b.time.total_cmp(&a.time));
        Ok(Placement(parts))
    }

    fn part(&self, provider: Provider) -> Option<&ProviderShare> {
        let name = match provider {
            Provider::Cpu => "CPU",
            Provider::Cuda => "CUDA",
            Provider::TensorRt => "Tensorrt",
        };
        self.0.iter().find(|part| part.provider.eq_ignore_ascii_case(name))
    }

    /// Share of the time on the CPU, 0 to 1.
    pub fn cpu_time(&self) -> f64 {
        self.part(Provider::Cpu).map_or(0.0, |part| part.time)
    }

    /// Why this is not a run on `provider`; `None` when it is one.
    pub fn mismatch(&self, provider: Provider) -> Option<PlacementMismatch> {
        if provider == Provider::Cpu {
            return None;
        }
        if self.part(provider).is_none() {
            return Some(PlacementMismatch::NoNodes(self.clone()));
        }
        (self.cpu_time() > MAX_CPU_TIME).then(|| PlacementMismatch::MostlyCpu(self.clone()))
    }

    /// A warning about a run on `provider` of which the CPU has a notable part.
    pub fn warning(&self, provider: Provider) -> Option<String> {
        (provider != Provider::Cpu && self.cpu_time() > NOTABLE_CPU_TIME)
            .then(|| format!("part of the work stays on the CPU: {self}"))
    }
}

impl std::fmt::Display for Placement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, part) in self.0.iter().enumerate() {
            let (comma, s) = (if n > 0 { ", " } else { "" }, if part.nodes == 1 { "" } else { "s" });
            write!(f, "{comma}{} {:.0} % of the time ({} node{s})", part.provider, part.time * 100.0, part.nodes)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(nodes: &[(&str, f64)]) -> Placement {
        let mut events = vec![r#"{"cat":"Session","name":"model_run","dur":99,"args":{}}"#.to_string()];
        for (provider, dur) in nodes {
            events.push(format!(
                r#"{{"cat":"Node","name":"conv_kernel_time","dur":{dur},"ts":1,"args":{{"op_name":"Conv","provider":"{provider}ExecutionProvider"}}}}"#
            ));
        }
        Placement::parse(&format!("[{}]", events.join(","))).unwrap()
    }

    #[test]
    fn shares_are_shares_of_the_time() {
        let placement = profile(&[("CPU", 100.0), ("CUDA", 200.0), ("CUDA", 100.0)]);
        assert_eq!(placement.to_string(), "CUDA 75 % of the time (2 nodes), CPU 25 % of the time (1 node)");
        assert_eq!(placement.mismatch(Provider::Cuda), None);
        assert!(placement.warning(Provider::Cuda).is_some());
    }

    #[test]
    fn detects_a_provider_without_nodes() {
        let placement = profile(&[("CPU", 100.0), ("CPU", 200.0)]);
        assert!(matches!(placement.mismatch(Provider::Cuda), Some(PlacementMismatch::NoNodes(_))));
        assert!(placement.mismatch(Provider::TensorRt).is_some());
        assert_eq!(placement.mismatch(Provider::Cpu), None);
        let mostly_cpu = profile(&[("CPU", 90.0), ("CUDA", 10.0)]);
        assert!(matches!(mostly_cpu.mismatch(Provider::Cuda), Some(PlacementMismatch::MostlyCpu(_))));
        assert_eq!(profile(&[("Tensorrt", 90.0), ("CPU", 1.0)]).warning(Provider::TensorRt), None);
    }

    #[test]
    fn a_profile_without_providers_is_an_error() {
        assert!(matches!(Placement::parse("[]"), Err(ProfileError::NoProvider)));
        assert!(matches!(Placement::parse("[{"), Err(ProfileError::Json(_))));
    }
}
