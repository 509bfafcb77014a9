//! States that differ only in who is who count once.
//!
//! Members treat each other's numbers as names alone, so a behaviour stays one if they are exchanged.
//! Everything that holds numbers is digested under each of the exchanges, of which a cluster of five
//! has 120; a state's fingerprint is the least of its sums. Members have an order that
//! exchanges leave alone, their ranks: only the exchanges that bring them into it are summed up.

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::LazyLock;

/// Members of the cluster at most.
pub(super) const MEMBERS_MAX: usize = 5;

/// An exchange: at each place, the place that the member there gets.
pub(super) type Permutation = [usize; MEMBERS_MAX];

/// Nobody is exchanged.
pub(super) const IDENTITY: Permutation = [0, 1, 2, 3, 4];

/// All exchanges, those of fewer members before those of more.
static EXCHANGES: LazyLock<Vec<Permutation>> = LazyLock::new(|| {
    let mut exchanges = vec![IDENTITY];
    for last in 1..MEMBERS_MAX {
        let of_fewer = exchanges.clone();
        for place in (0..last).rev() {
            exchanges.extend(of_fewer.iter().map(|exchange| {
                let mut exchange = *exchange;
                exchange.swap(place, last);
                exchange
            }));
        }
    }
    exchanges
});

/// The exchanges of so many members; the first exchanges nobody.
pub(super) fn exchanges(nodes: usize) -> &'static [Permutation] {
    &EXCHANGES[..(1..=nodes).product()]
}

/// One digest for each exchange.
pub(super) type Digests = Box<[u64]>;

/// A member's number after the exchange; 0, nobody, stays.
pub(super) fn renumber(permutation: &Permutation, id: u64) -> u64 {
    match usize::try_from(id) {
        Ok(at @ 1..=MEMBERS_MAX) => permutation[at - 1] as u64 + 1,
        _ => id,
    }
}

/// Digests what `encode` writes under each exchange.
pub(super) fn digests(exchanges: &[Permutation], encode: impl Fn(&Permutation, &mut Vec<u8>)) -> Digests {
    let mut bytes = Vec::new();
    let digest = |permutation: &Permutation| {
        bytes.clear();
        encode(permutation, &mut bytes);
        // Keys are fixed: the same bytes give the same digest in every run.
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        hasher.finish()
    };
    exchanges.iter().map(digest).collect()
}

/// Where a member stands in the order that exchanges leave alone: they permute its digests.
pub(super) fn rank(digests: &[u64]) -> u64 {
    digests.iter().fold(0, |sum, digest| sum.wrapping_add(*digest))
}

/// Whether the exchange brings members of these ranks into their order.
pub(super) fn sorts(permutation: &Permutation, ranks: impl Iterator<Item = u64>) -> bool {
    let mut places = [u64::MAX; MEMBERS_MAX];
    for (at, rank) in ranks.enumerate() {
        places[permutation[at]] = rank;
    }
    places.is_sorted()
}

/// Adds a value to a digest; the order of additions matters.
pub(super) fn mix(digest: u64, value: u64) -> u64 {
    // The finalizer of splitmix64: every bit of the input reaches every bit of the output.
    let mut x = digest.rotate_left(23) ^ value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}
