//! Options that name classes of a model.

use maskcast::commands::Failure;
use maskcast::frame::Label;

/// A class in the option `option` that the model does not have.
pub(super) fn unknown_class(option: &str, name: &str, model: &[Label]) -> Failure {
    let known: Vec<&str> = model.iter().map(|label| label.name.as_str()).collect();
    let known = known.join(", ");
    Failure::usage(format!("{option}: the model has no class {name:?}; its classes are {known}"))
}
