//! A member's disk: its log files, as the store's write-ahead log treats them.
//!
//! Records follow each other in one file: the entries of a step, then its term, vote and
//! commit. What gathers up to a sync is one checksummed frame: a power cut leaves all of
//! it or nothing.
//! Mirrors `store/core/src/wal.rs` (F1, F2); entries that replace others stand behind them.

use store_core::replica::{Log, Persist};

use raft::eraftpb::{HardState, Message, MessageType};

use super::entry::{Slot, conf_state, index_of, term_of};

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
    /// The log begins anew behind a snapshot of this index and term.
    Reset(u64, u64),
}

/// The record of a term, a vote and a commit.
pub(super) fn state_record(state: &HardState) -> Record {
    Record::State { term: state.term, vote: state.vote, commit: state.commit }
}

/// The records of a step without a snapshot, in the order in which they are written.
pub(super) fn records(persist: &Persist) -> Vec<Record> {
    let mut records: Vec<Record> = persist.entries.iter().map(|e| Record::Entry(e.index, Slot::of(e))).collect();
    records.extend(persist.hard_state.as_ref().map(state_record));
    records
}

/// Entries behind an index, and the term at it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Entries {
    pub(super) base: u64,
    pub(super) base_term: u64,
    pub(super) slots: Vec<Slot>,
}

impl Entries {
    pub(super) fn last(&self) -> u64 {
        self.base + self.slots.len() as u64
    }

    /// `None` at the base and outside.
    pub(super) fn get(&self, index: u64) -> Option<Slot> {
        let at = index.checked_sub(self.base + 1)?;
        self.slots.get(at as usize).copied()
    }

    fn term(&self, index: u64) -> Option<u64> {
        if index == self.base { Some(self.base_term) } else { self.get(index).map(|slot| slot.term) }
    }

    /// Forgets the entries up to an index that it holds.
    pub(super) fn release(&mut self, index: u64) {
        if let Some(term) = self.term(index) {
            self.slots.drain(..(index - self.base) as usize);
            (self.base, self.base_term) = (index, term);
        }
    }
}

/// What reading the records in order gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) log: Entries,
    pub(super) term: u64,
    pub(super) vote: u64,
    pub(super) commit: u64,
}

impl Content {
    /// A log that begins behind a state.
    pub(super) fn behind(state: &[Slot]) -> Self {
        let (index, term) = (index_of(state), term_of(state));
        let log = Entries { base: index, base_term: term, slots: Vec::new() };
        Self { log, term, vote: 0, commit: index }
    }

    fn read(&mut self, record: &Record) {
        let log = &mut self.log;
        match *record {
            Record::Entry(index, slot) => {
                // Steps are persisted in order, so there are no gaps; `Log::append` asserts it at each restart.
                log.slots.truncate((index - log.base) as usize - 1);
                log.slots.push(slot);
            }
            Record::InPlace(index, slot) => match log.slots.get_mut((index - log.base) as usize - 1) {
                Some(place) => *place = slot,
                None => log.slots.push(slot),
            },
            Record::State { term, vote, commit } => (self.term, self.vote, self.commit) = (term, vote, commit),
            Record::Reset(index, term) => *log = Entries { base: index, base_term: term, slots: Vec::new() },
        }
    }

    /// What the store makes of it when it starts with a state.
    ///
    /// # Panics
    /// If entries between the state and the log are missing, as the store then refuses to start.
    pub(super) fn opened(mut self, state: &[Slot], commit_behind: bool) -> Self {
        let (applied, term) = (index_of(state), term_of(state));
        assert!(self.log.base <= applied, "the log begins behind what the state holds");
        if self.log.term(applied) != Some(term) {
            // A snapshot was installed, and the log not yet begun anew behind it.
            self.log = Entries { base: applied, base_term: term, slots: Vec::new() };
        }
        if !commit_behind {
            // The state may be further than the log's last record of the commit.
            self.commit = self.commit.max(applied);
            self.term = self.term.max(term);
        }
        self
    }

    /// The log as production reads it.
    pub(super) fn to_log(&self, state: &[Slot]) -> Log {
        let mut log = Log::new(self.log.base, self.log.base_term, conf_state(state));
        for (at, slot) in self.log.slots.iter().enumerate() {
            log.append(&[slot.entry(self.log.base + at as u64 + 1)]);
        }
        let (term, vote, commit) = (self.term, self.vote, self.commit);
        log.set_hard_state(&HardState { term, vote, commit, ..HardState::default() });
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

    /// Whether what a message says is durable: its sender's term, whom it votes for, which entries it has.
    pub(super) fn backs(&self, message: &Message) -> bool {
        let disk = &self.synced;
        match message.msg_type {
            // They ask for a term that isn't the sender's yet, or for nothing that a term has a part in.
            MessageType::MsgRequestPreVote | MessageType::MsgSnapStatus => true,
            MessageType::MsgRequestPreVoteResponse if !message.reject => true,
            MessageType::MsgRequestVoteResponse if !message.reject && message.term == disk.term => {
                disk.vote == message.to
            }
            MessageType::MsgRequestVote if message.term == disk.term => disk.vote == message.from,
            MessageType::MsgAppendResponse if !message.reject && message.term == disk.term => {
                message.index <= disk.log.last()
            }
            _ => message.term <= disk.term,
        }
    }

    pub(super) fn sync(&mut self) {
        for record in std::mem::take(&mut self.unsynced) {
            self.synced.read(&record);
        }
    }

    /// All that a power cut may leave, without repetitions.
    pub(super) fn survivors(&self) -> Vec<Content> {
        let mut whole = self.synced.clone();
        self.unsynced.iter().for_each(|record| whole.read(record));
        if whole == self.synced { vec![whole] } else { vec![self.synced.clone(), whole] }
    }
}
