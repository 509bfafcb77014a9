//! Keys in order, each with its versions.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;

use super::Revision;

/// One version of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// Where it was written.
    pub at: Revision,
    /// Revision of the key's creation.
    pub create: i64,
    /// Writes since creation; 0 for a deletion.
    pub version: i64,
    /// Lease it is attached to; 0 for none.
    pub lease: i64,
    /// Bytes of the value.
    pub value_bytes: u32,
}

impl Version {
    pub(super) fn is_deletion(&self) -> bool {
        self.version == 0
    }
}

/// The index.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Index {
    keys: BTreeMap<Bytes, Vec<Version>>,
    alive: usize,
}

impl Index {
    pub(super) fn alive(&self) -> usize {
        self.alive
    }

    /// Adds a version; V3 is the caller's promise and checked here.
    pub(super) fn push(&mut self, key: &Bytes, version: Version) {
        let versions = self.keys.entry(key.clone()).or_default();
        let was_alive = versions.last().is_some_and(|v| !v.is_deletion());
        assert!(versions.last().is_none_or(|last| last.at < version.at), "V3: versions must ascend");
        versions.push(version);
        match (was_alive, !version.is_deletion()) {
            (false, true) => self.alive += 1,
            (true, false) => self.alive -= 1,
            _ => {}
        }
    }

    /// The newest version, a deletion included.
    pub(super) fn latest(&self, key: &[u8]) -> Option<&Version> {
        self.keys.get(key)?.last()
    }

    /// The version that a read at `revision` sees; `None` if the key isn't there then.
    pub(super) fn at(&self, key: &[u8], revision: i64) -> Option<&Version> {
        visible(self.keys.get(key)?, revision)
    }

    /// The keys of a range that a read at `revision` sees, in order.
    pub(super) fn range<'a>(
        &'a self,
        key: &'a [u8],
        end: &'a [u8],
        revision: i64,
    ) -> impl Iterator<Item = (&'a Bytes, &'a Version)> + 'a {
        let (low, high) = bounds(key, end);
        let ordered = match &high {
            // BTreeMap refuses a range that ends before it begins; it is empty.
            Bound::Excluded(end) => &key < end,
            _ => true,
        };
        let entries = ordered.then(|| self.keys.range::<[u8], _>((low, high)));
        entries.into_iter().flatten().filter_map(move |(key, versions)| Some((key, visible(versions, revision)?)))
    }

    /// Takes versions that no read at or after `floor` can see, and no watcher from there on is told of, from up to `limit` keys,
    /// beginning behind `from`. Returns them, and where to go on.
    pub(super) fn collect(&mut self, from: &Bytes, floor: i64, limit: usize) -> (Vec<Revision>, Option<Bytes>) {
        let start = if from.is_empty() { Bound::Unbounded } else { Bound::Excluded(from.clone()) };
        let batch: Vec<Bytes> =
            self.keys.range((start, Bound::Unbounded)).take(limit).map(|(k, _)| k.clone()).collect();
        let next = (batch.len() == limit).then(|| batch.last().cloned()).flatten();
        let mut gone = Vec::new();
        for key in batch {
            let Some(versions) = self.keys.get_mut(&key) else { continue };
            // Kept: all from the floor on, deletions too, and what a read sees there if it is older.
            let mut keep_from = versions.partition_point(|v| v.at.main < floor);
            let is_at_floor = versions.get(keep_from).is_some_and(|v| v.at.main == floor);
            if !is_at_floor && keep_from > 0 && !versions[keep_from - 1].is_deletion() {
                keep_from -= 1;
            }
            gone.extend(versions.drain(..keep_from).map(|v| v.at));
            if versions.is_empty() {
                self.keys.remove(&key);
            }
        }
        (gone, next)
    }
}

fn visible(versions: &[Version], revision: i64) -> Option<&Version> {
    let count = versions.partition_point(|v| v.at.main <= revision);
    versions[..count].last().filter(|v| !v.is_deletion())
}

/// etcd's ranges: no end is one key, an end of a zero byte is everything from the key on.
fn bounds<'a>(key: &'a [u8], end: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    match end {
        b"" => (Bound::Included(key), Bound::Included(key)),
        b"\0" => (Bound::Included(key), Bound::Unbounded),
        end => (Bound::Included(key), Bound::Excluded(end)),
    }
}
