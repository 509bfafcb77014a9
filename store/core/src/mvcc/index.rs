//! Keys in order, in blocks that know how many of theirs are there: counting a range looks at its two ends and at
//! blocks' numbers, not at keys.
//!
//! A list of blocks instead of a tree: blocks are contiguous, so that walking and searching them is fast, and what
//! stands above them is two arrays of numbers and one of first keys. A block's keys are packed ([`Keys`]), and the newest
//! version lies in an array beside them, so a key that was written once takes ≈ 60 bytes besides its own. A count adds up
//! one number for about a hundred keys (a million keys: ten thousand additions, which the processor does several at
//! once). Crates with ranks count all that is in them, deleted keys too, and know nothing of revisions.
//!
//! Invariants
//!   K1  Keys ascend within and across blocks; no block is empty.
//!   K2  A block's `alive` is the number of its keys whose newest version is no deletion.
//!   K3  No version of a block's keys is newer than the block's `newest`.
//! Checked by: index/tests.rs against a `BTreeMap`.

mod firsts;
mod keys;

use bytes::Bytes;

use super::Revision;
use firsts::Firsts;
use keys::Keys;

/// Keys of a block at most.
const KEYS_MAX: usize = 128;
/// A block with two keys or more and so many bytes of them takes no more: what is behind a key in it has to move.
const BYTES_MAX: usize = 64 << 10;
/// A block with fewer keys joins a neighbour that has room.
const KEYS_MIN: usize = KEYS_MAX / 4;
/// Room for so many more keys is made at once.
const ENTRIES_GROWTH: usize = 16;
/// And for so many more versions of a key, or a quarter of those that are there.
const OLDER_GROWTH: usize = 2;

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

/// A key's versions, ascending.
#[derive(Debug, Clone, PartialEq)]
struct Entry {
    newest: Version,
    /// `None` for a key that was written once: a pointer is a third of an empty list.
    #[expect(clippy::box_collection, reason = "there are as many of these as keys")]
    older: Option<Box<Vec<Version>>>,
}

impl Entry {
    fn older(&self) -> &[Version] {
        self.older.as_ref().map_or(&[], |older| older.as_slice())
    }

    /// The version that a read at `revision` sees; `None` if the key isn't there then.
    fn visible(&self, revision: i64) -> Option<&Version> {
        let seen = if self.newest.at.main <= revision {
            Some(&self.newest)
        } else {
            let count = self.older().partition_point(|v| v.at.main <= revision);
            self.older()[..count].last()
        };
        seen.filter(|version| !version.is_deletion())
    }

    /// Takes versions that no read at or after `floor` can see, and no watcher from there on is told of; `true` if
    /// none is left.
    fn collect(&mut self, floor: i64, gone: &mut Vec<Revision>) -> bool {
        let below = |version: &Version| version.at.main < floor;
        if self.newest.is_deletion() && below(&self.newest) {
            gone.extend(self.older().iter().chain([&self.newest]).map(|v| v.at));
            return true;
        }
        let Some(older) = &mut self.older else { return false };
        // Kept: all from the floor on, deletions too, and what a read sees there if it is older.
        let mut keep_from = older.partition_point(below);
        let at_or_after = older.get(keep_from).unwrap_or(&self.newest);
        let sees_older = at_or_after.at.main > floor && keep_from > 0 && !older[keep_from - 1].is_deletion();
        if sees_older {
            keep_from -= 1;
        }
        if keep_from > 0 {
            gone.extend(older.drain(..keep_from).map(|v| v.at));
            older.shrink_to_fit();
        }
        if older.is_empty() {
            self.older = None;
        }
        false
    }
}

/// Keys that lie beside each other, and what holds for each of them.
#[derive(Debug, Clone, Default)]
struct Block {
    keys: Keys,
    entries: Vec<Entry>,
}

impl Block {
    fn get(&self, at: usize) -> Option<(&[u8], &Entry)> {
        Some((self.keys.get(at)?, self.entries.get(at)?))
    }

    fn iter(&self) -> impl Iterator<Item = (&[u8], &Entry)> {
        self.keys.iter().zip(&self.entries)
    }

    fn is_full(&self) -> bool {
        self.keys.len() >= KEYS_MAX || (self.keys.len() > 1 && self.keys.bytes() >= BYTES_MAX)
    }

    fn insert(&mut self, at: usize, key: &[u8], entry: Entry) {
        self.keys.insert(at, key);
        if self.entries.len() == self.entries.capacity() {
            self.entries.reserve_exact(ENTRIES_GROWTH);
        }
        self.entries.insert(at, entry);
    }

    fn split_off(&mut self, at: usize) -> Self {
        let upper = Self { keys: self.keys.split_off(at), entries: self.entries.split_off(at) };
        self.entries.shrink_to_fit();
        upper
    }

