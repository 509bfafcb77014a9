//! Keys in order, in blocks that know how many of theirs are there: counting a range looks at its two ends and at
//! blocks' numbers, not at keys.
//!
//! A list of blocks instead of a tree: blocks are contiguous, so that walking and searching them is fast, and what
//! stands above them is two arrays of numbers and one of first keys. The newest version lies beside its key, so a key
//! that was written once needs no more memory. A count adds up one number for about a hundred keys (a million keys:
//! ten thousand additions, which the processor does several at once). It replaces a `BTreeMap`; crates with ranks count
//! all that is in them, deleted keys too, and know nothing of revisions.
//!
//! Invariants
//!   K1  Keys ascend within and across blocks; no block is empty.
//!   K2  A block's `alive` is the number of its keys whose newest version is no deletion.
//!   K3  No version of a block's keys is newer than the block's `newest`.
//! Checked by: index/tests.rs against a `BTreeMap`.

use bytes::Bytes;

use super::Revision;

/// Keys of a block at most.
const KEYS_MAX: usize = 128;
/// A block with fewer keys joins a neighbour that has room.
const KEYS_MIN: usize = KEYS_MAX / 4;

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

/// A key and its versions, ascending.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    key: Bytes,
    newest: Version,
    older: Vec<Version>,
}

impl Entry {
    /// The version that a read at `revision` sees; `None` if the key isn't there then.
    fn visible(&self, revision: i64) -> Option<&Version> {
        let seen = if self.newest.at.main <= revision {
            Some(&self.newest)
        } else {
            let count = self.older.partition_point(|v| v.at.main <= revision);
            self.older[..count].last()
        };
        seen.filter(|version| !version.is_deletion())
    }

    /// Takes versions that no read at or after `floor` can see, and no watcher from there on is told of; `true` if
    /// none is left.
    fn collect(&mut self, floor: i64, gone: &mut Vec<Revision>) -> bool {
        let below = |version: &Version| version.at.main < floor;
        if self.newest.is_deletion() && below(&self.newest) {
            gone.extend(self.older.iter().chain([&self.newest]).map(|v| v.at));
            return true;
        }
        // Kept: all from the floor on, deletions too, and what a read sees there if it is older.
        let mut keep_from = self.older.partition_point(below);
        let at_or_after = self.older.get(keep_from).unwrap_or(&self.newest);
        let sees_older = at_or_after.at.main > floor && keep_from > 0 && !self.older[keep_from - 1].is_deletion();
        if sees_older {
            keep_from -= 1;
        }
        if keep_from > 0 {
            gone.extend(self.older.drain(..keep_from).map(|v| v.at));
            self.older.shrink_to_fit();
        }
        false
    }
}

/// A place: block, and place in it.
type Place = (usize, usize);

/// The index.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    blocks: Vec<Vec<Entry>>,
    /// The first key of each block.
    firsts: Vec<Bytes>,
    alive: Vec<u32>,
    newest: Vec<i64>,
}

impl PartialEq for Index {
    fn eq(&self, other: &Self) -> bool {
        // Where blocks begin depends on the order of writes.
        self.blocks.iter().flatten().eq(other.blocks.iter().flatten())
    }
}

fn alive(entries: &[Entry]) -> usize {
    entries.iter().filter(|entry| !entry.newest.is_deletion()).count()
}

impl Index {
    /// The place of the first key that isn't `before`; behind the last block if there is none.
    fn place(&self, before: impl Fn(&[u8]) -> bool) -> Place {
        let block = self.firsts.partition_point(|first| before(first)).saturating_sub(1);
        let Some(entries) = self.blocks.get(block) else { return (0, 0) };
        match entries.partition_point(|entry| before(&entry.key)) {
            at if at < entries.len() => (block, at),
            _ => (block + 1, 0),
        }
    }

