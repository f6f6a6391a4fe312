//! A width and a height, written `512x288`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A width and a height in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size {
    pub width: usize,
    pub height: usize,
}

impl Size {
    /// A size of `width` × `height` pixels, of any value.
    pub const fn new(width: usize, height: usize) -> Self {
        Size { width, height }
    }

    /// The number of pixels.
    pub fn area(self) -> usize {
        self.width * self.height
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

/// Why a text is not the size of a network's input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizeError {
    #[error("`{0}` is not WIDTHxHEIGHT, 512x288 for example")]
    Format(String),
    #[error("{side} is not a multiple of 32 up to 4096 (the nearest is {nearest})")]
    Side { side: usize, nearest: usize },
}

impl FromStr for Size {
    type Err = SizeError;

    /// Parses the size of a network's input: both sides are multiples of 32, at most 4096.
    fn from_str(text: &str) -> Result<Self, SizeError> {
        let sides = text.split_once(['x', 'X', '×']).and_then(|(width, height)| {
            Some(Size { width: width.trim().parse().ok()?, height: height.trim().parse().ok()? })
        });
        let size = sides.ok_or_else(|| SizeError::Format(text.to_owned()))?;
        for side in [size.width, size.height] {
            if side == 0 || side > 4096 || !side.is_multiple_of(32) {
                let nearest = (side.clamp(32, 4096) + 16) / 32 * 32;
                return Err(SizeError::Side { side, nearest });
            }
        }
        Ok(size)
    }
}

impl TryFrom<String> for Size {
    type Error = SizeError;

    fn try_from(text: String) -> Result<Self, SizeError> {
        text.parse()
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_multiples_of_32() {
        assert_eq!("512x288".parse(), Ok(Size::new(512, 288)));
        assert_eq!("500x288".parse::<Size>(), Err(SizeError::Side { side: 500, nearest: 512 }));
        assert_eq!("0x32".parse::<Size>(), Err(SizeError::Side { side: 0, nearest: 32 }));
        assert_eq!("512".parse::<Size>(), Err(SizeError::Format("512".into())));
    }
}
