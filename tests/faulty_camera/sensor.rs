//! The camera's eye: takes pictures at a steady rate, whoever looks, and remembers when.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use gstreamer as gst;

use super::picture::{Look, paint};

/// One picture on its way out.
pub struct Shot {
    pub look: Look,
    buffer: gst::Buffer,
}

impl Shot {
    /// As GStreamer takes it.
    pub fn sample(&self) -> gst::Sample {
        let caps = gst::Caps::builder("video/x-raw")
            .field("format", "RGB")
            .field("width", self.look.width as i32)
            .field("height", self.look.height as i32)
            .field("framerate", gst::Fraction::new(self.look.fps as i32, 1))
            .build();
        gst::Sample::builder().buffer(&self.buffer).caps(&caps).build()
    }
}

/// A client's, or a group of clients', way to the pictures.
pub trait Outlet: Send {
    /// Takes a picture without waiting; false when nobody is there any more.
    fn take(&mut self, shot: &Shot) -> bool;

    /// There will be no more pictures.
    fn end(&mut self);
}

/// Takes pictures until it is dropped.
pub struct Sensor {
    state: Arc<Mutex<State>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

struct State {
    look: Look,
    covered: bool,
    /// When each picture was taken; the number is the index.
    taken: Vec<Instant>,
    delivered: u64,
    outlets: Vec<Box<dyn Outlet>>,
}

impl Sensor {
    pub fn start(look: Look) -> Self {
        let state = State { look, covered: false, taken: Vec::new(), delivered: 0, outlets: Vec::new() };
        let state = Arc::new(Mutex::new(state));
        let (stop, stopped) = bounded::<()>(0);
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let mut due = Instant::now();
            while stopped.recv_deadline(due) == Err(RecvTimeoutError::Timeout) {
                let look = lock(&shared).look;
                shoot(&shared, look);
                // A machine that was busy for long takes up its rate from now on: cameras do not catch up.
                let period = Duration::from_secs_f64(1.0 / f64::from(look.fps));
                due = (due + period).max(Instant::now());
            }
        });
        Sensor { state, stop: Some(stop), thread: Some(thread) }
    }

    pub fn set_look(&self, change: impl FnOnce(&mut Look)) {
        change(&mut lock(&self.state).look);
    }

    /// Covered, it takes pictures that nobody gets.
    pub fn cover(&self, covered: bool) {
        lock(&self.state).covered = covered;
    }

    /// Lets all clients go, with the word that there is no more.
    pub fn end(&self) {
        for mut outlet in std::mem::take(&mut lock(&self.state).outlets) {
            outlet.end();
        }
    }

    pub fn add(&self, outlet: Box<dyn Outlet>) {
        lock(&self.state).outlets.push(outlet);
    }

    pub fn taken_at(&self, number: u16) -> Option<Instant> {
        lock(&self.state).taken.get(usize::from(number)).copied()
    }

    pub fn taken(&self) -> u64 {
        lock(&self.state).taken.len() as u64
    }

    pub fn delivered(&self) -> u64 {
        lock(&self.state).delivered
    }
}

fn shoot(state: &Mutex<State>, look: Look) {
    let number = {
        let mut state = lock(state);
        state.taken.push(Instant::now());
        // Numbers begin anew after more than an hour at 15 a second.
        if state.taken.len() > usize::from(u16::MAX) {
            state.taken.clear();
            state.taken.push(Instant::now());
        }
        (state.taken.len() - 1) as u16
    };
    let shot = Shot { look, buffer: gst::Buffer::from_slice(paint(&look, number)) };
    let mut state = lock(state);
    if state.covered {
        return;
    }
    state.outlets.retain_mut(|outlet| outlet.take(&shot));
    if !state.outlets.is_empty() {
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
