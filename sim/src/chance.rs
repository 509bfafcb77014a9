//! All that is left to chance, from one seed.

use rand::rngs::SmallRng;
use rand::{RngCore as _, SeedableRng as _};

/// The only source of randomness.
#[derive(Debug, Clone)]
pub(crate) struct Chance(SmallRng);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// A number below a bound, which isn't 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let wide = u128::from(self.0.next_u64()) * u128::from(bound);
        // The upper half of the product is below the bound.
        (wide >> 64) as u64
    }

    /// A number of `from..=to`.
    pub(crate) fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// Whether it happens that happens once in so many times.
    pub(crate) fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A place in a list of this length.
    pub(crate) fn place(&mut self, length: usize) -> usize {
        self.below(length as u64) as usize
    }

    /// A time around a mean; short ones are frequent, long ones rare.
    pub(crate) fn around(&mut self, mean: u64) -> u64 {
        let (a, b) = (self.below(2 * mean + 1), self.below(1000) + 1);
        // One in ten is up to ten times as long.
        if b > 900 { a * (b - 900) / 10 } else { a }
    }
}
