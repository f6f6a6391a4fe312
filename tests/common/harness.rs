//! The main function of test programs with prerequisites that a machine may lack, such as root privileges or a network.
//!
//! A test whose prerequisite is missing counts as ignored, and the reason is printed. Rust's own harness cannot ignore a
//! test at run time.

use libtest_mimic::{Arguments, Completion, Trial};

/// Checks a prerequisite on this machine.
///
/// # Errors
/// What is missing.
pub type Prerequisite = fn() -> Result<(), String>;

/// A test that runs on every machine.
pub fn test(name: &str, run: fn()) -> Trial {
    test_if(name, || Ok(()), run)
}

/// A test that is ignored where its prerequisite is missing.
pub fn test_if(name: &str, needs: Prerequisite, run: fn()) -> Trial {
    Trial::ignorable_test(name, move || match needs() {
        Ok(()) => {
            run();
            Ok(Completion::Completed)
        }
        Err(missing) => Ok(Completion::ignored_with(missing)),
    })
}

/// Runs the tests that the command line selects, and ends the process.
pub fn main(tests: Vec<Trial>) -> ! {
    libtest_mimic::run(&Arguments::from_args(), tests).exit()
}

/// The tests of a program, by the names of their functions: `tests![one, two if prerequisite]`.
#[macro_export]
macro_rules! tests {
    ($($run:ident $(if $needs:path)?),* $(,)?) => {
        vec![$($crate::tests!(@ $run $($needs)?)),*]
    };
    (@ $run:ident) => { $crate::common::harness::test(stringify!($run), $run) };
    (@ $run:ident $needs:path) => { $crate::common::harness::test_if(stringify!($run), $needs, $run) };
}

/// Whether the tests run as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