    /// Where a range begins and ends: no end is one key, an end of a zero byte is everything from the key on.
    fn bounds(&self, key: &[u8], end: &[u8]) -> (Place, Place) {
        let from = self.place(|k| k < key);
        let to = match end {
            b"" => self.place(|k| k <= key),
            b"\0" => (self.blocks.len(), 0),
            end => self.place(|k| k < end),
        };
        // A range that ends before it begins is empty.
        (from, to.max(from))
    }

    fn get(&self, key: &[u8]) -> Option<&Entry> {
        let (block, at) = self.place(|k| k < key);
        self.blocks.get(block)?.get(at).filter(|entry| entry.key == key)
    }

    /// The newest version, a deletion included.
    pub(super) fn latest(&self, key: &[u8]) -> Option<&Version> {
        self.get(key).map(|entry| &entry.newest)
    }

    /// The version that a read at `revision` sees; `None` if the key isn't there then.
    pub(super) fn at(&self, key: &[u8], revision: i64) -> Option<&Version> {
        self.get(key)?.visible(revision)
    }

    /// Adds a version, and returns the newest before it; V3 is the caller's promise and checked here.
    pub(super) fn push(&mut self, key: &[u8], version: Version) -> Option<Version> {
        let (mut block, mut at) = self.place(|k| k < key);
        let found = self.blocks.get_mut(block).and_then(|entries| entries.get_mut(at)).filter(|e| e.key == key);
        let old = match found {
            Some(entry) => {
                assert!(entry.newest.at < version.at, "V3: versions must ascend");
                let old = std::mem::replace(&mut entry.newest, version);
                entry.older.push(old);
                Some(old)
            }
            None => {
                (block, at) = self.make_room(block, at);
                // Memory of its own: the key that comes may be a small part of all that a peer sent at once.
                let key = Bytes::copy_from_slice(key);
                if at == 0 {
                    self.firsts[block] = key.clone();
                }
                self.blocks[block].insert(at, Entry { key, newest: version, older: Vec::new() });
                None
            }
        };
        let was_alive = old.is_some_and(|old| !old.is_deletion());
        let is_alive = !version.is_deletion();
        self.alive[block] = self.alive[block] + u32::from(is_alive) - u32::from(was_alive);
        self.newest[block] = self.newest[block].max(version.at.main);
        old
    }

    /// Sees to it that there is room for a key before what is at a place; returns where.
    fn make_room(&mut self, block: usize, at: usize) -> Place {
        if self.blocks.is_empty() {
            self.insert_block(0, Vec::new(), 0);
            return (0, 0);
        }
        let (block, at) = if at == 0 && block > 0 { (block - 1, self.blocks[block - 1].len()) } else { (block, at) };
        if self.blocks[block].len() < KEYS_MAX {
            return (block, at);
        }
        if at == KEYS_MAX && block + 1 == self.blocks.len() {
            // Keys that come in order fill their blocks.
            self.insert_block(block + 1, Vec::new(), 0);
            return (block + 1, 0);
        }
        let half = KEYS_MAX / 2;
        let upper = self.blocks[block].split_off(half);
        self.alive[block] = alive(&self.blocks[block]) as u32;
        self.insert_block(block + 1, upper, self.newest[block]);
        if at <= half { (block, at) } else { (block + 1, at - half) }
    }

    fn insert_block(&mut self, block: usize, entries: Vec<Entry>, newest: i64) {
        self.firsts.insert(block, entries.first().map(|e| e.key.clone()).unwrap_or_default());
        self.alive.insert(block, alive(&entries) as u32);
        self.newest.insert(block, newest);
        self.blocks.insert(block, entries);
    }

    fn remove_block(&mut self, block: usize) -> Vec<Entry> {
        self.firsts.remove(block);
        self.alive.remove(block);
        self.newest.remove(block);
        self.blocks.remove(block)
    }

    /// Keys that are there now.
    pub(super) fn alive(&self) -> usize {
        self.alive.iter().map(|alive| *alive as usize).sum()
    }

