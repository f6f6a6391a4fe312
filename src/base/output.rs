//! Standard output and standard error of the commands.
//!
//! The standard library's `println!` panics when a reader has closed the pipe (`maskcast check … | head -1`), and
//! `eprintln!` likewise. A reader that closes the pipe early is not a fault, and what a command does (a training run, a changed file)
//! must not depend on it: from then on its output is dropped, and it ends with the exit code that it would have had.
//! Any other failure, such as a full disk, fails the command when it ends ([`finish`]).
//!
//! The macros have the standard ones' names and hide them in this crate, so that no caller can use the others by accident.
//! Another crate imports them by name: `#[macro_use(print, println, eprintln)] extern crate maskcast;`.

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};
use std::sync::{Mutex, PoisonError};

/// What standard output is, after what was written so far.
#[derive(Debug)]
enum OutputState {
    Open,
    /// The reader has closed its end.
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
    // Tests catch what the standard macro prints, and only that.
    if cfg!(test) {
        std::print!("{text}");
        return;
    }
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    follow(&mut state, || io::stdout().write_fmt(text));
}

/// Writes text to standard error. There is no place to report a failure to.
pub fn write_error(text: Arguments<'_>) {
    let _ = io::stderr().write_fmt(text);
}

/// Writes out what is buffered.
///
/// # Errors
/// Why standard output did not take everything; a reader that closed its pipe is not an error.
pub fn finish() -> Result<(), String> {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    follow(&mut state, || io::stdout().flush());
    match &*state {
        OutputState::Failed(error) => Err(format!("standard output cannot be written: {error}")),
        OutputState::Open | OutputState::Closed => Ok(()),
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
        assert!(matches!(state, OutputState::Failed(error) if error.kind() == ErrorKind::StorageFull));
    }
}
