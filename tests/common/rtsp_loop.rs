//! Runs one of GStreamer's RTSP servers on its own thread.

use std::thread::JoinHandle;

use gstreamer::glib;
use gstreamer_rtsp_server as rtsp_server;
use rtsp_server::prelude::*;

/// A server that listens until it is dropped; then all its clients are disconnected.
pub struct RtspLoop {
    server: rtsp_server::RTSPServer,
    listener: glib::Source,
    main_loop: glib::MainLoop,
    thread: Option<JoinHandle<()>>,
}

impl RtspLoop {
    /// # Errors
    /// The address is in use.
    pub fn start(server: rtsp_server::RTSPServer) -> Result<Self, glib::Error> {
        let context = glib::MainContext::new();
        let listener = server.create_source(rtsp_server::gio::Cancellable::NONE)?;
        listener.attach(Some(&context));
        let main_loop = glib::MainLoop::new(Some(&context), false);
        let running = main_loop.clone();
        let thread = std::thread::spawn(move || {
            // Fails only when another thread owns this context, and no other thread has it.
            let _ = context.with_thread_default(|| running.run());
        });
        Ok(RtspLoop { server, listener, main_loop, thread: Some(thread) })
    }

    /// Disconnects all clients.
    pub fn disconnect_clients(&self) {
        self.server.client_filter(Some(&mut |_, _| rtsp_server::RTSPFilterResult::Remove));
    }
}

impl Drop for RtspLoop {
    fn drop(&mut self) {
        self.listener.destroy();
        self.disconnect_clients();
        // From inside the loop: a quit that comes before the loop runs would be lost.
        let main_loop = self.main_loop.clone();
        let quit = glib::idle_source_new(None, glib::Priority::DEFAULT, move || {
            main_loop.quit();
            glib::ControlFlow::Break
        });
        quit.attach(Some(&self.main_loop.context()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
