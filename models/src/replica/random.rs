//! Chance, drawn from a seed.

use super::symmetry::mix;

/// A sequence of numbers that its seed decides.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        // Seeds follow on each other; what is drawn from them must not.
        Self(mix(0, seed))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(0, self.0)
    }

    /// One of so many, from 0 on; of none, 0.
    pub(super) fn below(&mut self, count: usize) -> usize {
        // A bias of 2⁻³² and less is none for so few.
        ((self.next() >> 32).wrapping_mul(count as u64) >> 32) as usize
    }

    /// True once in so many times.
    pub(super) fn once_in(&mut self, count: usize) -> bool {
        self.below(count) == 0
    }
}
