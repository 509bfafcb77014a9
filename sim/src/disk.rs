//! A member's log on a modelled disk, byte by byte.
//!
//! What the log thread does between two of its waits for the disk is remembered until the wait is over. If the power
//! fails before, a prefix of it is done; of a frame that was being written there is a part, or sectors of it are zeros.
//! Every other segment was made beforehand: it never is too short, and zeros stand behind its frames.
//! What was removed comes back until a new segment synced the folder, the last first.
//! What lies there for long may have a flipped bit when it is read again.

use std::collections::{BTreeMap, BTreeSet};

use store_core::wal::{Damage, Segments};

use crate::chance::Chance;

/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;
/// Of so many bytes a segment has a multiple, if it was made beforehand,
const BLOCK_BYTES: usize = 4096;
/// and at least so many zeros stand in it behind what was written.
const PREPARED_BYTES: usize = 2 * BLOCK_BYTES;

fn is_prepared(number: u64) -> bool {
    number.is_multiple_of(2)
}

/// Why the disk can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Full,
    Damaged(Damage),
    /// A part of the state can't be read: the database's checksums tell.
    Unreadable,
}

#[derive(Debug, Clone)]
enum Done {
    Created(u64),
    Appended { segment: u64, before: usize },
    Cut { segment: u64, tail: Vec<u8> },
    Removed(u64, Vec<u8>),
}

/// The files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Files {
    segments: BTreeMap<u64, Vec<u8>>,
    /// Not waited for yet, in order.
    doing: Vec<Done>,
    /// Removed, and the folder not synced since.
    removed: Vec<(u64, Vec<u8>)>,
    /// Nothing more fits.
    pub(crate) full: bool,
    /// Bits that aren't what was written: segment, place, and which of its byte.
    flipped: BTreeSet<(u64, usize, u32)>,
    /// Where a frame begins that a crash or a full disk left unfinished, until it is cut off.
    torn: Option<(u64, usize)>,
}

impl Files {
    /// All that was done is on disk.
    pub(crate) fn settle(&mut self) {
        for done in self.doing.drain(..) {
            match done {
                Done::Created(_) => self.removed.clear(),
                Done::Removed(number, bytes) => self.removed.push((number, bytes)),
                Done::Appended { .. } | Done::Cut { .. } => {}
            }
        }
    }

    /// The process was killed, or with `power` the machine went off.
    pub(crate) fn crash(&mut self, power: bool, chance: &mut Chance) {
        let whole = chance.place(self.doing.len() + 1);
        // The one that was under way, if any was, is done in part.
        let torn = match self.doing.get(whole) {
            Some(Done::Appended { segment, before }) => Some((*segment, *before)),
            _ => None,
        };
        self.undo_to(whole + usize::from(torn.is_some()));
        if let Some((segment, before)) = torn
            && let Some(bytes) = self.segments.get_mut(&segment)
        {
            tear(bytes, before, power, is_prepared(segment), chance);
            self.torn = Some((segment, before));
        }
        self.settle();
        if power {
            let back = chance.place(self.removed.len() + 1);
            let kept = self.removed.len() - back;
            self.segments.extend(self.removed.drain(kept..));
        }
        self.removed.clear();
    }

    /// A bit of what was waited for, or was written whole, flips; `false` if there is nothing.
    pub(crate) fn flip(&mut self, chance: &mut Chance) -> bool {
        let mut at_rest: BTreeMap<u64, usize> = self.segments.iter().map(|(number, b)| (*number, b.len())).collect();
        for done in &self.doing {
            match done {
                Done::Appended { segment, before } => {
                    at_rest.entry(*segment).and_modify(|end| *end = (*end).min(*before));
                }
                Done::Created(segment) => drop(at_rest.remove(segment)),
                Done::Cut { .. } | Done::Removed(..) => {}
            }
        }
        if let Some((segment, before)) = self.torn {
            // What is cut off anyway may be anything.
            at_rest.entry(segment).and_modify(|end| *end = (*end).min(before));
        }
        let all: usize = at_rest.values().sum();
        if all == 0 {
            return false;
        }
        let mut place = chance.place(all);
        for (number, end) in at_rest {
            if place < end {
                if let Some(byte) = self.segments.get_mut(&number).and_then(|bytes| bytes.get_mut(place)) {
                    let bit = chance.below(8) as u32;
                    *byte ^= 1 << bit;
                    // One that flips again is as it was.
                    if !self.flipped.remove(&(number, place, bit)) {
                        self.flipped.insert((number, place, bit));
                    }
                }
                return true;
            }
            place -= end;
        }
        false
    }