    /// Has entries at the places from `from` to `to` collected, and drops those of which nothing is left.
    fn collect(&mut self, from: usize, to: usize, floor: i64, gone: &mut Vec<Revision>) {
        let mut is_kept = vec![true; self.entries.len()];
        for (entry, kept) in self.entries[from..to].iter_mut().zip(&mut is_kept[from..to]) {
            *kept = !entry.collect(floor, gone);
        }
        if is_kept.contains(&false) {
            let mut places = is_kept.iter();
            self.entries.retain(|_| places.next() == Some(&true));
            self.keys.retain(|at| is_kept[at]);
        }
    }
}

/// A place: block, and place in it.
type Place = (usize, usize);

/// Where a key is, or where it would be, until the index changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot {
    place: Place,
    is_there: bool,
}

/// The index.
#[derive(Debug, Clone, Default)]
pub(super) struct Index {
    blocks: Vec<Block>,
    /// The first key of each block.
    firsts: Firsts,
    alive: Vec<u32>,
    newest: Vec<i64>,
}

impl PartialEq for Index {
    fn eq(&self, other: &Self) -> bool {
        // Where blocks begin depends on the order of writes.
        self.blocks.iter().flat_map(Block::iter).eq(other.blocks.iter().flat_map(Block::iter))
    }
}

fn alive(entries: &[Entry]) -> usize {
    entries.iter().filter(|entry| !entry.newest.is_deletion()).count()
}

impl Index {
    /// The place of the first key that isn't less than `key`, or is greater than it if `behind`; behind the last block
    /// if there is none.
    fn place(&self, key: &[u8], behind: bool) -> Place {
        let block = self.firsts.before(key, behind).saturating_sub(1);
        let Some(found) = self.blocks.get(block) else { return (0, 0) };
        match found.keys.before(key, behind) {
            at if at < found.keys.len() => (block, at),
            _ => (block + 1, 0),
        }
    }

    /// Where a range begins and ends: no end is one key, an end of a zero byte is everything from the key on.
    fn bounds(&self, key: &[u8], end: &[u8]) -> (Place, Place) {
        let from = self.place(key, false);
        let to = match end {
            b"" => self.place(key, true),
            b"\0" => (self.blocks.len(), 0),
            end => self.place(end, false),
        };
        // A range that ends before it begins is empty.
        (from, to.max(from))
    }

    /// Where a key is or would be: in the block whose first key is the last that isn't greater, or the first block.
    pub(super) fn spot(&self, key: &[u8]) -> Spot {
        let block = self.firsts.before(key, true).saturating_sub(1);
        let Some(found) = self.blocks.get(block) else { return Spot { place: (0, 0), is_there: false } };
        let at = found.keys.before(key, false);
        Spot { place: (block, at), is_there: found.keys.get(at) == Some(key) }
    }

    fn get(&self, key: &[u8]) -> Option<&Entry> {
        self.entry(self.spot(key))
    }

    fn entry(&self, spot: Spot) -> Option<&Entry> {
        let (block, at) = spot.place;
        if spot.is_there { self.blocks.get(block)?.entries.get(at) } else { None }
    }

    /// The newest version, a deletion included.
    pub(super) fn latest(&self, key: &[u8]) -> Option<&Version> {
        self.get(key).map(|entry| &entry.newest)
    }

    /// The same of a key that was looked up.
    pub(super) fn latest_at(&self, spot: Spot) -> Option<&Version> {
        self.entry(spot).map(|entry| &entry.newest)
    }

    /// The version that a read at `revision` sees; `None` if the key isn't there then.
    pub(super) fn at(&self, key: &[u8], revision: i64) -> Option<&Version> {
        self.get(key)?.visible(revision)
    }

    /// Adds a version where its key was looked up, and returns the newest before it; V3 is the caller's promise and checked
    /// here.
    pub(super) fn push(&mut self, spot: Spot, key: &[u8], version: Version) -> Option<Version> {
        let (mut block, mut at) = spot.place;
        let old = if spot.is_there {
            let entry = &mut self.blocks[block].entries[at];
            assert!(entry.newest.at < version.at, "V3: versions must ascend");
            let old = std::mem::replace(&mut entry.newest, version);
            let older = entry.older.get_or_insert_default();
            if older.len() == older.capacity() {
                older.reserve_exact((older.len() / 4).max(OLDER_GROWTH));
            }
            older.push(old);
            Some(old)
        } else {
            (block, at) = self.make_room(block, at, key);
            if at == 0 {
                self.firsts.replace(block, key);
            }
            self.blocks[block].insert(at, key, Entry { newest: version, older: None });
            None
        };
        let was_alive = old.is_some_and(|old| !old.is_deletion());
        let is_alive = !version.is_deletion();
        self.alive[block] = self.alive[block] + u32::from(is_alive) - u32::from(was_alive);
        self.newest[block] = self.newest[block].max(version.at.main);
        old
    }

