//! GLib's global main context, served by a thread of its own for as long as the process lives.
//!
//! GLib completes what it does asynchronously in the main context of the thread that began it, and in the global one where
//! that thread has none. GStreamer's threads have none: what their TLS connections do asynchronously is completed only
//! when the global context is served. If it is not, each TLS connection keeps its memory (megabytes), its descriptor and a
//! thread for good.

use std::sync::OnceLock;

use gstreamer::glib;

/// Serves the global main context from now on. Safe to call again.
///
/// # Errors
/// The system's words when it gives no thread.
pub fn serve() -> Result<(), String> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let start = || {
        let thread = std::thread::Builder::new().name("glib".into());
        let serve = || glib::MainLoop::new(None, false).run();
        thread.spawn(serve).map(drop).map_err(|error| format!("no thread for GLib's main context: {error}"))
    };
    STARTED.get_or_init(start).clone()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_waits_in_the_global_context_is_done() {
        serve().unwrap();
        serve().unwrap();
        let (done, is_done) = crossbeam_channel::bounded(1);
        let tell = move || {
            done.send(std::thread::current().name().map(String::from)).unwrap();
            glib::ControlFlow::Break
        };
        // Not `invoke`, which would call it here if the thread has not begun.
        glib::idle_source_new(None, glib::Priority::DEFAULT, tell).attach(Some(&glib::MainContext::default()));
        assert_eq!(is_done.recv_timeout(Duration::from_secs(300)), Ok(Some("glib".into())));
    }
}