    /// Whether a bit has flipped in what is there, or may come back.
    pub(crate) fn is_damaged(&self) -> bool {
        self.flipped.iter().any(|(number, ..)| {
            let is_doing = self.doing.iter().any(|done| matches!(done, Done::Removed(removed, _) if removed == number));
            is_doing || self.segments.contains_key(number) || self.removed.iter().any(|(removed, _)| removed == number)
        })
    }

    /// Whether what was found to be damaged is: in the first segment with a flipped bit, not behind it.
    pub(crate) fn is_where(&self, damage: &Damage) -> bool {
        let first = self.flipped.iter().find(|(number, ..)| self.segments.contains_key(number));
        first.is_some_and(|(number, place, _)| *number == damage.segment && damage.offset <= *place)
    }

    /// Whether a flipped bit is in what a start reads.
    pub(crate) fn has_flipped(&self) -> bool {
        self.flipped.iter().any(|(number, ..)| self.segments.contains_key(number))
    }

    /// A mutant's way out: what is damaged, and all behind it, counts as torn.
    pub(crate) fn drop_from(&mut self, damage: &Damage) {
        if let Some(bytes) = self.segments.get_mut(&damage.segment) {
            bytes.truncate(damage.offset);
        }
        self.segments.retain(|number, _| *number <= damage.segment);
        self.flipped.clear();
    }

    /// A mutant's way out: the checksums of the frame that is damaged are taken for right.
    pub(crate) fn believe(&mut self, damage: &Damage) {
        let Some(frame) = self.segments.get_mut(&damage.segment).and_then(|bytes| bytes.get_mut(damage.offset..))
        else {
            return;
        };
        let checksum = |bytes: &[u8]| {
            let mut crc = crc32fast::Hasher::new();
            crc.update(&damage.segment.to_le_bytes());
            crc.update(&(damage.offset as u64).to_le_bytes());
            crc.update(bytes);
            crc.finalize().to_le_bytes()
        };
        let Some((length, rest)) = frame.split_first_chunk_mut::<4>() else { return };
        let Some((checksums, content)) = rest.split_first_chunk_mut::<8>() else { return };
        let bytes = u32::from_le_bytes(*length) as usize;
        let Some(content) = content.get(..bytes) else { return };
        checksums[..4].copy_from_slice(&checksum(length));
        checksums[4..].copy_from_slice(&checksum(content));
    }

    fn undo_to(&mut self, whole: usize) {
        while self.doing.len() > whole {
            match self.doing.pop() {
                Some(Done::Created(number)) => {
                    self.segments.remove(&number);
                }
                Some(Done::Appended { segment, before }) => {
                    if let Some(bytes) = self.segments.get_mut(&segment) {
                        bytes.truncate(before);
                    }
                }
                Some(Done::Cut { segment, tail }) => {
                    let bytes = self.segments.entry(segment).or_default();
                    self.torn = Some((segment, bytes.len()));
                    bytes.extend(tail);
                }
                Some(Done::Removed(number, bytes)) => {
                    self.segments.insert(number, bytes);
                }
                None => {}
            }
        }
    }
}

/// A frame that begins at `before` wasn't written to its end.
fn tear(bytes: &mut Vec<u8>, before: usize, power: bool, is_prepared: bool, chance: &mut Chance) {
    let end = bytes.len();
    if !is_prepared && (!power || chance.once_in(2)) {
        bytes.truncate(before + chance.place(end - before + 1));
        return;
    }
    // The file has its length, some sectors aren't written.
    let sectors = before / SECTOR_BYTES..=(end - 1) / SECTOR_BYTES;
    for sector in sectors {
        if chance.once_in(2) {
            let to = (SECTOR_BYTES * (sector + 1)).min(end);
            bytes[before.max(SECTOR_BYTES * sector)..to].fill(0);
        }
    }
}

impl Segments for Files {
    type Error = Fault;

    fn numbers(&mut self) -> Result<Vec<u64>, Fault> {
        Ok(self.segments.keys().copied().collect())
    }

