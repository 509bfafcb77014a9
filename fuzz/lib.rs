//! What the targets share.
//!
//! Each target feeds a decoder with bytes and says what must hold of what comes out. Built with the feature `mutant`,
//! each compares with something wrong, so that a run must fail.

/// Splits the input: one byte chooses, the rest is read.
#[must_use]
pub fn choose(bytes: &[u8]) -> Option<(usize, &[u8])> {
    bytes.split_first().map(|(first, rest)| (usize::from(*first), rest))
}

/// Says that two ways came to the same.
///
/// # Panics
/// If they didn't, with both; and always, built as a mutant.
pub fn same<T: PartialEq + std::fmt::Debug>(one: &T, other: &T, what: &str) {
    assert!(one == other && !cfg!(feature = "mutant"), "{what}:\n{one:?}\n{other:?}");
}
