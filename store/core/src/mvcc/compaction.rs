//! Compaction: the logical one is a number; versions nobody can see any more go
//! later, a bounded slice at a time.

use bytes::Bytes;

use super::{Mvcc, Revision, Writes};
use crate::errors::RequestError;

/// Keys that one slice of collection looks at.
const SLICE_KEYS: usize = 1000;

impl Mvcc {
    /// Moves the compacted revision. O(1).
    pub(super) fn compact(&mut self, revision: i64, writes: &mut Writes) -> Result<(), RequestError> {
        if revision <= self.compacted {
            return Err(RequestError::Compacted);
        }
        if revision > self.revision {
            return Err(RequestError::Future);
        }
        self.compacted = revision;
        self.live.compact(revision);
        self.collecting = Some(Bytes::new());
        writes.compacted = Some(revision);
        Ok(())
    }

    /// Takes a slice of versions that no allowed read can see; the shell deletes
    /// their values. Empty and `false` once there is nothing left to look at.
    pub fn collect(&mut self) -> (Vec<Revision>, bool) {
        let Some(from) = self.collecting.take() else { return (Vec::new(), false) };
        let (gone, next) = self.index.collect(&from, self.compacted, SLICE_KEYS);
        self.collecting = next;
        (gone, self.collecting.is_some())
    }
}
