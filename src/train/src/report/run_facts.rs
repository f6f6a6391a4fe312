//! The training, data and environment of a run as pairs of name and value, for the page.

use std::collections::BTreeMap;
use std::path::Path;

use super::text::{NONE, count, duration, number, small_percent};
use super::{Environment, Report};

/// Options that are not listed, because other facts of the page contain them.
const SHOWN_ELSEWHERE: [&str; 10] = [
    "batch",
    "crop",
    "epochs",
    "seed",
    "strategy",
    "net.decoder_kind",
    "net.decoder_widths",
    "net.encoder",
    "net.init",
    "net.weights",
];
/// The weights of every run have this name, so that they are shown with their folder.
const BEST: &str = "best.safetensors";

/// A name and a value.
pub(super) struct Fact {
    pub name: String,
    pub value: String,
    /// Details, which the page shows on request.
    pub more: Option<String>,
}

pub(super) fn fact(name: impl Into<String>, value: impl Into<String>) -> Fact {
    Fact { name: name.into(), value: value.into(), more: None }
}

/// A summary of the text about the initial weights in the log (`PATH: took …; skipped …`).
pub(super) struct WeightsOrigin {
    /// The file name; the whole text if it contains no path.
    pub source: String,
    /// The file name and the number of tensors.
    pub line: String,
}

impl WeightsOrigin {
    pub fn of(log: &str) -> Self {
        let Some((path, report)) = log.split_once(": ") else {
            return WeightsOrigin { source: log.into(), line: log.into() };
        };
        let file = Path::new(path).file_name().map_or_else(|| path.into(), |name| name.to_string_lossy());
        let folder = Path::new(path).parent().and_then(Path::file_name).filter(|_| file == BEST);
        let source = match folder {
            Some(folder) => format!("{}/{file}", folder.to_string_lossy()),
            None => file.into_owned(),
        };
        let line = format!("{source}: {}", report.split(';').next().unwrap_or_default());
        WeightsOrigin { source, line }
    }
}

impl Report {
    pub(super) fn training_facts(&self) -> Vec<Fact> {
        let Some(training) = &self.training else { return Vec::new() };
        let phases: Vec<String> = training.phases.iter().map(|(name, epochs)| format!("{epochs} {name}")).collect();
        let origin = WeightsOrigin::of(&training.weights).line;
        let more = Some(training.weights.clone()).filter(|log| *log != origin);
        vec![
            fact("encoder", &training.encoder),
            fact("decoder", &training.decoder),
            Fact { more, ..fact("initial weights", origin) },
            fact("strategy", &training.strategy),
            fact("epochs", if phases.is_empty() { NONE.into() } else { phases.join(", then ") }),
            fact("batch", training.batch.to_string()),
            fact("crop", format!("{}×{}", training.crop.0, training.crop.1)),
            fact("seed", training.seed.to_string()),
            fact("parameters", count(training.parameters)),
            fact("computation for an image", format!("{} GMAC", number(training.multiply_adds as f64 / 1e9))),
        ]
    }

    pub(super) fn option_facts(&self) -> Vec<Fact> {
        self.training.as_ref().map(|training| settings(&training.settings)).unwrap_or_default()
    }

    pub(super) fn data_facts(&self) -> Vec<Fact> {
        let data = &self.dataset;
        vec![
            fact("data set", &data.name),
            fact("training images", count(data.train_images as u64)),
            fact("validation images", count(data.val_images as u64)),
            fact("measured at", format!("{}×{}", data.size.0, data.size.1)),
            fact("void", format!("{} % of the evaluated pixels", small_percent(data.void_share))),
        ]
    }
}

/// The options that are not shown elsewhere. Those of a group (`augment.flip`) are one fact, as a list.
fn settings(all: &BTreeMap<String, String>) -> Vec<Fact> {
    let mut single = Vec::new();
    let mut groups = BTreeMap::<&str, Vec<String>>::new();
    for (name, value) in all.iter().filter(|(name, _)| !SHOWN_ELSEWHERE.contains(&name.as_str())) {
        match name.split_once('.') {
            // A no-break space between name and value.
            Some((group, name)) => groups.entry(group).or_default().push(format!("{name}\u{a0}{value}")),
            None => single.push(fact(name, value)),
        }
    }
    single.extend(groups.into_iter().map(|(group, values)| fact(group, values.join(", "))));
    single
}

/// The machine as a text.
pub(super) fn machine(environment: &Environment) -> String {
    let machine = &environment.machine;
    let gpu = machine.gpu.as_ref().map(|gpu| format!(", {gpu}")).unwrap_or_default();
    let cores = if machine.cores == 1 { "1 core".into() } else { format!("{} cores", machine.cores) };
    format!("{}, {cores}, {} GiB{gpu}, {}", machine.cpu, machine.memory_gib, machine.os)
}

/// When and on which machine the run was made, and the versions of the software.
pub(super) fn environment_facts(environment: &Environment) -> Vec<Fact> {
    let mut facts = vec![
        fact("started", &environment.started),
        fact("took", duration(environment.seconds)),
        fact("machine", machine(environment)),
    ];
    facts.extend(environment.versions.iter().map(|(name, version)| fact(name, version)));
    facts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_weights_are_summarised() {
        let origin = WeightsOrigin::of(
            "/c/encoders/lite0.pth: took 240 tensors (3.0 M numbers); skipped 7 (why): a, b; as lite",
        );
        assert_eq!((&*origin.source, &*origin.line), ("lite0.pth", "lite0.pth: took 240 tensors (3.0 M numbers)"));
        assert_eq!(WeightsOrigin::of("runs/first/best.safetensors: took 9 tensors").source, "first/best.safetensors");
        let random = WeightsOrigin::of("every layer at random");
        assert_eq!((random.source, random.line), ("every layer at random".into(), "every layer at random".into()));
    }

    #[test]
    fn options_are_listed_once_and_in_groups() {
        let all =
            [("batch", "8"), ("lr", "0.002"), ("augment.flip", "0.5"), ("augment.noise", "0.0"), ("net.encoder", "x")];
        let all = all.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let facts: Vec<(String, String)> = settings(&all).into_iter().map(|fact| (fact.name, fact.value)).collect();
        let expected = [("lr", "0.002"), ("augment", "flip\u{a0}0.5, noise\u{a0}0.0")];
        assert_eq!(facts, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
