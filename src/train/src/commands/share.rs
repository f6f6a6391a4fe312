//! Options of the form `NAME=SHARE`.

/// Reads `NAME=SHARE`.
pub(super) fn name_and_share(text: &str) -> Result<(String, f64), String> {
    let (name, share) = text.rsplit_once('=').ok_or("a share is missing, as in NAME=0.1")?;
    let share: f64 = share.parse().map_err(|_| format!("{share:?} is not a number"))?;
    if !(share > 0.0 && share < 1.0) {
        return Err(format!("the share must be above 0 and below 1, not {share}"));
    }
    Ok((name.to_owned(), share))
}
