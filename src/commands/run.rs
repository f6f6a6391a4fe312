//! `maskcast run`

use std::path::Path;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::{Failure, load_config};
use crate::service::Service;
use crate::service::watch::Watch;
use crate::stream::stop::Stop;

/// How often the service looks at itself.
const TICK: Duration = Duration::from_millis(250);

/// Runs the service until a signal asks it to stop or all sources have ended.
///
/// # Errors
/// A configuration that cannot work, a taken port, a missing library.
pub fn run(path: &Path) -> Result<(), Failure> {
    let config = load_config(path)?;
    let stop = stop_on_signals()?;
    let service = Service::start(&config)?;
    tracing::info!("page {}", service.page());
    for stream in &config.streams {
        tracing::info!(stream = stream.name, "{} -> {}", stream.source.label(), service.rtsp_address(&stream.name));
    }
    tracing::info!("stop with Ctrl-C or SIGTERM");
    let mut watch = Watch::new(service.view.clone());
    loop {
        if watch.tick() {
            tracing::info!("ready");
        }
        if stop.wait(TICK) {
            tracing::info!("stopping");
            break;
        }
        if service.has_ended() {
            tracing::info!("all sources have ended");
            break;
        }
    }
    watch.stopping();
    service.stop();
    Ok(())
}

/// The first SIGTERM or SIGINT raises the stop, the second ends the process at once.
///
/// # Errors
/// When signals cannot be caught.
pub fn stop_on_signals() -> Result<Stop, Failure> {
    let stop = Stop::default();
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| Failure::runtime(format!("signals cannot be caught: {error}")))?;
    let raised = stop.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if raised.is_raised() {
                    tracing::warn!("a second signal: ending at once");
                    // What a shell reports for a program that died of this signal.
                    std::process::exit(128 + signal);
                }
                raised.raise();
            }
        })
        .map_err(|error| Failure::runtime(format!("no thread for signals: {error}")))?;
    Ok(stop)
}
