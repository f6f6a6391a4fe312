//! `maskcast run`: runs the service.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::exit::FAILURE;
use super::{Failure, load_config};
use crate::base::descriptors;
use crate::base::heap::{Heap, reuse_large_blocks};
use crate::base::log_dedup;
use crate::base::stop::{Stop, WakeReason};
use crate::config::readable_passwords;
use crate::publish::encoder::H264;
use crate::service::changes::Changes;
use crate::service::models::PreparedModels;
use crate::service::watch::{Heartbeat, SystemdNotifier, Watchdog};
use crate::service::{EarlyRequests, Service, ServiceError};

/// The interval of the main loop.
const TICK: Duration = Duration::from_millis(250);

/// Runs the service until a signal stops it or all sources have ended.
///
/// # Errors
/// When the configuration has errors, a port is in use, a library is missing, or streams did not stop in time.
pub fn run(path: &Path) -> Result<(), Failure> {
    let config = load_config(path)?;
    descriptors::raise_limit();
    warn_of_readable_passwords(path);
    let stop = stop_on_signals()?;
    // Dropped at the end of this function, which ends the thread that limits the time for stopping.
    let _done = limit_stopping_time(&stop)?;
    let reload = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGHUP, Arc::clone(&reload))
        .map_err(|error| Failure::runtime(format!("SIGHUP cannot be caught: {error}")))?;
    let mut changes = Changes::new(path.to_path_buf());
    let mut service = match Service::start(&config, &mut changes, &stop) {
        Ok(service) => service,
        Err(ServiceError::Stopped) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    tracing::info!("service started; stop it with Ctrl-C or SIGTERM");
    let mut watch = SystemdNotifier::new(service.view.clone());
    let beat = Heartbeat::default();
    // Kept until the end of this function.
    let _watchdog = Watchdog::start(service.view.clone(), service.pools(), beat.clone())?;
    changes.apply_waiting_for_model(&mut service);
    let requests = service.change_requests();
    reuse_large_blocks();
    let mut heap = Heap::default();
    let mut preparing: Option<JoinHandle<PreparedModels>> = None;
    loop {
        beat.beat();
        if watch.tick() {
            tracing::info!("ready");
        }
        service.tick();
        changes.apply_waiting_for_encoders(&mut service);
        changes.tick(&service);
        log_dedup::flush_due();
        heap.tick();
        if preparing.is_none() && reload.swap(false, Ordering::AcqRel) {
            match prepare_reload(path, service.models()) {
                Ok(thread) => preparing = Some(thread),
                // The request is kept, because the system may have a thread again soon.
                Err(failure) => {
                    log_dedup::error("", "", None, &format!("configuration reload postponed: {}", failure.message));
                    reload.store(true, Ordering::Release);
                }
            }
        }
        if let Some(prepared) = preparing.take_if(|thread| thread.is_finished()) {
            // After a panic no model is loaded, and a configuration that adds one is refused.
            let prepared = prepared.join().unwrap_or_default();
            watch.reloading(|| reload_config(path, &mut service, &mut changes, prepared));
        }
        match stop.wait_or_receive(TICK, &requests) {
            WakeReason::Raised => break,
            WakeReason::Item(request) => changes.apply(request, &mut service),
            WakeReason::Time => {}
        }
        if service.has_ended() {
            tracing::info!("all sources have ended: the service stops");
            break;
        }
    }
    watch.stopping();
    changes.flush(&service);
    let hung = service.stop();
    log_dedup::flush_all();
    if hung.is_empty() {
        return Ok(());
    }
    let streams = hung.join(", ");
    Err(Failure::runtime(format!(
        "the process has ended although streams did not stop, and their recordings may lack the end: {streams}"
    )))
}

/// Does what takes long on a thread of its own before a reload, so that streams and API do not wait for it: probes the encoders of
/// the configuration, one of which may hang, whose results are cached; and loads the models that are not `running`.
fn prepare_reload(path: &Path, running: Vec<String>) -> Result<JoinHandle<PreparedModels>, Failure> {
    let path = path.to_path_buf();
    let prepare = move || {
        // Errors of the configuration are reported by the reload itself.
        let Ok(config) = load_config(&path) else { return PreparedModels::default() };
        for stream in &config.streams {
            let _ = H264::choose(stream.encode.encoder, &[]);
        }
        PreparedModels::load(&config, &running)
    };
    let thread = std::thread::Builder::new().name("prepare-reload".into()).spawn(prepare);
    thread.map_err(|error| Failure::runtime(format!("cannot start the thread that prepares the reload: {error}")))
}

fn warn_of_readable_passwords(path: &Path) {
    if let Some(warning) = readable_passwords(path) {
        tracing::warn!("configuration file is not protected: {warning}");
    }
}

/// Reads the configuration again and applies the differences. A configuration with errors has no effect.
fn reload_config(path: &Path, service: &mut Service, changes: &mut Changes, prepared: PreparedModels) {
    changes.flush(service);
    let result = load_config(path)
        .map_err(|failure| failure.message)
        .and_then(|config| service.reload(&config, prepared).map_err(|error| error.to_string()));
    match result {
        Ok(done) => {
            changes.discard_unsaved();
            warn_of_readable_passwords(path);
            tracing::info!("configuration reloaded: {done}");
            done.log_problems();
        }
        Err(problem) => {
            for line in problem.lines() {
                tracing::error!("configuration error: {line}");
            }
            tracing::error!("configuration not reloaded, the current one stays in use: {}", path.display());
        }
    }
}

/// The time limit from the stop signal to the end of the process. It also holds while a call hangs: a model that is loading
/// (TensorRT builds an engine for minutes), a run on a GPU, a disk.
const STOPPING_LIMIT: Duration = Duration::from_millis(4800);

/// Starts a thread that exits the process with the code of a failure when the service has not stopped in time. Recordings
/// remain playable. The thread ends when the returned sender is dropped.
fn limit_stopping_time(stop: &Stop) -> Result<crossbeam_channel::Sender<()>, Failure> {
    let (done, ended) = crossbeam_channel::bounded::<()>(0);
    let stop = stop.clone();
    std::thread::Builder::new()
        .name("end-in-time".into())
        .spawn(move || {
            stop.wait_for_ever();
            if ended.recv_timeout(STOPPING_LIMIT) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                tracing::error!(
                    "service has not stopped within {:.1} s: the process exits now",
                    STOPPING_LIMIT.as_secs_f64()
                );
                std::process::exit(i32::from(FAILURE));
            }
        })
        .map_err(|error| {
            Failure::runtime(format!("cannot start the thread for the time limit of stopping: {error}"))
        })?;
    Ok(done)
}

/// Returns a stop flag that the first SIGTERM or SIGINT raises. The second signal exits the process at once.
///
/// # Errors
/// When no signal handler or thread can be created.
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
                    tracing::warn!("second signal: the process exits now");
                    // The exit code that a shell reports for a program killed by this signal.
                    std::process::exit(128 + signal);
                }
                tracing::info!("stopping; a second signal ends the process at once");
                raised.raise();
            }
        })
        .map_err(|error| Failure::runtime(format!("cannot start the thread for signals: {error}")))?;
    Ok(stop)
}
