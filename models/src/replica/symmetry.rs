//! States that differ only in who is who count once.
//!
//! Members treat each other's numbers as names alone, so a behaviour stays one if they are exchanged.
//! Everything that holds numbers is digested under each of the six exchanges; a state's
//! fingerprint is the least of its six sums.

use std::hash::{DefaultHasher, Hasher as _};

/// Members of the cluster.
pub(super) const MEMBERS: usize = 3;

/// The exchanges: `PERMUTATIONS[p][at]` is the place that the member at `at` gets.
pub(super) const PERMUTATIONS: [[usize; MEMBERS]; 6] =
    [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Nobody is exchanged.
pub(super) const IDENTITY: [usize; MEMBERS] = PERMUTATIONS[0];

/// One digest for each exchange.
pub(super) type Digests = [u64; PERMUTATIONS.len()];

/// A member's number after the exchange; 0, nobody, stays.
pub(super) fn renumber(permutation: &[usize; MEMBERS], id: u64) -> u64 {
    match usize::try_from(id) {
        Ok(at @ 1..=MEMBERS) => permutation[at - 1] as u64 + 1,
        _ => id,
    }
}

/// Digests what `encode` writes under each exchange.
pub(super) fn digests(encode: impl Fn(&[usize; MEMBERS], &mut Vec<u8>)) -> Digests {
    let mut bytes = Vec::new();
    PERMUTATIONS.map(|permutation| {
        bytes.clear();
        encode(&permutation, &mut bytes);
        // Keys are fixed: the same bytes give the same digest in every run.
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        hasher.finish()
    })
}

/// Adds a value to a digest; the order of additions matters.
pub(super) fn mix(digest: u64, value: u64) -> u64 {
    // The finalizer of splitmix64: every bit of the input reaches every bit of the output.
    let mut x = digest.rotate_left(23) ^ value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
