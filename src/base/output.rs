//! Standard output and standard error of the commands.
//!
//! The standard library's `println!` and `eprintln!` panic when the reader has closed the pipe (`maskcast check … | head
//! -1`). That is not a fault, and the work of a command (a training run, a changed file) must not depend on it: further
//! output is dropped, and the exit code is the same as without the pipe. Any other write error, such as a full disk, fails
//! the command when it ends ([`finish`]).
//!
//! The macros have the names of the standard ones and hide them in this crate, so that those are not used by accident.
//! Another crate imports them by name: `#[macro_use(print, println, eprintln)] extern crate maskcast;`.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

use parking_lot::Mutex;

/// Standard output could not be written.
#[derive(Debug, thiserror::Error)]
#[error("standard output cannot be written: {0}")]
pub struct StandardOutputError(#[source] io::Error);

/// The state of standard output after the last write.
#[derive(Debug)]
enum OutputState {
    Open,
    /// The reader has closed the pipe, or the failure has been returned.
    Closed,
    Failed(io::Error),
}

static STATE: Mutex<OutputState> = Mutex::new(OutputState::Open);

/// Prints to standard output, as `std::print!` does, without a panic.
#[macro_export]
macro_rules! print {
    ($($text:tt)*) => { $crate::base::output::write(format_args!($($text)*)) };
}

/// Prints a line to standard output, as `std::println!` does, without a panic.
#[macro_export]
macro_rules! println {
    () => { $crate::base::output::write(format_args!("\n")) };
    ($format:literal $($rest:tt)*) => { $crate::base::output::write(format_args!("{}\n", format_args!($format $($rest)*))) };
}

/// Prints a line to standard error, as `std::eprintln!` does, without a panic.
#[macro_export]
macro_rules! eprintln {
    ($format:literal $($rest:tt)*) => { $crate::base::output::write_error(format_args!("{}\n", format_args!($format $($rest)*))) };
}

/// Writes text to standard output, unless that has failed before.
pub fn write(text: Arguments<'_>) {
    // The test harness captures only the output of the standard macro.
    if cfg!(test) {
        std::print!("{text}");
        return;
    }
    let mut state = STATE.lock();
    follow(&mut state, || io::stdout().write_fmt(text));
}

/// Whether standard output can be written; false when its reader has closed the pipe, or a write has failed.
pub fn is_open() -> bool {
    matches!(*STATE.lock(), OutputState::Open)
}

/// Writes text to standard error. Errors are ignored, because they cannot be reported anywhere.
pub fn write_error(text: Arguments<'_>) {
    let _ = io::stderr().write_fmt(text);
}

/// Flushes standard output, at the end of a command.
///
/// # Errors
/// The first write error since the start of the program. A reader that closed the pipe is not an error.
pub fn finish() -> Result<(), StandardOutputError> {
    let mut state = STATE.lock();
    follow(&mut state, || io::stdout().flush());
    take_failure(&mut state)
}

fn take_failure(state: &mut OutputState) -> Result<(), StandardOutputError> {
    match std::mem::replace(state, OutputState::Closed) {
        OutputState::Failed(error) => Err(StandardOutputError(error)),
        other => {
            *state = other;
            Ok(())
        }
    }
}

fn follow(state: &mut OutputState, write: impl FnOnce() -> io::Result<()>) {
    if let OutputState::Open = state
        && let Err(error) = write()
    {
        *state = if error.kind() == ErrorKind::BrokenPipe { OutputState::Closed } else { OutputState::Failed(error) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_failure_nothing_is_written() {
        let mut state = OutputState::Open;
        follow(&mut state, || Ok(()));
        assert!(matches!(state, OutputState::Open));
        follow(&mut state, || Err(ErrorKind::BrokenPipe.into()));
        assert!(matches!(state, OutputState::Closed));
        follow(&mut state, || unreachable!("it is closed"));
        let mut state = OutputState::Open;
        follow(&mut state, || Err(ErrorKind::StorageFull.into()));
        follow(&mut state, || unreachable!("it has failed"));
        assert!(matches!(&state, OutputState::Failed(error) if error.kind() == ErrorKind::StorageFull));
        let StandardOutputError(error) = take_failure(&mut state).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        follow(&mut state, || unreachable!("it has failed"));
        assert!(take_failure(&mut state).is_ok(), "the failure is returned once");
    }
}
