//! Weights of classes on the command line.

use crate::frame::Weight;

/// Reads `CLASS=WEIGHT`, as in `sky=0.1`.
///
/// # Errors
/// What is wrong, for the command line.
pub fn class_weight(text: &str) -> Result<(String, Weight), String> {
    let (name, number) = text.rsplit_once('=').ok_or("write a class and its weight, as in sky=0.1")?;
    let weight: f64 = number.parse().map_err(|_| format!("{number:?} is not a number from 0 to 1"))?;
    Ok((name.to_owned(), Weight::try_from(weight).map_err(|error| error.to_string())?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_number_from_0_to_1() {
        assert_eq!(class_weight("traffic=light=0.5"), Ok(("traffic=light".into(), Weight::try_from(0.5).unwrap())));
        for wrong in ["car", "car=", "car=2", "car=-0.1", "car=nan", "car=faint"] {
            assert!(class_weight(wrong).is_err(), "{wrong}");
        }
    }
}
