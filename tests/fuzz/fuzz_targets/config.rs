//! The configuration: every text is either refused with at least one error, or results in a valid configuration.
#![no_main]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use maskcast::config::{Config, RecordConfig, When, parse};
use maskcast::publish::recording::name::RecordingName;

fuzz_target!(|text: &str| {
    // Relative paths start in a folder with a model and without files that block when they are read.
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/fuzz.toml");
    match parse(text, &path) {
        Ok(config) => check(&config),
        Err(errors) => {
            assert!(!errors.errors.is_empty(), "refused without an error");
            let lines = text.lines().count() + 1;
            for error in &errors.errors {
                // A value that the schema accepts is one of its type.
                assert!(!error.problem.contains("passed the check"), "{error:?}");
                assert!(!error.problem.is_empty() && !error.to_string().contains('\n'), "{error:?}");
                assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)), "{error:?} of {lines} lines");
            }
        }
    }
});

/// Checks the invariants of a configuration.
fn check(config: &Config) {
    assert!(!config.streams.is_empty());
    let names: BTreeSet<_> = config.streams.iter().map(|stream| &stream.name).collect();
    assert_eq!(names.len(), config.streams.len(), "names are unique");
    assert!(!config.models.is_empty());
    let models: BTreeSet<_> = config.models.iter().map(|model| &model.name).collect();
    assert_eq!(models.len(), config.models.len(), "names of models are unique");
    for model in &config.models {
        assert!(model.path.is_file(), "{:?}", model.path);
        assert!(!model.providers.is_empty() && !model.device.numbers().is_empty());
        assert_eq!(model.runtime, config.models[0].runtime, "a process has one ONNX Runtime");
    }
    for stream in &config.streams {
        assert!(models.contains(&stream.model), "{:?}", stream.model);
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        assert!(!stream.name.is_empty() && stream.name.chars().all(allowed), "{:?}", stream.name);
        assert!((0.0..=1.0).contains(&stream.overlay.alpha), "{}", stream.overlay.alpha);
        assert!((1..=100).contains(&stream.encode.jpeg_quality), "{}", stream.encode.jpeg_quality);
        assert!(!stream.silence_timeout.is_zero() && !stream.encode.keyframe_interval.is_zero());
        if let Some(record) = &stream.record {
            check_record(record);
        }
        // The label is shown and logged, so it must not contain the password.
        let label = stream.source.label();
        if let Some(credentials) = &stream.source.credentials {
            let password = credentials.password.expose();
            assert!(password.len() < 8 || !label.contains(password), "{label}");
        }
    }
}

/// Checks the invariants of recordings and events.
fn check_record(record: &RecordConfig) {
    assert!(record.dir.is_absolute() && record.segment >= Duration::from_secs(1), "{record:?}");
    assert!(record.when == When::Always || !record.events.is_empty());
    assert!(record.segment_size.zip(record.max_size).is_none_or(|(one, all)| one <= all), "{record:?}");
    let names: BTreeSet<_> = record.events.iter().map(|event| &event.name).collect();
    assert_eq!(names.len(), record.events.len(), "names are unique");
    for event in &record.events {
        // The name is a part of file names.
        let name = RecordingName::parse("gate", &format!("gate-20200101T000000Z-2-{}.mp4", event.name));
        assert_eq!(name.and_then(|name| name.event).as_ref(), Some(&event.name));
        assert!(!event.classes.is_empty() && event.share > 0.0 && event.share <= 1.0, "{event:?}");
        assert!(event.zone.len() != 1 && event.zone.len() != 2, "{event:?}");
        assert!(event.zone.iter().flatten().all(|at| (0.0..=1.0).contains(at)), "{event:?}");
        let most = Duration::from_secs(3600);
        assert!(event.hold <= most && event.pre_roll <= most && event.post_roll <= most, "{event:?}");
    }
}
