//! What the service shows of itself: read by the HTTP server, the watchdog and the closing log. Streams and model may
//! change while it runs; whoever reads takes a snapshot.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use jiff::Timestamp;
use tokio::sync::oneshot;

pub mod change_ticket;
pub mod request;

use change_ticket::ChangeTicket;
use request::{Change, ChangeOutcome, ChangeRefusal, ChangeRequest};

use crate::base::status::{Status, StreamState};
use crate::config::{SourceHost, StreamConfig};
use crate::frame::{Label, Labels, Rgb};
use crate::publish::live::StreamOutputs;
use crate::publish::recording::Archive;
use crate::segment::placement::Placement;
use crate::segment::pool::PoolStats;
use crate::segment::unlabelled::Unlabelled;
use crate::stream::display::Display;

/// The whole service.
pub struct ServiceView {
    streams: RwLock<Arc<[Arc<StreamView>]>>,
    model: RwLock<Option<Arc<ModelView>>>,
    change: Mutex<Option<ModelChange>>,
    model_requests: Sender<ModelChangeRequest>,
    changes: Sender<ChangeRequest>,
    pub started: Instant,
    /// Where RTSP viewers connect.
    pub rtsp: SocketAddr,
    pub pool: Arc<PoolStats>,
}

/// One stream.
#[derive(Clone)]
pub struct StreamView {
    pub status: Arc<Status>,
    pub outputs: StreamOutputs,
    /// `None` for a stream that is not recorded.
    pub recordings: Option<Arc<Archive>>,
    /// Its newest mask.
    pub display: Arc<Display>,
    pub config: StreamConfig,
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
    pub path: PathBuf,
    pub labels: Labels,
    /// The provider asked for first; where nobody has named any, the one that runs it.
    pub requested: &'static str,
    /// The provider that really runs it.
    pub actual: &'static str,
    /// What ONNX Runtime really assigned to which provider.
    pub placement: Placement,
    /// What was asked for and does not run it, and why.
    pub refused: Vec<(&'static str, String)>,
    /// Share of the golden frame's pixels that differ; `None` without a golden frame.
    pub golden_difference: Option<f64>,
    /// How the mask is read from what the model gives.
    pub output: String,
    /// Pixels of its masks whose class has no label.
    pub unlabelled: Arc<Unlabelled>,
    /// Input size in pixels.
    pub input: (usize, usize),
    pub workers: usize,
    pub threads: usize,
    pub max_batch: usize,
    /// Median time of a frame when it was loaded.
    pub time: Duration,
}

/// What became of the newest request for another model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelChange {
    pub path: PathBuf,
    pub outcome: ModelChangeState,
    pub at: Timestamp,
}

/// How far a change of the model has come.
#[derive(Clone, Debug, PartialEq)]
pub enum ModelChangeState {
    /// It is being loaded and checked beside the one that runs.
    Loading,
    /// It runs.
    Done,
    /// It does not, and the one before goes on.
    Refused(String),
}

/// What clients ask for, in bounded queues.
pub struct ChangeQueues {
    /// Other models, one at a time.
    pub models: Receiver<ModelChangeRequest>,
    /// Other settings.
    pub changes: Receiver<ChangeRequest>,
}

/// Changes that may wait while one is made; a client that finds no place is told to come again.
pub const WAITING_CHANGES: usize = 128;

/// There is no place for another change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangeQueueFull;

/// A change that was asked for. Dropped before it is begun, it is withdrawn: a client that has gone finds nothing changed
/// later.
#[derive(Debug)]
pub struct PendingChange {
    /// Comes when the change was made or refused.
    pub answer: oneshot::Receiver<Result<ChangeOutcome, ChangeRefusal>>,
    turn: ChangeTicket,
}

impl PendingChange {
    /// Takes the change back; false when it is being made, or was: then the answer comes.
    pub fn withdraw(&self) -> bool {
        self.turn.withdraw()
    }
}

impl Drop for PendingChange {
    fn drop(&mut self) {
        self.turn.withdraw();
    }
}

