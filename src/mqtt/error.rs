//! What can fail in the connection to a broker and in its queue.

use std::path::PathBuf;

use rustls::pki_types::pem;

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

/// Why the queue on the disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// Its folder cannot be created.
    #[error("{}: {source}", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    /// Its file cannot be opened, read or written.
    #[error("{}: {source}", path.display())]
    Database { path: PathBuf, source: rusqlite::Error },
    /// The file was written by a newer version of Maskcast.
    #[error("{}: has the version {version}, which this version of Maskcast does not know", path.display())]
    Version { path: PathBuf, version: i64 },
}
