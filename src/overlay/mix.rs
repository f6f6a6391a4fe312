//! Mixes the coefficients of two classes along their border, eight samples at a time.

use wide::{i16x8, u16x8};

use super::palette::BlendCoefficients;

/// Number of samples that are mixed at once.
pub(super) const CHUNK: usize = 8;

/// The shares of the first of two classes in consecutive samples; 65535 is a whole sample.
pub(super) type Shares = [u16; CHUNK];

/// How much of consecutive samples is drawn at all; 32768 is a whole sample.
pub(super) type Covers = [u16; CHUNK];

pub(super) fn share(part: f32) -> u16 {
    // `as` saturates.
    (part * 65535.0 + 0.5) as u16
}

pub(super) fn cover(part: f32) -> u16 {
    (part.clamp(0.0, 1.0) * 32768.0 + 0.5) as u16
}

/// Two classes in the samples of one plane.
///
/// The upper halves of 16-bit products are used, which is one instruction for eight samples. This rounds down by less than a
/// hundredth of a level. Where the share is 0, it is exact for a second class that does not change samples.
#[derive(Clone, Copy)]
pub(super) struct Mixture {
    /// `inv` of the second class, and four times the difference of the first.
    inv: i16x8,
    inv_difference: i16x8,
    /// `add` of both classes.
    add: [u16x8; 2],
}

impl Mixture {
    /// `planes` are the components of the even and of the odd samples: the same, or U and V when these are interleaved.
    #[inline]
    pub fn new([first, second]: [&BlendCoefficients; 2], [even, odd]: [usize; 2]) -> Self {
        let add = |class: &BlendCoefficients| {
            let (even, odd) = (class.add[even], class.add[odd]);
            u16x8::new([even, odd, even, odd, even, odd, even, odd])
        };
        Mixture {
            inv: i16x8::splat(second.inv as i16),
            inv_difference: i16x8::splat(4 * (first.inv as i16 - second.inv as i16)),
            add: [add(first), add(second)],
        }
    }

    /// The values of `inv` and `add` with these shares.
    #[inline(always)]
    pub fn mixed(&self, shares: &Shares) -> ([u16; CHUNK], [u16; CHUNK]) {
        let quarters = i16x8::new(shares.map(|share| (share >> 2) as i16));
        let inv = self.inv + self.inv_difference.mul_keep_high(quarters);
        let shares = u16x8::new(*shares);
        let add = self.add[0].mul_keep_high(shares) + self.add[1].mul_keep_high(!shares);
        (inv.to_array().map(|inv| inv as u16), add.to_array())
    }

    /// The same for samples that are not drawn as a whole.
    #[inline(always)]
    pub fn covered(&self, shares: &Shares, covers: &Covers) -> ([u16; CHUNK], [u16; CHUNK]) {
        let (inv, add) = self.mixed(shares);
        let (inv, add, covers) = (u16x8::new(inv), u16x8::new(add), u16x8::new(*covers));
        let (whole, two) = (u16x8::splat(256), u16x8::splat(2));
        let inv = whole - ((whole - inv) * two).mul_keep_high(covers);
        (inv.to_array(), (add.mul_keep_high(covers) * two).to_array())
    }
}