/// Another model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelChangeRequest {
    pub path: PathBuf,
    /// Take it although it runs on the CPU where the one before runs on a GPU.
    pub force: bool,
}

impl ServiceView {
    /// A view of no streams and no model yet, and what comes in through it.
    pub fn new(rtsp: SocketAddr, pool: Arc<PoolStats>) -> (ServiceView, ChangeQueues) {
        let (model_requests, models) = bounded(1);
        let (changes, asked) = bounded(WAITING_CHANGES);
        let view = ServiceView {
            streams: RwLock::new([].into()),
            model: RwLock::default(),
            change: Mutex::default(),
            model_requests,
            changes,
            started: Instant::now(),
            rtsp,
            pool,
        };
        (view, ChangeQueues { models, changes: asked })
    }

    /// The streams as they are now, in configuration order.
    pub fn streams(&self) -> Arc<[Arc<StreamView>]> {
        Arc::clone(&self.streams.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn set_streams(&self, streams: Vec<Arc<StreamView>>) {
        *self.streams.write().unwrap_or_else(PoisonError::into_inner) = streams.into();
    }

    pub fn stream(&self, name: &str) -> Option<Arc<StreamView>> {
        self.streams().iter().find(|stream| &*stream.status.name == name).cloned()
    }

    /// The model that runs; `None` until the first one does.
    pub fn model(&self) -> Option<Arc<ModelView>> {
        self.model.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_model(&self, model: ModelView) {
        *self.model.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(model));
    }

    /// The newest request for another model, and what became of it.
    pub fn change(&self) -> Option<ModelChange> {
        self.lock_change().clone()
    }

    pub fn set_change(&self, path: PathBuf, outcome: ModelChangeState) {
        *self.lock_change() = Some(ModelChange { path, outcome, at: Timestamp::now() });
    }

    /// Asks for another model.
    ///
    /// # Errors
    /// When one is being loaded already: gives the request back.
    pub fn request(&self, request: ModelChangeRequest) -> Result<(), ModelChangeRequest> {
        let mut change = self.lock_change();
        if change.as_ref().is_some_and(|change| change.outcome == ModelChangeState::Loading) {
            return Err(request);
        }
        let path = request.path.clone();
        self.model_requests.try_send(request).map_err(crossbeam_channel::TrySendError::into_inner)?;
        *change = Some(ModelChange { path, outcome: ModelChangeState::Loading, at: Timestamp::now() });
        Ok(())
    }

    /// Asks for a change of the settings. `host`: the host of its source, looked up by the client's own task, so that the
    /// run loop does not have to wait for a name server.
    ///
    /// # Errors
    /// When too many wait already, or nobody makes changes any more.
    pub fn ask(&self, wanted: Change, host: Option<SourceHost>) -> Result<PendingChange, ChangeQueueFull> {
        let (sender, answer) = oneshot::channel();
        let turn = ChangeTicket::default();
        let asked = ChangeRequest { wanted, host, turn: turn.clone(), answer: sender };
        self.changes.try_send(asked).map_err(|_| ChangeQueueFull)?;
        Ok(PendingChange { answer, turn })
    }

    /// Whether there is a model, and every stream has shown its first frame, waits for a keyframe or is known to be offline.
    pub fn is_ready(&self) -> bool {
        self.model().is_some() && self.streams().iter().all(|stream| stream.status.state() != StreamState::Starting)
    }

    fn lock_change(&self) -> MutexGuard<'_, Option<ModelChange>> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StreamView {
    /// The classes of `labels` as this stream draws them.
    pub fn legend(&self, labels: &[Label]) -> Vec<LegendEntry> {
        let overlay = &self.config.overlay;
        let entry = |label: &Label| {
            let own = overlay.colors.iter().find(|(name, _)| *name == label.name).map(|(_, color)| *color);
            LegendEntry {
                name: label.name.clone(),
                color: own.unwrap_or(label.color),
                hidden: overlay.hides(&label.name),
            }
        };
        labels.iter().map(entry).collect()
    }
}
