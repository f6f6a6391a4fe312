//! The class with the largest logit, of many pixels, and the classes that can win between four pixels.

use wide::{i16x8, u8x16};

use super::description::{HeadDescription, PixelRejection};
use crate::frame::ClassId;

/// Classes that are compared at once.
const LANES: usize = 16;

/// Bits of a class in a key.
const CLASS_BITS: u32 = 6;
const CLASSES: i16 = (1 << CLASS_BITS) - 1;

/// Finds the class with the largest logit.
///
/// Each class of a pixel gets a key, of which the largest is searched: twice the byte of its logit, then the complement of its index,
/// so that the first class wins among equal ones, as in ONNX. A limit lies between two bytes in general and has an odd number in the
/// place of twice a byte.
#[derive(Debug)]
pub(super) struct Winners {
    classes: usize,
    lanes: Vec<ClassLanes>,
}

/// Sixteen classes.
#[derive(Clone, Copy, Debug)]
struct ClassLanes {
    /// 255 for the classes, 0 for the lanes after the last class.
    used: u8x16,
    /// As bits: one for each class.
    bits: u32,
    /// The complements of the indices, in halves; 0 in lanes that are not used.
    order: [i16x8; 2],
    /// The keys of the limits; 0 for none.
    limits: [i16x8; 2],
    /// The largest byte below the limit of a class or at it, and the smallest above or at it; 0 for none.
    floor: u8x16,
    ceiling: u8x16,
}

impl Winners {
    pub fn new(description: &HeadDescription) -> Self {
        let classes = description.classes;
        let lanes = (0..classes.div_ceil(LANES)).map(|n| ClassLanes::new(description, n * LANES)).collect();
        Winners { classes, lanes }
    }

    /// Writes the class of each pixel of a row. `bytes` are the logits from the first pixel of the row to the end of the image.
    pub fn row(&self, bytes: &[u8], row: &mut [ClassId]) {
        match self.lanes.as_slice() {
            [lanes] => {
                for (pixel, class) in row.iter_mut().enumerate() {
                    *class = winner(lanes.keys(load(bytes, pixel * self.classes)).reduce_max());
                }
            }
            all => {
                for (pixel, class) in row.iter_mut().enumerate() {
                    let keys = all
                        .iter()
                        .enumerate()
                        .map(|(n, lanes)| lanes.keys(load(bytes, pixel * self.classes + n * LANES)).reduce_max());
                    *class = winner(keys.max().unwrap_or(0));
                }
            }
        }
    }

    /// The classes that can have the largest logit in a mixture of four pixels, as bits: those whose largest logit is not below the
    /// smallest logit of another class. `bytes` are the logits of an image, `pixels` the positions in it.
    pub fn candidates(&self, bytes: &[u8], pixels: [usize; 4]) -> u64 {
        let mut least = 0;
        for (n, lanes) in self.lanes.iter().enumerate() {
            let [a, b, c, d] = self.corners(bytes, pixels, n);
            let low = (a.min(b).min(c.min(d)) & lanes.used).max(lanes.floor);
            least = least.max(low.reduce_max());
        }
        let least = u8x16::splat(least);
        let mut found = 0;
        for (n, lanes) in self.lanes.iter().enumerate() {
            let [a, b, c, d] = self.corners(bytes, pixels, n);
            let high = a.max(b).max(c.max(d)).max(lanes.ceiling);
            let bits = high.max(least).simd_eq(high).to_bitmask() & lanes.bits;
            found |= u64::from(bits) << (n * LANES);
        }
        found
    }

    #[inline(always)]
    fn corners(&self, bytes: &[u8], pixels: [usize; 4], n: usize) -> [u8x16; 4] {
        pixels.map(|pixel| load(bytes, pixel * self.classes + n * LANES))
    }
}

/// The least logit of a class, among the bytes.
#[derive(Clone, Copy)]
struct Limit {
    /// The largest byte whose logit is not above the limit.
    floor: u8,
    /// Whether the limit is above that logit.
    between: bool,
}

impl Limit {
    /// `None` if all logits of the class are above its limit.
    fn of(description: &HeadDescription, class: usize) -> Option<Self> {
        let PixelRejection { class: rejected, below } = description.rejection?;
        let floor = (0..=u8::MAX).rev().find(|&byte| description.logit(byte) <= below)?;
        (rejected == class).then_some(Limit { floor, between: description.logit(floor) < below })
    }

    fn doubled(self) -> i16 {
        2 * i16::from(self.floor) + i16::from(self.between)
    }

    /// The smallest byte whose logit is not below the limit; 255 if there is none.
    fn ceiling(self) -> u8 {
        self.floor.saturating_add(u8::from(self.between))
    }
}

impl ClassLanes {
    /// The classes from `first` on.
    fn new(description: &HeadDescription, first: usize) -> Self {
        let class_of = |lane: usize| Some(first + lane).filter(|&class| class < description.classes);
        let order = |lane: usize| class_of(lane).map_or(0, |class| CLASSES - class as i16);
        let limit = |lane: usize| class_of(lane).and_then(|class| Limit::of(description, class));
        let key = |lane: usize| limit(lane).map_or(0, |limit| (limit.doubled() << CLASS_BITS) | order(lane));
        let byte = |lane: usize, side: fn(Limit) -> u8| limit(lane).map_or(0, side);
        let halves = |value: &dyn Fn(usize) -> i16| {
            [0, 8].map(|half| i16x8::new(std::array::from_fn(|lane| value(half + lane))))
        };
        ClassLanes {
            used: u8x16::new(std::array::from_fn(|lane| if class_of(lane).is_some() { 255 } else { 0 })),
            bits: (0..LANES).filter(|&lane| class_of(lane).is_some()).fold(0, |bits, lane| bits | 1 << lane),
            order: halves(&order),
            limits: halves(&key),
            floor: u8x16::new(std::array::from_fn(|lane| byte(lane, |limit| limit.floor))),
            ceiling: u8x16::new(std::array::from_fn(|lane| byte(lane, Limit::ceiling))),
        }
    }

    /// For each lane of a half, the larger key of the two halves.
    #[inline(always)]
    fn keys(&self, bytes: u8x16) -> i16x8 {
        let bytes = bytes & self.used;
        let low = (i16x8::from_u8x16_low(bytes) << (CLASS_BITS + 1)) | self.order[0];
        let high = (i16x8::from_u8x16_high(bytes) << (CLASS_BITS + 1)) | self.order[1];
        low.max(self.limits[0]).max(high.max(self.limits[1]))
    }
}

/// The class of a key.
#[inline(always)]
fn winner(key: i16) -> ClassId {
    (CLASSES - (key & CLASSES)) as ClassId
}

/// Sixteen bytes, with zeros after the end.
#[inline(always)]
fn load(bytes: &[u8], at: usize) -> u8x16 {
    match bytes.get(at..).and_then(|rest| rest.first_chunk::<LANES>()) {
        Some(chunk) => u8x16::new(*chunk),
        None => {
            let rest = bytes.get(at..).unwrap_or_default();
            u8x16::new(std::array::from_fn(|lane| rest.get(lane).copied().unwrap_or(0)))
        }
    }
}
