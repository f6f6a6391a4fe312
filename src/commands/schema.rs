//! `maskcast schema`

use super::Failure;
use crate::config;

/// Prints the JSON Schema of configuration files, or with `markdown` the documentation of all their keys.
///
/// # Errors
/// None but those of the output, which are reported by [`super::ended`].
pub fn schema(markdown: bool) -> Result<(), Failure> {
    if markdown {
        print!("{}", config::markdown());
        return Ok(());
    }
    let text = serde_json::to_string_pretty(&config::json_schema()).map_err(Failure::runtime)?;
    println!("{text}");
    Ok(())
}
