//! `maskcast check`

use std::path::Path;

use super::{Failure, load_config};
use crate::access::tls::Certificate;
use crate::config::SourceUri;
use crate::segment::onnx::{Model, ModelError};
use crate::service::check_labels;

/// Reads the configuration and loads its model; connects to no camera and opens no port.
///
/// # Errors
/// Everything that is wrong, a line each, with exit code 78.
pub fn check(path: &Path) -> Result<(), Failure> {
    let config = load_config(path)?;
    let model = Model::load(&config.model, config.model.threads).map_err(|error| match error {
        ModelError::Model(problem) => Failure::config(format!("{}: model.path: {problem}", path.display())),
        ModelError::Machine(problem) => Failure::runtime(problem),
    })?;
    check_labels(&config.streams, &model.contract.labels).map_err(|errors| {
        let lines: Vec<String> = errors.iter().map(|error| format!("{}: {error}", path.display())).collect();
        Failure::config(lines.join("\n"))
    })?;
    for stream in &config.streams {
        crate::publish::encoder::H264::choose(stream.encode.encoder, &[])
            .map_err(|error| Failure::runtime(format!("stream[{}].encode.encoder: {error}", stream.name)))?;
    }
    if let Some(tls) = &config.server.tls {
        Certificate::load(tls).map_err(|problem| Failure::config(format!("{}: {problem}", path.display())))?;
    }
    println!("{}: good", path.display());
    println!("  model    {} ({}), runs on {}", config.model.path.display(), model.name(), model.provider.name());
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
        for push in &stream.push {
            println!("           pushed to {}", push.target.label());
        }
        if let SourceUri::V4l2(device) = &stream.source.uri
            && !device.exists()
        {
            println!("           {} is not there now; the service waits for it", device.display());
        }
    }
    Ok(())
}
