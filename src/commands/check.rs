//! `maskcast check`

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use super::{Failure, exit};
use crate::access::tls::Certificate;
use crate::capture::check_description;
use crate::config::{
    self, Config, ConfigError, ConfigErrors, ModelConfig, SourceUri, StreamConfig, readable_passwords,
};
use crate::frame::Label;
use crate::publish::encoder::H264;
use crate::segment::ModelError;
use crate::segment::onnx::Model;
use crate::service::{check_labels, unused_names};

/// Reads the configuration and loads its models; connects to no camera and opens no port.
///
/// # Errors
/// Everything that is wrong, a line each, with exit code 78.
pub fn check(path: &Path) -> Result<(), Failure> {
    let text = config::read(path).map_err(Failure::config)?;
    let (config, ConfigErrors { mut errors, .. }) = config::parse_partly(&text, path);
    let Some(config) = config else { return Err(all(path, errors)) };
    // A model is only loaded as it is to be run.
    let is_about_models =
        |key: &str| key.strip_prefix("model").is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    let has_models = !errors.iter().any(|error| is_about_models(&error.key));
    let models = if has_models { load_models(&config, &mut errors)? } else { Vec::new() };
    errors.extend(config.streams.iter().filter_map(|stream| check_source(stream).err()));
    if !errors.is_empty() {
        return Err(all(path, errors));
    }
    for stream in &config.streams {
        H264::choose(stream.encode.encoder, &[])
            .map_err(|error| Failure::runtime(format!("stream[{}].encode.encoder: {error}", stream.name)))?;
    }
    if let Some(tls) = &config.server.tls {
        Certificate::load(tls).map_err(|problem| Failure::config(format!("{}: {problem}", path.display())))?;
    }
    let mut warnings: Vec<String> =
        readable_passwords(path).into_iter().chain(config.streams.iter().filter_map(records)).collect();
    warnings.extend(config.streams.iter().filter_map(collection_folder));
    warnings.extend(config.streams.iter().filter_map(unredacted_collection));
    warnings.extend(config.streams.iter().filter_map(|stream| unredacted_twin(stream, &config.streams)));
    let labels: Vec<Label> = models.iter().flat_map(|(_, model)| model.contract.labels.iter().cloned()).collect();
    warnings.extend(unused_names(&config, Some(&labels)));
    for (settings, model) in &models {
        warnings.extend(model.warnings.iter().map(|warning| format!("{}: {warning}", settings.path.display())));
    }
    match warnings.len() {
        0 => println!("{}: good", path.display()),
        count => {
            println!("{}: can be used, see the {}", path.display(), if count == 1 { "warning" } else { "warnings" })
        }
    }
    for (settings, model) in &models {
        let name = if models.len() == 1 { String::new() } else { format!("{}: ", settings.name) };
        println!("  model    {name}{} ({}), runs on {}", settings.path.display(), model.name(), model.provider.name());
        if models.len() > 1 {
            let streams: Vec<&str> = config.streams_of(&settings.name).map(|stream| stream.name.as_str()).collect();
            println!("           streams: {}", if streams.is_empty() { "none".to_owned() } else { streams.join(", ") });
        }
    }
    let has_scores = |stream: &StreamConfig| {
        models.iter().any(|(settings, model)| settings.name == stream.model && model.contract.has_scores())
    };
    let s = if config.server.tls.is_some() { "s" } else { "" };
    println!("  page     http{s}://{}/", config.server.http);
    for stream in &config.streams {
        println!(
            "  stream   {}: {} -> rtsp{s}://{}/{}",
            stream.name,
            stream.source.label(),
            config.server.rtsp,
            stream.name
        );
        println!("           {}", visible(stream, has_scores(stream)));
        if let Some(line) = collects(stream) {
            println!("           {line}");
        }
        for push in &stream.push {
            println!("           pushed to {}", push.target.label());
        }
        for sink in &stream.sinks {
            println!("           masks to {} {}", sink.kind.name, sink.label());
        }
        if let SourceUri::V4l2(device) = &stream.source.uri
            && !device.exists()
        {
            println!("           {} is not there now; the service waits for it", device.display());
        }
    }
    for warning in &warnings {
        println!("  warning  {warning}");
    }
    Ok(())
}

fn all(path: &Path, errors: Vec<ConfigError>) -> Failure {
    Failure { code: exit::CONFIG, message: ConfigErrors { path: path.to_path_buf(), errors }.to_string() }
}

/// Loads the models, and notes their errors and those of the labels that streams name.
fn load_models<'a>(
    config: &'a Config,
    errors: &mut Vec<ConfigError>,
) -> Result<Vec<(&'a ModelConfig, Model)>, Failure> {
    let mut models = Vec::new();
    for settings in &config.models {
        match Model::load(settings, settings.threads) {
            Ok(model) => {
                let streams = || config.streams_of(&settings.name);
                errors.extend(streams().filter_map(|stream| unusable_bias(stream, &model)));
                errors.extend(check_labels(streams(), &model.contract.labels).err().unwrap_or_default());
                models.push((settings, model));
            }
            Err(ModelError::Model(problem)) => {
                let key = format!("{}.path", config.model_key(&settings.name));
                errors.push(ConfigError { key, line: None, problem: problem.to_string(), help: None });
            }
            // With errors of the file's own, those first.
            Err(ModelError::Machine(_)) if !errors.is_empty() => {}
            Err(ModelError::Machine(problem)) => return Err(Failure::runtime(problem)),
        }
    }
    Ok(models)
}

