//! Sets of keys as ranges: whether what is wanted lies within what is allowed.
//!
//! Invariant
//!   G1  Ranges of a set are sorted and neither overlap nor touch, so that one of
//!       them alone covers a range that the set covers.
//! Checked by: auth/walk/tests.rs, key by key.

use bytes::Bytes;

/// The keys from `start` on, before `end` if there is one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Range {
    start: Bytes,
    end: Option<Bytes>,
}

impl Range {
    /// etcd's range of a key and a range end.
    ///
    /// A range that ends before it begins holds no key; it counts as its first key, so that
    /// nobody asks about keys that are none of his business.
    pub(super) fn of(key: &[u8], range_end: &[u8]) -> Self {
        let start = Bytes::copy_from_slice(key);
        let end = match range_end {
            b"\0" => None,
            end if end > key => Some(Bytes::copy_from_slice(end)),
            // The next key after `key` is itself with a zero behind it.
            _ => Some([key, b"\0"].concat().into()),
        };
        Self { start, end }
    }

    /// Whether `other`, which doesn't begin before this, begins within it or right behind it.
    fn reaches(&self, other: &Self) -> bool {
        self.end.as_ref().is_none_or(|end| other.start <= *end)
    }

    /// Whether nothing of `other` lies behind this.
    fn outlasts(&self, other: &Self) -> bool {
        match (&self.end, &other.end) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(own), Some(other)) => other <= own,
        }
    }
}

/// A set of keys (G1).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Ranges(Vec<Range>);

impl Ranges {
    /// The keys that are in any of the ranges.
    pub(super) fn merged(ranges: impl Iterator<Item = Range>) -> Self {
        let mut sorted: Vec<Range> = ranges.collect();
        sorted.sort();
        let mut merged: Vec<Range> = Vec::new();
        for range in sorted {
            match merged.last_mut() {
                Some(last) if last.reaches(&range) => {
                    if !last.outlasts(&range) {
                        last.end = range.end;
                    }
                }
                _ => merged.push(range),
            }
        }
        Self(merged)
    }

    /// Whether all keys of a range are in the set.
    pub(super) fn cover(&self, wanted: &Range) -> bool {
        let behind = self.0.partition_point(|range| range.start <= wanted.start);
        let candidate = behind.checked_sub(1).and_then(|at| self.0.get(at));
        candidate.is_some_and(|range| range.outlasts(wanted))
    }
}
