//! A member as the specification has it: what it must know to say which steps are possible.

use std::collections::{BTreeMap, VecDeque};

use store_core::trace::{Letter, Mark, Members, Role, View};

use super::disk::Disk;
use super::log::Log;

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) id: u64,
    pub(super) view: View,
    pub(super) log: Log,
    pub(super) disk: Disk,
    pub(super) members: Members,
    /// Changes of members up to here are in `members`.
    pub(super) changed_to: u64,
    /// A candidate's: who answered what.
    pub(super) votes: BTreeMap<u64, bool>,
    /// A leader's: up to where logs are known to be its own; its own as far as it was told.
    pub(super) matched: BTreeMap<u64, u64>,
    /// Up to here its log is durable, as far as it was told.
    pub(super) told: u64,
    /// What it was handed out: steps, with their last entries, until it is told that they are durable.
    pub(super) handed: VecDeque<Handed>,
    pub(super) last_step: u64,
    /// Where its log changed since the last step.
    pub(super) dirty: Option<u64>,
    /// The snapshot that it took since the last step.
    pub(super) restored: Option<(u64, u64)>,
    /// What it was since the last step.
    pub(super) window: Vec<View>,
    /// What it may say once because of what it was told since the last step.
    pub(super) permits: Vec<Permit>,
    /// Term, vote and commit as written last.
    pub(super) hard_state: (u64, u64, u64),
    pub(super) applied: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Handed {
    pub(super) step: u64,
    pub(super) last: Option<(u64, u64)>,
    pub(super) snapshot: Option<u64>,
}

/// An answer that a message allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permit {
    /// This candidate has the vote of this term.
    Vote(u64, u64),
    /// This one would have it.
    PreVote(u64, u64),
    /// To the leader of a term: entries up to this index are taken.
    Taken(u64, u64, u64),
}

impl Member {
    pub(super) fn start(id: u64, view: View, log: Log, disk: Disk, members: Members, applied: u64) -> Self {
        Self {
            id,
            view,
            told: log.last().0,
            log,
            disk,
            members,
            changed_to: applied,
            votes: BTreeMap::new(),
            matched: BTreeMap::new(),
            handed: VecDeque::new(),
            last_step: 0,
            dirty: None,
            restored: None,
            window: vec![view],
            permits: Vec::new(),
            hard_state: (view.term, view.vote, view.commit),
            applied,
        }
    }

    pub(super) fn votes(&self) -> bool {
        self.members.voters.contains(&self.id)
    }

    /// Whether these answers elect, refuse, or neither.
    pub(super) fn tally(&self, votes: &BTreeMap<u64, bool>) -> Option<bool> {
        let voters = &self.members.voters;
        let majority = voters.len() / 2 + 1;
        let count = |what: bool| voters.iter().filter(|voter| votes.get(voter) == Some(&what)).count();
        if count(true) >= majority {
            return Some(true);
        }
        (voters.len() - count(false) < majority).then_some(false)
    }

    /// The index that a majority of the voters has.
    pub(super) fn agreed(&self) -> u64 {
        let mut indexes: Vec<u64> =
            self.members.voters.iter().map(|voter| self.matched.get(voter).copied().unwrap_or(0)).collect();
        indexes.sort_unstable_by(|a, b| b.cmp(a));
        indexes.get(indexes.len() / 2).copied().unwrap_or(0)
    }

    /// Whether a candidate's log is no worse than this member's.
    pub(super) fn is_up_to_date(&self, letter: &Letter) -> bool {
        (letter.log_term, letter.index) >= (self.view.last.1, self.view.last.0)
    }

    /// Changes the log; `false` if that can't be.
    pub(super) fn put(&mut self, from: u64, marks: &[Mark]) -> bool {
        if !self.log.put(from, marks) {
            return false;
        }
        self.dirty = Some(self.dirty.map_or(from, |dirty| dirty.min(from)));
        self.told = self.told.min(from - 1);
        true
    }

    /// Begins the log anew behind a snapshot.
    pub(super) fn restore(&mut self, base: (u64, u64), members: Members) {
        self.told = self.told.min(self.view.commit);
        self.log = Log::new(base, Vec::new());
        (self.dirty, self.restored) = (None, Some(base));
        self.members = members;
        self.changed_to = base.0;
    }

    /// It learns that steps are durable.
    pub(super) fn tell(&mut self, step: u64) {
        let (mut last, mut snapshot) = (None, None);
        while self.handed.front().is_some_and(|handed| handed.step <= step) {
            let Some(handed) = self.handed.pop_front() else { break };
            last = handed.last.or(last);
            if handed.snapshot.is_some() {
                (snapshot, last) = (handed.snapshot, handed.last);
            }
        }
        self.told = self.told.max(snapshot.unwrap_or(0));
        if let Some((index, term)) = last
            && self.log.term(index) == Some(term)
            && self.dirty.is_none_or(|dirty| index < dirty)
        {
            self.told = self.told.max(index);
        }
        if self.view.role == Role::Leader {
            self.matched.insert(self.id, self.told);
        }
    }
}
