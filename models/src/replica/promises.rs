//! What was promised to clients and among members, by whoever did.

use raft::StateRole;
use raft::eraftpb::ConfState;

use super::entry::{Slot, conf_state};
use super::memo::Outcome;
use super::packet::ReadContext;

/// What was promised: no member's state, and no member may contradict it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Promises {
    /// Who led each term, from the first on; 0 if nobody did.
    pub(super) leaders: Vec<u64>,
    /// Entries known as committed, each with the latest term in which it can have become so.
    pub(super) committed: Vec<(Slot, u64)>,
    /// Two leaders in a term.
    pub(super) two_leaders: bool,
    /// Two members committed, or applied, different entries at an index.
    pub(super) diverged: bool,
    /// Reads not answered yet, in the order in which they were asked for, each with how much was committed then.
    pub(super) reads: Vec<(ReadContext, u64)>,
    /// A read was answered from before what was committed when it was asked for.
    pub(super) stale_read: bool,
    /// A read was answered at a member that didn't lead.
    pub(super) read_elsewhere: bool,
    /// A message left before what it says was durable.
    pub(super) early: bool,
    /// A member took a snapshot.
    pub(super) installed: bool,
}

impl Promises {
    pub(super) fn note(&mut self, outcome: &Outcome) {
        for term in &outcome.elected {
            let place = *term as usize - 1;
            if self.leaders.len() <= place {
                self.leaders.resize(place + 1, 0);
            }
            // Not even the same member twice: it would have forgotten its vote between.
            self.two_leaders |= self.leaders[place] != 0;
            self.leaders[place] = outcome.member.id();
        }
        self.installed |= outcome.installed;
        self.early |= outcome.early;
        for (index, slot) in &outcome.applied {
            self.commit(*index, *slot, outcome.term);
        }
        if let Some(image) = outcome.member.image() {
            let log = &outcome.member.log;
            for index in log.base + 1..=image.committed {
                // What is committed is in the log or before it.
                if let Some(slot) = log.get(index) {
                    self.commit(index, slot, outcome.term);
                }
            }
        }
    }

    /// Who votes and learns after all changes of members that are committed.
    pub(super) fn conf_state(&self) -> ConfState {
        let state: Vec<Slot> = self.committed.iter().map(|(slot, _)| *slot).collect();
        conf_state(&state)
    }

    pub(super) fn note_reads(&mut self, outcome: &Outcome) {
        let committed = self.committed.len() as u64;
        self.reads.extend(outcome.asked.iter().map(|context| (*context, committed)));
        for (context, index) in &outcome.answered {
            if let Some(place) = self.reads.iter().position(|(asked, _)| asked == context) {
                let (_, floor) = self.reads.remove(place);
                self.stale_read |= *index < floor;
            }
            let leads = outcome.member.image().is_some_and(|image| image.role == StateRole::Leader);
            self.read_elsewhere |= !leads;
        }
        if outcome.member.image().is_none() {
            self.forget_reads(outcome.member.id());
        }
    }

    /// Who asked a member that lost its power gets no answer.
    pub(super) fn forget_reads(&mut self, member: u64) {
        self.reads.retain(|(context, _)| context.member != member);
    }

    fn commit(&mut self, index: u64, slot: Slot, term: u64) {
        match self.committed.get(index as usize - 1) {
            Some((known, _)) => self.diverged |= *known != slot,
            // Indexes come in order: nobody commits an entry without those before it.
            None => self.committed.push((slot, term)),
        }
    }
}
