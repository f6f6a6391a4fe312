//! Random numbers that depend only on a seed and a purpose. A run has no generator state to save, and the numbers do not
//! depend on the order of threads.

use std::hash::Hasher;

use rand::SeedableRng;

/// A small, fast generator whose numbers do not change between versions (PCG XSL 128/64).
pub type Rng = rand_pcg::Pcg64Mcg;

/// The generator for a purpose, such as `generator(seed, &[ORDER, epoch])`.
pub fn generator(seed: u64, path: &[u64]) -> Rng {
    let mut state = mix(seed ^ 0x9E37_79B9_7F4A_7C15);
    for &step in path {
        state = mix(state.rotate_left(17) ^ mix(step.wrapping_add(0xD1B5_4A32_D192_ED03)));
    }
    Rng::seed_from_u64(state)
}

/// The generator for something with a name, such as a parameter.
pub fn named_generator(seed: u64, name: &str) -> Rng {
    let mut hash = Fnv(0xCBF2_9CE4_8422_2325);
    hash.write(name.as_bytes());
    generator(seed, &[hash.finish()])
}

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014).
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The hash function FNV-1a. That of the standard library may change with its version.
struct Fnv(u64);

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::RngExt;

    use super::*;

    #[test]
    fn generators_of_different_purposes_return_different_numbers() {
        let first = |mut rng: Rng| rng.random::<u64>();
        assert_eq!(first(generator(1, &[2, 3])), first(generator(1, &[2, 3])));
        assert_ne!(first(generator(1, &[2, 3])), first(generator(1, &[3, 2])));
        assert_ne!(first(generator(1, &[2])), first(generator(2, &[2])));
        assert_ne!(first(named_generator(1, "a")), first(named_generator(1, "b")));
    }
}