/// `redact.bias` with a model that has no scores: all frames would be hidden.
fn unusable_bias(stream: &StreamConfig, model: &Model) -> Option<ConfigError> {
    let bias = stream.redact.as_ref()?.bias.filter(|bias| *bias > 0.0)?;
    let help = Some("remove it, or export the model again with maskcast-train".into());
    let problem = format!("{bias} needs a model with the output \"scores\"");
    let key = format!("stream[{}].redact.bias", stream.name);
    (!model.contract.has_scores()).then_some(ConfigError { key, line: None, problem, help })
}

/// What can be checked of a source without opening it.
fn check_source(stream: &StreamConfig) -> Result<(), ConfigError> {
    let wrong = |problem: String, help: Option<&str>| {
        let key = format!("stream[{}].source", stream.name);
        Err(ConfigError { key, line: None, problem, help: help.map(str::to_owned) })
    };
    match &stream.source.uri {
        SourceUri::V4l2(device) if device.exists() && !is_video(device) => wrong(
            format!("{} is not a video device", device.display()),
            Some("`maskcast doctor` lists those that there are"),
        ),
        SourceUri::Gst(_) => check_description(&stream.source).or_else(|problem| wrong(problem.to_string(), None)),
        _ => Ok(()),
    }
}

/// Video4Linux's devices have a number of their own (the kernel's devices.txt).
fn is_video(device: &Path) -> bool {
    const VIDEO: u32 = 81;
    device.metadata().is_ok_and(|facts| facts.file_type().is_char_device() && rustix::fs::major(facts.rdev()) == VIDEO)
}

/// Whether unredacted pixels of a stream can leave the service, and by which outputs.
fn visible(stream: &StreamConfig, has_scores: bool) -> String {
    if let Some(redact) = &stream.redact {
        let (classes, bias) = (redact.classes.join(", "), redact.bias());
        let bias =
            if has_scores { format!("bias {bias}") } else { "no scores: no bias, no check of the confidence".into() };
        return format!(
            "hides {classes} ({}, {bias}) in all outputs, and the whole frame if it has no mask; what the model misses stays visible",
            redact.style.name()
        );
    }
    let mut outputs = vec!["RTSP", "WebRTC", "MJPEG", "snapshots"];
    outputs.extend(stream.record.as_ref().map(|_| "recordings"));
    outputs.extend((!stream.push.is_empty()).then_some("pushes"));
    format!("unredacted pixels leave by {}", outputs.join(", "))
}

/// Where the frames of a stream are collected, or why not.
fn collects(stream: &StreamConfig) -> Option<String> {
    let collect = stream.collect.as_ref()?;
    let folder = collect.folder_of(&stream.name);
    Some(match (&stream.redact, stream.collects()) {
        (_, None) => "collects no frames: they would show what [stream.redact] hides (collect.allow_redacted)".into(),
        (None, _) => format!("collects up to {} frames a day in {}", collect.per_day, folder.display()),
        (Some(_), _) => format!("collects up to {} UNREDACTED frames a day in {}", collect.per_day, folder.display()),
    })
}

/// A warning when frames cannot be collected by this user. The service continues without them.
fn collection_folder(stream: &StreamConfig) -> Option<String> {
    let folder = &stream.collects()?.folder;
    let (who, error) = unwritable(folder)?;
    Some(format!("stream[{}].collect.folder: {} cannot be written{who}: {error}", stream.name, folder.display()))
}

/// A warning when a stream with redaction stores unredacted frames.
fn unredacted_collection(stream: &StreamConfig) -> Option<String> {
    let collect = stream.collects().filter(|_| stream.redact.is_some())?;
    let folder = collect.folder_of(&stream.name);
    Some(format!(
        "stream[{}].collect.allow_redacted: frames with everything that [stream.redact] hides are stored in {}",
        stream.name,
        folder.display()
    ))
}

/// A warning when a stream shows the source that another one redacts.
fn unredacted_twin(stream: &StreamConfig, streams: &[StreamConfig]) -> Option<String> {
    let redacts = |other: &&StreamConfig| other.redact.is_some() && other.source.uri.has_same_host(&stream.source.uri);
    let other = streams.iter().find(redacts).filter(|_| stream.redact.is_none())?;
    let (name, other) = (&stream.name, &other.name);
    Some(format!("stream[{name}]: shows without redaction what may be the camera that stream[{other}] redacts"))
}

/// A warning when recordings cannot be written by this user. The service continues without them.
fn records(stream: &StreamConfig) -> Option<String> {
    let dir = &stream.record.as_ref()?.dir;
    let (who, error) = unwritable(dir)?;
    Some(format!("stream[{}].record.dir: {} cannot be written{who}: {error}", stream.name, dir.display()))
}

/// Why a folder, which may not exist yet, cannot be written, and for whom.
fn unwritable(folder: &Path) -> Option<(&'static str, std::io::Error)> {
    // The folder is made when it is needed; here nothing is left behind.
    let there = folder.ancestors().find(|folder| folder.exists())?;
    let error = tempfile::tempfile_in(there).err()?;
    let who = if error.kind() == ErrorKind::PermissionDenied { " by this user" } else { "" };
    Some((who, error))
}
