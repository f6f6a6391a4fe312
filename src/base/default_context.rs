//! A thread that runs GLib's global main context until the process ends.
//!
//! GLib completes an asynchronous operation in the main context of the thread that began it, or in the global context if
//! that thread has none. GStreamer's threads have none: the asynchronous operations of their TLS connections complete only
//! while a thread runs the global context. Without one, each TLS connection leaks its memory (megabytes), its descriptor
//! and a thread.

use std::io;
use std::sync::{Arc, OnceLock};

use gstreamer::glib;

/// The thread that runs the main context could not be started.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot start the thread for GLib's main context: {0}")]
pub struct MainContextError(#[source] Arc<io::Error>);

/// Starts the thread, at the first call only.
///
/// # Errors
/// When the system has no thread left. Later calls return the same error.
pub fn serve() -> Result<(), MainContextError> {
    static STARTED: OnceLock<Result<(), MainContextError>> = OnceLock::new();
    let start = || {
        let thread = std::thread::Builder::new().name("glib".into());
        let serve = || glib::MainLoop::new(None, false).run();
        thread.spawn(serve).map(drop).map_err(|error| MainContextError(Arc::new(error)))
    };
    STARTED.get_or_init(start).clone()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_source_of_the_global_context_is_dispatched_by_the_thread() {
        serve().unwrap();
        serve().unwrap();
        let (done, is_done) = crossbeam_channel::bounded(1);
        let report = move || {
            done.send(std::thread::current().name().map(String::from)).unwrap();
            glib::ControlFlow::Break
        };
        // Not `invoke`, which calls it on this thread if the other one has not begun.
        glib::idle_source_new(None, glib::Priority::DEFAULT, report).attach(Some(&glib::MainContext::default()));
        assert_eq!(is_done.recv_timeout(Duration::from_secs(300)), Ok(Some("glib".into())));
    }
}
