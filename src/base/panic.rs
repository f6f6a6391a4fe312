//! The message of a panic, for logs and errors.

/// The message of a panic that `catch_unwind` or `JoinHandle::join` returned; `no message` if the payload is not text.
pub fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message")
}
