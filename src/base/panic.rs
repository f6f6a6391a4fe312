//! What a panic carries, as text for logs and errors.

/// The message of a panic that `catch_unwind` or `JoinHandle::join` has caught.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
