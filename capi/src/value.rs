//! The number that a program knows a handle by.
//!
//! ```text
//!   31                                     2 1 0
//!  +----------------------------------------+---+
//!  | generation and index, scrambled        | 1 1 |
//!  +----------------------------------------+---+
//! ```
//!
//! The low two bits are set, as Zircon's are, so 0 is never a handle, nor is a pointer or a small number
//! that is a multiple of four. The rest is a permutation, other in every process, of 12 bits of the
//! slot's generation and 18 of its index: a number that was made up names no handle, but with a chance of one
//! in 2^12 at the most, and a number that is stale names none until its slot has been used 2^12 times again.
//! Since slots are used in turn, over at least 2^14 of them ([`table`](crate::table)), that is after 2^26 handles
//! at the earliest.

use crate::sync::size::INDEX_BITS;

/// Set in every handle (`ZX_HANDLE_FIXED_BITS_MASK`).
pub(crate) const FIXED_BITS: u32 = 3;

const BITS: u32 = 30;
const MASK: u32 = (1 << BITS) - 1;
/// How many bits of a generation a value has.
const GENERATION_BITS: u32 = BITS - INDEX_BITS;

/// The permutation of one process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scramble {
    factor: u32,
    inverse: u32,
    mask: u32,
}

impl Scramble {
    pub(crate) const fn new(seed: u64) -> Self {
        let factor = (seed as u32) | 1; // odd: it has an inverse
        // Newton's iteration: each step doubles the number of right bits, of which `factor` itself has 3.
        let mut inverse = factor;
        let mut step = 0;
        while step < 4 {
            inverse = inverse.wrapping_mul(2u32.wrapping_sub(factor.wrapping_mul(inverse)));
            step += 1;
        }
        Self { factor, inverse, mask: (seed >> 32) as u32 & MASK }
    }

    /// The value of a slot's handle.
    #[inline]
    pub(crate) const fn value(self, index: usize, generation: u64) -> u32 {
        let plain = (generation as u32) << INDEX_BITS | index as u32;
        ((plain.wrapping_mul(self.factor) ^ self.mask) & MASK) << 2 | FIXED_BITS
    }

    /// The index, and what the value has of the generation. `None`: it can be no handle.
    #[inline]
    pub(crate) const fn parts(self, value: u32) -> Option<(usize, u32)> {
        if value & FIXED_BITS != FIXED_BITS {
            return None;
        }
        let plain = ((value >> 2) ^ self.mask).wrapping_mul(self.inverse) & MASK;
        Some(((plain & ((1 << INDEX_BITS) - 1)) as usize, plain >> INDEX_BITS))
    }
}

/// Whether a value may be of this generation.
#[inline]
pub(crate) const fn is_of(part: u32, generation: u64) -> bool {
    part == generation as u32 & ((1 << GENERATION_BITS) - 1)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_value_gives_back_what_it_was_made_of() {
        for seed in [0, 1, u64::MAX, 0x1234_5678_9abc_def0, 0xdead_beef_0bad_cafe] {
            let scramble = Scramble::new(seed);
            for index in [0, 1, 511, 512, (1 << 18) - 1] {
                for generation in [0, 1, 4095, 4096, u64::MAX] {
                    let value = scramble.value(index, generation);
                    assert_eq!(value & FIXED_BITS, FIXED_BITS);
                    let (found, part) = scramble.parts(value).unwrap();
                    assert_eq!(found, index);
                    assert!(is_of(part, generation));
                    assert!(!is_of(part, generation.wrapping_add(1)));
                }
            }
        }
    }

    #[test]
    fn without_the_fixed_bits_it_is_no_handle() {
        let scramble = Scramble::new(7);
        for value in [0, 1, 2, 4, 0x1000, u32::MAX - 1, scramble.value(5, 9) & !1, scramble.value(5, 9) & !2] {
            assert_eq!(scramble.parts(value), None);
        }
    }
}
