//! The log as raft-rs reads it: in memory, from the last compaction on.
//!
//! Invariants
//!   L1  Entries are consecutive: `entries[i].index == first + i`.
//!   L2  `first - 1` is in the state machine, with `before_term` as its term.
//!   L3  Terms never decrease along the log.

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Result, Storage, StorageError};
use std::collections::VecDeque;

/// The log.
#[derive(Debug, Clone, Default)]
pub struct Log {
    hard_state: HardState,
    conf_state: ConfState,
    /// Index of the first entry.
    first: u64,
    /// Term of the entry before the first.
    before_term: u64,
    entries: VecDeque<Entry>,
    /// What the entries take, about.
    bytes: u64,
    offered: Option<Snapshot>,
    /// Set by raft-rs through a shared reference when a peer needs a snapshot.
    wanted: std::cell::Cell<Option<u64>>,
}

impl Log {
    /// A log whose entries up to `before` (of that term) are in the state machine.
    #[must_use]
    pub fn new(before: u64, before_term: u64, conf_state: ConfState) -> Self {
        Self { first: before + 1, before_term, conf_state, ..Self::default() }
    }

    /// Appends entries; from the first on they replace what is there.
    ///
    /// # Panics
    /// If they would leave a gap, or reach behind what was compacted: raft-rs never asks for either.
    pub fn append(&mut self, entries: &[Entry]) {
        let Some(head) = entries.first() else { return };
        let last = self.first + self.entries.len() as u64 - 1;
        assert!(head.index >= self.first, "entry {} is in the state machine already", head.index);
        assert!(head.index <= last + 1, "L1: a gap between {last} and {}", head.index);
        for entry in self.entries.drain((head.index - self.first) as usize..) {
            self.bytes -= entry_bytes(&entry);
        }
        for entry in entries {
            let previous = self.entries.back().map_or(self.before_term, |e| e.term);
            assert!(entry.term >= previous, "L3: term {} after {previous}", entry.term);
            self.bytes += entry_bytes(entry);
            self.entries.push_back(entry.clone());
        }
    }

    /// Takes over term, vote and commit.
    pub fn set_hard_state(&mut self, hard_state: &HardState) {
        self.hard_state = hard_state.clone();
    }

    /// The last term, vote and commit.
    #[must_use]
    pub fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    /// Takes over who votes and who learns.
    pub fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// Replaces everything by a snapshot's position.
    pub fn install(&mut self, snapshot: &Snapshot) {
        let metadata = snapshot.get_metadata();
        self.entries.clear();
        self.bytes = 0;
        self.first = metadata.index + 1;
        self.before_term = metadata.term;
        self.conf_state = metadata.get_conf_state().clone();
        self.hard_state.commit = self.hard_state.commit.max(metadata.index);
        self.offered = None;
    }

    /// Drops entries up to and including `index`.
    pub fn compact(&mut self, index: u64) {
        while self.first <= index && self.entries.len() > 1 {
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= entry_bytes(&entry);
                self.before_term = entry.term;
                self.first += 1;
            }
        }
    }

    /// What the entries take in memory, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The index behind which there are at most so many entries and bytes.
    #[must_use]
    pub fn index_before(&self, entries: usize, bytes: u64) -> u64 {
        let mut left = bytes;
        let kept = self.entries.iter().rev().take(entries).take_while(|entry| {
            let fits = entry_bytes(entry) <= left;
            left = left.saturating_sub(entry_bytes(entry));
            fits
        });
        self.last() - kept.count() as u64
    }

    /// Index and term of the entry before the first.
    #[must_use]
    pub fn base(&self) -> (u64, u64) {
        (self.first - 1, self.before_term)
    }

    /// The entries in memory.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    pub(super) fn wanted_snapshot(&self) -> Option<u64> {
        self.wanted.get()
    }

    /// The index of the snapshot that peers are offered.
    pub(super) fn offered_snapshot(&self) -> Option<u64> {
        self.offered.as_ref().map(|snapshot| snapshot.get_metadata().index)
    }

    pub(super) fn withdraw_snapshot(&mut self) {
        self.offered = None;
    }

    pub(super) fn offer_snapshot(&mut self, snapshot: Snapshot) {
        self.wanted.set(None);
        self.offered = Some(snapshot);
    }

    fn last(&self) -> u64 {
        self.first + self.entries.len() as u64 - 1
    }
}

/// An entry's bytes, and what it takes besides.
fn entry_bytes(entry: &Entry) -> u64 {
    (entry.data.len() + entry.context.len() + size_of::<Entry>()) as u64
}

impl Storage for Log {
    fn initial_state(&self) -> Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> Result<Vec<Entry>> {
        if low < self.first {
            return Err(Error::Store(StorageError::Compacted));
        }
        if high > self.last() + 1 {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let range = (low - self.first) as usize..(high - self.first) as usize;
        let mut entries: Vec<Entry> = self.entries.range(range).cloned().collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> Result<u64> {
        if index + 1 == self.first {
            return Ok(self.before_term);
        }
        if index < self.first {
            return Err(Error::Store(StorageError::Compacted));
        }
        let entry = self.entries.get((index - self.first) as usize);
        entry.map(|e| e.term).ok_or(Error::Store(StorageError::Unavailable))
    }

    fn first_index(&self) -> Result<u64> {
        Ok(self.first)
    }

    fn last_index(&self) -> Result<u64> {
        Ok(self.last())
    }

    fn snapshot(&self, request_index: u64, to: u64) -> Result<Snapshot> {
        // It must join the log that follows it.
        let index_min = request_index.max(self.first - 1);
        match &self.offered {
            Some(snapshot) if snapshot.get_metadata().index >= index_min && knows(snapshot, to) => Ok(snapshot.clone()),
            _ => {
                self.wanted.set(Some(index_min));
                Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable))
            }
        }
    }
}

/// Whether a member is one in a snapshot: a member refuses one in which it isn't. One that was made for somebody else
/// may be older than its membership.
fn knows(snapshot: &Snapshot, member: u64) -> bool {
    let members = snapshot.get_metadata().get_conf_state();
    members.voters.contains(&member) || members.learners.contains(&member)
}
