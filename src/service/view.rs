//! What the service shows of itself: read by the HTTP server, the watchdog and the closing log; changes nothing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::config::Show;
use crate::frame::Rgb;
use crate::publish::live::Outlets;
use crate::segment::pool::PoolStats;
use crate::stream::status::{State, Status};

/// The whole service.
pub struct View {
    /// In configuration order.
    pub streams: Vec<StreamView>,
    pub model: ModelView,
    pub started: Instant,
    /// Where RTSP viewers connect.
    pub rtsp: SocketAddr,
    pub pool: Arc<PoolStats>,
}

/// One stream.
pub struct StreamView {
    pub status: Arc<Status>,
    pub outlets: Outlets,
    /// The source's address without secrets.
    pub source: String,
    pub show: Show,
    pub legend: Vec<LegendEntry>,
}

/// A class as this stream draws it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegendEntry {
    pub name: String,
    pub color: Rgb,
    pub hidden: bool,
}

/// The model and where it runs.
#[derive(Clone, Debug)]
pub struct ModelView {
    pub name: String,
    /// The provider asked for first.
    pub requested: &'static str,
    /// The provider that really runs it.
    pub actual: &'static str,
    /// Input size in pixels.
    pub input: (usize, usize),
    pub workers: usize,
    pub threads: usize,
    pub max_batch: usize,
}

impl View {
    pub fn stream(&self, name: &str) -> Option<&StreamView> {
        self.streams.iter().find(|stream| &*stream.status.name == name)
    }

    /// Whether every stream has shown its first frame or is known to be offline.
    pub fn is_ready(&self) -> bool {
        self.streams.iter().all(|stream| stream.status.state() != State::Starting)
    }
}
