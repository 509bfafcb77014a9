//! A member's log files, as the store's write-ahead log treats them.
//!
//! Records follow each other in one file: the entries of a step, then its term, vote and
//! commit. What gathers up to a sync is one checksummed frame: a power cut leaves all of
//! it or nothing.
//! Mirrors `store/server/src/wal.rs` (F1, F2); entries that replace others stand behind them.

use store_core::replica::{Log, Persist};

use raft::eraftpb::{ConfState, Entry, HardState};

use super::symmetry::MEMBERS;

/// An entry: its term, and 0 for a new leader's empty entry or the number of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) term: u64,
    pub(super) value: u8,
}

impl Slot {
    pub(super) fn of(entry: &Entry) -> Self {
        Self { term: entry.term, value: entry.data.first().copied().unwrap_or(0) }
    }

    fn entry(self, index: u64) -> Entry {
        let data = if self.value == 0 { Vec::new() } else { vec![self.value] };
        Entry { index, term: self.term, data: data.into(), ..Entry::default() }
    }
}

/// One record of the log.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Record {
    Entry(u64, Slot),
    /// Of a mutant: leaves what stands behind it.
    InPlace(u64, Slot),
    State {
        term: u64,
        vote: u64,
        commit: u64,
    },
}

/// The records of a step, in the order in which they are written.
pub(super) fn records(persist: &Persist) -> Vec<Record> {
    assert!(persist.snapshot.is_none(), "nothing is compacted here, so nobody needs a snapshot");
    let mut records: Vec<Record> = persist.entries.iter().map(|e| Record::Entry(e.index, Slot::of(e))).collect();
    if let Some(state) = &persist.hard_state {
        records.push(Record::State { term: state.term, vote: state.vote, commit: state.commit });
    }
    records
}

/// What reading the records in order gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) slots: Vec<Slot>,
    pub(super) term: u64,
    pub(super) vote: u64,
    pub(super) commit: u64,
}

impl Content {
    fn read(&mut self, record: &Record) {
        match *record {
            Record::Entry(index, slot) => {
                // Steps are persisted in order, so there are no gaps; `Log::append` asserts it at each restart.
                self.slots.truncate(index as usize - 1);
                self.slots.push(slot);
            }
            Record::InPlace(index, slot) => match self.slots.get_mut(index as usize - 1) {
                Some(place) => *place = slot,
                None => self.slots.push(slot),
            },
            Record::State { term, vote, commit } => (self.term, self.vote, self.commit) = (term, vote, commit),
        }
    }

    /// What the store opens after a crash, given how far the state machine is.
    pub(super) fn open(&self, applied: u64, commit_behind: bool) -> Log {
        let voters: Vec<u64> = (1..=MEMBERS as u64).collect();
        assert!(applied as usize <= self.slots.len(), "the state machine applied what the log doesn't hold");
        let mut log = Log::new(0, 0, ConfState::from((voters, vec![])));
        for (at, slot) in self.slots.iter().enumerate() {
            log.append(&[slot.entry(at as u64 + 1)]);
        }
        let mut state = HardState { term: self.term, vote: self.vote, commit: self.commit, ..HardState::default() };
        if applied > 0 && !commit_behind {
            // The state machine may be further than the log's last record of the commit.
            state.commit = state.commit.max(applied);
            state.term = state.term.max(self.slots[applied as usize - 1].term);
        }
        log.set_hard_state(&state);
        log
    }
}

/// The file: what a power cut can't take, and what it may.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Disk {
    pub(super) synced: Content,
    /// The frame that the next sync makes durable.
    pub(super) unsynced: Vec<Record>,
}

impl Disk {
    pub(super) fn write(&mut self, records: &[Record]) {
        self.unsynced.extend_from_slice(records);
    }

    pub(super) fn sync(&mut self) {
        for record in std::mem::take(&mut self.unsynced) {
            self.synced.read(&record);
        }
    }

    /// All that a power cut may leave, without repetitions. If each record is checksummed by itself, as one mutant
    /// has it, some first part of the frame may stay.
    pub(super) fn survivors(&self, record_by_record: bool) -> Vec<Content> {
        let mut content = self.synced.clone();
        let mut survivors = vec![content.clone()];
        for (at, record) in self.unsynced.iter().enumerate() {
            content.read(record);
            let may_end = record_by_record || at + 1 == self.unsynced.len();
            if may_end && survivors.last() != Some(&content) {
                survivors.push(content.clone());
            }
        }
        survivors
    }
}