    fn read(&mut self, number: u64) -> Result<Vec<u8>, Fault> {
        let mut bytes = self.segments.get(&number).cloned().unwrap_or_default();
        if is_prepared(number) {
            bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES) + PREPARED_BYTES, 0);
        }
        Ok(bytes)
    }

    fn cut(&mut self, number: u64, bytes: usize) -> Result<(), Fault> {
        if let Some(segment) = self.segments.get_mut(&number) {
            let tail = segment.split_off(bytes);
            self.torn = None;
            self.doing.push(Done::Cut { segment: number, tail });
        }
        Ok(())
    }

    fn create(&mut self, number: u64) -> Result<(), Fault> {
        if self.full {
            return Err(Fault::Full);
        }
        assert!(self.segments.insert(number, Vec::new()).is_none(), "segment {number} is there already");
        self.doing.push(Done::Created(number));
        Ok(())
    }

    fn append(&mut self, header: &[u8], content: &[u8]) -> Result<(), Fault> {
        let Some((segment, bytes)) = self.segments.iter_mut().next_back() else { return Ok(()) };
        self.doing.push(Done::Appended { segment: *segment, before: bytes.len() });
        bytes.extend_from_slice(header);
        if self.full {
            // What still fits is written.
            let before = bytes.len() - header.len();
            self.torn = Some((*segment, before));
            bytes.extend_from_slice(&content[..content.len() / 2]);
            if is_prepared(*segment) {
                bytes.truncate(before.max(bytes.len() / SECTOR_BYTES * SECTOR_BYTES));
            }
            return Err(Fault::Full);
        }
        bytes.extend_from_slice(content);
        Ok(())
    }

    fn remove(&mut self, number: u64) -> Result<(), Fault> {
        if let Some(bytes) = self.segments.remove(&number) {
            self.doing.push(Done::Removed(number, bytes));
        }
        Ok(())
    }

    fn damaged(&self, damage: Damage) -> Fault {
        Fault::Damaged(damage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was waited for is there after any crash; of what wasn't, there is a prefix.
    #[test]
    fn a_crash_takes_only_what_was_not_waited_for() {
        for seed in 0..500 {
            let mut files = Files::default();
            files.create(1).expect("room");
            files.append(b"head", b"synced").expect("room");
            files.settle();
            files.append(b"head", &[7; 2000]).expect("room");
            files.create(2).expect("room");
            files.append(b"head", b"more").expect("room");
            files.crash(seed % 2 == 0, &mut Chance::new(seed));
            assert_eq!(files.segments[&1][..10], *b"headsynced");
            if files.segments.contains_key(&2) {
                assert_eq!(files.segments[&1][14..], [7; 2000], "a later segment was made behind it");
            }
        }
    }

    /// A flip is found in every place, and named; nothing flips that may still go away.
    #[test]
    fn a_bit_flips_in_what_is_at_rest() {
        use store_core::wal::Wal;
        let conf_state = || raft::eraftpb::ConfState::from((vec![1], vec![]));
        for seed in 0..200 {
            let mut chance = Chance::new(seed);
            let (mut wal, _) = Wal::open(Files::default(), 256, (0, 0), conf_state()).expect("opened");
            assert!(!wal.segments().flip(&mut chance), "nothing was waited for");
            for index in 1..20 {
                let data = vec![7; chance.place(200)].into();
                wal.push(&[raft::eraftpb::Entry { index, term: 1, data, ..Default::default() }], None);
                wal.flush(true).expect("room");
                if index < 15 {
                    wal.segments().settle();
                }
            }
            let mut files = wal.into_segments();
            assert!(files.flip(&mut chance) && files.is_damaged());
            files.crash(seed % 2 == 0, &mut chance);
            let before = files.clone();
            match Wal::open(files, 256, (0, 0), conf_state()) {
                Err(Fault::Damaged(damage)) => assert!(before.is_where(&damage), "{damage:?} {:?}", before.flipped),
                _ => panic!("{:?} isn't found", before.flipped),
            }
        }
    }

    #[test]
    fn what_was_removed_comes_back_until_the_folder_is_synced() {
        let back = |sync: bool| {
            (0..50).any(|seed| {
                let mut files = Files::default();
                files.create(1).expect("room");
                files.create(2).expect("room");
                files.remove(1).expect("there");
                files.settle();
                if sync {
                    files.create(3).expect("room");
                    files.settle();
                }
                files.crash(true, &mut Chance::new(seed));
                files.segments.contains_key(&1)
            })
        };
        assert_eq!((back(false), back(true)), (true, false));
    }
}
