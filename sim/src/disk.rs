//! A member's log on a modelled disk, byte by byte.
//!
//! What the log thread does between two of its waits for the disk is remembered until the wait is over. If the power
//! fails before, a prefix of it is done; of a frame that was being written there is a part, or sectors of it are zeros.
//! What was removed comes back until a new segment synced the folder, the last first.

use std::collections::BTreeMap;

use store_core::wal::{Damage, Segments};

use crate::chance::Chance;

/// What a disk writes whole.
const SECTOR_BYTES: usize = 512;

/// Why the disk can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Full,
    Damaged(Damage),
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
            tear(bytes, before, power, chance);
        }
        self.settle();
        if power {
            let back = chance.place(self.removed.len() + 1);
            let kept = self.removed.len() - back;
            self.segments.extend(self.removed.drain(kept..));
        }
        self.removed.clear();
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
                Some(Done::Cut { segment, tail }) => self.segments.entry(segment).or_default().extend(tail),
                Some(Done::Removed(number, bytes)) => {
                    self.segments.insert(number, bytes);
                }
                None => {}
            }
        }
    }
}

/// A frame that begins at `before` wasn't written to its end.
fn tear(bytes: &mut Vec<u8>, before: usize, power: bool, chance: &mut Chance) {
    let end = bytes.len();
    if !power || chance.once_in(2) {
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
        Ok(self.segments.get(&number).cloned().unwrap_or_default())
    }

    fn cut(&mut self, number: u64, bytes: usize) -> Result<(), Fault> {
        if let Some(segment) = self.segments.get_mut(&number) {
            let tail = segment.split_off(bytes);
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
            bytes.extend_from_slice(&content[..content.len() / 2]);
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
