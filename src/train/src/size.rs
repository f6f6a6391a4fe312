//! Width and height, written `512x288`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Pixels across and down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size {
    pub width: usize,
    pub height: usize,
}

impl Size {
    pub const fn new(width: usize, height: usize) -> Self {
        Size { width, height }
    }

    /// Number of pixels.
    pub fn area(self) -> usize {
        self.width * self.height
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for Size {
    type Err = String;

    /// Reads a size that a network can have: both sides multiples of 32, at most 4096.
    fn from_str(text: &str) -> Result<Self, String> {
        let sides = text.split_once(['x', 'X', '×']).and_then(|(width, height)| {
            Some(Size { width: width.trim().parse().ok()?, height: height.trim().parse().ok()? })
        });
        let size = sides.ok_or_else(|| format!("`{text}` is not WIDTHxHEIGHT, 512x288 for example"))?;
        for side in [size.width, size.height] {
            if side == 0 || side > 4096 || !side.is_multiple_of(32) {
                let near = (side.clamp(32, 4096) + 16) / 32 * 32;
                return Err(format!("{side} is not a multiple of 32 up to 4096 (the nearest is {near})"));
            }
        }
        Ok(size)
    }
}

impl TryFrom<String> for Size {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
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
    fn sizes_are_read_and_refused() {
        assert_eq!("512x288".parse(), Ok(Size::new(512, 288)));
        assert!("500x288".parse::<Size>().unwrap_err().contains("nearest is 512"));
        assert!("512".parse::<Size>().is_err());
        assert!("0x32".parse::<Size>().is_err());
    }
}
