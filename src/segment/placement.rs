//! Where a model really runs: what ONNX Runtime assigned to which execution provider, read from a profile of one run.
//!
//! A provider that was registered without an error may still have been given nothing: ONNX Runtime then runs everything
//! on the CPU and says so nowhere that a program could read it. The profile names the provider of every node that ran.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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

/// Where the nodes of a model ran; the largest share of time first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Placement(pub Vec<ProviderShare>);

/// A GPU model whose CPU nodes take more of the time than this is worth a warning.
const NOTABLE_CPU_TIME: f64 = 0.1;

/// And with more than this it is a model on the CPU, whatever else takes part.
const CPU_TIME: f64 = 0.5;

/// An event of ONNX Runtime's profile (Chrome's trace event format).
#[derive(Deserialize)]
struct TraceEvent {
    #[serde(default)]
    cat: String,
    #[serde(default)]
    name: String,
    /// Microseconds.
    #[serde(default)]
    dur: f64,
    #[serde(default)]
    args: TraceEventArgs,
}

#[derive(Default, Deserialize)]
struct TraceEventArgs {
    provider: Option<String>,
}

impl Placement {
    /// Reads a profile.
    ///
    /// # Errors
    /// When it is not JSON of events, or no event names a provider.
    pub fn parse(profile: &str) -> Result<Placement, String> {
        let events: Vec<TraceEvent> = serde_json::from_str(profile).map_err(|error| error.to_string())?;
        let mut parts: BTreeMap<String, (usize, f64)> = BTreeMap::new();
        for event in events.iter().filter(|event| event.cat == "Node" && event.name.ends_with("_kernel_time")) {
            if let Some(provider) = event.args.provider.as_deref().filter(|provider| !provider.is_empty()) {
                let part = parts.entry(provider.trim_end_matches("ExecutionProvider").to_string()).or_default();
                part.0 += 1;
                part.1 += event.dur;
            }
        }
        let all: f64 = parts.values().map(|(_, time)| time).sum();
        // Nodes that all took less than a microsecond count alike.
        let nodes: usize = parts.values().map(|(nodes, _)| nodes).sum();
        let share =
            |nodes_here: usize, time: f64| if all > 0.0 { time / all } else { nodes_here as f64 / nodes as f64 };
        let mut parts: Vec<ProviderShare> = parts
            .into_iter()
            .map(|(provider, (nodes, time))| ProviderShare { provider, nodes, time: share(nodes, time) })
            .collect();
        if parts.is_empty() {
            return Err("no node in it names its provider".into());
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

    /// Share of the time that the CPU took.
    pub fn cpu_time(&self) -> f64 {
        self.part(Provider::Cpu).map_or(0.0, |part| part.time)
    }

    /// Why this is not a run on `provider`; `None` when it is one.
    pub fn denies(&self, provider: Provider) -> Option<String> {
        if provider == Provider::Cpu {
            return None;
        }
        if self.part(provider).is_none() {
            return Some(format!("ONNX Runtime accepted it and assigned it nothing: {self}"));
        }
        (self.cpu_time() > CPU_TIME).then(|| format!("most of the work stays on the CPU: {self}"))
    }

    /// What is worth a warning about a run on `provider`.
    pub fn concern(&self, provider: Provider) -> Option<String> {
        (provider != Provider::Cpu && self.cpu_time() > NOTABLE_CPU_TIME)
            .then(|| format!("a part of the work stays on the CPU: {self}"))
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
    fn shares_are_of_the_time() {
        let placement = profile(&[("CPU", 100.0), ("CUDA", 200.0), ("CUDA", 100.0)]);
        assert_eq!(placement.to_string(), "CUDA 75 % of the time (2 nodes), CPU 25 % of the time (1 node)");
        assert_eq!(placement.denies(Provider::Cuda), None);
        assert!(placement.concern(Provider::Cuda).is_some());
    }

    #[test]
    fn a_provider_that_got_nothing_is_found_out() {
        let placement = profile(&[("CPU", 100.0), ("CPU", 200.0)]);
        assert!(placement.denies(Provider::Cuda).unwrap().contains("assigned it nothing"));
        assert!(placement.denies(Provider::TensorRt).is_some());
        assert_eq!(placement.denies(Provider::Cpu), None);
        assert!(profile(&[("CPU", 90.0), ("CUDA", 10.0)]).denies(Provider::Cuda).unwrap().contains("most of the work"));
        assert_eq!(profile(&[("Tensorrt", 90.0), ("CPU", 1.0)]).concern(Provider::TensorRt), None);
    }

    #[test]
    fn a_profile_without_providers_is_an_error() {
        assert!(Placement::parse("[]").is_err());
        assert!(Placement::parse("[{").is_err());
    }
}
