//! The lowest layer: every other module may use it, and it uses only [`crate::frame`] of the crate.

// First, because its macros hide the standard ones in all modules declared after it.
#[macro_use]
pub mod output;

pub mod atomic_file;
pub mod bounded;
pub mod clock;
pub mod collect_status;
pub mod database_file;
pub mod default_context;
pub mod descriptors;
pub mod encode_status;
pub mod heap;
pub mod history_status;
pub mod ledger;
pub mod log_dedup;
pub mod memory;
pub mod mqtt_status;
pub mod output_status;
#[cfg(test)]
pub mod own_process;
pub mod panic;
pub mod paths;
mod publish_rate;
pub mod push_status;
pub mod queue;
pub mod queue_status;
pub mod retry;
pub mod secret;
pub mod sink_status;
pub mod status;
pub mod stop;
pub mod timing;
pub mod webhook_status;
pub mod wrapped;
