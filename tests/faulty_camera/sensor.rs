//! The camera's sensor: captures frames at a constant rate, whether or not a client is connected, and keeps their times.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use gstreamer as gst;

use super::test_frame::{VideoSettings, draw};

/// A captured frame.
pub struct CameraFrame {
    pub settings: VideoSettings,
    buffer: gst::Buffer,
}

impl CameraFrame {
    /// The frame as a GStreamer sample.
    pub fn sample(&self) -> gst::Sample {
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "RGB")
            .field("width", self.settings.width as i32)
            .field("height", self.settings.height as i32)
            .field("framerate", gst::Fraction::new(self.settings.fps as i32, 1))
            .build();
        gst::Sample::builder().buffer(&self.buffer).caps(&caps).build()
    }
}

/// Receives the frames for a client or a group of clients.
pub trait FrameReceiver: Send {
    /// Takes a frame without blocking; false when the clients have disconnected.
    fn push(&mut self, frame: &CameraFrame) -> bool;

    /// The stream has ended.
    fn end(&mut self);
}

/// Captures frames until it is dropped.
pub struct Sensor {
    state: Arc<Mutex<State>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    settings: VideoSettings,
    stalled: bool,
    /// When each frame was captured; the index is its number.
    captured: Vec<Instant>,
    delivered: u64,
    receivers: Vec<Box<dyn FrameReceiver>>,
}

impl Sensor {
    pub fn start(settings: VideoSettings) -> Self {
        let state = State { settings, stalled: false, captured: Vec::new(), delivered: 0, receivers: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let (stop, stopped) = bounded::<()>(0);
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let mut due = Instant::now();
            while stopped.recv_deadline(due) == Err(RecvTimeoutError::Timeout) {
                let settings = lock(&shared).settings;
                capture(&shared, settings);
                // Like a camera it does not catch up after a delay.
                let period = Duration::from_secs_f64(1.0 / f64::from(settings.fps));
                due = (due + period).max(Instant::now());
            }
        });
        Sensor { state, stop: Some(stop), thread: Some(thread) }
    }

    pub fn change_settings(&self, change: impl FnOnce(&mut VideoSettings)) {
        change(&mut lock(&self.state).settings);
    }

    /// While stalled, it captures frames and sends none.
    pub fn set_stalled(&self, stalled: bool) {
        lock(&self.state).stalled = stalled;
    }

    /// Ends the stream of all clients.
    pub fn end(&self) {
        for mut receiver in std::mem::take(&mut lock(&self.state).receivers) {
            receiver.end();
        }
    }

    pub fn add(&self, receiver: Box<dyn FrameReceiver>) {
        lock(&self.state).receivers.push(receiver);
    }

    pub fn captured_at(&self, number: u16) -> Option<Instant> {
        lock(&self.state).captured.get(usize::from(number)).copied()
    }

    pub fn captured(&self) -> u64 {
        lock(&self.state).captured.len() as u64
    }

    pub fn delivered(&self) -> u64 {
        lock(&self.state).delivered
    }
}

fn capture(state: &Mutex<State>, settings: VideoSettings) {
    let number = {
        let mut state = lock(state);
        state.captured.push(Instant::now());
        // Numbers start again at 0 after more than an hour at 15 frames a second.
        if state.captured.len() > usize::from(u16::MAX) {
            state.captured.clear();
            state.captured.push(Instant::now());
        }
        (state.captured.len() - 1) as u16
    };
    let frame = CameraFrame { settings, buffer: gst::Buffer::from_slice(draw(&settings, number)) };
    let mut state = lock(state);
    if state.stalled {
        return;
    }
    state.receivers.retain_mut(|receiver| receiver.push(&frame));
    if !state.receivers.is_empty() {
        state.delivered += 1;
    }
}

impl Drop for Sensor {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
