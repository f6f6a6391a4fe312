//! What can fail in the connection to a broker and in its queue.

use std::path::PathBuf;

use rustls::pki_types::pem;

use crate::outbox::QueueError;

/// Why MQTT cannot be used, or not now.
#[derive(Debug, thiserror::Error)]
pub enum MqttError {
    /// The file of certificate authorities cannot be read.
    #[error("mqtt.ca: {}: {source}", path.display())]
    Authorities { path: PathBuf, source: pem::Error },
    /// The certificate authorities, or those of the system, cannot be used.
    #[error("certificate authorities: {0}")]
    Tls(#[from] rustls::Error),
    /// The system has no thread, or no resources for it.
    #[error("cannot start the thread {thread}: {source}")]
    Thread { thread: &'static str, source: std::io::Error },
    /// The file of the queue cannot be used.
    #[error(transparent)]
    Queue(#[from] QueueError),
}
