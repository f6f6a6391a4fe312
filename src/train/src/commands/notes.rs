//! Notes on a data set.

/// Writes what was assumed about a data set to standard error, so that the user can correct it.
pub fn print_notes(notes: &[String]) {
    for note in notes {
        eprintln!("note: {note}");
    }
}
