//! How many bytes of history there are that compaction hasn't hidden.
//!
//! Problem. A quota by what lies on disk counts garbage, and says something else on every member.
//! Idea.    Each version knows from which compaction on nobody can see it: from the revision of the
//!          next one, a deletion from the revision behind it. A queue of bytes by that revision,
//!          as running sums, tells what a compaction hides without a look at the keys.
//!
//! Invariants
//!   L1  `bytes` is what all versions take that a collection would keep; how far collection has
//!       come doesn't matter. So all members have the same number at the same index.
//!   L2  The queue is in order of revision; all of it lies behind the compacted revision.
//! Checked by: mvcc/tests.rs against a sum over all versions.

use std::collections::VecDeque;

/// What a version takes besides key and value, on disk and in memory; so many bytes, about.
const VERSION_BYTES: u64 = 128;
/// What a lease takes, about; etcd's estimate.
pub const LEASE_BYTES: u64 = 64;

/// Bytes that a version of a key takes.
#[must_use]
pub fn version_bytes(key: usize, value: usize) -> u64 {
    VERSION_BYTES + key as u64 + value as u64
}

/// The count. Beyond what is asked of it, O(1) amortised for a version, O(log n) for a compaction.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Live {
    bytes: u64,
    /// From which compaction on they are hidden, and how many bytes are by then, of this run.
    dying: VecDeque<(i64, u64)>,
    /// The sum at the compacted revision.
    hidden: u64,
}

impl Live {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A version came.
    pub(super) fn add(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// It is known from which compaction on a version is hidden.
    pub(super) fn hide(&mut self, bytes: u64, from: i64, compacted: i64) {
        if from <= compacted {
            self.bytes -= bytes;
            return;
        }
        // Versions come in order: at most the last place is behind this one.
        let behind = self.dying.iter().rev().take_while(|(at, _)| *at > from).count();
        let place = self.dying.len() - behind;
        let before = place.checked_sub(1).and_then(|last| self.dying.get(last)).copied();
        let (at, sum) = before.unwrap_or((0, self.hidden));
        if at != from {
            self.dying.insert(place, (from, sum));
        }
        let first = if at == from { place - 1 } else { place };
        self.dying.range_mut(first..).for_each(|(_, sum)| *sum += bytes);
    }

    /// The compacted revision moved.
    pub(super) fn compact(&mut self, to: i64) {
        let gone = self.dying.partition_point(|(at, _)| *at <= to);
        if let Some((_, sum)) = self.dying.drain(..gone).next_back() {
            self.bytes -= sum - self.hidden;
            self.hidden = sum;
        }
    }
}
