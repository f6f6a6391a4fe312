//! `maskcast run`

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
use crate::base::heap::Heap;
use crate::base::log_dedup;
use crate::base::stop::{Stop, WakeReason};
use crate::config::readable_passwords;
use crate::publish::encoder::H264;
use crate::service::changes::{Changes, tell};
use crate::service::watch::{Heartbeat, SystemdNotifier, Watchdog};
use crate::service::{EarlyRequests, Service, ServiceError};

/// How often the service looks at itself.
const TICK: Duration = Duration::from_millis(250);

/// Runs the service until a signal asks it to stop or all sources have ended.
///
/// # Errors
/// A configuration that cannot work, a taken port, a missing library.
pub fn run(path: &Path) -> Result<(), Failure> {
    let config = load_config(path)?;
    descriptors::raise_limit();
    warn_of_readable_passwords(path);
    let stop = stop_on_signals()?;
    // Held until the end; its being dropped says that the end has come.
    let _done = end_in_time(&stop)?;
    let reload = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(SIGHUP, Arc::clone(&reload))
        .map_err(|error| Failure::runtime(format!("SIGHUP cannot be caught: {error}")))?;
    let mut changes = Changes::new(path.to_path_buf());
    let mut service = match Service::start(&config, &mut changes, &stop) {
        Ok(service) => service,
        Err(ServiceError::Stopped) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    tracing::info!("stop with Ctrl-C or SIGTERM");
    let mut watch = SystemdNotifier::new(service.view.clone());
    let beat = Heartbeat::default();
    // Held until the end.
    let _watchdog = Watchdog::start(service.view.clone(), service.pool(), beat.clone())?;
    changes.make_held(&mut service);
    let asked = service.asked();
    let mut heap = Heap::default();
    let mut trying: Option<JoinHandle<()>> = None;
    loop {
        beat.beat();
        if watch.tick() {
            tracing::info!("ready");
        }
        service.tick();
        changes.make_tried(&mut service);
        changes.tick(&service);
        log_dedup::flush_due();
        heap.tick();
        if trying.is_none() && reload.swap(false, Ordering::AcqRel) {
            match try_encoders(path) {
                Ok(thread) => trying = Some(thread),
                // The request stays: there may be a thread in a moment.
                Err(failure) => {
                    log_dedup::error("", "", None, &format!("the configuration is not read yet: {}", failure.message));
                    reload.store(true, Ordering::Release);
                }
            }
        }
        if trying.take_if(|trying| trying.is_finished()).is_some() {
            watch.reloading(|| reload_config(path, &mut service, &mut changes));
        }
        match stop.wait_or_receive(TICK, &asked) {
            WakeReason::Raised => break,
            WakeReason::Item(asked) => changes.make(asked, &mut service),
            WakeReason::Time => {}
        }
        if service.has_ended() {
            tracing::info!("all sources have ended");
            break;
        }
    }
    watch.stopping();
    changes.flush(&service);
    let left = service.stop();
    log_dedup::flush_all();
    if left.is_empty() {
        return Ok(());
    }
    let streams = left.join(", ");
    Err(Failure::runtime(format!("ended although streams did not stop: {streams}; their recordings may lack the end")))
}

/// Tries the encoders that the configuration asks for now, on a thread that may wait: one that hangs is not to hold up the
/// streams that do not use it.
fn try_encoders(path: &Path) -> Result<JoinHandle<()>, Failure> {
    let path = path.to_path_buf();
    let try_all = move || {
        // What is wrong with it is said when it is read to be used.
        for stream in load_config(&path).map(|config| config.streams).unwrap_or_default() {
            let _ = H264::choose(stream.encode.encoder, &[]);
        }
    };
    let thread = std::thread::Builder::new().name("encoders".into()).spawn(try_all);
    thread.map_err(|error| Failure::runtime(format!("no thread: {error}")))
}

fn warn_of_readable_passwords(path: &Path) {
    if let Some(warning) = readable_passwords(path) {
        tracing::warn!("{warning}");
    }
}

/// Reads the configuration again, and makes the service what it says. A bad one changes nothing.
fn reload_config(path: &Path, service: &mut Service, changes: &mut Changes) {
    changes.flush(service);
    let result = load_config(path)
        .map_err(|failure| failure.message)
        .and_then(|config| service.reload(&config).map_err(|error| error.to_string()));
    match result {
        Ok(done) => {
            changes.forget();
            warn_of_readable_passwords(path);
            tell("configuration read again", &done);
        }
        Err(problem) => {
            for line in problem.lines() {
                tracing::error!("{line}");
            }
            tracing::error!("{} is not used: everything goes on as before", path.display());
        }
    }
}

/// Time from the request to stop to the end of the process, whatever hangs: a model that is still loading (TensorRT builds an
/// engine for minutes), a run on a GPU that does not return, a disk.
const END: Duration = Duration::from_millis(4800);

/// Ends the process, with the exit code of a failure, when it has not ended by itself in time after the stop was raised.
/// Recordings are playable all the same.
fn end_in_time(stop: &Stop) -> Result<crossbeam_channel::Sender<()>, Failure> {
    let (done, ended) = crossbeam_channel::bounded::<()>(0);
    let stop = stop.clone();
    std::thread::Builder::new()
        .name("end-in-time".into())
        .spawn(move || {
            stop.wait_for_ever();
            if ended.recv_timeout(END) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                tracing::error!("the service has not stopped within {:.1} s: the process is ended", END.as_secs_f64());
                std::process::exit(i32::from(FAILURE));
            }
        })
        .map_err(|error| Failure::runtime(format!("no thread: {error}")))?;
    Ok(done)
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
                tracing::info!("stopping; a second signal ends the program at once");
                raised.raise();
            }
        })
        .map_err(|error| Failure::runtime(format!("no thread for signals: {error}")))?;
    Ok(stop)
}
