//! The first key of each block: which block a key belongs to is found by eight bytes of each first key side by side, as
//! within a block.
//!
//! Not packed: they may be long, and all behind a new one would have to move.
//!
//! Invariants
//!   F1  All keys begin with the `common` first bytes of the first one.
//!   F2  `heads` holds for each key the number of the eight bytes behind those.
//! Checked by: tests.rs.

use bytes::Bytes;

use super::keys::{alike, before, head};

/// Ascending keys, each in memory of its own.
#[derive(Debug, Clone, Default)]
pub(super) struct Firsts {
    keys: Vec<Bytes>,
    heads: Vec<u64>,
    /// Bytes with which all of them begin.
    common: usize,
}

impl Firsts {
    pub(super) fn get(&self, at: usize) -> Option<Bytes> {
        self.keys.get(at).cloned()
    }

    /// How many of them are less than `key`, or no greater than it if `or_equal`.
    pub(super) fn before(&self, key: &[u8], or_equal: bool) -> usize {
        let common = self.keys.first().map_or(&[][..], |first| &first[..self.common]);
        before(key, or_equal, common, &self.heads, |at| &self.keys[at])
    }

    pub(super) fn insert(&mut self, at: usize, key: &[u8]) {
        self.share(key);
        self.keys.insert(at, Bytes::copy_from_slice(key));
        self.heads.insert(at, head(key, self.common));
    }

    pub(super) fn replace(&mut self, at: usize, key: &[u8]) {
        self.share(key);
        self.keys[at] = Bytes::copy_from_slice(key);
        self.heads[at] = head(key, self.common);
    }

    pub(super) fn remove(&mut self, at: usize) {
        self.keys.remove(at);
        self.heads.remove(at);
    }

    /// Before a key comes that may begin otherwise than those that are there. What all have in common only grows
    /// when there are none.
    fn share(&mut self, key: &[u8]) {
        let common = self.keys.first().map_or(key.len(), |first| alike(&first[..self.common], key));
        if common != self.common {
            self.common = common;
            self.heads = self.keys.iter().map(|key| head(key, common)).collect();
        }
    }
}
