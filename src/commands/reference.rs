//! References that are made from the code, as Markdown.

use clap::ValueEnum;

use super::Failure;
use crate::server;

/// What a reference describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topic {
    /// The HTTP API: `docs/api.md`.
    Api,
}

/// Writes a reference to standard output.
///
/// # Errors
/// When the reference cannot be made.
pub fn reference(topic: Topic) -> Result<(), Failure> {
    let text = match topic {
        Topic::Api => {
            server::api_reference().map_err(|error| Failure::runtime(format!("the API reference: {error}")))?
        }
    };
    print!("{text}");
    Ok(())
}
