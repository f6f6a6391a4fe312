//! How strongly a class is drawn.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// How strongly a class is drawn: a factor of the opacity, from 0 (not drawn) to 1.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
pub struct Weight(f64);

/// A number that is not between 0 and 1.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
#[error("{0} is not between 0 and 1")]
pub struct NotAWeight(pub f64);

impl Weight {
    /// The class is not drawn.
    pub const NONE: Weight = Weight(0.0);
    /// The class is drawn with the whole opacity.
    pub const FULL: Weight = Weight(1.0);

    pub fn get(self) -> f64 {
        self.0
    }
}

// It is never NaN.
impl Eq for Weight {}

impl Default for Weight {
    fn default() -> Self {
        Weight::FULL
    }
}

impl TryFrom<f64> for Weight {
    type Error = NotAWeight;

    fn try_from(number: f64) -> Result<Self, NotAWeight> {
        // -0 is shown as 0.
        if (0.0..=1.0).contains(&number) { Ok(Weight(number.abs())) } else { Err(NotAWeight(number)) }
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Weight {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Weight::try_from(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_outside_of_0_to_1_are_refused() {
        for number in [0.0, 0.25, 1.0] {
            assert_eq!(Weight::try_from(number).map(Weight::get), Ok(number));
        }
        assert!(Weight::try_from(-0.0).unwrap().get().is_sign_positive());
        for number in [-0.1, 1.01, f64::INFINITY, f64::NAN] {
            assert!(Weight::try_from(number).is_err(), "{number}");
        }
        let error = serde_json::from_str::<Weight>("1.5").unwrap_err().to_string();
        assert!(error.starts_with("1.5 is not between 0 and 1"), "{error}");
    }
}
