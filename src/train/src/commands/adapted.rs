//! The end of a run that adapts a model: how much of its old weights is kept, and its scores before and after.

use std::fmt::Write;

use crate::fit::adapt::{self, Blend};
use crate::fit::session::{Session, SessionError};

/// Averages the result of `maskcast-train adapt` with the model that it adapts, and prints the share of the latter. A run of `fit`
/// is unchanged.
///
/// # Errors
/// The weights cannot be read or written, or the model cannot be run.
pub fn blend(session: &mut Session) -> Result<(), SessionError> {
    if session.config.adapt.is_none() {
        return Ok(());
    }
    match adapt::blend(session)? {
        Some(Blend { share }) if share > 0.0 => {
            eprintln!(
                "the adapted model has {:.0} % of the weights of the old one, so that it forgets less",
                100.0 * share
            );
        }
        _ => {}
    }
    Ok(())
}

/// Prints the scores of a run of `maskcast-train adapt` before and after it.
pub fn print_adapted(session: &Session) {
    let (Some(model), Some(before)) = (&session.config.adapt, &session.state.progress.before) else { return };
    let after = session.state.progress.after.as_ref().unwrap_or(before);
    let number = |value: Option<f64>| value.map_or("     -".into(), |value| format!("{value:6.4}"));
    let width = session.dataset.classes.iter().map(|label| label.name.chars().count()).max().unwrap_or(0).max(16);
    let mut text = format!("{:width$}  {:>6}  adapted\n", "IoU, validation", "old");
    // Writing to a string cannot fail.
    let mut line = |name: &str, before, after| {
        let _ = writeln!(text, "{name:width$}  {}   {}", number(before), number(after));
    };
    for (class, label) in session.dataset.classes.iter().enumerate() {
        if before.classes[class].is_some() {
            line(&label.name, before.classes[class], after.classes[class]);
        }
    }
    line("mean", before.miou, after.miou);
    if before.replayed.is_some() {
        line("replayed, mean", before.replayed, after.replayed);
    }
    print!("{text}");
    if session.state.progress.best.is_none_or(|(_, epoch)| epoch == 0) {
        println!(
            "no epoch was better than {} on the {} validation images: model.onnx has its weights. Label more images, of other \
             times of the day",
            model.name,
            session.dataset.val.len()
        );
    } else if after.miou < before.miou {
        println!("the adapted model is worse than {} on the validation images", model.name);
    }
}
