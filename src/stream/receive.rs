//! Receiving with a time limit from the stages before.

use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};

/// What [`receive_either`] received.
pub(super) enum Received<F, M> {
    Frame(F),
    Mask(M),
}

/// Waits at most `limit` for a frame or a mask; `Ok(None)` when none came. The stage before has ended when there are no more
/// frames.
pub(super) fn receive_either<F, M>(
    frames: &Receiver<F>,
    masks: &Receiver<M>,
    limit: Duration,
) -> Result<Option<Received<F, M>>, StageClosed> {
    crossbeam_channel::select! {
        recv(frames) -> frame => frame.map(|frame| Some(Received::Frame(frame))).map_err(|_| StageClosed),
        recv(masks) -> mask => match mask {
            Ok(mask) => Ok(Some(Received::Mask(mask))),
            // The model makes no more masks; frames may still come.
            Err(_) => receive(frames, limit).map(|frame| frame.map(Received::Frame)),
        },
        default(limit) => Ok(None),
    }
}

/// Waits at most `limit` for an item; `Ok(None)` when none came.
pub(super) fn receive<T>(receiver: &Receiver<T>, limit: Duration) -> Result<Option<T>, StageClosed> {
    match receiver.recv_timeout(limit) {
        Ok(item) => Ok(Some(item)),
        Err(RecvTimeoutError::Timeout) => Ok(None),
        Err(RecvTimeoutError::Disconnected) => Err(StageClosed),
    }
}

/// The stage before has ended.
pub(super) struct StageClosed;