    /// Sees to it that there is room for `key` before what is at a place; returns where.
    fn make_room(&mut self, block: usize, at: usize, key: &[u8]) -> Place {
        if self.blocks.is_empty() {
            self.insert_block(0, Block::default(), key, 0);
            return (0, 0);
        }
        if !self.blocks[block].is_full() {
            return (block, at);
        }
        let keys = self.blocks[block].keys.len();
        if at == keys && block + 1 == self.blocks.len() {
            // Keys that come in order fill their blocks.
            self.insert_block(block + 1, Block::default(), key, 0);
            return (block + 1, 0);
        }
        let half = keys / 2;
        let upper = self.blocks[block].split_off(half);
        self.alive[block] = alive(&self.blocks[block].entries) as u32;
        let first = Bytes::copy_from_slice(upper.keys.get(0).unwrap_or_default());
        self.insert_block(block + 1, upper, &first, self.newest[block]);
        if at <= half { (block, at) } else { (block + 1, at - half) }
    }

    /// Adds a block whose first key is `first`, or will be.
    fn insert_block(&mut self, at: usize, block: Block, first: &[u8], newest: i64) {
        self.firsts.insert(at, first);
        self.alive.insert(at, alive(&block.entries) as u32);
        self.newest.insert(at, newest);
        self.blocks.insert(at, block);
    }

    fn remove_block(&mut self, block: usize) -> Block {
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
            let entries = self.blocks.get(block).map_or(&[][..], |block| &block.entries);
            seen(&entries[from.min(entries.len())..to.min(entries.len())])
        };
        if first == last {
            return part(first, start, stop);
        }
        let whole: usize = (first + 1..last)
            .map(|block| {
                if self.newest[block] <= revision {
                    self.alive[block] as usize
                } else {
                    seen(&self.blocks[block].entries)
                }
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
    ) -> impl Iterator<Item = (&[u8], &Version)> + use<'_> {
        let ((first, start), (last, stop)) = self.bounds(key, end);
        let blocks = first..self.blocks.len().min(last.saturating_add(1));
        let entries = blocks.flat_map(move |number| {
            let block = &self.blocks[number];
            let to = if number == last { stop } else { block.keys.len() };
            let from = if number == first { start } else { 0 };
            (from..to).filter_map(|at| block.get(at))
        });
        entries.filter_map(move |(key, entry)| Some((key, entry.visible(revision)?)))
    }

    /// Takes versions that no read at or after `floor` can see, and no watcher from there on is told of, from up to
    /// `limit` keys, beginning with `from`. Returns them, and where to go on.
    pub(super) fn collect(&mut self, from: &Bytes, floor: i64, limit: usize) -> (Vec<Revision>, Option<Bytes>) {
        let (mut block, mut at) = self.place(from, false);
        let (mut gone, mut left) = (Vec::new(), limit);
        loop {
            let Some(next) = self.blocks.get(block).and_then(|found| found.keys.get(at)) else { return (gone, None) };
            if left == 0 {
                return (gone, Some(Bytes::copy_from_slice(next)));
            }
            let found = &mut self.blocks[block];
            let (keys, end) = (found.keys.len(), found.keys.len().min(at + left));
            found.collect(at, end, floor, &mut gone);
            let removed = keys - found.keys.len();
            left -= end - at;
            let next = found.keys.get(end - removed).map(Bytes::copy_from_slice);
            let next = next.or_else(|| self.firsts.get(block + 1));
            if removed > 0 {
                self.settle(block);
            }
            let Some(next) = next else { return (gone, None) };
            (block, at) = self.place(&next, false);
        }
    }

    /// Puts a block that lost keys in order (K1); its deleted keys alone went, so `alive` still holds.
    fn settle(&mut self, block: usize) {
        let Some(first) = self.blocks[block].keys.get(0).map(Bytes::copy_from_slice) else {
            self.remove_block(block);
            return;
        };
        self.firsts.replace(block, &first);
        let keys = &self.blocks[block].keys;
        if keys.len() >= KEYS_MIN {
            return;
        }
        let room = |other: usize| {
            let fits = |other: &Block| {
                other.keys.len() + keys.len() <= KEYS_MAX * 3 / 4 && other.keys.bytes() + keys.bytes() <= BYTES_MAX / 2
            };
            self.blocks.get(other).is_some_and(fits)
        };
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
        self.blocks[into].keys.append(&upper.keys);
        self.blocks[into].entries.append(&mut upper.entries);
    }
}

#[cfg(test)]
mod tests;