    /// The keys of a range that a read at `revision` sees. Blocks that didn't change after it are counted by their
    /// number, so it costs little for the newest revisions, and O(keys) at worst.
    pub(super) fn count(&self, key: &[u8], end: &[u8], revision: i64) -> usize {
        let ((first, start), (last, stop)) = self.bounds(key, end);
        let seen = |entries: &[Entry]| entries.iter().filter(|entry| entry.visible(revision).is_some()).count();
        let part = |block: usize, from: usize, to: usize| {
            self.blocks.get(block).map_or(0, |entries| seen(&entries[from.min(entries.len())..to.min(entries.len())]))
        };
        if first == last {
            return part(first, start, stop);
        }
        let whole: usize =
            (first + 1..last)
                .map(|block| {
                    if self.newest[block] <= revision { self.alive[block] as usize } else { seen(&self.blocks[block]) }
                })
                .sum();
        part(first, start, usize::MAX) + whole + part(last, 0, stop)
    }

    /// The keys of a range that a read at `revision` sees, in order.
    pub(super) fn range(
        &self,
        key: &[u8],
        end: &[u8],
        revision: i64,
    ) -> impl Iterator<Item = (&Bytes, &Version)> + use<'_> {
        let ((first, start), (last, stop)) = self.bounds(key, end);
        let blocks = first..self.blocks.len().min(last.saturating_add(1));
        let entries = blocks.flat_map(move |block| {
            let entries = &self.blocks[block];
            let to = if block == last { stop } else { entries.len() };
            let from = if block == first { start } else { 0 };
            &entries[from.min(to)..to]
        });
        entries.filter_map(move |entry| Some((&entry.key, entry.visible(revision)?)))
    }

    /// Takes versions that no read at or after `floor` can see, and no watcher from there on is told of, from up to
    /// `limit` keys, beginning with `from`. Returns them, and where to go on.
    pub(super) fn collect(&mut self, from: &Bytes, floor: i64, limit: usize) -> (Vec<Revision>, Option<Bytes>) {
        let (mut block, mut at) = self.place(|k| k < from);
        let (mut gone, mut left) = (Vec::new(), limit);
        loop {
            let Some(next) = self.blocks.get(block).and_then(|entries| entries.get(at)) else { return (gone, None) };
            if left == 0 {
                return (gone, Some(next.key.clone()));
            }
            let entries = &mut self.blocks[block];
            let (keys, end) = (entries.len(), entries.len().min(at + left));
            let mut number = 0..keys;
            entries.retain_mut(|entry| {
                let looked_at = number.next().is_some_and(|n| (at..end).contains(&n));
                !(looked_at && entry.collect(floor, &mut gone))
            });
            let removed = keys - entries.len();
            left -= end - at;
            let next = entries.get(end - removed).map(|entry| entry.key.clone());
            let Some(next) = next.or_else(|| self.firsts.get(block + 1).cloned()) else {
                self.settle(block);
                return (gone, None);
            };
            if removed > 0 {
                self.settle(block);
            }
            (block, at) = self.place(|k| k < next);
        }
    }

    /// Puts a block that lost keys in order (K1); its deleted keys alone went, so `alive` still holds.
    fn settle(&mut self, block: usize) {
        let entries = &self.blocks[block];
        let Some(first) = entries.first() else {
            self.remove_block(block);
            return;
        };
        self.firsts[block] = first.key.clone();
        if entries.len() >= KEYS_MIN {
            return;
        }
        let room = |other: usize| self.blocks.get(other).is_some_and(|o| o.len() + entries.len() <= KEYS_MAX * 3 / 4);
        let into = if block > 0 && room(block - 1) {
            block - 1
        } else if room(block + 1) {
            block
        } else {
            return;
        };
        let newest = self.newest[into + 1];
        self.alive[into] += self.alive[into + 1];
        self.newest[into] = self.newest[into].max(newest);
        let mut upper = self.remove_block(into + 1);
        self.blocks[into].append(&mut upper);
    }
}

#[cfg(test)]
mod tests;
