//! Work of handlers that waits for the disk.

use axum::http::StatusCode;

use super::problem::Problem;

/// Runs work that waits for the disk on a thread for it.
///
/// # Errors
/// The work panics.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, format!("access to the files failed: {error}"))
    })
}
