//! Sums of absolute differences, which block matching consists of.
//!
//! The call is unsafe, because instructions of a processor are.
#![allow(unsafe_code)]

/// The sum of absolute differences of two rows, by the instruction that video encoders use for it (`psadbw`). Compilers do not
/// find it here.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(super) fn of_two_rows(a: [[u8; 8]; 2], b: [[u8; 8]; 2]) -> u32 {
    use std::arch::x86_64::{_mm_add_epi64, _mm_cvtsi128_si32, _mm_sad_epu8, _mm_set_epi64x, _mm_unpackhi_epi64};
    let [a, b] = [a, b].map(|rows| rows.map(i64::from_le_bytes));
    // SAFETY: The instructions are those of SSE2, which every x86-64 processor has. They use no memory.
    unsafe {
        let sums = _mm_sad_epu8(_mm_set_epi64x(a[1], a[0]), _mm_set_epi64x(b[1], b[0]));
        _mm_cvtsi128_si32(_mm_add_epi64(sums, _mm_unpackhi_epi64(sums, sums))) as u32
    }
}

/// The sum of absolute differences of two rows.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub(super) fn of_two_rows(a: [[u8; 8]; 2], b: [[u8; 8]; 2]) -> u32 {
    let rows = a.as_flattened().iter().zip(b.as_flattened());
    rows.map(|(a, b)| u32::from(a.abs_diff(*b))).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_differences_are_summed() {
        let mut random = fastrand::Rng::with_seed(5);
        let mut rows = |any: bool| [(); 2].map(|()| [(); 8].map(|()| if any { random.u8(..) } else { 255 }));
        for _ in 0..1000 {
            let (a, b) = (rows(true), rows(true));
            let pairs = a.as_flattened().iter().zip(b.as_flattened());
            let expected: u32 = pairs.map(|(a, b)| u32::from(a.abs_diff(*b))).sum();
            assert_eq!(of_two_rows(a, b), expected, "{a:?} {b:?}");
        }
        assert_eq!(of_two_rows(rows(false), [[0; 8]; 2]), 16 * 255);
    }
}
