//! Whether a camera has changed: it was turned, its lens is dirty or out of focus, the light is another.
//!
//! [`features::Features`] describe a mask and what the model saw of its frame in a few numbers: brightness, contrast, sharpness, colour, a
//! coarse picture of 8×6 cells, and the shares of the classes. They are averaged over parts of a window. [`states::States`] knows
//! the states in which the camera has been: a state that is reached slowly (dusk), or that was there before (lights that are
//! switched on every evening), is not a change. A state that is new, comes suddenly, and lasts for a whole window is one.

pub mod features;
mod meter;
pub mod reference;
mod sink;
pub mod states;

pub use meter::{DriftReport, StreamDrift};
pub use sink::DriftSink;
